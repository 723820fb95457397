"""security.md I1-I12: what an ID token has to be, as a table of everything it may not be."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from heim_proxy.identity.idtoken import Expected, read_header, verify
from heim_proxy.identity.jwks import Key
from heim_proxy.identity.login_errors import LoginRejected
from tests.fakes.idp import OMIT, b64, forge, rsa_key

NOW = 1_800_000_000.0
ISSUER = "https://idp.example.test"
CLIENT = "heim"
ALGORITHMS = ("RS256", "ES256", "PS256", "EdDSA")
PRIVATE = rsa_key("idp-1")
KEY = Key("key-1", "RSA", None, None, PRIVATE.public_key())
EXPECTED = Expected(ISSUER, CLIENT, "n0nce", ALGORITHMS, access_token="access")
HEADER = {"alg": "RS256", "kid": "key-1", "typ": "JWT"}
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "sub": "alice",
    "aud": CLIENT,
    "iat": int(NOW) - 5,
    "exp": int(NOW) + 300,
    "nonce": "n0nce",
}
ACCESS_HASH = b64(hashlib.sha256(b"access").digest()[:16])


def claims(**changes: object) -> dict[str, Any]:
    merged = {**CLAIMS, **changes}
    return {name: value for name, value in merged.items() if value is not OMIT}


def header(**changes: object) -> dict[str, Any]:
    merged = {**HEADER, **changes}
    return {name: value for name, value in merged.items() if value is not OMIT}


def signed(payload: object = None, head: object = None, key: Any = PRIVATE) -> str:
    return forge(head if head is not None else HEADER, payload or CLAIMS, key)


def refused(token: str, expected: Expected = EXPECTED, key: Key = KEY) -> str:
    with pytest.raises(LoginRejected) as caught:
        verify(token, key, expected, now=NOW)
    return caught.value.detail


@pytest.mark.parametrize(
    ("payload", "head"),
    [
        pytest.param(CLAIMS, HEADER, id="plain"),
        pytest.param(CLAIMS, header(typ=OMIT), id="without typ"),
        pytest.param(CLAIMS, header(typ="jwt"), id="typ in lower case"),
        pytest.param(CLAIMS, header(kid=OMIT), id="without kid"),
        pytest.param(CLAIMS, header(alg="PS256"), id="PS256"),
        pytest.param(claims(aud=[CLIENT]), HEADER, id="aud as a list"),
        pytest.param(claims(aud=[CLIENT, "api"], azp=CLIENT), HEADER, id="two aud with azp"),
        pytest.param(claims(azp=CLIENT), HEADER, id="azp"),
        pytest.param(claims(iat=NOW + 59), HEADER, id="provider's clock 59 s ahead"),
        pytest.param(claims(exp=NOW - 59), HEADER, id="expired 59 s ago"),
        pytest.param(claims(nbf=NOW + 59), HEADER, id="nbf within the skew"),
        pytest.param(claims(at_hash=ACCESS_HASH), HEADER, id="at_hash"),
        pytest.param(claims(exp=NOW + 300.5), HEADER, id="fractional times"),
    ],
)
def test_a_good_token_is_believed(payload: dict[str, Any], head: dict[str, Any]) -> None:
    found = verify(signed(payload, head), KEY, EXPECTED, now=NOW)
    assert (found.issuer, found.subject, found.auth_time) == (ISSUER, "alice", None)
    assert found.all["nonce"] == "n0nce"


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(header(alg="none"), id="I1 none"),
        pytest.param(header(alg="None"), id="I1 None"),
        pytest.param(header(alg="nOnE"), id="I1 nOnE"),
        pytest.param(header(alg=""), id="I1 empty"),
        pytest.param(header(alg=OMIT), id="I1 missing"),
        pytest.param(header(alg=None), id="I1 null"),
        pytest.param(header(alg=["RS256"]), id="I1 list"),
        pytest.param(header(alg="HS256"), id="I2 HS256"),
        pytest.param(header(alg="RS512"), id="not allowed"),
        pytest.param(header(crit=["exp"]), id="I5 crit"),
        pytest.param(header(crit=[]), id="I5 empty crit"),
        pytest.param(header(crit=["b64"], b64=False), id="I5 b64"),
        pytest.param(header(b64=True), id="I5 b64 true"),
        pytest.param(header(zip="DEF"), id="I11 zip"),
        pytest.param(header(enc="A128GCM"), id="I11 enc"),
        pytest.param(header(cty="JWT"), id="nested"),
        pytest.param(header(typ="at+jwt"), id="access token"),
        pytest.param(header(typ="logout+jwt"), id="logout token"),
        pytest.param(header(typ=1), id="typ not a string"),
        pytest.param(header(kid=1), id="kid not a string"),
        pytest.param(b'{"alg":"RS256","alg":"none"}', id="I10 alg twice"),
        pytest.param(b"[]", id="array"),
        pytest.param(b"{", id="broken"),
    ],
)
def test_a_header_we_do_not_accept_is_refused_before_any_key_is_used(head: object) -> None:
    for key in (PRIVATE, None):
        token = signed(head=head, key=key)
        with pytest.raises(LoginRejected):
            read_header(token, ALGORITHMS)
        refused(token)


def test_i2_hs256_with_the_public_key_as_secret_is_refused_even_if_hs256_were_allowed() -> None:
    pem = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    token = signed(head=header(alg="HS256"), key=pem)
    refused(token)
    lax = Expected(ISSUER, CLIENT, "n0nce", ("RS256", "HS256"))
    assert refused(token, lax) == "the key does not fit the algorithm"


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
def test_i3_a_key_in_the_header_proves_nothing(name: str) -> None:
    thief = rsa_key("thief")
    numbers = thief.public_key().public_numbers()
    jwk = {"kty": "RSA", "n": b64(numbers.n.to_bytes(256, "big")), "e": "AQAB"}
    value = {"jwk": jwk, "jku": "https://evil.test/", "x5u": "https://evil.test/", "x5c": ["AA"]}
    refused(signed(head=header(**{name: value[name]}), key=thief))
    assert verify(signed(head=header(**{name: value[name]})), KEY, EXPECTED, now=NOW)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"aud": "other"}, id="I6 aud wrong"),
        pytest.param({"aud": "heim2"}, id="I6 aud has ours as prefix"),
        pytest.param({"aud": "hei"}, id="I6 aud is a prefix of ours"),
        pytest.param({"aud": OMIT}, id="I6 aud missing"),
        pytest.param({"aud": None}, id="I6 aud null"),
        pytest.param({"aud": []}, id="I6 aud empty"),
        pytest.param({"aud": [CLIENT, 1]}, id="I6 aud with a number"),
        pytest.param({"aud": {CLIENT: 1}}, id="I6 aud an object"),
        pytest.param({"aud": [CLIENT, "other"]}, id="I6 two aud without azp"),
        pytest.param({"aud": [CLIENT, "other"], "azp": "other"}, id="I6 two aud, azp wrong"),
        pytest.param({"azp": "other"}, id="I6 azp wrong"),
        pytest.param({"azp": ""}, id="I6 azp empty"),
        pytest.param({"azp": [CLIENT]}, id="I6 azp a list"),
        pytest.param({"iss": ISSUER + "/"}, id="I7 trailing slash"),
        pytest.param({"iss": "https://other.example.test"}, id="I7 other tenant"),
        pytest.param({"iss": "HTTPS://idp.example.test"}, id="I7 case"),
        pytest.param({"iss": OMIT}, id="I7 missing"),
        pytest.param({"iss": [ISSUER]}, id="I7 list"),
        pytest.param({"exp": OMIT}, id="I8 exp missing"),
        pytest.param({"exp": NOW - 61}, id="I8 exp past"),
        pytest.param({"exp": 1e300}, id="I8 exp 1e300"),
        pytest.param({"exp": str(int(NOW) + 300)}, id="I8 exp a string"),
        pytest.param({"exp": -1}, id="I8 exp negative"),
        pytest.param({"exp": 0}, id="I8 exp zero"),
        pytest.param({"exp": True}, id="I8 exp true"),
        pytest.param({"exp": None}, id="I8 exp null"),
        pytest.param({"exp": NOW + 40 * 86400}, id="I8 valid for 40 days"),
        pytest.param({"iat": OMIT}, id="I8 iat missing"),
        pytest.param({"iat": NOW + 61}, id="I8 iat in the future"),
        pytest.param({"iat": "1"}, id="I8 iat a string"),
        pytest.param({"nbf": NOW + 61}, id="I8 nbf in the future"),
        pytest.param({"nbf": "soon"}, id="I8 nbf a string"),
        pytest.param({"iat": NOW - 661, "exp": NOW + 300}, id="I9 older than ten minutes"),
        pytest.param({"sub": OMIT}, id="sub missing"),
        pytest.param({"sub": ""}, id="sub empty"),
        pytest.param({"sub": 1}, id="sub a number"),
        pytest.param({"sub": "a" * 256}, id="sub too long"),
        pytest.param({"sub": "a\nb"}, id="sub with a line end"),
        pytest.param({"sub": "älice"}, id="sub not ASCII"),
        pytest.param({"nonce": OMIT}, id="H4 nonce missing"),
        pytest.param({"nonce": "other"}, id="H4 nonce wrong"),
        pytest.param({"nonce": ["n0nce"]}, id="H4 nonce a list"),
        pytest.param({"nonce": None}, id="H4 nonce null"),
        pytest.param({"at_hash": "AAAA"}, id="I17 at_hash wrong"),
        pytest.param({"at_hash": None}, id="I17 at_hash null"),
        pytest.param({"auth_time": "1"}, id="auth_time a string"),
        pytest.param({"auth_time": NOW + 61}, id="auth_time in the future"),
    ],
)
def test_a_claim_we_do_not_accept_is_refused(changes: dict[str, object]) -> None:
    refused(signed(claims(**changes)))


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b'{"a":NaN,' + json.dumps(CLAIMS).encode()[1:], id="I8 NaN"),
        pytest.param(b'{"sub":"bob",' + json.dumps(CLAIMS).encode()[1:], id="I10 sub twice"),
        pytest.param(json.dumps([CLAIMS]).encode(), id="I10 array"),
        pytest.param(
            json.dumps(CLAIMS).encode()[:-1] + b',"x":' + b"[" * 9000 + b"]" * 9000 + b"}",
            id="I10 nested deep",
        ),
        pytest.param(json.dumps(claims(x="y" * 1_000_000)).encode(), id="I10 1 MB"),
        pytest.param(zlib.compress(json.dumps(CLAIMS).encode()), id="I11 compressed"),
    ],
)
def test_a_payload_with_several_meanings_is_refused_though_signed(payload: bytes) -> None:
    refused(signed(payload))


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda t: "", id="empty"),
        pytest.param(lambda t: t.rpartition(".")[0], id="two parts"),
        pytest.param(lambda t: t + ".x", id="four parts"),
        pytest.param(lambda t: "a.b.c.d.e", id="I11 five parts: encrypted"),
        pytest.param(lambda t: t.rpartition(".")[0] + ".", id="signature empty"),
        pytest.param(lambda t: t[:-4] + "AAAA", id="signature altered"),
        pytest.param(lambda t: t + "=", id="padded"),
        pytest.param(lambda t: t + "\n", id="line end"),
        pytest.param(lambda t: " " + t, id="space"),
        pytest.param(lambda t: t.replace(".", ".é", 1), id="not ASCII"),
    ],
)
def test_a_damaged_token_is_refused(spoil: Any) -> None:
    refused(spoil(signed()))


def test_every_altered_byte_of_the_payload_is_noticed() -> None:
    head, payload, signature = signed().split(".")
    raw = base64.urlsafe_b64decode(payload + "==")
    for at in range(len(raw)):
        changed = bytes((*raw[:at], raw[at] ^ 1, *raw[at + 1 :]))
        refused(f"{head}.{b64(changed)}.{signature}")


def test_another_keys_signature_is_refused() -> None:
    assert refused(signed(key=rsa_key("thief"))) == "not valid: InvalidSignatureError"


@pytest.mark.parametrize(
    ("algorithm", "private", "kty", "crv"),
    [
        pytest.param("ES256", ec.generate_private_key(ec.SECP256R1()), "EC", "P-256", id="ES256"),
        pytest.param("EdDSA", ed25519.Ed25519PrivateKey.generate(), "OKP", "Ed25519", id="EdDSA"),
    ],
)
def test_other_algorithms_are_verified_with_their_own_keys(
    algorithm: str, private: Any, kty: str, crv: str
) -> None:
    key = Key("k", kty, crv, None, private.public_key())
    digest = hashlib.sha512 if algorithm == "EdDSA" else hashlib.sha256
    whole = digest(b"access").digest()
    payload = claims(at_hash=b64(whole[: len(whole) // 2]))
    token = forge(header(alg=algorithm), payload, private)
    assert verify(token, key, EXPECTED, now=NOW).subject == "alice"
    assert refused(token) == "the key does not fit the algorithm"
    altered = f"{token[:-6]}AAAAAA"
    assert refused(altered, key=key) == "not valid: InvalidSignatureError"


def test_at_hash_without_an_access_token_is_refused() -> None:
    bare = Expected(ISSUER, CLIENT, "n0nce", ALGORITHMS)
    assert refused(signed(claims(at_hash=ACCESS_HASH)), bare) == "at_hash without an access token"


@pytest.mark.parametrize(
    ("auth_time", "good"),
    [
        pytest.param(NOW - 500, True, id="recent"),
        pytest.param(NOW - 659, True, id="within the skew"),
        pytest.param(NOW - 661, False, id="too long ago"),
    ],
)
def test_h22_the_age_that_was_asked_for_is_checked(auth_time: float, good: bool) -> None:
    asked = Expected(ISSUER, CLIENT, "n0nce", ALGORITHMS, max_age_s=600.0)
    token = signed(claims(auth_time=auth_time))
    if good:
        assert verify(token, KEY, asked, now=NOW).auth_time == auth_time
    else:
        assert refused(token, asked) == "the provider did not ask the person again"


def test_an_auth_time_a_little_ahead_counts_as_now() -> None:
    assert verify(signed(claims(auth_time=NOW + 30)), KEY, EXPECTED, now=NOW).auth_time == NOW


def test_nothing_of_the_token_is_in_the_error() -> None:
    token = signed(claims(nonce="canary-canary", sub="canary-sub", iss="https://canary.test"))
    assert "canary" not in refused(token)
