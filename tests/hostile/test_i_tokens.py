"""I: what a provider signs, what we sign, and what is presented to us as if either had."""

from __future__ import annotations

import base64
import json
import math
import zlib
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from heim_proxy.identity.signing import SigningKeys
from tests.fakes.browser import Browser
from tests.fakes.heim import LOGIN_HOST
from tests.fakes.idp import OMIT, Lies, b64, forge, rsa_key
from tests.fakes.verifier import AssertionInvalid, Verifier
from tests.hostile.signin import APP1, APP2, AUTH, Stand, host_of, signin_stand

pytest_plugins = ("tests.hostile.signin_fixtures",)
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def login_refused(stand: Stand, lies: Lies, *, status: int = 400) -> Browser:
    """Sign in while the provider lies: an error page with a request id, and nobody signed in."""
    stand.idp.lies = lies
    browser = stand.browser()
    page = await browser.open(f"{APP1}/")
    assert page.status == status, (page.status, page.text[-400:])
    assert page.host == LOGIN_HOST
    assert str(page.get("x-request-id")) in page.text
    assert browser.cookie(LOGIN_HOST) is None
    assert browser.cookie(host_of(APP1)) is None
    assert "login.succeeded" not in stand.audit.events
    assert not stand.sent
    return browser


def _now(stand: Stand) -> int:
    return int(stand.clock.now())


async def test_i_an_honest_token_is_accepted(stand: Stand) -> None:
    """The control: everything below is refused for the one thing it changes."""
    await stand.signed_in()
    for claims in ({"aud": ["heim"]}, {"aud": ["heim", "x"], "azp": "heim"}, {"nbf": _now(stand)}):
        stand.idp.lies = Lies(claims=claims)
        await stand.signed_in()


HEADERS: dict[str, Lies] = {
    **{
        f"I1-alg-{alg!r}": Lies(header={"alg": alg}, unsigned=True)
        for alg in ("none", "None", "nOnE", "NONE", "", "RS256", "rs256", None, ["RS256"], 0)
    },
    "I1-alg-missing": Lies(header={"alg": OMIT}, unsigned=True),
    "I1-alg-missing-but-signed": Lies(header={"alg": OMIT}),
    "I1-alg-none-but-signed": Lies(header={"alg": "none"}),
    "I2-HS256-with-the-public-key": Lies(hmac_with_public_key=True),
    "I2-HS384": Lies(header={"alg": "HS384"}),
    "I2-RS256-key-as-PS256": Lies(header={"alg": "PS256"}),
    "I2-RS512": Lies(header={"alg": "RS512"}),
    "I5-crit-unknown": Lies(header={"crit": ["x"], "x": 1}),
    "I5-crit-empty": Lies(header={"crit": []}),
    "I5-crit-b64": Lies(header={"crit": ["b64"], "b64": False}),
    "I5-b64-false": Lies(header={"b64": False}),
    "I11-zip": Lies(header={"zip": "DEF"}),
    "I11-enc": Lies(header={"enc": "A256GCM"}),
    "I11-nested": Lies(header={"cty": "JWT"}),
    "I15-access-token": Lies(header={"typ": "at+jwt"}),
    "I15-logout-token": Lies(header={"typ": "logout+jwt"}),
    "I15-our-assertion-type": Lies(header={"typ": "heim-assertion+jwt"}),
    "I4-kid-list": Lies(header={"kid": ["key-1"]}),
    "I4-kid-path": Lies(header={"kid": "../../../../dev/null"}),
    "I4-kid-sql": Lies(header={"kid": "' OR 1=1 --"}),
    "another-key": Lies(sign_with=rsa_key("thief")),
}


