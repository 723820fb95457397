"""The hand-off: how a sign-in on the login host becomes a session cookie on an application's host.

1. On the application's host, `start` sets a flow cookie with a random n and sends the browser to
   the login host with h = SHA-256(n).
2. The login host, once it knows who is asking, issues a ticket: sealed for that application's host,
   bound to h, good for 30 seconds and one use.
3. On the application's host, `Tickets.redeem` accepts the ticket only together with n. A ticket
   that leaks (history, log, Referer) is worthless in another browser, and an attacker's own ticket
   cannot sign a victim in, because the victim's browser has no matching n.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import re
import secrets
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from heim_proxy.identity.cookies import FLOW_PREFIX, clear_cookie, set_cookie
from heim_proxy.identity.redirect import safe_rd
from heim_proxy.identity.resident import Session
from heim_proxy.identity.seal import Purpose, Sealer
from heim_proxy.store.base import Store

__all__ = [
    "MAX_FLOWS",
    "HandoffError",
    "HandoffErrorKind",
    "HandoffStart",
    "Redeemed",
    "Tickets",
    "is_challenge",
    "start",
]

MAX_FLOWS: Final = 5
"""Sign-ins pending in one browser on one host. Ten tabs share a session as soon as one is through;
more cookies than that only make requests longer."""

FLOW_MAX_AGE_S: Final = 3600.0
"""Signing in may need a second factor and a password reset; after an hour people start again."""

TICKET_LIFETIME_S: Final = 30.0
"""One redirect on a slow phone."""

_MAX_CLEARED: Final = 20
"""Set-Cookie lines per answer: page scripts of an upstream could plant any number of flow names."""

_FLOW_NAME: Final = re.compile(re.escape(FLOW_PREFIX) + r"[A-Za-z0-9_-]{1,64}")
_NONCE_BYTES: Final = 32
_TICKET: Final = struct.Struct(">16s24s32sd")
_TICKET_NAME: Final = "ticket"


@dataclass(frozen=True, slots=True)
class HandoffStart:
    """Where to send the browser (303) and the Set-Cookie values to send along."""

    location: str
    set_cookies: list[str]

    def __repr__(self) -> str:
        return f"<HandoffStart cookies={len(self.set_cookies)}>"


@dataclass(frozen=True, slots=True)
class Redeemed:
    """A ticket that was good: whose session, where to go on, and the flow cookie to clear."""

    sid: str
    rd: str
    flow_name: str

    def __repr__(self) -> str:
        return f"<Redeemed {self.sid[:6]}…>"


class HandoffErrorKind(enum.Enum):
    """Why a ticket was refused; the value is what logs show. People are told to start again."""

    INVALID = "invalid_ticket"
    EXPIRED = "ticket_expired"
    REPLAYED = "ticket_replayed"
    OTHER_BROWSER = "ticket_from_another_browser"


@dataclass(frozen=True, slots=True)
class HandoffError:
    """A ticket that was refused; `rd` is where it would have led, if it was ours."""

    kind: HandoffErrorKind
    rd: str = field(default="/", compare=False)


def start(
    host: str, rd: str, *, login_url: str, cookies: Iterable[str], now: float
) -> HandoffStart:
    """Send a browser without a session to the login host.

    Args:
        host: The application's canonical host.
        rd: The target the person asked for; where they end up, if it is safe.
        login_url: The login host's origin, such as ``https://auth.example.com:8443``.
        cookies: Names of the flow cookies the request carried; the oldest are cleared.
        now: Seconds since the epoch.
    """
    n = secrets.token_bytes(_NONCE_BYTES)
    # Milliseconds first, so that names sort by age; the random part keeps two tabs apart.
    name = f"{FLOW_PREFIX}{int(now * 1000):012x}{secrets.token_hex(4)}"
    pending = sorted({flow for flow in cookies if _FLOW_NAME.fullmatch(flow)}, reverse=True)
    set_cookies = [set_cookie(name, _encode(n), FLOW_MAX_AGE_S)]
    set_cookies += [clear_cookie(flow) for flow in pending[MAX_FLOWS - 1 :][:_MAX_CLEARED]]
    query = f"host={quote(host, safe='')}&rd={quote(safe_rd(rd), safe='/')}&h={_challenge(n)}"
    return HandoffStart(f"{login_url}/.heim/login?{query}", set_cookies)


def is_challenge(h: str) -> bool:
    """Whether `h` has the form that `start` gives it; it reaches the login host in a query."""
    return len(h) == 43 and _decode(h) is not None


class Tickets:
    """Issues and redeems hand-off tickets."""

    __slots__ = ("_sealer", "_store")

    def __init__(self, sealer: Sealer, store: Store) -> None:
        self._sealer: Final = sealer
        self._store: Final = store

    def issue(self, session: Session, host: str, rd: str, h: str, now: float) -> str:
        """A ticket for `session` on an application's host, fit for a query.

        The caller has checked that `host` is a configured backend's. `rd` is made safe.

        Raises:
            ValueError: when `h` is no challenge, see `is_challenge`.
        """
        challenge = _decode(h)
        if challenge is None:
            raise ValueError("h is not a hand-off challenge")
        jti = secrets.token_bytes(16)
        sid = session.sid.encode("ascii")
        payload = _TICKET.pack(jti, sid, challenge, now + TICKET_LIFETIME_S)
        return self._sealer.seal(
            payload + safe_rd(rd).encode("ascii"),
            purpose=Purpose.HANDOFF,
            host=host,
            name=_TICKET_NAME,
        )

    async def redeem(
        self, ticket: str, host: str, flow_cookies: Sequence[tuple[str, str]], now: float
    ) -> Redeemed | HandoffError:
        """Accept a ticket on the application's host, once.

        A ticket of ours is used up by the first look at it, whether or not the look succeeds: a
        thief who comes first without the cookie cannot leave it good for a second try.

        Args:
            ticket: As received.
            host: The canonical host it was presented on.
            flow_cookies: Names and values of the request's cookies, from `cookies.parse`.
            now: Seconds since the epoch.

        Raises:
            StoreUnavailable: when it cannot be marked as used; then it is not accepted.
        """
        opened = self._sealer.open(ticket, purpose=Purpose.HANDOFF, host=host, name=_TICKET_NAME)
        if opened is None or len(opened.payload) < _TICKET.size:
            return HandoffError(HandoffErrorKind.INVALID)
        jti, sid, challenge, expires = _TICKET.unpack_from(opened.payload)
        rd = opened.payload[_TICKET.size :].decode("ascii")
        if now >= expires:
            return HandoffError(HandoffErrorKind.EXPIRED, rd)
        # Remembered for a minute more than it lives, in case the clock is set back meanwhile.
        if not await self._store.burn(jti.hex(), expires=expires + 60.0):
            return HandoffError(HandoffErrorKind.REPLAYED, rd)
        flow_name = _matching(flow_cookies, challenge)
        if flow_name is None:
            return HandoffError(HandoffErrorKind.OTHER_BROWSER, rd)
        return Redeemed(sid.decode("ascii"), rd, flow_name)


def _matching(flow_cookies: Sequence[tuple[str, str]], challenge: bytes) -> str | None:
    """The name of the flow cookie whose n has that digest."""
    for name, value in flow_cookies:
        if _FLOW_NAME.fullmatch(name) is None:
            continue
        n = _decode(value)
        if n is not None and secrets.compare_digest(hashlib.sha256(n).digest(), challenge):
            return name
    return None


def _challenge(n: bytes) -> str:
    return _encode(hashlib.sha256(n).digest())


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes | None:
    """32 bytes from their 43 characters of base64url; None for anything else."""
    if len(text) != 43:
        return None
    try:
        raw = base64.b64decode(text + "=", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == _NONCE_BYTES and _encode(raw) == text else None
