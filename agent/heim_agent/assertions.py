"""Whose stream it is: the signed statement in OPEN, verified before anything is dialled.

The proxy has decided already; this is the second look, by another machine with its own list. An
assertion counts once, for a minute, for this agent's key and for one target.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import jwt
from jwt.algorithms import ECAlgorithm

from heim_agent.complaints import clean
from heim_agent.signed import NotSigned, SignedToken
from heim_wire.agents import MAX_ASSERTION_S, STREAM_TYPE

if TYPE_CHECKING:
    from heim_agent.identity import Identity, Jwk

__all__ = ["AssertionRefused", "Assertions", "Caller"]

LEEWAY_S: Final = 30.0
"""Between our notion of the proxy's time and the proxy's own.

It was taken from the last statement and has counted on since: a cheap clock drifts 4 s in a day. It
gives a thief nothing: what was used once is remembered for longer.
"""

_REMEMBER_S: Final = MAX_ASSERTION_S + 2 * LEEWAY_S
# 3,000 streams a second for two minutes: 30 MB. Beyond that nothing is believed (fail closed).
_MAX_REMEMBERED: Final = 360_000
_MAX_TOKEN_CHARS: Final = 4096
_MAX_TEXT_CHARS: Final = 320
_MAX_NAMES: Final = 256
_HEADER: Final = frozenset(("alg", "typ", "kid"))
_KINDS: Final = frozenset(("person", "service", "public"))


class AssertionRefused(Exception):  # noqa: N818 - a decision
    """An assertion is not believed; the text says why, in words that may be sent and logged."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a stream is for, by the proxy's word.

    Attributes:
        user: The name that logs show; "public" on a public backend.
        kind: person, service or public.
        subject: The identity provider's identifier.
        email: If it was verified, else "".
        groups: Those that the proxy's configuration names.
        roles: By which they may use the backend.
        backend: At the proxy.
        target: What may be dialled.
        session: Names the login in logs, here and at the proxy; "" on a public backend.
        generation: Of the proxy's configuration.
        source: Address of the person's device, or "".
    """

    user: str
    kind: str
    subject: str
    email: str
    groups: frozenset[str]
    roles: frozenset[str]
    backend: str
    target: str
    session: str
    generation: int
    source: str


class Assertions:
    """Verifies assertions by the keys of an identity, as they are at that moment."""

    def __init__(self, identity: Identity) -> None:
        """Believe `identity.keys`, for `identity.login_url` and `identity.key` alone."""
        self._identity = identity
        # What `_by_kid` was made of: a statement that brings other keys replaces the tuple.
        self._made_of: tuple[Jwk, ...] = ()
        self._by_kid: dict[str, Any] = {}
        # Two generations: what was used before `_turned`, and since.
        self._old: set[str] = set()
        self._new: set[str] = set()
        self._turned = float("-inf")

    def verify(self, token: object, *, target: str, now: float) -> Caller:
        """Who the stream is for.

        Args:
            token: Of OPEN, as it came.
            target: What OPEN asks for; the assertion must say the same.
            now: The proxy's time, seconds since the epoch.

        Raises:
            AssertionRefused: It is not believed.
        """
        if not isinstance(token, str) or not token:
            raise AssertionRefused("there is no assertion")
        if len(token) > _MAX_TOKEN_CHARS:
            raise AssertionRefused("the assertion is too long")
        claims = _Claims(self._opened(token))
        identity = self._identity
        if claims.text("iss") != identity.login_url:
            raise AssertionRefused("the assertion is of another proxy")
        if claims.text("aud") != identity.key.thumbprint:
            raise AssertionRefused("the assertion is for another agent")
        if claims.text("target") != target:
            raise AssertionRefused("the assertion is for another target")
        issued, expires = claims.time("iat"), claims.time("exp")
        if not 0 < expires - issued <= MAX_ASSERTION_S:
            raise AssertionRefused(f"the assertion is good for more than {MAX_ASSERTION_S} s")
        if expires + LEEWAY_S <= now:
            raise AssertionRefused("the assertion has expired")
        if issued - LEEWAY_S > now:
            raise AssertionRefused("the assertion is of the future")
        caller = claims.caller()
        self._once(claims.text("jti"), now)
        return caller

    def _opened(self, text: str) -> dict[str, object]:
        """The claims, once the signature is verified."""
        try:
            token = SignedToken.read(text)
        except NotSigned as e:
            raise AssertionRefused("the assertion is no signed token") from e
        header = token.header
        if header.get("typ") != STREAM_TYPE:
            raise AssertionRefused("the assertion is a token of another type")
        if header.get("alg") != "ES256" or not _HEADER.issuperset(header):
            raise AssertionRefused("the assertion is not signed with ES256")
        kid = header.get("kid")
        key = self._keys().get(kid) if isinstance(kid, str) else None
        if key is None:
            raise AssertionRefused("the assertion is signed by a key that this agent was not told")
        try:
            found = token.claims(key)
        except NotSigned as e:
            raise AssertionRefused("the assertion's signature is wrong") from e
        return found

    def _keys(self) -> Mapping[str, Any]:
        keys = self._identity.keys
        if keys is not self._made_of:
            made: dict[str, Any] = {}
            for jwk in keys:
                kid = jwk.get("kid")
                if kid and jwk.get("kty") == "EC" and jwk.get("crv") == "P-256":
                    try:
                        made[kid] = ECAlgorithm.from_jwk(dict(jwk))
                    except (jwt.InvalidKeyError, ValueError, binascii.Error):
                        # One that we cannot read signs nothing that we believe.
                        continue
            self._by_kid, self._made_of = made, keys
        return self._by_kid

    def _once(self, jti: str, now: float) -> None:
        if not now - self._turned < _REMEMBER_S or now < self._turned:
            # Also when the proxy's clock was put back: then nothing is forgotten for one more turn.
            self._old, self._new, self._turned = self._new, set(), now
        if jti in self._new or jti in self._old:
            raise AssertionRefused("the assertion was used before")
        if len(self._new) >= _MAX_REMEMBERED:
            raise AssertionRefused("too many streams to remember; try again")
        self._new.add(jti)


class _Claims:
    """Claims, each of the type it has to have."""

    def __init__(self, found: Mapping[str, object]) -> None:
        self._found = found

    def caller(self) -> Caller:
        kind = self.text("kind")
        if kind not in _KINDS:
            raise AssertionRefused("the assertion does not say what kind of caller it is for")
        return Caller(
            user=clean(self.text("name")),
            kind=kind,
            subject=self.text("sub"),
            email=self.text("email", optional=True),
            groups=self.names("groups"),
            roles=self.names("roles"),
            backend=self.text("backend"),
            target=self.text("target"),
            session=self.text("sid", optional=kind == "public"),
            generation=self.number("gen"),
            source=self.text("src", optional=True),
        )

    def text(self, name: str, *, optional: bool = False) -> str:
        value = self._found.get(name)
        if value is None and optional:
            return ""
        if not isinstance(value, str) or not value or len(value) > _MAX_TEXT_CHARS:
            raise AssertionRefused(f"the assertion has no usable {name}")
        return value

    def number(self, name: str) -> int:
        value = self._found.get(name)
        # True is an int, and no time.
        if type(value) is not int or value < 0:
            raise AssertionRefused(f"the assertion has no usable {name}")
        return value

    def time(self, name: str) -> float:
        return float(min(self.number(name), 1 << 53))

    def names(self, name: str) -> frozenset[str]:
        value = self._found.get(name)
        if (
            not isinstance(value, list)
            or len(value) > _MAX_NAMES
            or not all(isinstance(one, str) for one in value)
        ):
            raise AssertionRefused(f"the assertion has no usable {name}")
        return frozenset(value)
