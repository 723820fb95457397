from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from heim_agent.statement import Statement, StatementRefused, verify
from heim_wire.agents import STATEMENT_TYPE
from tests.fakes.lane_host import Root

ISSUER = "https://auth.example.test"
ROOT = Root()
OTHER = Root()
NEXT = Root(ec.SECP384R1())


def claims(**lies: object) -> dict[str, object]:
    told: dict[str, object] = {
        "iss": ISSUER,
        "aud": "thumbprint",
        "nonce": "fresh",
        "iat": 1000,
        "exp": 1060,
        "keys": [OTHER.jwk],
        "roots": [ROOT.jwk, NEXT.jwk],
        **lies,
    }
    return {name: value for name, value in told.items() if value is not None}


def believed(token: str, *roots: Root) -> Statement:
    pinned = [root.jwk for root in roots or (ROOT,)]
    return verify(token, roots=pinned, issuer=ISSUER, audience="thumbprint", nonce="fresh")


@pytest.mark.parametrize("root", [ROOT, NEXT], ids=["P-256", "P-384"])
def test_a_statement_says_time_and_keys(root: Root) -> None:
    found = believed(root.sign(claims()), ROOT, NEXT)
    assert found.issued_at == 1000.0
    assert [key["kid"] for key in found.roots] == [ROOT.kid, NEXT.kid]
    assert [key["kid"] for key in found.keys] == [OTHER.kid]


def rsa_pair(bits: int) -> tuple[rsa.RSAPrivateKey, dict[str, Any]]:
    key = rsa.generate_private_key(65537, bits)
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    return key, {**{name: jwk[name] for name in ("kty", "n", "e")}, "kid": "rsa"}


def test_an_rsa_authority_signs_too() -> None:
    key, jwk = rsa_pair(2048)
    token = jwt.encode(
        claims(roots=[jwk]), key, "RS256", headers={"typ": STATEMENT_TYPE, "kid": "rsa"}
    )
    found = verify(token, roots=[jwk], issuer=ISSUER, audience="thumbprint", nonce="fresh")
    assert found.roots[0]["kid"] == "rsa"


@pytest.mark.parametrize(
    ("lies", "why"),
    [
        ({"aud": "another"}, "for another agent"),
        ({"aud": ["thumbprint", "another"]}, "for another agent"),
        ({"iss": "https://auth.example.org"}, "by another proxy"),
        ({"nonce": "stale"}, "an old one"),
        ({"nonce": 7}, "an old one"),
        ({"nonce": "frésh"}, "an old one"),
        ({"exp": 1000}, "no sensible times"),
        ({"exp": 2000}, "no sensible times"),
        ({"iat": True}, "no sensible times"),
        ({"iat": "soon"}, "broken|no sensible times"),
        ({"roots": []}, "unpin the authority"),
        ({"roots": [OTHER.jwk]}, "unpin the authority"),
        ({"roots": "all"}, "the roots of its statement are no keys"),
        ({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "x"}]}, "a secret key"),
        ({"keys": [{**OTHER.jwk, "d": "AA"}]}, "a secret key"),
        ({"keys": [{**OTHER.jwk, "x": "AA"}]}, "the keys of its statement are no keys"),
        ({"keys": [{**OTHER.jwk, "crv": "P-521"}]}, "a key of kind EC P-521"),
        ({"keys": [{**OTHER.jwk, "kid": 7}]}, "without a kid"),
        ({"keys": ["x"]}, "without a kid"),
        ({"roots": [ROOT.jwk, rsa_pair(1024)[1]]}, "an RSA key of 1024 bits"),
        ({"keys": {}}, "are no keys"),
        *(({name: None}, "broken|another") for name in claims()),
    ],
    # Not the values: keys are others in every process.
    ids=lambda value: ",".join(value) if isinstance(value, dict) else value,
)
def test_a_statement_that_lies_is_refused(lies: dict[str, object], why: str) -> None:
    with pytest.raises(StatementRefused, match=why):
        believed(ROOT.sign(claims(**lies)))


def unsigned() -> str:
    parts = ({"alg": "none", "typ": STATEMENT_TYPE, "kid": ROOT.kid}, claims())
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join((*encoded, b"")).decode()


def with_public_key_as_secret() -> str:
    """The classic: HS256 with the public key as its secret."""
    return jwt.encode(
        claims(), ROOT.jwk["x"] * 2, "HS256", headers={"typ": STATEMENT_TYPE, "kid": ROOT.kid}
    )


def tampered() -> str:
    head, body, signature = ROOT.sign(claims()).split(".")
    other = ROOT.sign(claims(keys=[ROOT.jwk])).split(".")[1]
    assert body != other
    return f"{head}.{other}.{signature}"


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("", "no signed statement"),
        ("x.y", "no signed statement"),
        ("a" * 4096, "no signed statement"),
        (unsigned(), "broken|no signed"),
        (with_public_key_as_secret(), "broken"),
        (tampered(), "signature of its statement is wrong"),
        (OTHER.sign(claims()), "an authority that is not pinned"),
        (OTHER.sign(claims(), kid=ROOT.kid), "signature of its statement is wrong"),
        (NEXT.sign(claims(), kid=ROOT.kid), "broken|signature"),
        (ROOT.sign(claims(), kid=""), "not pinned"),
        (ROOT.sign(claims(), typ="heim-stream+jwt"), "something else that was signed"),
        (ROOT.sign(claims(), typ="JWT"), "something else that was signed"),
        (ROOT.sign(claims(), crit=["x"], x=1), "broken|no signed"),
    ],
    ids=[
        "nothing", "rubbish", "long", "alg none", "HS256", "tampered", "foreign", "our kid",
        "other curve", "no kid", "an assertion", "a plain JWT", "critical extension",
    ],
)  # fmt: skip
def test_what_is_not_signed_by_a_pinned_root_is_refused(token: str, why: str) -> None:
    with pytest.raises(StatementRefused, match=why):
        believed(token)
