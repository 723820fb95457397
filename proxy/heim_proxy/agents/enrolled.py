"""What comes of asking to be an agent: an enrolment, a wait, or a refusal in words."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final

from heim_config.secrets import Secret
from heim_proxy.agents.agent_keys import AgentKey
from heim_proxy.identity.session_cookie import new_sid
from heim_proxy.routing import AgentGrant
from heim_proxy.store.base import AGENT_ISSUER, SessionKind, SessionRow

__all__ = [
    "MAX_LABEL_CHARACTERS",
    "Asked",
    "EnrolProblem",
    "Enrolled",
    "JoinRefused",
    "Refusal",
    "Waiting",
    "enrolment_of",
    "label_of",
    "name_taken",
    "not_configured",
    "token_used",
]


MAX_LABEL_CHARACTERS: Final = 64


class Refusal(enum.Enum):
    """Why somebody does not become an agent; the value is the `code` of problem+json."""

    TOKEN_UNKNOWN = "token_unknown"  # noqa: S105
    TOKEN_USED = "token_used"  # noqa: S105
    TOKEN_EXPIRED = "token_expired"  # noqa: S105
    NAME_TAKEN = "name_taken"
    NOT_CONFIGURED = "agent_not_configured"
    BAD_CSR = "bad_csr"
    BUSY = "busy"


class JoinRefused(Exception):  # noqa: N818 - what happened to it
    """The request is refused: `code`, what happened as `detail`, and what to do as `hint`."""

    def __init__(self, code: Refusal, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.code: Final = code
        self.detail: Final = detail
        self.hint: Final = hint


class EnrolProblem(enum.Enum):
    """Why an agent that asked to be let in has no certificate (yet)."""

    PENDING = "pending"
    DENIED = "denied"
    EXPIRED = "expired"
    """Expired, unknown or taken: the agent must ask again in each case."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """An agent that was let in: its enrolment and its first certificate (DER).

    `expires` is the certificate's end. `replaced` are the sessions of the enrolments that ended for
    it (a join token made with --replace).
    """

    row: SessionRow
    certificate: bytes
    expires: float
    permitted: AgentGrant
    fingerprint: str
    replaced: tuple[str, ...] = ()

    @property
    def agent(self) -> str:
        """The agent's name."""
        return self.row.subject


@dataclass(frozen=True, slots=True)
class Asked:
    """An agent that begins to wait for approval; `user_code` as ``XXXX-XXXX``, times in seconds."""

    device_code: Secret
    user_code: str
    expires_in: float
    interval: float
    fingerprint: str

    def __repr__(self) -> str:
        return "<Asked <sealed>>"


@dataclass(frozen=True, slots=True)
class Waiting:
    """An agent that waits, as who may approve sees it.

    `refusal` says why approving it would not help (not configured, name taken); None when it would.
    `targets` is empty when it is not configured.
    """

    name: str
    fingerprint: str
    label: str
    version: str
    client: str
    created: float
    expires: float
    targets: tuple[str, ...]
    group: bool
    refusal: JoinRefused | None = None


def not_configured(what: str) -> JoinRefused:
    """Configuration has no such agent; `what` begins the sentence."""
    return JoinRefused(
        Refusal.NOT_CONFIGURED,
        f"{what} is not in the proxy's configuration",
        "add it under agents, with its targets",
    )


def name_taken(name: str) -> JoinRefused:
    """Another key is enrolled under the name."""
    return JoinRefused(
        Refusal.NAME_TAKEN,
        f"another machine is agent {name} already",
        f"end that one: heim-proxy agent revoke {name}, and try again; or, to have both, write "
        "group: true under agents in the proxy's configuration, or join under another name",
    )


def token_used(name: str) -> JoinRefused:
    """A token presented again."""
    return JoinRefused(
        Refusal.TOKEN_USED,
        f"the join token for agent {name} was used",
        f"if that was not you: heim-proxy agent revoke {name}; else create another one: "
        f"heim-proxy agent token create {name}",
    )


def enrolment_of(name: str, key: AgentKey, label: str, now: float) -> SessionRow:
    """A new enrolment; nothing is stored."""
    return SessionRow(
        sid=new_sid(),
        issuer=AGENT_ISSUER,
        subject=name,
        email=None,
        domain=None,
        groups=(),
        provider=AGENT_ISSUER,
        auth_time=now,
        created=now,
        expires=math.inf,
        last_seen=now,
        kind=SessionKind.AGENT,
        label=label,
        secret_hash=key.thumbprint,
    )


def label_of(text: str) -> str:
    """A machine's name for lists and logs: one printable line, whatever it sent."""
    return "".join(filter(str.isprintable, text))[:MAX_LABEL_CHARACTERS].strip()
