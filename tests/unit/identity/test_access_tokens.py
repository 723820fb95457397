"""Access tokens: what they say, and everything that is not believed (I1-I15)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from heim_proxy.identity.access_tokens import (
    ACCESS_TYP,
    CLOCK_SKEW_S,
    LIFETIME_S,
    MAX_TOKEN_CHARACTERS,
    AccessTokenInvalid,
)
from heim_proxy.identity.assertion import ASSERTION_TYP, IdentityHeaders
from heim_proxy.identity.session import Session
from heim_proxy.identity.signing import SigningKeys
from tests.fakes.programs import LOGIN_URL, Desk
from tests.fakes.sessions import NOW
from tests.fakes.verifier import AssertionInvalid, Verifier

CLAIMS: dict[str, Any] = {
    "iss": LOGIN_URL,
    "aud": LOGIN_URL,
    "sub": "1001",
    "sid": "s" * 24,
    "iat": int(NOW),
    "nbf": int(NOW),
    "exp": int(NOW) + LIFETIME_S,
}
OMIT = object()


@pytest.fixture
async def desk() -> Desk:
    return await Desk.up()


@pytest.fixture
async def session(desk: Desk) -> Session:
    return (await desk.log_in()).session


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def sign(
    desk: Desk, *, typ: Any = ACCESS_TYP, header: dict[str, Any] | None = None, **change: Any
) -> str:
    """A token by our own key, whatever it says: PyJWT would refuse to write some of them."""
    claims = {name: value for name, value in (CLAIMS | change).items() if value is not OMIT}
    head = {"alg": "ES256", "typ": typ, "kid": desk.keys.first.kid, **(header or {})}
    signed = f"{part(head)}.{part(claims)}"
    der = desk.keys.first.private.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
    r, s = decode_dss_signature(der)
    raw = r.to_bytes(32) + s.to_bytes(32)
    return f"{signed}.{base64.urlsafe_b64encode(raw).rstrip(b'=').decode()}"


async def test_a_token_says_whose_login_it_is(desk: Desk, session: Session) -> None:
    token = desk.access.issue(session, NOW)
    claims = desk.access.verify(token.text.reveal(), now=NOW)
    assert claims == (session.sid, "1001", NOW + LIFETIME_S)
    assert token.expires == NOW + LIFETIME_S


async def test_a_token_is_es256_with_a_type_of_its_own(desk: Desk, session: Session) -> None:
    header = jwt.get_unverified_header(desk.access.issue(session, NOW).text.reveal())
    assert header == {"alg": "ES256", "typ": "heim-cli+jwt", "kid": desk.keys.first.kid}


async def test_a_token_says_nothing_about_the_person_but_the_subject(
    desk: Desk, session: Session
) -> None:
    text = desk.access.issue(session, NOW).text.reveal()
    claims = jwt.decode(text, options={"verify_signature": False})
    assert set(claims) == set(CLAIMS)


async def test_a_token_ends_with_its_session(desk: Desk, session: Session) -> None:
    late = session.expires - 100
    token = desk.access.issue(session, late)
    assert token.expires == session.expires
    with pytest.raises(AccessTokenInvalid):
        desk.access.verify(token.text.reveal(), now=session.expires)


async def test_an_expired_token_is_told_apart(desk: Desk, session: Session) -> None:
    text = desk.access.issue(session, NOW).text.reveal()
    assert desk.access.verify(text, now=NOW + LIFETIME_S - 1)
    with pytest.raises(AccessTokenInvalid) as caught:
        desk.access.verify(text, now=NOW + LIFETIME_S)
    assert caught.value.expired


async def test_tokens_of_a_key_that_was_rotated_live_on_while_it_is_there(
    desk: Desk, session: Session
) -> None:
    text = desk.access.issue(session, NOW).text.reveal()
    old = desk.keys.first
    new = SigningKeys.parse(SigningKeys.generate_pem()).first
    desk.keys = SigningKeys([new, old])
    assert desk.access.verify(text, now=NOW)
    desk.keys = SigningKeys([new])
    with pytest.raises(AccessTokenInvalid, match="unknown key"):
        desk.access.verify(text, now=NOW)


async def test_a_login_host_that_moved_believes_no_older_token(
    desk: Desk, session: Session
) -> None:
    text = desk.access.issue(session, NOW).text.reveal()
    desk.login_url = "https://login.example.test"
    with pytest.raises(AccessTokenInvalid, match="another issuer"):
        desk.access.verify(text, now=NOW)


BAD: dict[str, dict[str, Any]] = {
    "no issuer": {"iss": OMIT},
    "another issuer": {"iss": "https://evil.test"},
    "issuer with a slash": {"iss": f"{LOGIN_URL}/"},
    "issuer in a list": {"iss": [LOGIN_URL]},
    "no audience": {"aud": OMIT},
    "an application's audience": {"aud": "app1.example.test"},
    "a list of audiences": {"aud": [LOGIN_URL, "https://evil.test"]},
    "no session": {"sid": OMIT},
    "an empty session": {"sid": ""},
    "a session that is a number": {"sid": 1},
    "a session that is too long": {"sid": "s" * 65},
    "no subject": {"sub": OMIT},
    "an empty subject": {"sub": ""},
    "no end": {"exp": OMIT},
    "an end that is text": {"exp": str(int(NOW) + 60)},
    "an end that is true": {"exp": True},
    "an end that is endless": {"exp": 1e300},
    "an end that is null": {"exp": None},
    "no beginning": {"nbf": OMIT},
    "no time of issue": {"iat": OMIT},
    "issued in the future": {"iat": int(NOW) + CLOCK_SKEW_S + 1, "exp": int(NOW) + 600},
    "not valid yet": {"nbf": int(NOW) + CLOCK_SKEW_S + 1},
    "a life too long": {"exp": int(NOW) + LIFETIME_S + 1},
    "the assertion's type": {"typ": ASSERTION_TYP},
    "no type": {"typ": None},
    "a general type": {"typ": "JWT"},
    "another case": {"typ": ACCESS_TYP.upper()},
    "a key id that is a list": {"header": {"kid": ["x"]}},
    "no known key": {"header": {"kid": "x"}},
    "an extension we must understand": {"header": {"crit": ["exp2"], "exp2": 1}},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
async def test_what_is_wrong_is_not_believed(desk: Desk, change: dict[str, Any]) -> None:
    with pytest.raises(AccessTokenInvalid) as caught:
        desk.access.verify(sign(desk, **change), now=NOW)
    assert not caught.value.expired


async def test_a_clock_that_is_a_little_behind_is_forgiven(desk: Desk) -> None:
    assert desk.access.verify(sign(desk), now=NOW - CLOCK_SKEW_S)


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "HS256", "ES384", "RS256"])
async def test_no_other_algorithm_is_accepted(desk: Desk, alg: str) -> None:
    header = {"alg": alg, "typ": ACCESS_TYP, "kid": desk.keys.first.kid}
    _, claims, signature = sign(desk).split(".")
    for end in (signature, ""):
        with pytest.raises(AccessTokenInvalid):
            desk.access.verify(f"{part(header)}.{claims}.{end}", now=NOW)


async def test_the_public_key_is_no_hmac_secret(desk: Desk) -> None:
    public = desk.keys.first.private.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
    head = part({"alg": "HS256", "typ": ACCESS_TYP, "kid": desk.keys.first.kid})
    signed = f"{head}.{part(CLAIMS)}"
    mac = hmac.new(public, signed.encode(), hashlib.sha256).digest()
    forged = f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    with pytest.raises(AccessTokenInvalid):
        desk.access.verify(forged, now=NOW)


async def test_a_key_in_the_token_is_not_used(desk: Desk) -> None:
    other = SigningKeys.parse(SigningKeys.generate_pem()).first
    for kid in (other.kid, desk.keys.first.kid):
        token = jwt.encode(
            CLAIMS, other.private, algorithm="ES256",
            headers={"typ": ACCESS_TYP, "kid": kid, "jwk": other.jwk},
        )  # fmt: skip
        with pytest.raises(AccessTokenInvalid):
            desk.access.verify(token, now=NOW)


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "é.é.é",
        "\0",
        "Bearer x",
        "x" * (MAX_TOKEN_CHARACTERS + 1),
        f"{base64.urlsafe_b64encode(b'[' * 2900).decode()}.e30.x",
        f"{part([])}.{part({})}.x",
        f"{part({'alg': 'ES256', 'typ': ACCESS_TYP, 'kid': {}})}.{part({})}.x",
    ],
    ids=range(11),
)
async def test_garbage_is_refused_without_an_accident(desk: Desk, token: str) -> None:
    with pytest.raises(AccessTokenInvalid):
        desk.access.verify(token, now=NOW)


async def test_every_flipped_character_is_noticed(desk: Desk, session: Session) -> None:
    text = desk.access.issue(session, NOW).text.reveal()
    for at in range(0, len(text) - 1, 7):
        flipped = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with pytest.raises(AccessTokenInvalid):
            desk.access.verify(flipped, now=NOW)


async def test_neither_kind_of_token_passes_for_the_other(desk: Desk, session: Session) -> None:
    """I14, I15: an upstream must not reflect what it was told, nor believe what a CLI holds."""
    headers = IdentityHeaders(desk.keys, LOGIN_URL, groups=())
    lines = headers.block(
        session, "app", LOGIN_URL, dialects=("heimdallr",), roles=(), now=NOW
    ).decode()
    (assertion,) = (line[14:] for line in lines.split("\r\n") if line.startswith("X-Auth-Token"))
    with pytest.raises(AccessTokenInvalid, match="not an access token"):
        desk.access.verify(assertion.strip(), now=NOW)
    access = desk.access.issue(session, NOW).text.reveal()
    with pytest.raises(AssertionInvalid, match="not an assertion"):
        Verifier(desk.keys.jwks(), LOGIN_URL).verify(access, audience=LOGIN_URL, now=NOW)


async def test_nothing_shows_a_token(desk: Desk, session: Session) -> None:
    token = desk.access.issue(session, NOW)
    assert token.text.reveal() not in repr(token)
    with pytest.raises(AccessTokenInvalid) as caught:
        desk.access.verify(token.text.reveal() + "x", now=NOW)
    assert token.text.reveal()[:20] not in str(caught.value)
    assert caught.value.__cause__ is None
