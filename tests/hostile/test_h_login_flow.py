"""H: signing in, when the link, the browser, the provider or the moment is the wrong one."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from heim_proxy.identity.keys import KeyRing
from tests.fakes.browser import NAVIGATE, Browser, Page
from tests.fakes.heim import LOGIN_HOST, user
from tests.fakes.idp import OMIT, Lies
from tests.hostile.signin import (
    APP1,
    APP2,
    AUTH,
    STRICT,
    Stand,
    host_of,
    provider,
    query_of,
    signin_stand,
    two_providers,
)

pytest_plugins = ("tests.hostile.signin_fixtures",)
pytestmark = pytest.mark.asyncio(loop_scope="module")

SESSION = "__Host-heim"
MINUTE = 60.0


def refused(page: Page, status: int = 400) -> None:
    """An error page of ours: with a request id, without anything of ours or theirs in it."""
    assert page.status == status, (page.status, page.text[:2000])
    assert str(page.get("x-request-id")) in page.text
    assert "Traceback" not in page.text
    assert not any(line.startswith(f"{SESSION}=A") for line in page.all("set-cookie"))


def nobody(browser: Browser) -> None:
    assert browser.cookie(LOGIN_HOST) is None
    assert browser.cookie(host_of(APP1)) is None


def without(url: str, name: str) -> str:
    return re.sub(rf"(?<=[?&]){name}=[^&]*&?", "", url)


# -- H1-H4: state, code, nonce --------------------------------------------------------------------


STATES: dict[str, Callable[[str], str]] = {
    "missing": lambda url: without(url, "state"),
    "empty": lambda url: re.sub(r"state=[^&]*", "state=", url),
    "garbage": lambda url: re.sub(r"state=[^&]*", "state=x", url),
    "unknown": lambda url: re.sub(r"state=[^&]*", f"state={'A' * 11}.{'A' * 43}", url),
    "id-only": lambda url: re.sub(r"state=([^.&]*)[^&]*", r"state=\1", url),
    "other-proof": lambda url: re.sub(r"state=([^.&]*)[^&]*", rf"state=\1.{'A' * 43}", url),
    "nul": lambda url: re.sub(r"state=([^&]*)", r"state=\1%00", url),
    "upper-case": lambda url: re.sub(r"state=([^&]*)", lambda m: m[0].swapcase(), url),
    "8-KiB": lambda url: re.sub(r"state=[^&]*", f"state={'A' * 7000}", url),
    "no-query": lambda url: url.partition("?")[0],
}


@pytest.mark.parametrize("spoil", STATES.values(), ids=STATES)
async def test_h1_a_response_without_its_state_is_refused(
    stand: Stand, spoil: Callable[[str], str]
) -> None:
    browser = stand.browser()
    page = await browser.get(spoil(await browser.to_callback(f"{APP1}/")))
    refused(page)
    nobody(browser)
    assert not stand.idp.hits["token"]


async def test_h1_an_expired_state_is_refused_and_helped(stand: Stand) -> None:
    browser = stand.browser()
    callback = await browser.to_callback(f"{APP1}/deep")
    stand.later(16 * MINUTE)
    page = await browser.get(callback)
    refused(page)
    assert not stand.idp.hits["token"]
    assert f"{APP1}/deep" in page.links


async def test_h1_h5_h14_another_browsers_response_is_refused(stand: Stand) -> None:
    """Login CSRF: the attacker sends a victim the end of his own sign-in."""
    attacker, victim = stand.browser(), stand.browser()
    stand.idp.user = "bob"
    callback = await attacker.to_callback(f"{APP1}/")
    refused(await victim.get(callback))
    nobody(victim)
    assert not stand.idp.hits["token"]
    # Also when the victim is in the middle of a sign-in of their own.
    stand.idp.user = "alice"
    own = await victim.to_callback(f"{APP1}/")
    refused(await victim.get(callback))
    mixed = re.sub(r"code=[^&]*", f"code={query_of(callback)['code']}", own)
    refused(await victim.get(mixed))  # PKCE: the attacker's code does not fit this verifier
    nobody(victim)


async def test_h14_a_victim_who_is_signed_in_stays_who_they_are(stand: Stand) -> None:
    victim = await stand.signed_in("alice")
    attacker = stand.browser()
    stand.idp.user = "bob"
    callback = await attacker.to_callback(f"{APP1}/")
    page = await victim.open(callback)
    assert page.status == 200, "whoever is signed in goes on, as themselves"
    assert "alice@example.com" in (await victim.get(f"{AUTH}/.heim/me")).text
    assert stand.idp.hits["token"] == 1, "the victim's own, before"
    # And the attacker's own sign-in is still the attacker's.
    await attacker.open(callback)
    assert "bob@example.com" in (await attacker.get(f"{AUTH}/.heim/me")).text


async def test_h1_a_response_of_another_provider_is_refused(tmp_path: Path) -> None:
    """Mix-up (RFC 9207): the browser believes it is with one, the code comes from two."""
    async with signin_stand(tmp_path, two=True) as stand:
        for lies in ({}, {"iss": OMIT}):
            stand.other.lies = Lies(authorize=lies)
            browser = stand.browser()
            one = await browser.to_callback(f"{AUTH}/.heim/login/one?rd=/")
            two = await browser.to_callback(f"{AUTH}/.heim/login/two?rd=/")
            mixed = re.sub(r"state=[^&]*", f"state={query_of(one)['state']}", two)
            refused(await browser.get(mixed))
            assert browser.cookie(LOGIN_HOST) is None
        assert not stand.other.hits["token"]
        assert not stand.idp.hits["token"], "the code of one provider is not shown to another"


async def test_h1_a_ticket_of_another_application_is_refused(stand: Stand) -> None:
    browser = stand.browser()
    handoff = await browser.to_handoff(f"{APP1}/")
    await browser.get(f"{APP2}/")
    page = await browser.get(handoff.replace(APP1, APP2))
    refused(page)
    assert browser.cookie(host_of(APP2)) is None
    page = await browser.open(handoff)
    assert (page.status, page.url) == (200, f"{APP1}/"), "it was not even ours to burn there"


async def test_h2_a_response_works_once(stand: Stand) -> None:
    browser = stand.browser()
    callback = await browser.to_callback(f"{APP1}/deep")
    jar = {host: dict(cookies) for host, cookies in browser.jar.items()}
    assert (await browser.open(callback)).url == f"{APP1}/deep"
    sessions = await stand.live_sessions()
    # The same browser, reloaded: on to the application with the session it has.
    again = await browser.open(callback)
    assert again.status in (200, 303)
    # Somebody with a copy of the cookies before the sign-in, such as a restored tab.
    copy = Browser(stand.heim, jar=jar)
    refused(await copy.get(callback))
    assert copy.cookie(LOGIN_HOST) is None
    copy.close()
    assert await stand.live_sessions() <= sessions
    assert stand.idp.hits["token"] == 1


async def test_h2_concurrent_responses_make_one_session(stand: Stand) -> None:
    """A double click, twenty times over: one exchange, one session, nobody gets a 500."""
    browser = stand.browser()
    callback = await browser.to_callback(f"{APP1}/")
    sessions = await stand.live_sessions()
    stand.idp.lies.token_delay = 0.1
    jar = {host: dict(cookies) for host, cookies in browser.jar.items()}
    tabs = [Browser(stand.heim, jar={k: dict(v) for k, v in jar.items()}) for _ in range(20)]
    pages = await asyncio.gather(*(tab.get(callback) for tab in tabs))
    assert sorted(page.status for page in pages) == [303, *[400] * 19]
    assert stand.idp.hits["token"] == 1
    assert len(await stand.live_sessions() - sessions) == 1
    for tab in tabs:
        tab.close()


async def test_h3_a_code_works_once_and_for_its_own_sign_in(stand: Stand) -> None:
    one, two = stand.browser(), stand.browser()
    first = await one.to_callback(f"{APP1}/")
    assert (await one.open(first)).status == 200
    second = await two.to_callback(f"{APP1}/")
    for code in (query_of(first)["code"], "", "x", "A" * 5000, "%00", "%ff"):
        callback = re.sub(r"code=[^&]*", f"code={code}", second)
        page = await two.get(callback)
        assert page.status == 400, code
        nobody(two)
        second = await two.to_callback(f"{APP1}/")


async def test_h3_a_code_for_another_client_is_refused(stand: Stand) -> None:
    browser = stand.browser()
    callback = await browser.to_callback(f"{APP1}/")
    stand.idp.lies.claims = {"aud": "another-client"}
    refused(await browser.get(callback))
    nobody(browser)


@pytest.mark.parametrize(
    "nonce",
    [OMIT, "", "other", None, ["x"], "\u0000", 0],
    ids=["missing", "empty", "other", "null", "list", "nul", "zero"],
)
async def test_h4_a_token_without_this_logins_nonce_is_refused(stand: Stand, nonce: Any) -> None:
    stand.idp.lies.claims = {"nonce": nonce}
    browser = stand.browser()
    refused(await browser.open(f"{APP1}/"))
    nobody(browser)


async def test_h4_the_nonce_of_another_login_is_refused(stand: Stand) -> None:
    browser = stand.browser()
    await browser.to_callback(f"{APP1}/")
    stolen = stand.idp.requests[-1]["nonce"]
    stand.idp.lies.claims = {"nonce": stolen}
    refused(await browser.open(f"{APP1}/"))
    nobody(browser)


# -- H5-H8: PKCE, issuer, parameters --------------------------------------------------------------


async def test_h5_pkce_is_always_sent_and_always_proven(stand: Stand) -> None:
    await stand.signed_in()
    asked = stand.idp.requests[-1]
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == 43
    verifier = stand.idp.token_forms[-1]["code_verifier"]
    assert len(verifier) == 43
    assert verifier not in json.dumps(dict(asked))


async def test_h5_no_two_logins_share_anything(stand: Stand) -> None:
    for _ in range(5):
        await stand.signed_in()
    for name in ("state", "nonce", "code_challenge"):
        values = [asked[name] for asked in stand.idp.requests]
        assert len(set(values)) == len(values) == 5
    assert len({form["code_verifier"] for form in stand.idp.token_forms}) == 5


@pytest.mark.parametrize(
    "iss",
    [OMIT, "", "https://evil.test", "{issuer}/", "HTTP://127.0.0.1", "null"],
    ids=["missing-though-promised", "empty", "other", "slash", "case", "null"],
)
async def test_h6_a_response_that_names_another_issuer_is_refused(
    stand: Stand, iss: object
) -> None:
    value = iss.format(issuer=stand.idp.issuer) if isinstance(iss, str) else iss
    for error in (None, "access_denied"):
        stand.idp.lies = Lies(authorize={"iss": value}, error=error)
        browser = stand.browser()
        refused(await browser.open(f"{APP1}/"))
        nobody(browser)
    assert not stand.idp.hits["token"]


@pytest.mark.parametrize("name", ["state", "code", "iss", "error", "session_state"])
async def test_h7_a_parameter_given_twice_is_refused(stand: Stand, name: str) -> None:
    browser = stand.browser()
    callback = await browser.to_callback(f"{APP1}/")
    value = query_of(callback).get(name, "x")
    twice = f"{callback}&{name}={quote(value)}"
    for url in (twice, twice + f"&{name}=other", twice.replace(f"&{name}=", f"&%{ord(name[0]):x}"
                                                              f"{name[1:]}=")):  # fmt: skip
        if url.count(f"{name}=") + url.count(f"%{ord(name[0]):x}{name[1:]}=") > 1:
            refused(await browser.get(url))
    nobody(browser)
    assert not stand.idp.hits["token"]
    if name in query_of(callback):
        assert (await browser.open(callback)).status == 200, "refused before it was used up"


@pytest.mark.parametrize(
    "error", ["access_denied", "server_error", "<script>alert(1)</script>", "x" * 3000, ""]
)
async def test_h8_an_error_of_the_provider_is_told_in_our_words(stand: Stand, error: str) -> None:
    stand.idp.lies = Lies(
        authorize={
            "error": error,
            "error_description": "<script>canary</script>\"'><img src=x>",
            "error_uri": "https://evil.test/canary",
            "code": OMIT,
        }
    )
    browser = stand.browser()
    page = await browser.open(f"{APP1}/")
    refused(page)
    for text in ("<script", "canary", "evil.test", "xxxx", "<img"):
        assert text not in page.text
    nobody(browser)
    stand.idp.lies = Lies()
    assert (await browser.open(f"{APP1}/")).status == 200


async def test_h8_an_error_beside_a_code_is_an_error(stand: Stand) -> None:
    stand.idp.lies = Lies(authorize={"error": "access_denied"})
    browser = stand.browser()
    refused(await browser.open(f"{APP1}/"))
    assert not stand.idp.hits["token"]


# -- H9-H11: the provider is down or lies ---------------------------------------------------------


def discovery(**changes: object) -> Lies:
    return Lies(discovery=changes)


DISCOVERY: dict[str, Lies] = {
    "H9-other-issuer": discovery(issuer="https://evil.test"),
    "H9-issuer-with-slash": discovery(issuer="http://127.0.0.1/"),
    "H9-no-issuer": discovery(issuer=OMIT),
    "H9-http-elsewhere": discovery(token_endpoint="http://evil.test/token"),
    "H9-link-local": discovery(jwks_uri="http://169.254.169.254/latest/meta-data"),
    "H9-file": discovery(token_endpoint="file:///etc/passwd"),
    "H9-javascript": discovery(authorization_endpoint="javascript:alert(1)"),
    "H9-userinfo": discovery(authorization_endpoint="https://x@evil.test/"),
    "H9-line-end": discovery(authorization_endpoint="https://x.test/\r\nSet-Cookie: a=b"),
    "H9-redirect": Lies(discovery_redirect="http://169.254.169.254/"),
    "H9-10-MB": Lies(discovery_body=b'{"x":"' + b"x" * 10_000_000 + b'"}'),
    "H9-html": Lies(discovery_body=b"<html>maintenance</html>"),
    "H9-empty": Lies(discovery_body=b""),
    "H9-array": Lies(discovery_body=b"[]"),
    "H9-deep": Lies(discovery_body=b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "H9-500": Lies(discovery_body=b"{}", discovery_status=500),
    "H9-404": Lies(discovery_body=b"{}", discovery_status=404),
    "H9-slow": Lies(discovery_delay=5.0),
    "H9-hmac-only": discovery(id_token_signing_alg_values_supported=["HS256", "none"]),
    "H9-no-code-flow": discovery(response_types_supported=["token"]),
}


async def test_h9_metadata_that_cannot_be_used_is_said_to_be_unavailable(tmp_path: Path) -> None:
    """Login: 503 with a request id, however often. Who is signed in: not affected."""
    async with signin_stand(tmp_path) as stand:
        known = await stand.signed_in()
        for name, lies in DISCOVERY.items():
            stand.idp.lies = lies
            # A day later nothing of what was known before is trusted any more.
            stand.later(3 * 86_400.0)
            known = await _signed_in_without_provider(stand)
            browser = stand.browser()
            page = await browser.open(f"{APP1}/")
            assert page.status == 503, (name, page.status)
            refused(page, 503)
            assert page.get("retry-after")
            assert "evil.test" not in page.text
            assert "169.254" not in page.text
            nobody(browser)
            program = await browser.fetch(f"{APP1}/")
            assert program.status == 401, name
            assert await stand.sees(known), name
            assert (await known.get(f"{AUTH}/.heim/me")).status == 200
        stand.idp.lies = Lies()
        stand.later(6.0)
        await stand.signed_in()


async def _signed_in_without_provider(stand: Stand) -> Browser:
    """Somebody whose session is as old as today."""
    session = await stand.sessions.create(
        user("alice", issuer=stand.idp.issuer), auth_time=stand.clock.now(), tokens=b"",
        now=stand.clock.now(),
    )  # fmt: skip
    browser = stand.browser()
    for url in (APP1, AUTH):
        line = stand.sessions.cookie_for(session, host_of(url), stand.clock.now())
        browser.plant(host_of(url), SESSION, line.split(";")[0].partition("=")[2])
    return browser


async def test_h9_metadata_that_went_bad_does_not_stop_logins_at_once(stand: Stand) -> None:
    await stand.signed_in()
    stand.idp.lies = Lies(discovery_body=b"{}", discovery_status=500)
    stand.later(2 * 3600.0)
    stand.idp.user = "alice"
    assert (await stand.browser().open(f"{APP1}/")).status == 200


async def test_h10_a_provider_that_is_down_stops_logins_only(tmp_path: Path) -> None:
    async with signin_stand(tmp_path) as stand:
        await stand.idp.stop()
        browser = stand.browser()
        page = await browser.open(f"{APP1}/")
        refused(page, 503)
        known = await _signed_in_without_provider(stand)
        assert await stand.sees(known)
        assert (await known.get(f"{AUTH}/")).status == 200
        assert (await known.get(f"{AUTH}/.heim/jwks.json")).status == 200
        await stand.idp.start()
        stand.later(6.0)
        assert (await browser.open(f"{APP1}/")).status == 200


async def test_h10_a_port_where_nobody_answers_holds_nobody_up(tmp_path: Path) -> None:
    """Accepts and says nothing: the deadline of one request, not that of a person."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with signin_stand(tmp_path) as stand:
            identity = {
                "providers": [
                    {
                        **provider(stand.idp, "one", tmp_path / "one.secret"),
                        "issuer": f"http://127.0.0.1:{silent.getsockname()[1]}",
                    }
                ]
            }
            await stand.change(identity=identity)
            known = await _signed_in_without_provider(stand)
            pages = await asyncio.gather(*(stand.browser().open(f"{APP1}/") for _ in range(20)))
            assert {page.status for page in pages} == {503}
            assert await stand.sees(known)