@pytest.mark.parametrize("lies", HEADERS.values(), ids=HEADERS)
async def test_a_header_that_would_change_who_signed_is_refused(stand: Stand, lies: Lies) -> None:
    await login_refused(stand, lies)


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c"])
async def test_i3_a_token_cannot_bring_its_own_key(stand: Stand, name: str) -> None:
    thief = rsa_key("thief")
    numbers = thief.public_key().public_numbers()
    jwk = {"kty": "RSA", "n": b64(numbers.n.to_bytes(256, "big")), "e": "AQAB", "kid": "key-1"}
    url = f"{stand.other.issuer}/jwks"
    value = {"jwk": jwk, "jku": url, "x5u": url, "x5c": ["AAAA"]}[name]
    await login_refused(stand, Lies(header={name: value}, sign_with=thief))
    await login_refused(stand, Lies(header={name: value, "kid": OMIT}, sign_with=thief))
    assert not stand.other.hits["jwks"], "nothing is fetched because a token says so"


async def test_i4_unknown_keys_are_asked_for_once(stand: Stand) -> None:
    await stand.signed_in()
    stand.later(6.0)
    before = stand.idp.hits["jwks"]
    for number in range(60):
        stand.audit.records.clear()
        stand.sent.clear()
        await login_refused(stand, Lies(header={"kid": f"kid-{number}"}))
    assert stand.idp.hits["jwks"] - before <= 2, "one per interval of 5 s"
    stand.idp.lies = Lies()
    await stand.signed_in()


CLAIMS: dict[str, dict[str, Any]] = {
    "I6-aud-other": {"aud": "other"},
    "I6-aud-prefix": {"aud": "hei"},
    "I6-aud-longer": {"aud": "heim2"},
    "I6-aud-missing": {"aud": OMIT},
    "I6-aud-null": {"aud": None},
    "I6-aud-empty": {"aud": []},
    "I6-aud-object": {"aud": {"heim": 1}},
    "I6-aud-with-number": {"aud": ["heim", 1]},
    "I6-two-aud-without-azp": {"aud": ["heim", "other"]},
    "I6-two-aud-azp-other": {"aud": ["heim", "other"], "azp": "other"},
    "I6-azp-other": {"azp": "other"},
    "I6-azp-list": {"azp": ["heim"]},
    "I7-iss-slash": {"iss": "slash"},
    "I7-iss-other": {"iss": "https://login.microsoftonline.com/other-tenant/v2.0"},
    "I7-iss-missing": {"iss": OMIT},
    "I7-iss-list": {"iss": "list"},
    "I8-exp-missing": {"exp": OMIT},
    "I8-exp-past": {"exp": -400},
    "I8-exp-1e300": {"exp": 1e300},
    "I8-exp-text": {"exp": "9999999999"},
    "I8-exp-negative": {"exp": -1},
    "I8-exp-zero": {"exp": 0},
    "I8-exp-true": {"exp": True},
    "I8-exp-null": {"exp": None},
    "I8-exp-list": {"exp": [9999999999]},
    "I8-exp-a-year": {"exp": 86_400 * 365},
    "I8-exp-NaN": {"exp": math.nan},
    "I8-exp-infinity": {"exp": math.inf},
    "I8-iat-missing": {"iat": OMIT},
    "I8-iat-future": {"iat": 120},
    "I8-iat-text": {"iat": "now"},
    "I8-nbf-future": {"nbf": 120},
    "I8-nbf-text": {"nbf": "soon"},
    "I9-eleven-minutes-old": {"iat": -700},
    "I9-a-day-old": {"iat": -86_400},
    "sub-missing": {"sub": OMIT},
    "sub-empty": {"sub": ""},
    "sub-number": {"sub": 1},
    "sub-list": {"sub": ["alice"]},
    "sub-1-KiB": {"sub": "a" * 1024},
    "sub-line-end": {"sub": "alice\r\nX-Auth-Id: root"},
    "sub-nul": {"sub": "alice\x00"},
    "sub-kelvin": {"sub": "\u212a"},
    "I17-at-hash-other": {"at_hash": "AAAA"},
    "I17-at-hash-null": {"at_hash": None},
    "I17-at-hash-list": {"at_hash": []},
    "auth-time-future": {"auth_time": 120},
    "auth-time-text": {"auth_time": "1"},
}
_RELATIVE = {"exp", "iat", "nbf", "auth_time"}


