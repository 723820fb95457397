"""Sealed boxes: bytes that only we can read and only we can have made, for one purpose and place.

A box is ``version(1) | length of kid(1) | kid | nonce(12) | AES-256-GCM ciphertext and tag``, and
its text form is the unpadded base64url of that. Version, purpose, host and name are authenticated
with it, each with its length in front, so that a box made for one cookie of one host opens nowhere
else.
"""

from __future__ import annotations

import base64
import enum
import re
import secrets
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from heim_proxy.identity.keys import KeyRing

__all__ = ["MAX_SEALED_CHARACTERS", "Opened", "Purpose", "Sealer"]

MAX_SEALED_CHARACTERS: Final = 4096
"""What a browser must keep of one cookie (RFC 6265, 6.1)."""

MAX_BLOB_BYTES: Final = 64 * 1024
"""A stored refresh and id token have 2-8 KiB; a provider that sends more is misbehaving."""

_VERSION: Final = 1
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_BASE64URL: Final = re.compile(rb"[A-Za-z0-9_-]+")


class Purpose(enum.Enum):
    """What a box is for. The value is part of what is authenticated."""

    SESSION = "session"
    LOGIN = "login"
    HANDOFF = "handoff"
    TOKENS = "tokens"
    RETURN = "return"
    CODE = "code"


class Opened(NamedTuple):
    """The content of a box; `stale` when a key other than the sealing one opened it."""

    payload: bytes
    stale: bool

    def __repr__(self) -> str:
        return f"<Opened <sealed> stale={self.stale}>"


class Sealer:
    """Seals and opens boxes with a key ring. One per process; the ring may be replaced."""

    __slots__ = ("_boxes", "_first", "_head")

    def __init__(self, ring: KeyRing) -> None:
        self.set_keys(ring)

    def __repr__(self) -> str:
        return f"<Sealer keys={len(self._boxes)}>"

    def set_keys(self, ring: KeyRing) -> None:
        """Use another ring from now on; what a removed key sealed no longer opens."""
        # AESGCM objects expand the key once; building one per box would cost more than the box.
        self._boxes = {key.kid.encode("ascii"): AESGCM(key.secret) for key in ring}
        self._first = ring.first.kid.encode("ascii")
        self._head = bytes((_VERSION, len(self._first))) + self._first

    def seal(self, payload: bytes, *, purpose: Purpose, host: str, name: str) -> str:
        """The text form of a box, fit for cookies and URLs.

        Raises:
            ValueError: when it would be longer than MAX_SEALED_CHARACTERS.
        """
        box = self.seal_blob(payload, purpose=purpose, host=host, name=name)
        text = base64.urlsafe_b64encode(box).rstrip(b"=").decode("ascii")
        if len(text) > MAX_SEALED_CHARACTERS:
            raise ValueError(f"{purpose.value}: {len(text)} characters sealed are too many")
        return text

    def open(self, value: str | bytes, *, purpose: Purpose, host: str, name: str) -> Opened | None:
        """Open a text form; None for anything that `seal` with the same arguments did not make.

        Never raises on what it is given: values come from the network.
        """
        if len(value) > MAX_SEALED_CHARACTERS:
            return None
        if isinstance(value, str):
            value = value.encode("ascii", "replace")
        if _BASE64URL.fullmatch(value) is None or len(value) % 4 == 1:
            return None
        box = base64.urlsafe_b64decode(value + b"=" * (-len(value) % 4))
        # The last character has up to four bits that decoding ignores: without this check, some
        # altered values would still open.
        if base64.urlsafe_b64encode(box).rstrip(b"=") != value:
            return None
        return self.open_blob(box, purpose=purpose, host=host, name=name)

    def seal_blob(self, payload: bytes, *, purpose: Purpose, host: str, name: str) -> bytes:
        """The box itself, for the store.

        Raises:
            ValueError: when it would be longer than MAX_BLOB_BYTES.
        """
        # Random nonces are safe for 2**32 boxes per key (NIST SP 800-38D, 8.3): 136 years at one
        # box per second.
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._boxes[self._first].encrypt(nonce, payload, _bound_to(purpose, host, name))
        box = self._head + nonce + sealed
        if len(box) > MAX_BLOB_BYTES:
            raise ValueError(f"{purpose.value}: {len(box)} bytes sealed are too many")
        return box

    def open_blob(self, box: bytes, *, purpose: Purpose, host: str, name: str) -> Opened | None:
        """Open what `seal_blob` made; None for anything else, never an exception."""
        if not 2 <= len(box) <= MAX_BLOB_BYTES or box[0] != _VERSION:
            return None
        nonce_at = 2 + box[1]
        sealed_at = nonce_at + _NONCE_BYTES
        if len(box) < sealed_at + _TAG_BYTES:
            return None
        kid = box[2:nonce_at]
        key = self._boxes.get(kid)
        if key is None:
            return None
        try:
            payload = key.decrypt(
                box[nonce_at:sealed_at], box[sealed_at:], _bound_to(purpose, host, name)
            )
        except InvalidTag:
            return None
        return Opened(payload, stale=kid != self._first)


def _bound_to(purpose: Purpose, host: str, name: str) -> bytes:
    """The authenticated data; lengths in front, or ("ab", "c") would equal ("a", "bc")."""
    parts = (purpose.value.encode(), host.encode("utf-8", "replace"), name.encode())
    return bytes((_VERSION,)) + b"".join(len(part).to_bytes(4) + part for part in parts)