TOKEN: dict[str, tuple[Lies, int]] = {
    "H11-html": (Lies(token_body=b"<html>", token_type="text/html"), 502),
    "H11-500": (Lies(token_status=500), 503),
    "H11-429": (Lies(token_status=429), 503),
    "H11-invalid-grant": (Lies(token_status=400, token_body=b'{"error":"invalid_grant"}'), 400),
    "H11-invalid-client": (Lies(token_status=401, token_body=b'{"error":"invalid_client"}'), 502),
    "H11-error-is-html": (
        Lies(token_status=400, token_body=b'{"error":"<script>canary</script>"}'),
        502,
    ),
    "H11-redirect": (Lies(token_redirect="http://169.254.169.254/"), 502),
    "H11-no-id-token": (Lies(token={"id_token": OMIT}), 502),
    "H11-id-token-null": (Lies(token={"id_token": None}), 502),
    "H11-id-token-list": (Lies(token={"id_token": ["x"]}), 502),
    "H11-no-access-token": (Lies(token={"access_token": OMIT}), 502),
    "H11-negative-lifetime": (Lies(token={"expires_in": -1}), 502),
    "H11-lifetime-text": (Lies(token={"expires_in": "soon"}), 502),
    "H11-token-type": (Lies(token={"token_type": "mac"}), 502),
    "H11-extra-large": (Lies(token_body=b'{"x":"' + b"x" * 3_000_000 + b'"}'), 502),
    "H11-slow": (Lies(token_delay=5.0), 503),
    "H11-duplicate": (Lies(token_body=b'{"id_token":"a","id_token":"b"}'), 502),
    "H11-empty": (Lies(token_body=b" "), 502),
    "H11-userinfo-of-another": (
        Lies(claims={"email": OMIT, "email_verified": OMIT}, userinfo={"sub": "mallory"}),
        502,
    ),
    "H11-userinfo-down": (
        Lies(claims={"email": OMIT, "email_verified": OMIT}, userinfo_status=500),
        503,
    ),
}


