"""Assertions: what they say, for whom and how long, and that nothing else is believed (I13)."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from joserfc import jwk
from joserfc import jwt as joserfc_jwt

from heim_proxy.access.subject import Subject, SubjectKind
from heim_proxy.identity.assertion import (
    ASSERTION_TYP,
    IdentityHeaders,
)
from heim_proxy.identity.session import Session
from heim_proxy.identity.signing import SigningKeys
from tests.fakes.sessions import NOW, Stage
from tests.fakes.verifier import AssertionInvalid, Verifier

ISSUER = "https://auth.example.test:8443"
HOST = "app1.example.test"
PEM = SigningKeys.generate_pem()
KEYS = SigningKeys.parse(PEM)
HEADERS = IdentityHeaders(KEYS, ISSUER, groups={"dev", "ops"})
VERIFIER = Verifier(KEYS.jwks(), ISSUER)


@pytest.fixture
async def session() -> Session:
    return await (await Stage.up()).sign_in()


def block(
    session: Session,
    *,
    headers: IdentityHeaders = HEADERS,
    backend: str = "grafana",
    host: str = HOST,
    dialects: tuple[str, ...] = ("heimdallr",),
    roles: tuple[str, ...] = ("admin",),
    now: float = NOW,
) -> bytes:
    return headers.block(session, backend, host, dialects=dialects, roles=roles, now=now)


def token_of(lines: bytes) -> str:
    (line,) = [line for line in lines.split(b"\r\n") if line.startswith(b"X-Auth-Token: ")]
    return line.partition(b": ")[2].decode()


def claims_of(lines: bytes, *, now: float = NOW, host: str = HOST) -> dict[str, Any]:
    return VERIFIER.verify(token_of(lines), audience=host, now=now)


async def subject_session(subject: Subject) -> Session:
    return await (await Stage.up()).sign_in(subject)


def test_an_assertion_says_who_is_asking_whom(session: Session) -> None:
    """I13."""
    claims = claims_of(block(session))
    jti, sid = claims.pop("jti"), claims.pop("sid")
    assert claims == {
        "iss": ISSUER,
        "aud": HOST,
        "backend": "grafana",
        "sub": "1001",
        "provider": "idp",
        "email": "alice@example.test",
        "groups": ["dev"],
        "roles": ["admin"],
        "auth_time": int(NOW),
        "iat": int(NOW),
        "nbf": int(NOW),
        "exp": int(NOW) + 300,
    }
    assert len(jti) >= 22
    assert sid != session.sid
    assert session.sid not in block(session).decode()


def test_the_header_names_type_and_key(session: Session) -> None:
    header = jwt.get_unverified_header(token_of(block(session)))
    assert header == {"alg": "ES256", "typ": "heim-assertion+jwt", "kid": KEYS.first.kid}


def test_a_library_we_did_not_write_believes_it(session: Session) -> None:
    keys = jwk.KeySet.import_key_set(json.loads(json.dumps(KEYS.jwks())))
    token = joserfc_jwt.decode(token_of(block(session)), keys, algorithms=["ES256"])
    assert token.claims["sub"] == "1001"


async def test_a_subject_without_email_has_none_in_its_assertion() -> None:
    bare = Subject(SubjectKind.USER, issuer="https://idp", subject="1002", provider="idp")
    session = await subject_session(bare)
    lines = block(session)
    assert "email" not in claims_of(lines)
    assert b"X-Auth-Id: 1002\r\n" in lines


def test_only_groups_that_configuration_names_are_told(session: Session) -> None:
    """Decision 9. Alice is in dev and sre; configuration names dev and ops."""
    lines = block(session, dialects=("heimdallr", "forwarded"))
    assert b"X-Forwarded-Groups: dev\r\n" in lines
    assert claims_of(lines)["groups"] == ["dev"]


def test_a_block_is_made_once(session: Session) -> None:
    first = block(session)
    assert block(session, now=NOW + 239) is first


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"now": NOW + 240}, id="a minute before it expires"),
        pytest.param({"roles": ("admin", "dev")}, id="roles"),
        pytest.param({"backend": "other"}, id="backend"),
        pytest.param({"host": "app2.example.test"}, id="host"),
        pytest.param({"dialects": ("heimdallr", "forwarded")}, id="dialects"),
        pytest.param(
            {"headers": IdentityHeaders(KEYS, ISSUER, groups={"sre"})}, id="configuration"
        ),
    ],
)
def test_what_it_was_made_from_makes_it_anew(session: Session, change: dict[str, Any]) -> None:
    first = token_of(block(session))
    second = token_of(block(session, **change))
    assert second != first


def test_roles_taken_away_are_gone_at_once(session: Session) -> None:
    assert claims_of(block(session, roles=("admin",)))["roles"] == ["admin"]
    assert claims_of(block(session, roles=()))["roles"] == []


def test_every_assertion_is_one_of_a_kind(session: Session) -> None:
    hosts = [f"app{number}.example.test" for number in range(20)]
    ids = {claims_of(block(session, host=host), host=host)["jti"] for host in hosts}
    assert len(ids) == 20


def test_a_session_keeps_a_bounded_number_of_blocks(session: Session) -> None:
    for number in range(200):
        block(session, host=f"a{number}.example.test")
    assert len(session.blocks) <= 64


async def test_an_assertion_does_not_outlive_its_session() -> None:
    stage = await Stage.up(lifetime=100.0)
    session = await stage.sign_in()
    first = block(session)
    assert claims_of(first)["exp"] == int(NOW) + 100
    assert block(session, now=NOW + 49) is first, "not made for every request of the last minute"
    assert block(session, now=NOW + 51) is not first


async def test_a_hostile_provider_cannot_add_a_header() -> None:
    hostile = Subject(
        SubjectKind.USER,
        issuer="https://idp",
        subject="x\r\nX-Auth-Id: admin",
        provider="idp",
        groups=frozenset({"dev", "a\r\nb", "c,d"}),
    )
    session = await subject_session(hostile)
    headers = IdentityHeaders(KEYS, ISSUER, groups=hostile.groups)
    lines = block(session, headers=headers, dialects=("heimdallr", "forwarded"))
    assert lines.count(b"\r\n") == lines.count(b"\n") == 4
    assert b"\r\nX-Auth-Id" not in lines
    assert b"X-Forwarded-Groups: a%0D%0Ab,c%2Cd,dev\r\n" in lines


@pytest.mark.parametrize("length", [2000, 20480])
async def test_an_endless_subject_has_no_identity(length: int) -> None:
    """B10."""
    endless = Subject(SubjectKind.USER, issuer="https://idp", subject="x" * length, provider="idp")
    assert block(await subject_session(endless)) == b""


def test_an_assertion_for_one_application_is_worth_nothing_at_another(session: Session) -> None:
    """I13."""
    token = token_of(block(session))
    with pytest.raises(AssertionInvalid, match="audience"):
        VERIFIER.verify(token, audience="app2.example.test", now=NOW)


@pytest.mark.parametrize(
    ("now", "good"),
    [(NOW - 61, False), (NOW - 59, True), (NOW + 359, True), (NOW + 360, False)],
    ids=["too early", "within skew", "expired within skew", "expired"],
)
def test_an_assertion_is_good_for_five_minutes(session: Session, now: float, good: bool) -> None:
    token = token_of(block(session))
    if good:
        VERIFIER.verify(token, audience=HOST, now=now)
    else:
        with pytest.raises(AssertionInvalid):
            VERIFIER.verify(token, audience=HOST, now=now)


def test_old_and_new_key_verify_during_an_overlap(session: Session) -> None:
    new_pem = SigningKeys.generate_pem()
    overlap = SigningKeys.parse(new_pem + PEM)
    verifier = Verifier(overlap.jwks(), ISSUER)
    old_token = token_of(block(session))
    new_token = token_of(block(session, headers=IdentityHeaders(overlap, ISSUER, groups=())))
    for token in (old_token, new_token):
        verifier.verify(token, audience=HOST, now=NOW)
    with pytest.raises(AssertionInvalid, match="unknown key"):
        VERIFIER.verify(new_token, audience=HOST, now=NOW)


GOOD_CLAIMS = {"iss": ISSUER, "aud": HOST, "sub": "1", "iat": NOW, "nbf": NOW, "exp": NOW + 60}


def forge(
    claims: dict[str, Any] | None = None, header: dict[str, Any] | None = None, **change: Any
) -> str:
    """A token that our own key signed, with something wrong in it."""
    claims = {**GOOD_CLAIMS, **change} if claims is None else claims
    headers = {"typ": ASSERTION_TYP, "kid": KEYS.first.kid, **(header or {})}
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "ES256", **headers}, claims)
    )
    algorithm = jwt.get_algorithm_by_name("ES256")
    signature = algorithm.sign(head + b"." + body, KEYS.first.private)
    return b".".join((head, body, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()


def test_the_forge_makes_good_tokens_when_nothing_is_wrong() -> None:
    assert VERIFIER.verify(forge(), audience=HOST, now=NOW)["sub"] == "1"


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(forge(header={"typ": "JWT"}), id="typ of an ID token"),
        pytest.param(forge(header={"typ": "heim-cli+jwt"}), id="typ of a CLI token"),
        pytest.param(forge(header={"crit": ["x"], "x": 1}), id="critical header"),
        pytest.param(forge(header={"kid": "other"}), id="unknown kid"),
        pytest.param(forge(header={"kid": ["x"]}), id="kid a list"),
        pytest.param(forge(header={"alg": "none"}), id="alg none"),
        pytest.param(forge(header={"alg": "HS256"}), id="alg HS256"),
        pytest.param(forge(iss="https://evil.test"), id="issuer"),
        pytest.param(forge(iss=ISSUER + "/"), id="issuer with slash"),
        pytest.param(forge(iss=[ISSUER]), id="issuer a list"),
        pytest.param(forge(aud=[HOST, "app2.example.test"]), id="two audiences"),
        pytest.param(forge(aud=HOST.upper()), id="audience in capitals"),
        pytest.param(forge(sub=""), id="empty subject"),
        pytest.param(forge(sub=7), id="subject a number"),
        pytest.param(forge(exp=NOW + 3600), id="lives an hour"),
        pytest.param(forge(exp=float("inf")), id="lives for ever"),
        pytest.param(forge(exp=float("nan")), id="exp NaN"),
        pytest.param(forge(exp=str(NOW + 60)), id="exp text"),
        pytest.param(forge(exp=True), id="exp true"),
        pytest.param(forge(iat=NOW + 120, exp=NOW + 180), id="issued in the future"),
        pytest.param(forge(nbf=NOW + 120), id="not valid yet"),
        pytest.param(forge({k: v for k, v in GOOD_CLAIMS.items() if k != "exp"}), id="no exp"),
        pytest.param(forge({k: v for k, v in GOOD_CLAIMS.items() if k != "iat"}), id="no iat"),
        pytest.param(forge({k: v for k, v in GOOD_CLAIMS.items() if k != "aud"}), id="no aud"),
        pytest.param(forge()[:-4] + "AAAA", id="signature"),
        pytest.param(forge().rpartition(".")[0] + ".", id="no signature"),
        pytest.param("", id="empty"),
        pytest.param("a.b.c", id="garbage"),
        pytest.param("x" * 20_000, id="20 KB"),
        pytest.param("größe", id="not ASCII"),
        pytest.param(
            base64.urlsafe_b64encode(b"[" * 12_000).decode() + "..", id="deeply nested header"
        ),
    ],
)
def test_a_token_with_anything_wrong_is_not_believed(token: str) -> None:
    with pytest.raises(AssertionInvalid) as caught:
        VERIFIER.verify(token, audience=HOST, now=NOW)
    assert token == "" or token not in str(caught.value)


def test_a_token_signed_with_the_public_key_as_secret_is_not_believed() -> None:
    """I2."""
    public = json.dumps(KEYS.jwks()["keys"][0])
    token = jwt.encode(
        {**GOOD_CLAIMS},
        public + "padding to please the library" * 2,
        algorithm="HS256",
        headers={"typ": ASSERTION_TYP, "kid": KEYS.first.kid},
    )
    with pytest.raises(AssertionInvalid):
        VERIFIER.verify(token, audience=HOST, now=NOW)


def test_a_key_brought_along_in_the_header_is_ignored() -> None:
    """I3."""
    mallory = ec.generate_private_key(ec.SECP256R1())
    token = jwt.encode(
        GOOD_CLAIMS,
        mallory,
        algorithm="ES256",
        headers={
            "typ": ASSERTION_TYP,
            "kid": KEYS.first.kid,
            "jwk": json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(mallory.public_key())),
        },
    )
    with pytest.raises(AssertionInvalid):
        VERIFIER.verify(token, audience=HOST, now=NOW)


async def test_a_session_that_never_ends_gets_an_assertion_that_does(session: Session) -> None:
    session.expires = float("inf")
    claims = claims_of(block(session))
    assert claims["exp"] == int(NOW) + 300