@pytest.mark.parametrize("claims", CLAIMS.values(), ids=CLAIMS)
async def test_a_claim_that_does_not_prove_this_login_is_refused(
    stand: Stand, claims: dict[str, Any]
) -> None:
    made = dict(claims)
    for name, value in claims.items():
        # Small numbers stand for seconds from now.
        if name in _RELATIVE and type(value) is int and abs(value) > 1:
            made[name] = _now(stand) + value
        if name == "iss" and value in ("slash", "list"):
            made[name] = f"{stand.idp.issuer}/" if value == "slash" else [stand.idp.issuer]
    await login_refused(stand, Lies(claims=made))


def _payload(stand: Stand, **more: Any) -> dict[str, Any]:
    now = _now(stand)
    return {
        "iss": stand.idp.issuer, "aud": "heim", "sub": "alice", "iat": now, "exp": now + 300,
        "email": "alice@example.com", "email_verified": True, **more,
    }  # fmt: skip


def _texts(stand: Stand, nonce: str) -> dict[str, str]:
    """Texts made from a token that would be accepted; the first one is it."""
    header = {"alg": "RS256", "kid": stand.idp.kid}
    good = json.dumps(_payload(stand, nonce=nonce)).encode()
    key = stand.idp.key
    token = forge(header, good, key)
    head, body, signature = token.split(".")
    twice = b'{"alg":"none",' + json.dumps(header).encode()[1:]
    return {
        "control": token,
        "I10 sub twice": forge(header, b'{"sub":"bob",' + good[1:], key),
        "I10 nonce twice": forge(header, b'{"nonce":"x",' + good[1:], key),
        "I10 NaN": forge(header, b'{"x":NaN,' + good[1:], key),
        "I10 array": forge(header, b"[" + good + b"]", key),
        "I10 text": forge(header, b'"alice"', key),
        "I10 nested": forge(header, good[:-1] + b',"x":' + b"[" * 9000 + b"]" * 9000 + b"}", key),
        "I10 1 MB": forge(header, good[:-1] + b',"x":"' + b"y" * 700_000 + b'"}', key),
        "I10 UTF-16": forge(header, good.decode().encode("utf-16"), key),
        "I10 byte order mark": forge(header, b"\xef\xbb\xbf" + good, key),
        "I10 alg twice": forge(twice, good, key),
        "I10 two parts": f"{head}.{body}",
        "I10 four parts": f"{token}.x",
        "I10 padded": f"{head}=.{body}=.{signature}=",
        "I10 spaces": f" {token} ",
        "I10 dots": "..",
        "I11 encrypted": f"{head}.a.b.c.d",
        "I11 compressed": forge(header, zlib.compress(good), key),
        "I11 JSON form": json.dumps({"payload": body, "signatures": []}),
        "I1 no signature": f"{head}.{body}.",
        "I1 cut": token[:-8],
        "I1 other header": f"{b64(b'{}')}.{body}.{signature}",
    }


async def test_i10_i11_texts_that_are_no_token_are_refused(stand: Stand) -> None:
    for name in _texts(stand, ""):
        stand.audit.records.clear()
        browser = stand.browser()
        callback = await browser.to_callback(f"{APP1}/")
        stand.idp.lies = Lies(id_token=_texts(stand, stand.idp.requests[-1]["nonce"])[name])
        page = await browser.get(callback)
        if name == "control":
            assert page.status == 303, "refused below for the one thing that is wrong"
            continue
        assert page.status == (502 if name == "I10 1 MB" else 400), (name, page.status)
        assert browser.cookie(LOGIN_HOST) is None, name
        assert "login.succeeded" not in stand.audit.events, name