@pytest.mark.parametrize(("lies", "status"), TOKEN.values(), ids=TOKEN)
async def test_h11_a_token_endpoint_that_answers_nonsense_signs_nobody_in(
    stand: Stand, lies: Lies, status: int
) -> None:
    known = await stand.signed_in()
    sessions = await stand.live_sessions()
    browser = stand.browser()
    callback = await browser.to_callback(f"{APP1}/")
    stand.idp.lies = lies
    page = await browser.get(callback)
    refused(page, status)
    assert "canary" not in page.text
    assert "169.254" not in page.text
    nobody(browser)
    assert await stand.sees(known)
    assert (await known.get(f"{AUTH}/.heim/me")).status == 200
    assert await stand.live_sessions() <= sessions
    stand.idp.lies = Lies()
    assert (await browser.open(f"{APP1}/")).status == 200, "and the next try works"


async def test_h9_h11_where_a_provider_redirects_to_nobody_is_asked(tmp_path: Path) -> None:
    """An address that only this machine reaches; the tables above cannot see who asked there."""
    asked: list[bytes] = []

    async def trap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(trap, "127.0.0.1", 0)
    inside = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, signin_stand(tmp_path) as stand:
        stand.idp.lies = Lies(discovery_redirect=inside)
        refused(await stand.browser().open(f"{APP1}/"), 503)
        stand.idp.lies = Lies()
        stand.later(6.0)
        browser = stand.browser()
        callback = await browser.to_callback(f"{APP1}/")
        stand.idp.lies = Lies(token_redirect=inside)
        refused(await browser.get(callback), 502)
    assert asked == []


