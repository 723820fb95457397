"""Tokens signed with ES256 (RFC 7515, compact), read strictly: one pass, no options, no choices.

For what comes with every stream. A general library reads the header alone, then everything again,
and looks at every character in Python: a fifth of what opening a stream cost (bench/README.md).
"""

from __future__ import annotations

import binascii
import functools
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from heim_wire.strict_json import StrictJsonError, read_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

__all__ = ["NotSigned", "SignedToken"]

# One without a signature can be read, to be refused for its header's alg.
_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)", re.ASCII)
_NUMBER_BYTES: Final = 32
_ALGORITHM: Final = ECDSA(SHA256())
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_HEADERS: Final = 16
"""Headers that are kept as they were read: all tokens by one key begin with the same one."""


class NotSigned(ValueError):  # noqa: N818 - a finding
    """It is no such token, or the signature is not by that key."""


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A token in its parts; nothing of it is to be believed before `claims`.

    Attributes:
        header: As it is written.
    """

    header: Mapping[str, Any]
    _signed: bytes
    _payload: str
    _signature: bytes

    @classmethod
    def read(cls, token: str) -> SignedToken:
        """Take a token apart.

        Raises:
            NotSigned: It has no three parts in base64url, or its header is no JSON object.
        """
        found = _COMPACT.fullmatch(token)
        if found is None:
            raise NotSigned("it has no three parts in base64url")
        header, payload, signature = found.groups()
        signed = token[: found.start(3) - 1].encode("ascii")
        return cls(_header(header), signed, payload, _decoded(signature))

    def claims(self, key: EllipticCurvePublicKey) -> dict[str, Any]:
        """What was signed with `key`, which must be on P-256.

        Raises:
            NotSigned: Another key made it, it was changed since, or it is no JSON object.
        """
        signature = self._signature
        if len(signature) != 2 * _NUMBER_BYTES:
            raise NotSigned("a signature of another length")
        r, s = signature[:_NUMBER_BYTES], signature[_NUMBER_BYTES:]
        # RFC 7518 (3.4) has the two numbers as they are, OpenSSL wants them in DER.
        der = encode_dss_signature(int.from_bytes(r), int.from_bytes(s))
        try:
            key.verify(der, self._signed, _ALGORITHM)
        except InvalidSignature as e:
            raise NotSigned("it is signed by another key") from e
        return _object(self._payload)


@functools.lru_cache(maxsize=_HEADERS)
def _header(part: str) -> Mapping[str, Any]:
    return MappingProxyType(_object(part))


def _object(part: str) -> dict[str, Any]:
    try:
        return read_object(_decoded(part))
    except StrictJsonError as e:
        raise NotSigned(f"a part of it {e}") from e


def _decoded(part: str) -> bytes:
    encoded = part.encode("ascii").translate(_STANDARD)
    try:
        return binascii.a2b_base64(encoded + b"=" * (-len(encoded) % 4))
    except binascii.Error as e:
        raise NotSigned("a part of it is no base64url") from e
