"""Letting agents in: from a join token, or somebody's approval, to a name bound to a key.

An enrolment is a session row of kind `agent`: its subject is the agent's name, its secret hash the
thumbprint of the key. Configuration says which agents may exist; here is decided which machine is
one. Strangers learn nothing by asking: whether a name exists is told to who holds a token for it,
or to who may approve.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from heim_config.secrets import Secret
from heim_proxy.agents.authority import Authority
from heim_proxy.identity.device_codes import SlowDown
from heim_proxy.store.base import SessionRow, Store
from heim_runtime.clock import Clock

__all__ = [
    "Asked",
    "EnrolProblem",
    "Enrolled",
    "Enrolments",
    "JoinRefused",
    "Permitted",
    "Refusal",
    "Waiting",
]


class Permitted(Protocol):
    """What configuration says about an agent (`routing.AgentGrant`)."""

    @property
    def targets(self) -> frozenset[str]:
        """What it may be asked for."""

    @property
    def group(self) -> bool:
        """Whether several machines may be it."""


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
    """The request is refused: `code`, the message as `detail`, and what to do as `hint`."""

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
    """An agent that was let in: its enrolment and its first certificate (DER)."""

    row: SessionRow
    certificate: bytes
    expires: float
    permitted: Permitted
    fingerprint: str
    replaced: tuple[str, ...] = ()
    """Sessions of the enrolments that ended for it (a join token made with --replace)."""

    @property
    def agent(self) -> str:
        """The agent's name."""
        return self.row.subject


@dataclass(frozen=True, slots=True)
class Asked:
    """An agent that begins to wait for approval; `user_code` as ``XXXX-XXXX``."""

    device_code: Secret
    user_code: str
    expires_in: float
    interval: float
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """An agent that waits, as who may approve sees it.

    `refusal` says why approving it would not help (not configured, name taken); None when it would.
    `targets` is empty when it is not configured.
    """

    name: str
    fingerprint: str
    label: str
    client: str
    created: float
    expires: float
    targets: tuple[str, ...]
    group: bool
    refusal: JoinRefused | None = None


class Enrolments:
    """Who is which agent. One per process; every method may raise StoreUnavailable."""

    def __init__(
        self,
        store: Store,
        *,
        authority: Callable[[], Authority],
        permitted: Callable[[], Mapping[str, Permitted]],
        clock: Clock,
    ) -> None:
        """Nothing is read yet.

        Args:
            store: Where enrolments, tokens and those who wait are.
            authority: Of the present configuration.
            permitted: The agents of the present configuration (`snapshot.agents`).
            clock: Measures the pace of polling.
        """
        raise NotImplementedError

    async def join(self, token: str, csr: bytes, *, device: str, now: float) -> Enrolled:
        """Burn a join token for an enrolment and a certificate.

        Args:
            token: As received, ``heim_jt_…``.
            csr: PKCS #10 in DER; only its key is taken.
            device: What the machine calls itself; made printable and cut to 64 characters.
            now: Seconds since the epoch.

        Raises:
            JoinRefused: with any of the refusals.
        """
        raise NotImplementedError

    async def ask(
        self,
        name: str,
        csr: bytes,
        *,
        device: str,
        client: str,
        client_key: str,
        network: str,
        now: float,
    ) -> Asked:
        """Let an agent wait for somebody's approval, whether or not there is one of that name.

        Raises:
            JoinRefused: BAD_CSR, BUSY, or NOT_CONFIGURED for what cannot be a name at all.
        """
        raise NotImplementedError

    async def find(self, user_code: str, now: float) -> Waiting | None:
        """Who waits under a code from `device_codes.user_code_of`; None when nobody does."""
        raise NotImplementedError

    async def decide(self, user_code: str, *, sid: str, now: float) -> bool:
        """Approve in the name of session `sid`, or deny with an empty one.

        Returns:
            False when nobody waits under that code any more.
        """
        raise NotImplementedError

    async def take(self, device_code: str, now: float) -> Enrolled | EnrolProblem | SlowDown:
        """What an agent that waits is told; an approval becomes an enrolment once.

        Raises:
            JoinRefused: NAME_TAKEN or NOT_CONFIGURED: approved, and impossible meanwhile.
        """
        raise NotImplementedError

    async def live(self, name: str) -> tuple[SessionRow, ...]:
        """The enrolments of a name that have not ended, newest first."""
        raise NotImplementedError

    async def bound(self, name: str, thumbprint: bytes) -> SessionRow | None:
        """The enrolment that binds a name to a key and has not ended; None when there is none."""
        raise NotImplementedError