def rotate(stand: Stand) -> None:
    """A new key, made now: making it during a request would take that request's time."""
    stand.idp.rotate()
    assert stand.idp.key


KEYS: dict[str, tuple[Lies, int]] = {
    "down": (Lies(jwks_status=500), 503),
    "html": (Lies(jwks_body=b"<html>"), 502),
    "empty-set": (Lies(jwks_body=b'{"keys":[]}'), 400),
    "no-list": (Lies(jwks_body=b'{"keys":{}}'), 502),
    "10-MB": (Lies(jwks_body=b'{"keys":[' + b" " * 10_000_000 + b"]}"), 502),
    "slow": (Lies(jwks_delay=5.0), 503),
}


@pytest.mark.parametrize(("lies", "status"), KEYS.values(), ids=KEYS)
async def test_h11_keys_that_cannot_be_had_sign_nobody_in(
    stand: Stand, lies: Lies, status: int
) -> None:
    known = await stand.signed_in()
    rotate(stand)
    stand.idp.lies = lies
    stand.later(3601.0)
    browser = stand.browser()
    page = await browser.open(f"{APP1}/")
    refused(page, status)
    nobody(browser)
    assert await stand.sees(known)
    stand.idp.lies = Lies()
    stand.later(6.0)
    assert (await browser.open(f"{APP1}/")).status == 200


async def test_h11_a_provider_that_dies_between_callback_and_token(stand: Stand) -> None:
    known = await stand.signed_in()
    browser = stand.browser()
    callback = await browser.to_callback(f"{APP1}/")
    await stand.idp.stop()
    try:
        page = await browser.get(callback)
        refused(page, 503)
        nobody(browser)
        assert await stand.sees(known)
    finally:
        await stand.idp.start()
    assert (await browser.open(f"{APP1}/")).status == 200


async def test_h11_a_provider_that_rotates_its_keys_in_the_middle_of_a_login(stand: Stand) -> None:
    await stand.signed_in()
    browser = stand.browser()
    callback = await browser.to_callback(f"{APP1}/")
    stand.later(6.0)
    rotate(stand)
    assert (await browser.open(callback)).status == 200


# -- H12-H18: many tabs, keys, hosts, tickets -----------------------------------------------------


async def test_h12_ten_tabs_land_each_on_their_own_page(stand: Stand) -> None:
    """All started before any is finished; on two applications, five each."""
    stand.idp.user = None
    browser = stand.browser()
    urls = [f"{app}/tab/{number}" for number in range(5) for app in (APP1, APP2)]
    forms = [await browser.open(url) for url in urls]
    header = sum(len(name) + len(value) + 3 for name, value in browser.jar[LOGIN_HOST].items())
    assert header < 8 * 1024
    pages = await asyncio.gather(
        *(browser.submit(form, "/authorize", login="alice") for form in forms)
    )
    assert [(page.status, page.url) for page in pages] == [(200, url) for url in urls]


