"""Signing keys: what a PEM file may hold, what is published, what stays private (I13)."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from heim_proxy.identity.keys import KeyFileError
from heim_proxy.identity.signing import SigningKeys
from tests.fakes.idp import rsa_key

P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa_key("idp-1")
ED25519 = ed25519.Ed25519PrivateKey.generate()

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def pem(key: PrivateKey, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def test_the_first_key_signs_and_all_are_published() -> None:
    """I13: old and new key overlap."""
    new, old = SigningKeys.generate_pem(), SigningKeys.generate_pem()
    keys = SigningKeys.parse(b"# rotated\n" + new + b"\n" + old)
    published = [jwk["kid"] for jwk in keys.jwks()["keys"]]
    assert published[0] == keys.first.kid == SigningKeys.parse(new).first.kid
    assert published[1] == SigningKeys.parse(old).first.kid


def test_nothing_private_is_published() -> None:
    """I13."""
    keys = SigningKeys.parse(pem(P256))
    (jwk,) = keys.jwks()["keys"]
    assert set(jwk) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    secret = P256.private_numbers().private_value
    assert str(secret) not in json.dumps(jwk)


def test_the_published_set_is_a_copy() -> None:
    keys = SigningKeys.parse(pem(P256))
    keys.jwks()["keys"][0]["kid"] = "changed"
    assert keys.jwks()["keys"][0]["kid"] == keys.first.kid


def test_the_key_id_is_the_rfc_7638_thumbprint() -> None:
    """Against a thumbprint computed by hand, with an x that has a leading zero byte."""
    key = next(
        key
        for key in (ec.derive_private_key(n, ec.SECP256R1()) for n in range(1, 5000))
        if key.public_key().public_numbers().x >> 248 == 0
    )
    numbers = key.public_key().public_numbers()
    x, y = (
        base64.urlsafe_b64encode(part.to_bytes(32)).decode().rstrip("=")
        for part in (numbers.x, numbers.y)
    )
    text = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'
    digest = hashlib.sha256(text.encode()).digest()
    expected = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    signing = SigningKeys.parse(pem(key)).first
    assert (signing.kid, signing.jwk["x"]) == (expected, x)


def test_both_pem_forms_of_openssl_are_read() -> None:
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    keys = SigningKeys.parse(parameters + pem(P256, PrivateFormat.TraditionalOpenSSL))
    assert keys.first.kid == SigningKeys.parse(pem(P256)).first.kid


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "no private key in PEM", id="empty"),
        pytest.param(b"garbage", "no private key in PEM", id="text"),
        pytest.param(pem(RSA), "key 1 is not an EC key on P-256", id="RSA"),
        pytest.param(pem(P384), "key 1 is not an EC key on P-256", id="P-384"),
        pytest.param(pem(P256) + pem(ED25519), "key 2 is not an EC key", id="second is Ed25519"),
        pytest.param(
            P256.private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
            ),
            "key 1 is not an unencrypted private key",
            id="encrypted",
        ),
        pytest.param(
            P256.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "key 1 is not an unencrypted private key",
            id="public",
        ),
        pytest.param(
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
            "key 1 is not an unencrypted private key",
            id="nonsense in PEM",
        ),
        pytest.param(pem(P256)[:120], "no private key in PEM", id="truncated"),
    ],
)
def test_a_file_that_cannot_sign_is_refused_with_the_reason(content: bytes, message: str) -> None:
    with pytest.raises(KeyFileError, match=message) as caught:
        SigningKeys.parse(content, source="assertion.pem")
    assert caught.value.__cause__ is None


def test_the_key_is_generated_once_and_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "assertion.pem"
    kid = SigningKeys.load_or_create(path).first.kid
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKeys.load_or_create(path).first.kid == kid


def test_missing_and_oversized_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="absent: No such file"):
        SigningKeys.load(tmp_path / "absent")
    (tmp_path / "big").write_bytes(b"x" * 70_000)
    with pytest.raises(KeyFileError, match="big: over 65536 bytes"):
        SigningKeys.load(tmp_path / "big")


def test_keys_hide_in_reprs() -> None:
    keys = SigningKeys.parse(pem(P256))
    assert repr(keys) == f"<SigningKeys {keys.first.kid}>"
    assert repr(keys.first) == f"<SigningKey {keys.first.kid} <sealed>>"


def test_a_key_is_found_by_its_exact_name() -> None:
    keys = SigningKeys.parse(pem(P256) + pem(ec.generate_private_key(ec.SECP256R1())))
    for jwk in keys.jwks()["keys"]:
        found = keys.find(jwk["kid"])
        assert found is not None
        assert found.jwk == jwk
    for other in ("", "x", keys.first.kid.lower(), None, 1, [keys.first.kid]):
        assert keys.find(other) is None
