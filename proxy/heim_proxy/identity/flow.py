"""A sign-in that has been started and not finished, kept entirely in the browser that started it.

Each flow is one sealed cookie of the login host, so that ten tabs can sign in at once and an
anonymous visitor costs us no memory. It holds one 32-byte secret; `state`, `nonce` and the PKCE
verifier are derived from it, each with its own label, so none tells anything about another.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from heim_proxy.identity.cookies import LOGIN_PREFIX, clear_cookie, set_cookie
from heim_proxy.identity.seal import Purpose, Sealer

__all__ = [
    "FLOW_LIFETIME_S",
    "MAX_COOKIE_BYTES",
    "MAX_FLOWS",
    "LoginFlow",
    "flow_id_of",
    "keep",
    "open_flow",
    "seal_flow",
]

# How long a person may take at the provider (second factor, new password), in seconds.
FLOW_LIFETIME_S: Final = 15 * 60.0
# The cookie outlives the flow: an expired one still knows where its owner wanted to go.
COOKIE_LIFETIME_S: Final = 60 * 60.0
MAX_FLOWS: Final = 12
# All flow cookies together, names included. With our session cookie (700), the URL of a callback
# (2 KiB) and what browsers send anyway (1 KiB), the request head stays below 8 KiB, which is where
# the first proxies in front of us would answer 400.
MAX_COOKIE_BYTES: Final = 4096

_SECRET_BYTES: Final = 32
_STATE: Final = re.compile(r"([A-Za-z0-9_-]{11})\.([A-Za-z0-9_-]{43})")
_ID: Final = re.compile(r"[A-Za-z0-9_-]{11}")


@dataclass(frozen=True, slots=True)
class LoginFlow:
    """One pending sign-in.

    `host`, `path` and `binding` say where its owner wants to go: an app host (None for the login
    host itself), the path with query there, and the hash that binds the hand-off to a cookie of
    that host (None when the flow did not start there). `started` is seconds since the epoch.
    `max_age_s` is the age of authentication that was asked for; None when any will do.
    """

    id: str
    secret: bytes
    provider: str
    started: float
    host: str | None = None
    path: str = "/"
    binding: str | None = None
    max_age_s: float | None = None

    def __repr__(self) -> str:
        return f"<LoginFlow {self.provider} host={self.host} <sealed>>"

    @classmethod
    def begin(
        cls,
        provider: str,
        *,
        now: float,
        host: str | None = None,
        path: str = "/",
        binding: str | None = None,
        max_age_s: float | None = None,
    ) -> LoginFlow:
        """A new flow with a fresh secret of 256 bits from the system's generator."""
        return cls(
            id=secrets.token_urlsafe(8),
            secret=secrets.token_bytes(_SECRET_BYTES),
            provider=provider,
            started=now,
            host=host,
            path=path,
            binding=binding,
            max_age_s=max_age_s,
        )

    @property
    def cookie_name(self) -> str:
        """The cookie that holds this flow."""
        return f"{LOGIN_PREFIX}{self.id}"

    @property
    def state(self) -> str:
        """The `state` parameter: which cookie to look at, and the proof that it belongs to it."""
        return f"{self.id}.{self._derive('state')}"

    @property
    def nonce(self) -> str:
        """The `nonce` that the ID token has to repeat."""
        return self._derive("nonce")

    @property
    def verifier(self) -> str:
        """The PKCE verifier (RFC 7636, 4.1): 43 characters, 256 bits."""
        return self._derive("verifier")

    def matches(self, state: str) -> bool:
        """Whether `state` is this flow's, in constant time."""
        return hmac.compare_digest(self.state.encode(), state.encode("utf-8", "replace"))

    def expired(self, now: float) -> bool:
        """Whether it may no longer be finished; a start in the future is no better."""
        return not self.started - 60.0 <= now < self.started + FLOW_LIFETIME_S

    def _derive(self, label: str) -> str:
        mac = hmac.new(self.secret, f"heim login {label}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode("ascii")


def flow_id_of(state: str) -> str | None:
    """The flow that a `state` parameter speaks of; None when it is not of our making."""
    found = _STATE.fullmatch(state)
    return found[1] if found else None


def seal_flow(flow: LoginFlow, sealer: Sealer, login_host: str) -> str:
    """The cookie value of a flow.

    Raises:
        ValueError: It would not fit into a cookie; ASCII paths up to 2048 characters do.
    """
    facts = (
        flow.provider,
        repr(flow.started),
        flow.host or "",
        flow.path,
        flow.binding or "",
        "" if flow.max_age_s is None else repr(flow.max_age_s),
    )
    # Lines, because none of these holds one, and JSON would double a path full of quotes.
    payload = flow.secret + "\n".join(facts).encode("ascii")
    return sealer.seal(payload, purpose=Purpose.LOGIN, host=login_host, name=flow.cookie_name)


def open_flow(name: str, value: str, sealer: Sealer, login_host: str) -> LoginFlow | None:
    """The flow in a cookie; None for anything that we did not seal for this name and host."""
    flow_id = name.removeprefix(LOGIN_PREFIX)
    if flow_id == name or not _ID.fullmatch(flow_id):
        return None
    opened = sealer.open(value, purpose=Purpose.LOGIN, host=login_host, name=name)
    if opened is None or len(opened.payload) <= _SECRET_BYTES:
        return None
    secret, facts = opened.payload[:_SECRET_BYTES], opened.payload[_SECRET_BYTES:]
    try:
        provider, started, host, path, binding, max_age = facts.decode("ascii").split("\n")
        return LoginFlow(
            id=flow_id,
            secret=secret,
            provider=provider,
            started=float(started),
            host=host or None,
            path=path,
            binding=binding or None,
            max_age_s=float(max_age) if max_age else None,
        )
    except ValueError:  # sealed by another version of us
        return None


def keep(
    present: Iterable[tuple[str, str]], new: LoginFlow, sealer: Sealer, login_host: str
) -> list[str]:
    """Set-Cookie values that add `new` and drop the oldest flows beyond the bounds.

    Args:
        present: All cookies of the request, in order.
        new: The flow to add; it is always kept.
        sealer: Opens the present ones and seals the new one.
        login_host: The host they are bound to.
    """
    value = seal_flow(new, sealer, login_host)
    flows: list[tuple[float, str, int]] = []
    dropped: list[str] = []
    for name, text in dict(present).items():
        if not name.startswith(LOGIN_PREFIX) or not _ID.fullmatch(name.removeprefix(LOGIN_PREFIX)):
            continue
        flow = open_flow(name, text, sealer, login_host)
        if flow is None:
            dropped.append(name)
        else:
            flows.append((flow.started, name, _size(name, text)))
    flows.sort(reverse=True)
    budget = MAX_COOKIE_BYTES - _size(new.cookie_name, value)
    for index, (_, name, size) in enumerate(flows):
        budget -= size
        if index >= MAX_FLOWS - 1 or budget < 0:
            dropped.append(name)
    cleared = [clear_cookie(name) for name in dropped]
    return [*cleared, set_cookie(new.cookie_name, value, COOKIE_LIFETIME_S)]


def _size(name: str, value: str) -> int:
    # name=value and the separator "; "
    return len(name) + len(value) + 3