async def test_h12_more_tabs_than_that_forget_the_oldest(stand: Stand) -> None:
    stand.idp.user = None
    browser = stand.browser()
    forms = [await browser.open(f"{AUTH}/.heim/login?rd={APP1}/{n}") for n in range(40)]
    assert len(browser.names(LOGIN_HOST, "__Host-heim-login-")) <= 12
    for host, cookies in browser.jar.items():
        assert sum(len(name) + len(value) + 3 for name, value in cookies.items()) < 8192, host
    last = await browser.submit(forms[-1], "/authorize", login="alice")
    assert last.url == f"{APP1}/39"
    first = await browser.submit(forms[0], "/authorize", login="alice")
    assert first.status == 200, "its flow is forgotten, and its owner is signed in meanwhile"


async def test_h12_forty_tabs_of_one_application_stay_below_8_kib(stand: Stand) -> None:
    browser = stand.browser()
    for number in range(40):
        await browser.get(f"{APP1}/{number}?{'x' * 500}")
    cookies = browser.jar[host_of(APP1)]
    assert len(cookies) <= 5
    assert sum(len(name) + len(value) + 3 for name, value in cookies.items()) < 2048


async def test_h13_an_expired_state_with_a_live_session_goes_on(stand: Stand) -> None:
    browser = await stand.signed_in()
    stand.idp.user = None
    form = await browser.open(f"{AUTH}/.heim/login/one?again=1&rd={quote(APP1 + '/deep')}")
    stand.later(20 * MINUTE)
    page = await browser.submit(form, "/authorize", login="alice")
    assert (page.status, page.url) == (200, f"{APP1}/deep")


async def test_h15_a_predictable_generator_changes_nothing(stand: Stand) -> None:
    seen: set[str] = set()
    for _ in range(3):
        random.seed(1)
        await stand.browser().to_callback(f"{APP1}/")
        asked = stand.idp.requests[-1]
        for name in ("state", "nonce", "code_challenge"):
            assert asked[name] not in seen
            seen.add(asked[name])
        assert len(asked["state"].partition(".")[2]) == 43, "256 bits"
        assert len(asked["nonce"]) == 43


async def test_h16_every_answer_is_private_and_cannot_be_framed(stand: Stand) -> None:
    browser = stand.browser()
    pages = [await browser.open(f"{APP1}/"), *browser.trail]
    for url in (
        f"{AUTH}/", f"{AUTH}/.heim/me", f"{AUTH}/.heim/login", f"{AUTH}/.heim/logout",
        f"{AUTH}/.heim/signed-out", f"{AUTH}/.heim/nothing", f"{AUTH}/.heim/callback",
        f"{APP1}/.heim/me", f"{APP1}/.heim/handoff", f"{APP1}/.heim/login", f"{APP1}/.heim/x",
    ):  # fmt: skip
        pages.append(await browser.get(url))
        pages.append(await browser.fetch(url))
    ours = [page for page in pages if page.url.startswith(AUTH) or "/.heim/" in page.url]
    assert len(ours) > 20
    for page in ours:
        assert page.get("cache-control") == "no-store", page.url
        assert page.get("x-content-type-options") == "nosniff"
        assert page.get("server") is None
        logout_form = page.url == f"{AUTH}/.heim/logout" and page.status == 200
        wanted = "same-origin" if logout_form else "no-referrer"
        assert page.get("referrer-policy") == wanted, page.url
        assert "frame-ancestors 'none'" in (page.get("content-security-policy") or ""), page.url


@pytest.mark.parametrize(
    "headers",
    [
        (("X-Forwarded-Host", "evil.test"),),
        (("X-Forwarded-Proto", "http"), ("X-Forwarded-Port", "8080")),
        (("Forwarded", "host=evil.test"),),
        (("X-Heim-Host", "evil.test"), ("X_Heim_Host", "evil.test"), ("X.Heim.Host", "evil.test")),
    ],
    ids=["X-Forwarded-Host", "proto", "Forwarded", "X-Heim-Host"],
)
async def test_h17_the_redirect_uri_is_the_configured_one(stand: Stand, headers: Any) -> None:
    page = await stand.browser().get(f"{AUTH}/.heim/login", headers=headers)
    assert query_of(page.location)["redirect_uri"] == f"{AUTH}/.heim/callback"
    page = await stand.browser().get("https://AUTH.example.test.:443/.heim/login", headers=headers)
    assert query_of(page.location)["redirect_uri"] == f"{AUTH}/.heim/callback"


async def test_h18_a_ticket_works_once(stand: Stand) -> None:
    browser = stand.browser()
    handoff = await browser.to_handoff(f"{APP1}/deep")
    jar = dict(browser.jar[host_of(APP1)])
    assert (await browser.open(handoff)).url == f"{APP1}/deep"
    copy = stand.browser()
    copy.jar[host_of(APP1)] = jar
    refused(await copy.get(handoff))
    assert copy.cookie(host_of(APP1)) is None
    again = await browser.open(handoff)
    assert (again.status, again.url) == (200, f"{APP1}/deep"), "the back button is no attack"


async def test_h18_a_ticket_is_used_up_by_the_first_look(stand: Stand) -> None:
    """A thief without the cookie gets nothing, and nobody gets anything after him."""
    browser, thief = stand.browser(), stand.browser()
    handoff = await browser.to_handoff(f"{APP1}/")
    refused(await thief.get(handoff))
    await thief.get(f"{APP1}/")  # with a flow cookie of his own
    refused(await thief.get(handoff))
    refused(await browser.get(handoff))
    for one in (browser, thief):
        assert one.cookie(host_of(APP1)) is None


async def test_h18_a_ticket_lives_thirty_seconds(stand: Stand) -> None:
    browser = stand.browser()
    handoff = await browser.to_handoff(f"{APP1}/")
    stand.later(29.0)
    assert (await browser.open(handoff)).status == 200
    browser = stand.browser()
    handoff = await browser.to_handoff(f"{APP1}/")
    stand.later(31.0)
    refused(await browser.get(handoff))
    assert browser.cookie(host_of(APP1)) is None


