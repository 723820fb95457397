from __future__ import annotations

import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from heim_agent.signed import NotSigned, SignedToken

KEY = ec.generate_private_key(ec.SECP256R1())
CLAIMS = {"sub": "1001", "groups": ["ops", "ü"], "iat": 1}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token(**header: object) -> str:
    """By the library that the proxy uses."""
    return jwt.encode(CLAIMS, KEY, algorithm="ES256", headers={"kid": "one", **header})


def signed(header: bytes, payload: bytes) -> str:
    """Anything at all, with a right signature."""
    text = f"{b64(header)}.{b64(payload)}"
    return f"{text}.{b64(jwt.get_algorithm_by_name('ES256').sign(text.encode(), KEY))}"


def test_a_token_is_read_as_the_library_wrote_it() -> None:
    read = SignedToken.read(token(typ="heim-stream+jwt"))
    assert read.header == {"alg": "ES256", "typ": "heim-stream+jwt", "kid": "one"}
    assert read.claims(KEY.public_key()) == CLAIMS


def test_a_header_that_was_read_before_is_the_same_and_cannot_be_changed() -> None:
    first, second = (SignedToken.read(token(typ="heim-stream+jwt")) for _ in range(2))
    assert first.header is second.header
    with pytest.raises(TypeError):
        first.header["kid"] = "two"  # type: ignore[index]
    assert second.claims(KEY.public_key()) == CLAIMS


def test_signatures_of_any_leading_zeros_verify() -> None:
    """r and s are numbers: in DER one byte more or less."""
    for _ in range(300):
        assert SignedToken.read(token()).claims(KEY.public_key()) == CLAIMS


def test_another_key_signed_it() -> None:
    with pytest.raises(NotSigned, match="another key"):
        SignedToken.read(token()).claims(ec.generate_private_key(ec.SECP256R1()).public_key())


@pytest.mark.parametrize("part", [0, 1, 2])
def test_no_part_of_it_can_be_changed(part: int) -> None:
    parts = token().split(".")
    # Not the last characters: they have bits that mean nothing.
    middle = len(parts[part]) // 2
    other = "A" if parts[part][middle] != "A" else "B"
    parts[part] = parts[part][:middle] + other + parts[part][middle + 1 :]
    with pytest.raises(NotSigned):
        SignedToken.read(".".join(parts)).claims(KEY.public_key())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("a.b", id="two parts"),
        pytest.param(f"{token()}.x", id="four parts"),
        pytest.param(token() + "=", id="padding"),
        pytest.param(token() + "\n", id="a line's end"),
        pytest.param(" " + token(), id="a blank"),
        pytest.param(token().replace("e", "é", 1), id="no ASCII"),
        pytest.param("A" + token()[token().index(".") :], id="a length no bytes have"),
        pytest.param(signed(b"{", b"{}"), id="a header that is no JSON"),
        pytest.param(signed(b"[]", b"{}"), id="a header that is a list"),
        pytest.param(signed(b"[" * 2000, b"{}"), id="a header that is deep"),
        pytest.param(signed(b"\xff\xfe", b"{}"), id="a header that is no text"),
        pytest.param(signed(b'{"alg":"ES256","alg":"none"}', b"{}"), id="a header of two readings"),
    ],
)
def test_what_is_no_token_is_refused_at_once(text: str) -> None:
    with pytest.raises(NotSigned):
        SignedToken.read(text)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"nothing",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 2000,
        json.dumps(1).encode(),
        b'{"sub":1,"sub":2}',
    ],
    ids=repr,
)
def test_what_is_signed_must_be_claims(payload: bytes) -> None:
    with pytest.raises(NotSigned):
        SignedToken.read(signed(b"{}", payload or b" ")).claims(KEY.public_key())


@pytest.mark.parametrize(
    "signature",
    [b"", bytes(64), b"\xff" * 64, b"\x01" * 63, b"\x01" * 65, b"\x01"],
    ids=["none", "zeros", "too large numbers", "short", "long", "one byte"],
)
def test_a_signature_that_cannot_be_one_is_none(signature: bytes) -> None:
    text = token().rpartition(".")[0]
    with pytest.raises(NotSigned):
        SignedToken.read(f"{text}.{b64(signature)}").claims(KEY.public_key())