async def test_i12_keys_that_must_not_sign_are_not_used(stand: Stand) -> None:
    small = rsa_key("small", 1024)
    numbers = small.public_key().public_numbers()
    weak = {"kty": "RSA", "kid": stand.idp.kid, "e": "AQAB", "n": b64(numbers.n.to_bytes(128))}
    good = stand.idp.public_jwk()
    point = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    curve = {"kty": "EC", "crv": "P-256", "kid": stand.idp.kid, "y": b64(bytes(31) + b"\x01"),
             "x": b64(point.x.to_bytes(32))}  # fmt: skip
    sets: dict[str, tuple[dict[str, Any], Any]] = {
        "for encryption": ({**good, "use": "enc"}, None),
        "other operations": ({**good, "key_ops": ["encrypt"]}, None),
        "other algorithm": ({**good, "alg": "RSA-OAEP"}, None),
        "symmetric": ({"kty": "oct", "kid": good["kid"], "k": "AAAA"}, None),
        "1024 bits": (weak, small),
        "off the curve": (curve, None),
        "private": ({**good, "d": "AQAB"}, None),
        "other type": ({**good, "kty": "EC"}, None),
        "no type": ({k: v for k, v in good.items() if k != "kty"}, None),
    }
    for name, (jwk, key) in sets.items():
        stand.later(3700.0)
        stand.audit.records.clear()
        lies = Lies(jwks_body=json.dumps({"keys": [jwk]}).encode(), sign_with=key)
        stand.idp.lies = lies
        browser = stand.browser()
        page = await browser.open(f"{APP1}/")
        assert page.status == 400, (name, page.status)
        assert browser.cookie(LOGIN_HOST) is None, name
    stand.idp.lies = Lies()
    stand.later(3700.0)
    await stand.signed_in()


async def test_i6_two_keys_of_one_name_are_none(stand: Stand) -> None:
    stand.later(3700.0)
    keys = {"keys": [stand.idp.public_jwk(), stand.idp.public_jwk()]}
    await login_refused(stand, Lies(jwks_body=json.dumps(keys).encode()))
    stand.later(3700.0)


# -- ours -----------------------------------------------------------------------------------------


async def assertion(stand: Stand, browser: Browser, url: str) -> str:
    stand.sent.clear()
    assert await stand.sees(browser, f"{url}/")
    (token,) = stand.sent[0].all("x-auth-token")
    return token


async def published(stand: Stand) -> dict[str, Any]:
    page = await stand.browser().fetch(f"{AUTH}/.heim/jwks.json")
    assert page.status == 200
    found: dict[str, Any] = json.loads(page.body)
    return found


async def test_i13_an_assertion_is_short_and_good_on_one_host(stand: Stand) -> None:
    browser = await stand.signed_in()
    await browser.open(f"{APP2}/")
    one, two = [await assertion(stand, browser, url) for url in (APP1, APP2)]
    keys = await published(stand)
    verifier, now = Verifier(keys, AUTH), stand.clock.now()
    claims = verifier.verify(one, audience=host_of(APP1), now=now)
    assert (claims["iss"], claims["aud"], claims["backend"]) == (AUTH, host_of(APP1), "app1")
    assert claims["sub"] == "alice"
    assert claims["exp"] - claims["iat"] <= 300  # type: ignore[operator]
    assert claims["iat"] <= now + 1  # type: ignore[operator]
    assert {"jti", "nbf", "auth_time", "sid"} <= claims.keys()
    header = jwt.get_unverified_header(one)
    assert (header["alg"], header["typ"]) == ("ES256", "heim-assertion+jwt")
    assert header["kid"] in {key["kid"] for key in keys["keys"]}
    assert not any({"d", "p", "q", "k"} & key.keys() for key in keys["keys"])
    for token, audience in ((one, host_of(APP2)), (two, host_of(APP1)), (one, LOGIN_HOST)):
        with pytest.raises(AssertionInvalid):
            verifier.verify(token, audience=audience, now=now)
    with pytest.raises(AssertionInvalid):
        verifier.verify(one, audience=host_of(APP1), now=now + 400)
    # Nothing that was not configured is told: no tokens, no foreign groups, no session cookie.
    assert claims["groups"] == ["developers"]
    session = stand.sessions._resident
    assert all(one_session.sid not in json.dumps(claims) for one_session in session)


