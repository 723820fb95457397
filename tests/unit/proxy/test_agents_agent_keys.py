"""Keys of agents: what is taken from a request, and what a key is called."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm

from heim_proxy.agents.agent_keys import AgentKey, BadRequestError
from tests.fakes.agent_certificates import csr, new_key
from tests.fakes.idp import rsa_key
from tests.fakes.thorough import examples


def test_the_key_of_a_request_is_taken_and_its_names_are_not() -> None:
    key = new_key()
    found = AgentKey.from_request(csr(key, name="somebody-else"))
    assert found.public == key.public_key()
    assert "somebody-else" not in repr(found)


def test_the_thumbprint_is_that_of_rfc_7638() -> None:
    key = new_key().public_key()
    jwk = json.loads(ECAlgorithm.to_jwk(key))
    members = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":"))
    assert AgentKey(key).thumbprint == hashlib.sha256(canonical.encode()).digest()


def test_the_fingerprint_is_over_the_public_key_info() -> None:
    key = new_key().public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    shown = AgentKey(key).fingerprint
    assert shown.startswith("SHA256:")
    assert base64.b64decode(shown.removeprefix("SHA256:") + "=") == hashlib.sha256(der).digest()
    assert AgentKey.from_der(AgentKey(key).der).fingerprint == shown


def test_a_coordinate_with_leading_zeros_keeps_its_length() -> None:
    """The thumbprint would differ from the agent's own in one key of 128."""
    for _ in range(2000):
        key = new_key().public_key()
        if key.public_numbers().x < 1 << 248:
            break
    jwk = json.loads(ECAlgorithm.to_jwk(key))
    canonical = json.dumps(
        {name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":")
    )
    assert AgentKey(key).thumbprint == hashlib.sha256(canonical.encode()).digest()


def _request(key: object) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)  # type: ignore[arg-type]


def _tampered() -> bytes:
    whole = bytearray(csr())
    whole[-1] ^= 1
    return bytes(whole)


def _version_7() -> bytes:
    """cryptography raises InvalidVersion, which is no ValueError."""
    whole = bytearray(csr())
    whole[whole.index(b"\x02\x01\x00") + 2] = 6
    return bytes(whole)


KEY = new_key()
REQUEST = csr(KEY)
BAD = {
    "of a version that there is not": _version_7(),
    "empty": b"",
    "text": b"-----BEGIN CERTIFICATE REQUEST-----",
    "cut off": csr()[:-10],
    "with something behind it": csr() + b"x",
    "too long": csr() + bytes(4096),
    "signed by another key": _tampered(),
    "P-384": _request(ec.generate_private_key(ec.SECP384R1())),
    "RSA": _request(rsa_key("idp-1")),
    "Ed25519": _request(ed25519.Ed25519PrivateKey.generate()),
    "P-521": _request(ec.generate_private_key(ec.SECP521R1())),
}


@pytest.mark.parametrize("der", BAD.values(), ids=BAD.keys())
def test_what_is_no_request_for_a_p256_key_is_refused(der: bytes) -> None:
    with pytest.raises(BadRequestError, match="request"):
        AgentKey.from_request(der)


def test_only_a_p256_key_is_an_agents() -> None:
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    with pytest.raises(ValueError, match="P-256"):
        AgentKey(other)
    other_kind = rsa_key("idp-1").public_key()
    with pytest.raises(ValueError, match="EC"):
        AgentKey.from_der(other_kind.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


@settings(deadline=None, max_examples=examples(200))
@given(st.integers(0, len(REQUEST) - 1), st.integers(0, 3), st.binary(max_size=3))
def test_whatever_comes_is_the_key_that_signed_it_or_refused(
    at: int, length: int, put: bytes
) -> None:
    data = REQUEST[:at] + put + REQUEST[at + length :]
    try:
        found = AgentKey.from_request(data)
    except BadRequestError:
        return
    assert found.public == KEY.public_key()