async def test_h18_concurrent_redemptions_sign_in_once(stand: Stand) -> None:
    browser = stand.browser()
    handoff = await browser.to_handoff(f"{APP1}/")
    jar = dict(browser.jar[host_of(APP1)])
    tabs = [Browser(stand.heim, jar={host_of(APP1): dict(jar)}) for _ in range(20)]
    await asyncio.gather(*(tab.get(handoff) for tab in tabs))
    assert sum(tab.cookie(host_of(APP1)) is not None for tab in tabs) == 1
    for tab in tabs:
        tab.close()


async def test_h18_an_attackers_ticket_signs_no_victim_in(stand: Stand) -> None:
    attacker, victim = stand.browser(), stand.browser()
    stand.idp.user = "bob"
    handoff = await attacker.to_handoff(f"{APP1}/public")
    await victim.get(f"{APP1}/")
    refused(await victim.get(handoff))
    assert victim.cookie(host_of(APP1)) is None


async def test_h18_the_binding_is_the_browsers_own(stand: Stand) -> None:
    """A link to the login host with the attacker's h: the ticket it makes is good for nobody."""
    attacker = stand.browser()
    start = await attacker.get(f"{APP1}/")
    victim = await stand.signed_in("alice", f"{APP2}/")
    page = await victim.get(start.location)
    ticket = page.location
    assert ticket.startswith(f"{APP1}/.heim/handoff?")
    refused(await victim.get(ticket))
    refused(await attacker.get(ticket))
    assert attacker.cookie(host_of(APP1)) is None
    assert victim.cookie(host_of(APP1)) is None


async def test_h18_flipped_and_cut_tickets_are_none(stand: Stand) -> None:
    browser = stand.browser()
    handoff = await browser.to_handoff(f"{APP1}/")
    base, _, ticket = handoff.partition("t=")
    for at in range(0, len(ticket), 2):
        flipped = ticket[:at] + ("A" if ticket[at] != "A" else "B") + ticket[at + 1 :]
        refused(await browser.get(f"{base}t={flipped}"))
        if at % 8 == 0:
            refused(await browser.get(f"{base}t={ticket[:at]}"))
    refused(await browser.get(f"{base}t={ticket}&t={ticket}"))
    refused(await browser.get(f"{base}x={ticket}"))
    assert browser.cookie(host_of(APP1)) is None
    assert (await browser.open(handoff)).status == 200, "garbage burned nothing"


async def test_h18_a_session_that_ended_meanwhile_is_not_passed_on(stand: Stand) -> None:
    browser = stand.browser()
    handoff = await browser.to_handoff(f"{APP1}/")
    page = await browser.get(f"{AUTH}/.heim/logout")
    await browser.post(f"{AUTH}/.heim/logout", page.fields_of_form, origin=AUTH)
    page = await browser.get(handoff)
    assert page.status == 303
    assert browser.cookie(host_of(APP1)) is None
    assert not await stand.sees(browser)


async def test_h18_r1_tickets_codes_and_cookies_are_in_no_log(stand: Stand) -> None:
    browser = stand.browser()
    callback = await browser.to_callback(f"{APP1}/deep?secret-of-the-app")
    code, state = (query_of(callback)[name] for name in ("code", "state"))
    cookies = dict(browser.jar[LOGIN_HOST])
    page = await browser.get(callback)
    ticket = query_of(page.location)["t"]
    page = await browser.open(page.location)
    assert page.status == 200
    secrets = [code, state.partition(".")[2], ticket, stand.idp.client_secret,
               stand.idp.token_forms[-1]["code_verifier"], *cookies.values(),
               *(value for jar in browser.jar.values() for value in jar.values())]  # fmt: skip
    log = stand.heim.proxy._access_log
    assert log is not None
    for _ in range(20):
        written = stand.heim.log.read_text() if stand.heim.log.exists() else ""
        if "/.heim/handoff" in written and "/deep" in written:
            break
        await asyncio.sleep(0.05)
    assert "/.heim/handoff" in written
    events = json.dumps([vars(record) for record in stand.audit.records], default=str)
    for secret in secrets:
        assert len(secret) > 15
        assert secret not in written
        assert secret not in events


# -- H19-H22: who is not sent to sign in ----------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_h19_other_methods_start_no_login(stand: Stand, method: str) -> None:
    browser = stand.browser()
    page = await browser.send(method, f"{APP1}/", headers=NAVIGATE)
    assert page.status in (401, 403)
    assert browser.jar == {} or not any(browser.jar.values())
    for url in (f"{AUTH}/.heim/login", f"{AUTH}/.heim/login/one", f"{AUTH}/.heim/callback",
                f"{APP1}/.heim/login", f"{APP1}/.heim/handoff", f"{AUTH}/", f"{AUTH}/.heim/me",
                f"{AUTH}/.heim/jwks.json", f"{APP1}/.heim/me"):  # fmt: skip
        page = await browser.send(method, url, headers=NAVIGATE, body=b"x=1")
        assert page.status == 405, url
        assert page.get("allow")
    assert not any(browser.jar.values())
    assert not stand.sent


