"""What the session cookie says, between its sealing and its use.

A fixed binary form: 58 bytes, about 150 characters sealed. No groups, no tokens, nothing that could
grow; the store row has the rest. The seal binds it to its host, so the form does not repeat it.
"""

from __future__ import annotations

import base64
import hashlib
import math
import secrets
import struct
from typing import Final, NamedTuple

__all__ = ["CookieClaims", "new_sid", "subject_digest"]

_FORM: Final = struct.Struct(">18s16sddd")
_SID_BYTES: Final = 18
_DIGEST_BYTES: Final = 16


class CookieClaims(NamedTuple):
    """The content of a session cookie. Times are seconds since the epoch, good after 2038 too.

    `subject` is `subject_digest` of whom the session belonged to when the cookie was made.
    """

    sid: str
    subject: bytes
    issued: float
    auth_time: float
    expires: float

    def pack(self) -> bytes:
        """The binary form, to be sealed."""
        sid = base64.urlsafe_b64decode(self.sid)
        return _FORM.pack(sid, self.subject, self.issued, self.auth_time, self.expires)

    @classmethod
    def unpack(cls, payload: bytes) -> CookieClaims | None:
        """Read what `pack` made; None for anything else."""
        if len(payload) != _FORM.size:
            return None
        sid, subject, issued, auth_time, expires = _FORM.unpack(payload)
        if not (math.isfinite(issued) and math.isfinite(auth_time) and math.isfinite(expires)):
            return None
        return cls(
            base64.urlsafe_b64encode(sid).decode("ascii"), subject, issued, auth_time, expires
        )


def new_sid() -> str:
    """A fresh session id: 144 random bits, 24 characters of base64url.

    None begins with a dash: operators hand ids to `heim-proxy session revoke`, as an argument.
    """
    while (sid := secrets.token_urlsafe(_SID_BYTES)).startswith("-"):
        pass
    return sid


def subject_digest(issuer: str, subject: str) -> bytes:
    """16 bytes that name (issuer, subject); unambiguous because the length comes first."""
    head = issuer.encode("utf-8", "surrogatepass")
    tail = subject.encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(len(head).to_bytes(4) + head + tail)
    return digest.digest()[:_DIGEST_BYTES]
