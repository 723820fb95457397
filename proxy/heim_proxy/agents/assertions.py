"""Who a stream through an agent is for: one signed statement per stream, for that agent alone.

An ES256 JWT of type `heim_wire.agents.STREAM_TYPE`, good for a minute, for the key of the machine
that the stream is opened on. The agent verifies it before it dials (decision 9).

Claims: `iss` login URL, `aud` the machine's key thumbprint, `kind` "person", "service" or "public",
`sub` and `name` (for logs; both "public" on a public backend), `email` if verified, `groups` only
those that configuration names, `roles` those that are bound to the backend, `backend`, `target`,
`sid` the first 16 hexadecimal digits of SHA-256 of the session's id (absent on a public backend),
`gen` generation of the configuration, `src` address of the person's device (absent when a
connection serves several people), `jti`, `iat`, `exp` = `iat` + 60.
"""

from __future__ import annotations

import functools
import hashlib
import json
import secrets
from binascii import b2a_base64
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from heim_proxy.access.subject import SubjectKind
from heim_wire.agents import MAX_ASSERTION_S, STREAM_TYPE

if TYPE_CHECKING:
    from heim_proxy.edge.dial import Errand
    from heim_proxy.identity.signing import SigningKey
    from heim_proxy.snapshot import Snapshot

__all__ = ["stream_assertion"]

_SID_CHARACTERS: Final = 16
_PUBLIC: Final = "public"
_NUMBER_BYTES: Final = 32
_ALGORITHM: Final = ECDSA(SHA256())
_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


def stream_assertion(
    snapshot: Snapshot, errand: Errand, *, target: str, audience: str, now: float
) -> str:
    """A statement for one stream.

    Args:
        snapshot: The one in force: its keys sign, and only groups that it names are told.
        errand: Whom the stream is for.
        target: What is asked of the agent.
        audience: Thumbprint of the key of the machine that is to believe it.
        now: Seconds since the epoch.
    """
    issued = int(now)
    claims: dict[str, object] = {
        "iss": snapshot.login_url,
        "aud": audience,
        **_person(snapshot, errand),
        "roles": list(errand.roles),
        "backend": errand.backend,
        "target": target,
        "gen": snapshot.generation,
        "jti": secrets.token_urlsafe(16),
        "iat": issued,
        "exp": issued + MAX_ASSERTION_S,
    }
    if errand.client:
        claims["src"] = errand.client
    return _signed(claims, snapshot.signing_keys.first)


def _signed(claims: dict[str, object], key: SigningKey) -> str:
    """RFC 7515, 7.1, by hand: a library makes header and options anew for every stream."""
    text = _header(key.kid) + b"." + _base64url(_encode(claims).encode())
    r, s = decode_dss_signature(key.private.sign(text, _ALGORITHM))
    # RFC 7518, 3.4: the two numbers as they are.
    signature = r.to_bytes(_NUMBER_BYTES) + s.to_bytes(_NUMBER_BYTES)
    return (text + b"." + _base64url(signature)).decode("ascii")


@functools.lru_cache(maxsize=4)
def _header(kid: str) -> bytes:
    return _base64url(_encode({"alg": "ES256", "kid": kid, "typ": STREAM_TYPE}).encode())


def _base64url(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).translate(_URL_SAFE).rstrip(b"=")


def _person(snapshot: Snapshot, errand: Errand) -> dict[str, object]:
    session = errand.session
    if session is None:
        return {"kind": _PUBLIC, "sub": _PUBLIC, "name": _PUBLIC, "groups": []}
    subject = session.subject
    service = subject.kind is SubjectKind.SERVICE_ACCOUNT
    told: dict[str, object] = {
        "kind": "service" if service else "person",
        "sub": subject.subject,
        "name": subject.name,
        "groups": sorted(subject.groups & snapshot.groups),
        "sid": hashlib.sha256(session.sid.encode("ascii")).hexdigest()[:_SID_CHARACTERS],
    }
    if subject.email is not None:
        told["email"] = subject.email
    return told
