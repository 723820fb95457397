from __future__ import annotations

import base64
import hashlib
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from heim_agent.key import AgentKey
from tests.fakes.agent import b64url, thumbprint
from tests.fakes.lane_host import Root


def pem_of(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, password: bytes = b""
) -> bytes:
    sealed = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed)


def test_a_key_survives_its_file() -> None:
    key = AgentKey.generate()
    again = AgentKey.from_pem(key.to_pem())
    assert again.thumbprint == key.thumbprint
    assert again.fingerprint == key.fingerprint


def test_its_names_are_those_of_the_rfc_and_of_ssh() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    key = AgentKey(private)
    der = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = base64.b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
    assert key.fingerprint == f"SHA256:{digest}"
    assert key.thumbprint == b64url(thumbprint(private.public_key()))


def test_a_signature_verifies_and_a_request_names_nobody() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    key = AgentKey(private)
    private.public_key().verify(key.sign(b"data"), b"data", ec.ECDSA(hashes.SHA256()))
    request = x509.load_der_x509_csr(key.request())
    assert request.is_signature_valid
    assert request.public_key() == private.public_key()
    assert request.subject.rfc4514_string() == "CN=heim-agent"
    assert not list(request.extensions)


def test_it_knows_its_certificates() -> None:
    root, private = Root(), ec.generate_private_key(ec.SECP256R1())
    ours = x509.load_der_x509_certificate(root.certificate(private.public_key()))
    assert AgentKey(private).holds(ours)
    assert not AgentKey.generate().holds(ours)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a key",
        pem_of(ec.generate_private_key(ec.SECP384R1())),
        pem_of(ed25519.Ed25519PrivateKey.generate()),
        pem_of(ec.generate_private_key(ec.SECP256R1()), b"secret"),
    ],
    ids=["nothing", "text", "P-384", "Ed25519", "encrypted"],
)
def test_a_file_with_another_key_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="key"):
        AgentKey.from_pem(data)


def test_nothing_of_it_is_shown() -> None:
    key = AgentKey.generate()
    assert repr(key) == f"<AgentKey {key.fingerprint}>"
    private = load_pem_private_key(key.to_pem(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    secret = f"{private.private_numbers().private_value:x}"
    assert secret not in json.dumps(repr(key)).lower()
