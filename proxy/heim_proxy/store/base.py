"""The store: small durable facts behind one protocol, whatever the engine.

Every method may raise `StoreUnavailable` (disk full, database locked or gone); nothing is granted
on that error. Times are seconds since the epoch and are passed in, so that tests own the clock.
One contract suite, `tests/contracts/test_store.py`, runs against every implementation.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = [
    "AGENT_ISSUER",
    "DeviceRow",
    "EnrolFailure",
    "Enrolment",
    "JoinTokenRow",
    "PinResult",
    "RefreshRow",
    "Revocation",
    "SessionKind",
    "SessionRow",
    "Store",
    "StoreUnavailable",
]


AGENT_ISSUER: Final = "heim"
"""The issuer of agents' enrolments: configuration, not a provider."""


class StoreUnavailable(Exception):  # noqa: N818 - the name says what the caller must do
    """The store cannot answer now; the message says why and names the database."""


class PinResult(enum.Enum):
    """What `Store.pin` found for an e-mail address."""

    NEW = "new"
    SAME = "same"
    CONFLICT = "conflict"


class EnrolFailure(enum.Enum):
    """Why `Store.enrol` enrolled nobody; nothing is changed then, the token not either."""

    NAME_TAKEN = "name_taken"
    TOKEN_OVER = "token_over"  # noqa: S105
    """Used, expired, for another name, or gone."""


class SessionKind(enum.Enum):
    """What holds a session, and therefore what proves it."""

    BROWSER = "browser"
    """A person's browser; proven by sealed cookies."""

    CLI = "cli"
    """A person's command line; proven by access tokens, kept up by a refresh token."""

    SERVICE = "service"
    """A program under a service account; proven by a service token."""

    AGENT = "agent"
    """The enrolment of an agent's key; proven by a signature of it, in band. It is nobody's login:
    no cookie, token or route leads to it."""


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One login. `sealed_tokens` holds refresh and id token, sealed by the key ring.

    `label` is what people call the device of a CLI login or of an agent. `secret_hash` is SHA-256
    of a service token's secret, and of an agent's key the RFC 7638 thumbprint; empty for the other
    kinds. `expires` is infinite for an enrolment and for a service token that never expires.
    """

    sid: str
    issuer: str
    subject: str
    email: str | None
    domain: str | None
    groups: tuple[str, ...]
    provider: str
    auth_time: float
    created: float
    expires: float
    last_seen: float
    sealed_tokens: bytes = b""
    ended: float | None = None
    end_reason: str = ""
    kind: SessionKind = SessionKind.BROWSER
    label: str = ""
    secret_hash: bytes = b""

    def __repr__(self) -> str:
        return f"<SessionRow {self.sid[:6]}… {self.kind.value} of {self.email or self.subject!r}>"


@dataclass(frozen=True, slots=True)
class RefreshRow:
    """The refresh token of one CLI login: SHA-256 of its parts, never the token.

    `family` stays for the login's life, `current` changes with every refresh; `previous` is the
    one before, replaced at `rotated`, and `salt` is what its successor was made with.
    """

    sid: str
    family: bytes
    current: bytes
    rotated: float
    previous: bytes = b""
    salt: bytes = b""

    def __repr__(self) -> str:
        return f"<RefreshRow {self.sid[:6]}…>"


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device that waits for somebody to approve it (RFC 8628): a command line, or an agent.

    `code` and `user_code` are SHA-256 of what the device and the person have. `client` is the
    address that asked, which people see; `client_key` what counts as one client, and `network` what
    shares a fair part of the room. Once decided, `sid` is the session of who approved; empty when
    denied. An agent asks under the name `agent`, with its public key in DER and its program's
    `version`; all three are empty for a command line.
    """

    code: bytes
    user_code: bytes
    label: str
    client: str
    client_key: str
    network: str
    created: float
    expires: float
    decided: bool = False
    sid: str = ""
    agent: str = ""
    key: bytes = b""
    version: str = ""

    def __repr__(self) -> str:
        return f"<DeviceRow {self.label!r} decided={self.decided}>"


@dataclass(frozen=True, slots=True)
class JoinTokenRow:
    """A token that lets one machine become the agent `name`, once; SHA-256 of it, never the token.

    With `replace` it ends what is enrolled under the name. `used` is when an enrolment was made of
    it, `sid` which.
    """

    id: str
    name: str
    secret_hash: bytes
    created: float
    expires: float
    replace: bool = False
    used: float | None = None
    sid: str = ""

    def __repr__(self) -> str:
        return f"<JoinTokenRow {self.id!r} for {self.name!r}>"


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What `Store.enrol` made: the enrolment that holds now, and the ids of those it ended."""

    row: SessionRow
    replaced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry of the feed: session `sid` ended. `seq` grows without gaps being meaningful."""

    seq: int
    sid: str
    reason: str
    at: float


