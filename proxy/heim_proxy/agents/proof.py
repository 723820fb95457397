"""What an agent says about itself, and whether it can prove it: pure, on values.

An agent signs our nonce together with the TLS key that it saw (`heim_wire.agents.proof_bytes`). A
proof is therefore good for one connection: replayed it has another nonce, passed on by somebody in
the middle another TLS key, and made for one login host or lane it does not fit another. TLS client
certificates are not asked for (decision 30); behind a load balancer this works all the same.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from heim_proxy.agents.refused import LaneRefused
from heim_wire.agents import MAX_LANES, PROOF_KIND, proof_bytes
from heim_wire.errors import Code
from heim_wire.messages import printable

__all__ = ["Challenge", "Greeting", "Proof", "check", "decoded", "read_greeting", "read_proof"]

NONCE_BYTES: Final = 32
# As names of agents in the configuration: what else is asked for does not exist.
# As heim_config has them: an Agent of Kubernetes is <namespace>.<name>.
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
_BOOT: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
# 32 bytes without padding.
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
# Certificates of our authority have some 500 bytes, signed with RSA 4096 some 1200.
_MAX_CERTIFICATE_BYTES: Final = 2_500
# DER of two 32-byte numbers has 72 bytes at most.
_SIGNATURE: Final = re.compile(r"[A-Za-z0-9_-]{1,100}", re.ASCII)
_MAX_SHOWN_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Challenge:
    """What our HELLO asked to be signed: fresh for each connection."""

    nonce: str
    replica: str
    host: str

    @classmethod
    def fresh(cls, *, replica: str, host: str) -> Challenge:
        """A new one, of this replica at this login host."""
        nonce = base64.urlsafe_b64encode(os.urandom(NONCE_BYTES)).rstrip(b"=").decode("ascii")
        return cls(nonce, replica, host)


@dataclass(frozen=True, slots=True)
class Greeting:
    """An agent's HELLO. Nothing of it is proven; `version` and `device` never will be.

    `boot` is one run of its program, `lane` which of its connections, `nonce` what our statement
    must repeat.
    """

    agent: str
    boot: str
    lane: int
    nonce: str
    version: str
    device: str


@dataclass(frozen=True, slots=True)
class Proof:
    """An agent's AUTH: its certificate in DER, and the signature made with its key."""

    certificate: bytes
    signature: bytes = field(repr=False)


def read_greeting(message: Mapping[str, object]) -> Greeting:
    """An agent's HELLO.

    Raises:
        LaneRefused: Something is missing, or cannot be what it should.
    """
    agent = _matching(message, "agent", _NAME)
    number = message.get("lane")
    if type(number) is not int or not 0 <= number < MAX_LANES:
        raise _malformed("HELLO", "lane")
    return Greeting(
        agent=agent,
        boot=_matching(message, "boot", _BOOT),
        lane=number,
        nonce=_matching(message, "nonce", _NONCE),
        version=_shown(message, "version"),
        device=_shown(message, "device"),
    )


def read_proof(message: Mapping[str, object]) -> Proof:
    """An agent's first AUTH.

    Raises:
        LaneRefused: It is something else.
    """
    if message.get("kind") != PROOF_KIND:
        raise _malformed("AUTH", "kind")
    certificate = decoded(message, "certificate", limit=_MAX_CERTIFICATE_BYTES)
    signature = message.get("signature")
    if not isinstance(signature, str) or _SIGNATURE.fullmatch(signature) is None:
        raise _malformed("AUTH", "signature")
    try:
        return Proof(certificate, base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)))
    except ValueError:
        raise _malformed("AUTH", "signature") from None


def decoded(message: Mapping[str, object], key: str, *, limit: int) -> bytes:
    """The value of a base64 key of AUTH, of at most `limit` bytes.

    Raises:
        LaneRefused: It is not that.
    """
    value = message.get(key)
    if not isinstance(value, str) or len(value) > limit * 2:
        raise _malformed("AUTH", key)
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("AUTH", key) from None
    if not 0 < len(raw) <= limit:
        raise _malformed("AUTH", key)
    return raw


def check(
    proof: Proof,
    greeting: Greeting,
    challenge: Challenge,
    *,
    public_key: ec.EllipticCurvePublicKey,
    tls_keys: Iterable[bytes],
) -> None:
    """Whether the key signed this very connection.

    Args:
        proof: What came.
        greeting: What was said before.
        challenge: What we asked.
        public_key: Of the certificate, which our authority must have signed.
        tls_keys: SHA-256 digests of the keys that may have ended the agent's TLS: ours on this
            connection first, then those of `tunnel.agent_tls_keys`.

    Raises:
        LaneRefused: It did not, or somebody is between the agent and us.
    """
    for spki in tls_keys:
        signed = proof_bytes(
            nonce=challenge.nonce,
            replica=challenge.replica,
            host=challenge.host,
            spki=spki,
            agent=greeting.agent,
            boot=greeting.boot,
            lane=greeting.lane,
        )
        try:
            public_key.verify(proof.signature, signed, ec.ECDSA(SHA256()))
        except InvalidSignature:
            continue
        return
    raise LaneRefused(
        Code.UNAUTHENTICATED,
        "the proof does not fit this connection: another key made it, or something between this "
        "machine and the proxy terminates TLS (then list its key under tunnel.agent_tls_keys)",
    )


def _matching(message: Mapping[str, object], key: str, pattern: re.Pattern[str]) -> str:
    value = message.get(key)
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise _malformed("HELLO", key)
    return value


def _shown(message: Mapping[str, object], key: str) -> str:
    """Something for people's eyes, of at most 64 bytes."""
    value = message.get(key)
    return printable(value, _MAX_SHOWN_BYTES) if isinstance(value, str) else ""


def _malformed(frame: str, key: str) -> LaneRefused:
    return LaneRefused(
        Code.PROTOCOL, f"{key} of {frame} is not as it should be; update heim-agent or the proxy"
    )