@pytest.mark.parametrize(
    "headers",
    [
        (("Accept", "*/*"), ("Sec-Fetch-Mode", "cors")),
        (("Accept", "text/html"), ("Sec-Fetch-Mode", "cors")),
        (("Accept", "image/*"), ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image")),
        (("Accept", "text/html"), ("X-Requested-With", "XMLHttpRequest")),
        (("Accept", "application/json"),),
        (("Accept", "text/html"), ("Sec-Fetch-Mode", "websocket")),
    ],
    ids=["fetch", "fetch-html", "img", "xhr", "json", "websocket"],
)
async def test_h19_programs_and_subresources_start_no_login(stand: Stand, headers: Any) -> None:
    browser = stand.browser()
    page = await browser.send("GET", f"{APP1}/", headers=headers)
    assert page.status == 401
    assert not any(browser.jar.values())
    if any(name == "Sec-Fetch-Mode" for name, _ in headers):
        callback = f"{AUTH}/.heim/callback?code=x&state=y"
        for url in (f"{AUTH}/.heim/login", f"{APP1}/.heim/login", f"{APP1}/.heim/handoff?t=x",
                    callback, f"{AUTH}/.heim/login/one"):  # fmt: skip
            page = await browser.send("GET", url, headers=headers)
            assert page.status == 401, url
    assert not any(browser.jar.values())


@pytest.mark.parametrize(
    "header",
    [("Sec-Purpose", "prefetch"), ("Sec-Purpose", "prefetch;prerender"), ("Purpose", "prefetch")],
    ids=["prefetch", "prerender", "purpose"],
)
async def test_h20_a_prefetch_starts_and_finishes_nothing(
    stand: Stand, header: tuple[str, str]
) -> None:
    browser = stand.browser()
    for url in (f"{APP1}/", f"{AUTH}/.heim/login", f"{APP1}/.heim/login"):
        page = await browser.get(url, headers=(header,))
        assert page.status == 401, url
    assert not any(browser.jar.values())
    callback = await browser.to_callback(f"{APP1}/")
    assert (await browser.get(callback, headers=(header,))).status == 401
    page = await browser.get(callback)
    assert (await browser.get(page.location, headers=(header,))).status == 401
    assert (await browser.open(page.location)).status == 200, "nothing was used up by looking ahead"


async def test_h21_a_browser_that_goes_in_circles_is_told_why(stand: Stand) -> None:
    browser = await stand.signed_in("alice", f"{APP2}/")
    for _ in range(10):
        page = await browser.get(f"{APP1}/")
        if page.status != 303:
            break
        page = await browser.get(page.location)
        if page.status != 303:
            break
        await browser.get(page.location)
        browser.jar.pop(host_of(APP1))  # the session cookie never stays
    assert page.status == 400
    assert "cookie" in page.text.lower()
    assert host_of(APP1) in page.text


async def test_h22_a_backend_with_an_age_limit_needs_a_fresh_login(stand: Stand) -> None:
    """max_session_age is what exists of step-up; prompting per route comes later."""
    browser = await stand.signed_in()
    stand.later(11 * MINUTE)
    stand.idp.auth_time = stand.clock.now() - 3600
    page = await browser.open(f"{STRICT}/")
    assert (page.status, page.url) == (200, f"{STRICT}/")
    assert stand.idp.requests[-1]["max_age"] == "600"
    # A provider that ignores max_age does not help anybody in.
    stand.later(11 * MINUTE)
    stand.idp.lies.claims = {"auth_time": int(stand.clock.now() - 3600)}
    page = await browser.open(f"{STRICT}/")
    assert page.status == 400
    assert not await stand.sees(browser, f"{STRICT}/")


# -- beyond the list ------------------------------------------------------------------------------


async def test_h1_keys_that_rotate_in_the_middle_of_a_login(stand: Stand) -> None:
    old, new, last = (KeyRing.generate_line(kid) for kid in ("ka", "kb", "kc"))
    await stand.use_keys(old)
    browser = stand.browser()
    callback = await browser.to_callback(f"{APP1}/deep")
    await stand.use_keys(new, old)
    assert (await browser.open(callback)).url == f"{APP1}/deep", "overlap: nobody notices"
    gone = stand.browser()
    callback = await gone.to_callback(f"{APP1}/deep")
    await stand.use_keys(last)
    refused(await gone.get(callback))
    nobody(gone)
    assert (await gone.open(f"{APP1}/deep")).status == 200
    late = stand.browser()
    handoff = await late.to_handoff(f"{APP1}/")
    await stand.use_keys(new)
    refused(await late.get(handoff))
    assert (await late.open(f"{APP1}/")).status == 200


async def test_h1_a_provider_that_is_removed_in_the_middle_of_a_login(tmp_path: Path) -> None:
    async with signin_stand(tmp_path, two=True) as stand:
        browser = stand.browser()
        callback = await browser.to_callback(f"{AUTH}/.heim/login/two?rd=/")
        only_one = {"providers": two_providers(stand.idp, stand.other, tmp_path)["providers"][:1]}
        await stand.change(identity=only_one)
        refused(await browser.get(callback))
        assert browser.cookie(LOGIN_HOST) is None
        assert not stand.other.hits["token"]
        # A flow of "two" must not be finished by a provider that took over its name.
        other = stand.browser()
        callback = await other.to_callback(f"{AUTH}/.heim/login/one?rd=/")
        await stand.change(
            identity={"providers": [provider(stand.other, "one", tmp_path / "x.secret")]}
        )
        refused(await other.get(callback))
        assert other.cookie(LOGIN_HOST) is None


async def test_h1_an_application_that_is_removed_in_the_middle_of_a_login(tmp_path: Path) -> None:
    async with signin_stand(tmp_path) as stand:
        browser = stand.browser()
        callback = await browser.to_callback(f"{APP2}/deep")
        document = stand.heim.document
        await stand.change(
            backends=[one for one in document["backends"] if one["name"] != "app2"],
            roles=[one for one in document["roles"] if one["name"] == "reader"],
        )
        page = await browser.open(callback)
        # Signed in, and sent nowhere that is not served: no ticket for a host that is not ours.
        assert (page.status, page.url) == (200, f"{AUTH}/")
        assert not [step.url for step in browser.trail if "/.heim/handoff" in step.url]


async def test_h1_signing_out_during_a_pending_login_in_another_tab(stand: Stand) -> None:
    browser = await stand.signed_in()
    callback = await browser.to_callback(f"{AUTH}/.heim/login/one?again=1&rd={APP1}/deep")
    page = await browser.get(f"{AUTH}/.heim/logout")
    await browser.post(f"{AUTH}/.heim/logout", page.fields_of_form, origin=AUTH)
    assert not await stand.sees(browser)
    sessions = await stand.live_sessions()
    # The other tab was a sign-in of its own that its owner finishes now.
    page = await browser.open(callback)
    assert (page.status, page.url) == (200, f"{APP1}/deep")
    assert len(await stand.live_sessions() - sessions) == 1


async def test_h2_a_store_that_goes_down_during_the_exchange(stand: Stand) -> None:
    """After the flow was used up and before the session exists: nobody is half signed in."""
    known = await stand.signed_in()
    browser = stand.browser()
    callback = await browser.to_callback(f"{APP1}/")
    sessions = await stand.live_sessions()
    stand.idp.lies.token_delay = 0.3
    pending = asyncio.create_task(browser.get(callback))
    await stand.heim.until(lambda: stand.idp.hits["token"] == 2)
    async with stand.store_down():
        refused(await pending, 503)
        assert await stand.sees(known)
    nobody(browser)
    assert await stand.live_sessions() <= sessions
    stand.idp.lies.token_delay = 0.0
    refused(await browser.get(callback))
    assert (await browser.open(f"{APP1}/")).status == 200


async def test_h2_a_browser_that_goes_away_during_the_exchange(stand: Stand) -> None:
    browser = stand.browser()
    callback = await browser.to_callback(f"{APP1}/")
    stand.idp.lies.token_delay = 0.2
    pending = asyncio.create_task(browser.get(callback))
    await stand.heim.until(lambda: stand.idp.hits["token"] == 1)
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    stand.idp.lies.token_delay = 0.0
    page = await browser.get(callback)
    assert page.status == 400, "used, and nobody has what it gave"
    nobody(browser)
    assert (await browser.open(f"{APP1}/")).status == 200


async def test_s7_a_flood_of_sign_ins_from_one_address_stops_nobody_else(stand: Stand) -> None:
    known, flood, other = await stand.signed_in(), stand.browser(), stand.browser()
    known.address = flood.address
    statuses = []
    for _ in range(320):
        page = await flood.get(f"{AUTH}/.heim/callback?state=x")
        statuses.append(page.status)
        if statuses[-1] == 429:
            break
    assert statuses[-1] == 429
    assert len(statuses) > 100, "an office behind one address can sign in"
    page = await flood.get(f"{AUTH}/.heim/login")
    refused(page, 429)
    assert page.get("retry-after")
    assert await stand.sees(known), "who is signed in is not affected, from the same address"
    assert (await known.get(f"{AUTH}/.heim/me")).status == 200
    assert (await known.get(f"{AUTH}/.heim/logout")).status == 200
    assert (await other.open(f"{APP1}/")).status == 200


async def test_h1_clients_cannot_speak_for_the_edge(stand: Stand) -> None:
    """X-Heim-* from a client never reach the portal, however they are spelled."""
    known = await stand.signed_in()
    session = next(iter(stand.sessions._resident))
    forged = tuple(
        (f"{spelling}{name}", value)
        for spelling in ("X-Heim-", "x-heim-", "X_Heim_", "X.Heim.", "X--Heim--", "XHeim-")
        for name, value in (
            ("Session", session.sid),
            ("Host", "app2.example.test"),
            ("Surface", "login"),
            ("Backend", "app2"),
            ("Client", "127.0.0.1"),
            ("Request", "forged-request-id"),
            ("Scheme", "http"),
        )
    )
    stranger = stand.browser()
    for url in (f"{AUTH}/.heim/me", f"{APP1}/.heim/me"):
        page = await stranger.send("GET", url, headers=forged)
        assert page.status == 401
        assert "forged-request-id" not in page.text + page.raw.decode()
    # On an application's host the login host's pages do not exist, whatever a header says.
    for path in ("/.heim/jwks.json", "/.heim/callback", "/.heim/signed-out", "/.heim/login/one"):
        page = await stranger.get(f"{APP1}{path}", headers=forged)
        assert page.status == 404, path
    page = await known.get(f"{APP1}/", headers=forged)
    assert page.status == 200
    assert not [n for n, _ in stand.sent[-1].fields if n.lower().replace("-", "").replace(
        "_", "").replace(".", "").startswith("xheim")]  # fmt: skip


async def test_h1_pages_exist_on_their_own_host_only(stand: Stand) -> None:
    browser = await stand.signed_in()
    for path in ("/", "/x", "/.heim", "/.heim/", "/.heim/callback", "/.heim/jwks.json",
                 "/.heim/signed-out", "/.heim/login/one", "/.heim/LOGIN", "/.heim/login/",
                 "/.heim/me/", "/.heim/x", "/.heim/%6cogout/x"):  # fmt: skip
        page = await browser.get(f"{APP1}{path}")
        assert page.status == (200 if path in ("/", "/x") else 404), path
        if path not in ("/", "/x"):
            assert not page.all("set-cookie")
    for path in ("/.heim/handoff", "/.heim/handoff?t=x", "/x", "/.heim", "/favicon.ico",
                 "/.heim/admin", "/.heim/login/nobody", "/.heim/login/one/", "/.heim/login/one/x",
                 "/.well-known/openid-configuration"):  # fmt: skip
        page = await browser.get(f"{AUTH}{path}")
        assert page.status == 404, path
    assert {received.path for received in stand.sent} == {"/", "/x"}


async def test_h1_head_answers_what_get_would_without_a_body(stand: Stand) -> None:
    browser = await stand.signed_in()
    for url in (f"{AUTH}/", f"{AUTH}/.heim/me", f"{AUTH}/.heim/jwks.json", f"{AUTH}/.heim/logout",
                f"{AUTH}/.heim/x", f"{APP1}/.heim/me", f"{APP1}/.heim/x"):  # fmt: skip
        got = await browser.get(url)
        head = await browser.send("HEAD", url, headers=NAVIGATE)
        assert (head.status, head.body) == (got.status, b""), url
        # The connection is still in step.
        assert (await browser.get(url)).status == got.status


async def test_h1_a_session_cookie_in_the_query_or_the_body_is_nothing(stand: Stand) -> None:
    browser = await stand.signed_in()
    value = browser.cookie(LOGIN_HOST)
    stranger = stand.browser()
    for url in (f"{AUTH}/.heim/me?{SESSION}={value}", f"{AUTH}/.heim/me?t={value}",
                f"{APP1}/?{SESSION}={browser.cookie(host_of(APP1))}"):  # fmt: skip
        assert (await stranger.fetch(url)).status == 401
    page = await stranger.send(
        "GET", f"{AUTH}/.heim/me", headers=(("Authorization", f"Bearer {value}"),)
    )
    assert page.status == 401
