"""Authorization codes: how a browser's consent reaches the command line that asked for it.

RFC 8252 with PKCE (RFC 7636): the person presses a button on the login host, the browser carries
the code to a port on its own machine, and the program redeems it with a verifier that never left
it. A code is a sealed box and not a row, like a hand-off ticket: only its id is stored, once it was
used, so that codes nobody redeems leave nothing behind.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import re
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from heim_config.secrets import Secret
from heim_proxy.identity.feed import in_time
from heim_proxy.identity.resident import Session
from heim_proxy.identity.seal import Purpose, Sealer
from heim_proxy.store.base import Store

__all__ = [
    "LIFETIME_S",
    "AuthorizationCodes",
    "CodeProblem",
    "Consent",
    "is_challenge",
    "is_loopback_redirect",
]

LIFETIME_S: Final = 60.0
"""One redirect to the same machine and one request back."""

_REDIRECT: Final = re.compile(
    r"http://(?:127\.0\.0\.1|\[::1\]):([1-9][0-9]{0,4})/callback", re.ASCII
)
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}", re.ASCII)
_FORM: Final = struct.Struct(">16s24s43sd")
_NAME: Final = "code"


class CodeProblem(enum.Enum):
    """Why a code is refused; the value is what logs show. The program must start again."""

    INVALID = "invalid_code"
    EXPIRED = "code_expired"
    REPLAYED = "code_replayed"
    OTHER_REDIRECT = "code_for_another_redirect_uri"
    WRONG_VERIFIER = "wrong_code_verifier"


@dataclass(frozen=True, slots=True)
class Consent:
    """A person let a device act for them: the session it was said in, and the device's name."""

    sid: str
    label: str


def is_loopback_redirect(uri: str) -> bool:
    """Whether a browser may be sent there with a code: a literal loopback address, nothing else.

    Not ``localhost``: what that resolves to is not for us to say (RFC 8252, 8.3).
    """
    found = _REDIRECT.fullmatch(uri)
    return found is not None and int(found[1]) < 65536


def is_challenge(text: str) -> bool:
    """Whether a `code_challenge` has the form that S256 gives it (RFC 7636, 4.2)."""
    return _CHALLENGE.fullmatch(text) is not None


class AuthorizationCodes:
    """Issues and redeems codes."""

    __slots__ = ("_login_url", "_sealer", "_store")

    def __init__(self, sealer: Sealer, store: Store, login_url: Callable[[], str]) -> None:
        """Nothing is issued yet; codes are bound to the login host's origin of the time."""
        self._sealer: Final = sealer
        self._store: Final = store
        self._login_url: Final = login_url

    def issue(
        self, session: Session, *, redirect_uri: str, challenge: str, label: str, now: float
    ) -> Secret:
        """A code for the program at `redirect_uri`; the caller has checked both texts' form."""
        facts = _FORM.pack(
            secrets.token_bytes(16),
            session.sid.encode("ascii"),
            challenge.encode("ascii"),
            now + LIFETIME_S,
        )
        # The redirect URI has no line end; the label is last and may hold anything.
        payload = facts + f"{redirect_uri}\n{label}".encode()
        return Secret(
            self._sealer.seal(payload, purpose=Purpose.CODE, host=self._login_url(), name=_NAME)
        )

    async def redeem(
        self, code: str, *, redirect_uri: str, verifier: str, now: float
    ) -> Consent | CodeProblem:
        """Accept a code, once.

        It is used up by the first look at it, whether or not the look succeeds: whoever has the
        code without the verifier gets no second try. Using it again ends nothing, because all that
        can be stolen on the way, the code, is worth nothing without the verifier.

        Raises:
            StoreUnavailable: when it cannot be marked as used; then it is not accepted.
        """
        opened = self._sealer.open(code, purpose=Purpose.CODE, host=self._login_url(), name=_NAME)
        if opened is None or len(opened.payload) < _FORM.size:
            return CodeProblem.INVALID
        jti, sid, challenge, expires = _FORM.unpack_from(opened.payload)
        if now >= expires:
            return CodeProblem.EXPIRED
        # Remembered for a minute more than it lives, in case the clock is set back meanwhile.
        if not await in_time(self._store.burn(f"code:{jti.hex()}", expires=expires + 60.0)):
            return CodeProblem.REPLAYED
        bound_to, _, label = opened.payload[_FORM.size :].decode("utf-8").partition("\n")
        if bound_to != redirect_uri:
            return CodeProblem.OTHER_REDIRECT
        if _VERIFIER.fullmatch(verifier) is None or not hmac.compare_digest(
            _s256(verifier), challenge
        ):
            return CodeProblem.WRONG_VERIFIER
        return Consent(sid.decode("ascii"), label)


def _s256(verifier: str) -> bytes:
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=")
