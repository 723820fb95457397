"""Sessions over a fake store and a fake clock, and what their tests need around them."""

from __future__ import annotations

from dataclasses import dataclass

from heim_proxy.access.subject import Subject, SubjectKind
from heim_proxy.identity.keys import KeyRing
from heim_proxy.identity.seal import Sealer
from heim_proxy.identity.session import Session, Sessions
from heim_proxy.live import EndReason, LiveRegistry
from tests.fakes.store import MemoryStore

__all__ = ["ALICE", "BOB", "Exchange", "ManualClock", "Stage", "ring"]

NOW = 1_800_000_000.0

ALICE = Subject(
    SubjectKind.USER,
    issuer="https://idp.example.test",
    subject="1001",
    provider="idp",
    email="alice@example.test",
    domain="example.test",
    groups=frozenset({"dev", "sre"}),
)
BOB = Subject(SubjectKind.USER, issuer="https://idp.example.test", subject="1002", provider="idp")


class ManualClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, now: float = NOW) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time - NOW


class Exchange:
    """A live exchange that notes how it was ended."""

    def __init__(self, session: Session) -> None:
        self.live_session = session
        self.valid_until = float("inf")
        self.ended: EndReason | None = None

    def end(self, reason: EndReason) -> None:
        self.ended = reason


def ring(*kids: str) -> KeyRing:
    """A ring with one fresh key per id."""
    return KeyRing.parse("\n".join(KeyRing.generate_line(kid) for kid in kids))


@dataclass
class Stage:
    """One process: its sessions over `store`, at `clock`."""

    store: MemoryStore
    clock: ManualClock
    sealer: Sealer
    live: LiveRegistry
    sessions: Sessions

    @classmethod
    async def up(
        cls,
        *,
        lifetime: float = 86400.0,
        idle: float = 3600.0,
        store: MemoryStore | None = None,
        clock: ManualClock | None = None,
        sealer: Sealer | None = None,
    ) -> Stage:
        """A process that just started; give it another one's store and sealer for a restart."""
        store = store or MemoryStore()
        clock = clock or ManualClock()
        sealer = sealer or Sealer(ring("k1"))
        live = LiveRegistry()
        await store.open()
        sessions = Sessions(store, sealer, live, lifetime=lifetime, idle=idle, clock=clock)
        return cls(store, clock, sealer, live, sessions)

    async def restarted(self) -> Stage:
        """Another process over the same store and keys."""
        return await Stage.up(store=self.store, clock=self.clock, sealer=self.sealer)

    @property
    def now(self) -> float:
        return self.clock.now()

    async def sign_in(self, subject: Subject = ALICE) -> Session:
        return await self.sessions.create(
            subject, auth_time=self.now, tokens=b"refresh", now=self.now
        )

    def cookie(self, session: Session, host: str = "app1.example.test") -> bytes:
        """The cookie's value alone."""
        header = self.sessions.cookie_for(session, host, self.now)
        return header.partition("=")[2].partition(";")[0].encode("ascii")

    def open_exchange(self, session: Session) -> Exchange:
        exchange = Exchange(session)
        self.live.add(exchange)
        return exchange