class Store(Protocol):
    """Durable small facts. Implementations own their thread or connections."""

    @property
    def write_problem(self) -> str | None:
        """Why the last write failed; None when it did not. A full disk can still be read."""

    async def open(self) -> None:
        """Create or migrate the schema; raise StoreUnavailable when that fails."""

    async def close(self) -> None:
        """Release every resource; idempotent."""

    async def create_session(self, row: SessionRow, *, refresh: RefreshRow | None = None) -> None:
        """Insert a new session, and its refresh token with it; both or neither."""

    async def get_session(self, sid: str) -> SessionRow | None:
        """The session, ended or not; None when it never existed or was purged."""

    async def list_sessions(
        self,
        *,
        email: str | None = None,
        kind: SessionKind | None = None,
        include_ended: bool = False,
    ) -> Sequence[SessionRow]:
        """Sessions, newest first, of one e-mail and of one kind if given."""

    async def list_cli_logins(
        self, *, issuer: str, subject: str, now: float, limit: int
    ) -> Sequence[SessionRow]:
        """CLI logins of one person that neither ended nor expired by `now`, `limit` at most.

        Those seen last come first, so that many that nobody uses hide none that somebody does.
        """

    async def touch_sessions(self, seen: Mapping[str, float]) -> None:
        """Record last_seen of several sessions at once; never moves a time backwards."""

    async def end_session(self, sid: str, *, reason: str, now: float) -> bool:
        """End one session and add it to the feed; False when it had ended or is unknown."""

    async def end_sessions_of(
        self, *, now: float, reason: str, email: str | None = None, before: float | None = None
    ) -> int:
        """End every live session of an e-mail and/or created before a time; how many ended.

        With neither given, ends all, those of service accounts and agents included.
        """

    async def revocations(self, after: int) -> Sequence[Revocation]:
        """Feed entries with seq > `after`, oldest first."""

    async def last_revocation(self) -> int:
        """The highest seq so far, 0 when the feed is empty."""

    async def burn(self, jti: str, *, expires: float) -> bool:
        """Mark a one-time id as used; False when it was used before."""

    async def get_refresh(self, sid: str) -> RefreshRow | None:
        """The refresh token of a login; None when it has none or was purged."""

    async def rotate_refresh(
        self, sid: str, *, current: bytes, successor: bytes, salt: bytes, now: float
    ) -> bool:
        """Replace a refresh token, if it is still `current`; False when somebody was faster."""

    async def add_device(self, row: DeviceRow, *, limit: int, limit_per_client: int) -> bool:
        """Note a device that waits, dropping those that expired by `row.created`.

        When `limit` wait already, the network with most of them gives up its oldest, undecided ones
        first, as long as it has two more than the newcomer's: else the newcomer would only take a
        place from somebody like itself, and those who came first stay.

        Returns:
            False when there is no room for it, or `limit_per_client` wait from the same client;
            nothing is noted then.

        Raises:
            StoreUnavailable: also when one of its codes is in use.
        """

    async def get_device(self, code: bytes) -> DeviceRow | None:
        """The device that has this code; None when it is unknown, taken or dropped."""

    async def find_device(self, user_code: bytes) -> DeviceRow | None:
        """The device whose person types this code; None when there is none."""

    async def decide_device(self, user_code: bytes, *, sid: str, now: float) -> bool:
        """Approve a device in the name of session `sid`, or deny it with an empty one.

        Returns:
            False when nothing waits under that code at `now`: unknown, expired, or decided before.
        """

    async def take_device(self, code: bytes) -> DeviceRow | None:
        """Drop a device that was decided, and return it; None for the second who asks."""

    async def add_join_token(self, row: JoinTokenRow) -> None:
        """Note a token that was made; raise StoreUnavailable when its id is in use."""

    async def get_join_token(self, token_id: str) -> JoinTokenRow | None:
        """The token of that id, used or not; None when it never was, was dropped or purged."""

    async def list_join_tokens(self) -> Sequence[JoinTokenRow]:
        """Every token, newest first, those that were used or have expired among them."""

    async def drop_join_token(self, token_id: str) -> bool:
        """Make a token worthless; False when there is none, or it was used."""

    async def enrol(
        self, row: SessionRow, *, group: bool, replace: bool, token: str = ""
    ) -> Enrolment | EnrolFailure:
        """Make `row`, of kind AGENT, the enrolment of its subject; burn a token for it.

        All of it or nothing, in one transaction, at the time `row.created`. A key that is enrolled
        under the name already keeps its enrolment. Else a name that is enrolled is taken, unless it
        is a group's, or `replace` ends what there is.

        Args:
            row: The enrolment; its secret hash is the key.
            group: Whether several keys may be enrolled under the name.
            replace: End the others first. Nothing is ended in a group.
            token: Id of the join token that must be good, and is used by it; empty for none.
        """

    async def list_enrolments(self, name: str, *, key: bytes | None = None) -> Sequence[SessionRow]:
        """The enrolments of an agent that have not ended, newest first; of one key if given."""

    async def pin(self, email: str, *, issuer: str, subject: str, now: float) -> PinResult:
        """Bind an e-mail to the first (issuer, subject) seen with it."""

    async def unpin(self, email: str) -> bool:
        """Forget the binding; False when there was none."""

    async def list_pins(self) -> Sequence[tuple[str, str, str, float]]:
        """(email, issuer, subject, first seen), sorted by e-mail."""

    async def purge(self, *, now: float, keep_ended: float) -> int:
        """Drop what is over, and say how many rows that were.

        Burned ids and waiting devices that expired; sessions that ended or expired `keep_ended`
        seconds ago, with their feed entries and refresh tokens; join tokens that expired so long
        ago.
        """
