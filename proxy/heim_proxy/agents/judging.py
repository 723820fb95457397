"""May this machine be that agent, now? Certificate, possession, configuration, enrolment: in order.

Nothing about agents is told before possession is proven. The certificate says whose key it is; that
the key may still be used is said by the store (its enrolment lives) and by the configuration (the
agent may exist), at every connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from heim_proxy.agents.authority import CertificateRefused
from heim_proxy.agents.proof import check
from heim_proxy.agents.refused import LaneRefused
from heim_proxy.store.base import StoreUnavailable
from heim_wire.errors import Code

if TYPE_CHECKING:
    from heim_proxy.agents.authority import Authority, VerifiedAgent
    from heim_proxy.agents.enrolment import Enrolments
    from heim_proxy.agents.proof import Challenge, Greeting, Proof
    from heim_proxy.identity.session import Session, Sessions
    from heim_proxy.routing import AgentGrant
    from heim_proxy.snapshot import Snapshot

__all__ = ["RENEWABLE_S", "RENEW_WITHIN_S", "STORE_S", "Admitted", "Claim", "Judge"]

RENEWABLE_S: Final = 30 * 86_400.0
"""How long after its end a certificate still shows who comes: a machine that was off for a week
is enrolled all the same. After that it must join again."""

RENEW_WITHIN_S: Final = 60.0
"""Such a machine is let in for as long as it takes to ask for a newer certificate."""

STORE_S: Final = 3.0
"""Deadline for the store, as for any other session."""

_AWAY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Claim:
    """Everything that one connection said and was asked.

    `tls_keys` are digests of the keys that may have ended its TLS, the one we served first.
    """

    greeting: Greeting
    challenge: Challenge
    proof: Proof
    tls_keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who it is, and until when it may stay without a newer certificate (epoch seconds)."""

    session: Session
    verified: VerifiedAgent
    grant: AgentGrant
    until: float


class Judge:
    """Judges claims against what is in force. One per process."""

    def __init__(
        self,
        *,
        authority: Callable[[], Authority],
        snapshot: Callable[[], Snapshot],
        enrolments: Enrolments,
        sessions: Sessions,
        patience_s: float = STORE_S,
    ) -> None:
        """Nobody is judged yet; the store may take `patience_s` seconds for each."""
        self._authority: Final = authority
        self._snapshot: Final = snapshot
        self._enrolments: Final = enrolments
        self._sessions: Final = sessions
        self._patience_s: Final = patience_s

    async def judge(self, claim: Claim, now: float) -> Admitted:
        """Who comes.

        Raises:
            LaneRefused: Nobody who may.
        """
        verified, expired = self._proven(claim, now)
        name = verified.name
        self._grant(name)
        try:
            async with asyncio.timeout(self._patience_s):
                row = await self._enrolments.bound(name, verified.thumbprint)
                session = await self._sessions.get(row.sid, now) if row is not None else None
        except (StoreUnavailable, TimeoutError):
            raise LaneRefused(
                Code.BUSY, "the proxy cannot check enrolments just now", reconnect_in=_AWAY_S
            ) from None
        if session is None or not session.usable:
            raise LaneRefused(
                Code.REVOKED, f"this machine is not agent {name} any more; join again"
            )
        # Once more: the configuration may have changed while the store was asked.
        grant = self._grant(name)
        until = now + RENEW_WITHIN_S if expired else verified.expires
        return Admitted(session, verified, grant, until)

    async def in_the_way(self, name: str, others: Iterable[bytes]) -> bytes | None:
        """The key of another machine that is agent `name` all the same; None when none is.

        Raises:
            LaneRefused: The store does not say.
        """
        try:
            async with asyncio.timeout(self._patience_s):
                for thumbprint in others:
                    if await self._enrolments.bound(name, thumbprint) is not None:
                        return thumbprint
        except (StoreUnavailable, TimeoutError):
            raise LaneRefused(
                Code.BUSY, "the proxy cannot check enrolments just now", reconnect_in=_AWAY_S
            ) from None
        return None

    def renew(self, verified: VerifiedAgent, now: float) -> tuple[bytes, float]:
        """A newer certificate for the same key, and when it ends.

        Raises:
            CertificateRefused: Our own is over.
        """
        authority = self._authority()
        certificate = authority.issue(verified.public_key, name=verified.name, now=now)
        return certificate, authority.verify(certificate, now=now).expires

    def _proven(self, claim: Claim, now: float) -> tuple[VerifiedAgent, bool]:
        """Whose key it is that signed this connection, and whether its certificate is over."""
        expired = False
        try:
            verified = self._authority().verify(claim.proof.certificate, now=now)
        except CertificateRefused as refused:
            if refused.expired is None:
                raise LaneRefused(Code.UNAUTHENTICATED, str(refused)) from None
            verified, expired = refused.expired, True
        if verified.name != claim.greeting.agent:
            raise LaneRefused(
                Code.UNAUTHENTICATED, f"the certificate is of agent {verified.name}, not of another"
            )
        check(
            claim.proof,
            claim.greeting,
            claim.challenge,
            public_key=verified.public_key,
            tls_keys=claim.tls_keys,
        )
        if expired and now > verified.expires + RENEWABLE_S:
            raise LaneRefused(
                Code.EXPIRED,
                f"the certificate of agent {verified.name} expired more than 30 days ago; "
                "join again",
            )
        return verified, expired

    def _grant(self, name: str) -> AgentGrant:
        grant = self._snapshot().agents.get(name)
        if grant is None:
            raise LaneRefused(
                Code.FORBIDDEN, f"agent {name} is not in the proxy's configuration (agents)"
            )
        return grant
