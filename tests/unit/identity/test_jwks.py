"""Which published keys may verify a signature, and which of them a header can point at."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from heim_proxy.identity.jwks import MAX_KEYS, parse_jwks
from heim_proxy.identity.login_errors import ProviderFault
from tests.fakes.idp import b64, rsa_key


def rsa_jwk(name: str = "a", bits: int = 2048, **changes: object) -> dict[str, Any]:
    jwk: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(
        rsa_key(name, bits).public_key(), as_dict=True
    )
    jwk.pop("key_ops", None)
    return {**jwk, "kid": name, **changes}


def ec_jwk(curve: ec.EllipticCurve, **changes: object) -> dict[str, Any]:
    public = ec.generate_private_key(curve).public_key()
    jwk: dict[str, Any] = jwt.algorithms.ECAlgorithm.to_jwk(public, as_dict=True)
    jwk.pop("key_ops", None)
    return {**jwk, "kid": "ec", **changes}


def ed_jwk() -> dict[str, Any]:
    raw = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(raw), "kid": "ed"}


def document(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


@pytest.mark.parametrize(
    ("jwk", "algorithm"),
    [
        pytest.param(rsa_jwk(), "RS256", id="RS256"),
        pytest.param(rsa_jwk(), "PS256", id="PS256 with an RSA key that names no algorithm"),
        pytest.param(rsa_jwk(alg="RS256", use="sig", key_ops=["verify"]), "RS256", id="all said"),
        pytest.param(ec_jwk(ec.SECP256R1()), "ES256", id="ES256"),
        pytest.param(ed_jwk(), "EdDSA", id="EdDSA"),
    ],
)
def test_a_signing_key_is_found_by_kid_and_without(jwk: dict[str, Any], algorithm: str) -> None:
    keys = parse_jwks(document(jwk))
    assert keys.find(jwk["kid"], algorithm) is not None
    assert keys.find(None, algorithm) is not None
    assert keys.find("another", algorithm) is None


@pytest.mark.parametrize(
    ("jwk", "algorithm"),
    [
        pytest.param(rsa_jwk(use="enc"), "RS256", id="I12 for encryption"),
        pytest.param(rsa_jwk(key_ops=["encrypt"]), "RS256", id="I12 operations without verify"),
        pytest.param(rsa_jwk(key_ops="verify"), "RS256", id="I12 operations not a list"),
        pytest.param(rsa_jwk("small", 1024), "RS256", id="I12 RSA 1024"),
        pytest.param(rsa_jwk(e="Ag"), "RS256", id="I12 even exponent"),
        pytest.param(rsa_jwk(e="AQ"), "RS256", id="I12 exponent 1"),
        pytest.param(rsa_jwk(n="!!"), "RS256", id="modulus not base64"),
        pytest.param(rsa_jwk(d="AQ"), "RS256", id="private key published"),
        pytest.param(rsa_jwk(kty="EC"), "ES256", id="I12 RSA key said to be EC"),
        pytest.param(rsa_jwk(alg="PS256"), "RS256", id="key is for another algorithm"),
        pytest.param(rsa_jwk(kid=1), "RS256", id="kid not a string"),
        pytest.param(rsa_jwk(), "ES256", id="I12 wrong kty"),
        pytest.param(ec_jwk(ec.SECP384R1()), "ES256", id="I12 wrong curve"),
        pytest.param(ec_jwk(ec.SECP256R1(), x=b64(b"\1" * 32)), "ES256", id="I12 off the curve"),
        pytest.param(
            {"kty": "oct", "k": b64(b"k" * 32), "kid": "a", "alg": "HS256"}, "HS256", id="symmetric"
        ),
    ],
)
def test_a_key_that_must_not_verify_is_left_out(jwk: dict[str, Any], algorithm: str) -> None:
    good = rsa_jwk("good")
    keys = parse_jwks(document(jwk, good))
    kid = jwk["kid"] if isinstance(jwk["kid"], str) else None
    assert keys.find(kid or "x", algorithm) is None
    assert keys.find("good", "RS256") is not None


def test_a_header_without_kid_is_no_choice_between_two_keys() -> None:
    assert parse_jwks(document(rsa_jwk("a"), rsa_jwk("b"))).find(None, "RS256") is None


def test_two_keys_of_one_kid_are_no_choice_either() -> None:
    keys = parse_jwks(document(rsa_jwk("a", kid="k"), rsa_jwk("b", kid="k")))
    assert keys.find("k", "RS256") is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html>", id="html"),
        pytest.param(b"{}", id="no keys"),
        pytest.param(b'{"keys":{}}', id="keys not a list"),
        pytest.param(b'{"keys":[],"keys":[]}', id="keys twice"),
        pytest.param(document(*[{}] * (MAX_KEYS + 1)), id="too many"),
    ],
)
def test_what_is_no_key_set_is_the_providers_fault(body: bytes) -> None:
    with pytest.raises(ProviderFault):
        parse_jwks(body)


def test_entries_that_are_no_keys_are_left_out() -> None:
    assert len(parse_jwks(document(None, 1, "x", {}, {"kty": "RSA"}))) == 0
