"""TCP that people reach with `heim-tunnel`: where it goes, how long it lasts and how much of it."""

from __future__ import annotations

from pydantic import Field, model_validator

from heim_config.fields import Duration, Section, TcpAddress, Whole
from heim_config.problems import mistake

__all__ = ["TcpService", "Tunnel"]


class TcpService(Section):
    """TCP behind a backend: ssh, a database, anything. People reach it with `heim-tunnel`."""

    upstream: TcpAddress
    """Where its streams go: host:port, always with the port, or unix:/path. Required. One address,
    also for a backend with a wildcard host: the bytes of a stream do not say which name was
    asked for."""

    idle: Duration | None = None
    """Without a byte in either direction, after which a stream ends. Default: no limit, because an
    ssh session may be silent for a day and a dead client is noticed without it."""

    max_duration: Duration | None = None
    """How long a stream may last at all. Default: no limit but that of the session."""

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