async def test_i13_keys_overlap_when_they_change(tmp_path: Path) -> None:
    pem = tmp_path / "sign.pem"
    pem.write_bytes(SigningKeys.generate_pem())
    async with signin_stand(tmp_path, assertion={"key_file": str(pem)}) as stand:
        browser = await stand.signed_in()
        old = await assertion(stand, browser, APP1)
        before = stand.heim.generation
        pem.write_bytes(SigningKeys.generate_pem() + pem.read_bytes())
        stand.heim.proxy._reloader.look()
        await stand.heim.until(lambda: stand.heim.generation > before)
        keys = await published(stand)
        assert len(keys["keys"]) == 2
        assert b'"d"' not in json.dumps(keys).encode()
        new = await assertion(stand, browser, APP1)
        kids = [jwt.get_unverified_header(token)["kid"] for token in (old, new)]
        assert kids[0] != kids[1]
        for token in (old, new):
            Verifier(keys, AUTH).verify(token, audience=host_of(APP1), now=stand.clock.now())


async def test_i14_our_assertion_presented_to_us_proves_nothing(stand: Stand) -> None:
    """A malicious upstream has everybody's assertion; that must not make it anybody."""
    browser = await stand.signed_in()
    token = await assertion(stand, browser, APP1)
    stand.sent.clear()
    stranger = stand.browser()
    shapes = [
        ("Authorization", f"Bearer {token}"),
        ("Authorization", f"Heim {token}"),
        ("Authorization", f"Basic {base64.b64encode(f'x:{token}'.encode()).decode()}"),
        ("Proxy-Authorization", f"Bearer {token}"),
        ("X-Auth-Token", token),
        ("X-Heim-Session", token),
        ("Cookie", f"__Host-heim={token}"),
        ("Cookie", f"__Host-heim-login-AAAAAAAAAAA={token}"),
    ]
    for name, value in shapes:
        for url in (f"{APP1}/", f"{APP2}/", f"{AUTH}/.heim/me", f"{APP1}/.heim/me"):
            page = await stranger.send("GET", url, headers=((name, value),), cookies="")
            assert page.status == 401, (name, url)
    page = await stranger.get(f"{APP1}/.heim/handoff?t={token}")
    assert page.status == 400
    page = await stranger.get(f"{AUTH}/.heim/callback?code={token}&state={token}")
    assert page.status == 400
    assert not stand.sent


async def test_i15_an_id_token_is_nothing_to_us(stand: Stand) -> None:
    """Whoever runs another client of the same provider has such tokens."""
    token = forge(
        {"alg": "RS256", "kid": stand.idp.kid, "typ": "JWT"}, _payload(stand), stand.idp.key
    )
    stranger = stand.browser()
    for headers in (
        (("Authorization", f"Bearer {token}"),),
        (("Cookie", f"__Host-heim={token}"),),
        (("X-Forwarded-Access-Token", token),),
    ):
        for url in (f"{APP1}/", f"{AUTH}/.heim/me"):
            page = await stranger.send("GET", url, headers=headers, cookies="")
            assert page.status == 401
    callback = await stranger.to_callback(f"{APP1}/")
    page = await stranger.get(f"{callback}&id_token={token}")
    assert page.status == 303, "a parameter that nobody asked for is not looked at"


async def test_i15_every_sealed_thing_opens_for_one_purpose(stand: Stand) -> None:
    """Session, login state and hand-off ticket in each other's places."""
    browser = stand.browser()
    callback = await browser.to_callback(f"{APP1}/")
    (login,) = browser.names(LOGIN_HOST, "__Host-heim-login-")
    state = browser.cookie(LOGIN_HOST, login)
    page = await browser.get(callback)
    ticket = page.location.partition("t=")[2]
    session = browser.cookie(LOGIN_HOST)
    stranger = stand.browser()
    for cookie in (state, ticket):
        page = await stranger.send("GET", f"{AUTH}/.heim/me", cookies=f"__Host-heim={cookie}")
        assert page.status == 401
    for text in (state, session):
        assert (await browser.get(f"{APP1}/.heim/handoff?t={text}")).status == 400
    for text in (ticket, session):
        fresh = await stranger.to_callback(f"{APP1}/")
        (name,) = stranger.names(LOGIN_HOST, "__Host-heim-login-")[-1:]
        stranger.plant(LOGIN_HOST, name, str(text))
        assert (await stranger.get(fresh)).status == 400
        stranger.jar.clear()
