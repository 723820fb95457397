"""TCP that people reach with `heim-tunnel`: where it goes, how long it lasts and how much of it."""

from __future__ import annotations

from pydantic import ConfigDict, Field, model_validator

from heim_config.fields import Duration, KeyDigest, Name, QualifiedName, Section, TcpAddress, Whole
from heim_config.problems import mistake

__all__ = ["TcpService", "Tunnel"]


class TcpService(Section):
    """TCP behind a backend: ssh, a database, anything. People reach it with `heim-tunnel`."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["upstream"]}, {"required": ["agent", "target"]}]}
    )

    upstream: TcpAddress | None = None
    """Where its streams go: host:port, always with the port, or unix:/path. Required, or `agent`
    with `target`. One address, also for a backend with a wildcard host: the bytes of a stream do
    not say which name was asked for."""

    agent: QualifiedName | None = None
    """The agent that its streams go through, instead of an upstream. Needs `target`."""

    target: Name | None = None
    """Which of the agent's targets. Needs `agent`."""

    idle: Duration | None = None
    """Without a byte in either direction, after which a stream ends. Default: no limit, because an
    ssh session may be silent for a day and a dead client is noticed without it."""

    max_duration: Duration | None = None
    """How long a stream may last at all. Default: no limit but that of the session."""

    @model_validator(mode="after")
    def _check_way(self) -> TcpService:
        if self.upstream is not None and self.agent is not None:
            raise mistake("has an upstream and an agent", "its streams go to one place")
        if self.target is not None and self.agent is None:
            raise mistake("needs agent: whose target it is", at=("target",))
        if self.agent is not None and self.target is None:
            raise mistake("needs target: which of the agent's", at=("agent",))
        if self.upstream is None and self.agent is None:
            raise mistake("needs upstream, or agent and target", "there is nowhere to go")
        return self

    @model_validator(mode="after")
    def _check_limits(self) -> TcpService:
        if self.idle and self.max_duration and self.idle > self.max_duration:
            raise mistake("is longer than max_duration", "a stream has ended by then", at=("idle",))
        return self


class Tunnel(Section):
    """Limits of TCP streams. What may be reached is said by backends with `tcp`."""

    streams_per_user: Whole = Field(default=256, ge=1, le=65535)
    """How many streams one user, or one service account, may have open at a time, over all
    backends and devices; one more is refused as busy. Default 256: an editor with a remote
    workspace opens a few dozen, and a program in a loop takes no more from the others."""

    agent_tls_keys: frozenset[KeyDigest] = frozenset()
    """SHA-256 of the public key (SubjectPublicKeyInfo) of each certificate with which something in
    front of the proxy ends the TLS of agents: an agent's proof counts only for a connection to us,
    or to one of these. 64 hexadecimal digits or base64. Default: none, which is right unless a load
    balancer terminates TLS; whoever holds such a key reads what agents carry."""
