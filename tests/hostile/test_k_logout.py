"""K: who can sign somebody out, and what is over once they are."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.fakes.browser import NAVIGATE, Browser, Page
from tests.fakes.heim import LOGIN_HOST
from tests.fakes.idp import OMIT, Lies
from tests.hostile.signin import APP1, APP2, AUTH, Stand, host_of, query_of

pytest_plugins = ("tests.hostile.signin_fixtures",)
pytestmark = pytest.mark.asyncio(loop_scope="module")

LOGOUT = f"{AUTH}/.heim/logout"
FORM = ("Content-Type", "application/x-www-form-urlencoded")


async def token_of(browser: Browser) -> str:
    page = await browser.get(LOGOUT)
    assert page.status == 200
    return page.fields_of_form["csrf"]


async def press(browser: Browser) -> Page:
    """Press the button, as its owner."""
    return await browser.post(LOGOUT, {"csrf": await token_of(browser)}, origin=AUTH)


@pytest.mark.parametrize(
    "headers",
    [
        (("Accept", "image/*"), ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image")),
        (*NAVIGATE, ("Sec-Fetch-Dest", "iframe")),
        (*NAVIGATE, ("Sec-Purpose", "prefetch")),
        (*NAVIGATE, ("Origin", AUTH)),
        NAVIGATE,
        (),
    ],
    ids=["img", "iframe", "prefetch", "origin", "link", "bare"],
)
async def test_k1_a_get_signs_nobody_out(stand: Stand, headers: Any) -> None:
    browser = await stand.signed_in()
    token = await token_of(browser)
    for method in ("GET", "HEAD"):
        for url in (LOGOUT, f"{LOGOUT}?csrf={token}", f"{APP1}/.heim/logout", f"{AUTH}/logout",
                    f"{AUTH}/.heim/signed-out", f"{LOGOUT}?_method=POST"):  # fmt: skip
            page = await browser.send(method, url, headers=headers)
            assert page.status in (200, 303, 404)
            assert not page.all("set-cookie")
    assert await stand.sees(browser)
    assert (await browser.get(f"{AUTH}/.heim/me")).status == 200


FORGED: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "sibling": ("{csrf}", (("Origin", APP1),)),
    "other-site": ("{csrf}", (("Origin", "https://evil.test"),)),
    "null": ("{csrf}", (("Origin", "null"),)),
    "no-origin": ("{csrf}", ()),
    "http": ("{csrf}", (("Origin", AUTH.replace("https", "http")),)),
    "port": ("{csrf}", (("Origin", f"{AUTH}:443"),)),
    "prefix": ("{csrf}", (("Origin", f"{AUTH}.evil.test"),)),
    "upper-case": ("{csrf}", (("Origin", AUTH.upper()),)),
    "two-origins": ("{csrf}", (("Origin", AUTH), ("Origin", "https://evil.test"))),
    "listed-origins": ("{csrf}", (("Origin", f"{AUTH}, https://evil.test"),)),
    "referer-only": ("{csrf}", (("Referer", LOGOUT),)),
    "no-token": ("", (("Origin", AUTH),)),
    "wrong-token": ("A" * 43, (("Origin", AUTH),)),
    "cut-token": ("{cut}", (("Origin", AUTH),)),
    "of-another-session": ("{other}", (("Origin", AUTH),)),
    "of-an-application": ("{app}", (("Origin", AUTH),)),
    "not-ascii": ("\xe4" * 43, (("Origin", AUTH),)),
}


@pytest.mark.parametrize(("csrf", "headers"), FORGED.values(), ids=FORGED)
async def test_k1_p2_a_form_that_is_not_ours_signs_nobody_out(
    stand: Stand, csrf: str, headers: tuple[tuple[str, str], ...]
) -> None:
    browser, attacker = await stand.signed_in(), await stand.signed_in("bob", f"{APP1}/public")
    mine, other = await token_of(browser), await token_of(attacker)
    app = browser.cookie(host_of(APP1)) or ""
    value = csrf.format(csrf=mine, cut=mine[:-1], other=other, app=app)
    body = urlencode({"csrf": value}).encode()
    page = await browser.send("POST", LOGOUT, headers=(*NAVIGATE, FORM, *headers), body=body)
    assert page.status == 403
    assert not page.all("set-cookie")
    assert await stand.sees(browser)
    assert "logout.refused" in stand.audit.events


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain", "csrf={csrf}"),
        ("application/json", '{{"csrf":"{csrf}"}}'),
        ("multipart/form-data; boundary=x", '--x\r\nContent-Disposition: form-data; name="csrf"'
         "\r\n\r\n{csrf}\r\n--x--\r\n"),
        ("", "csrf={csrf}"),
        ("application/x-www-form-urlencoded", "x=" + "y" * 70_000 + "&csrf={csrf}"),
        ("application/x-www-form-urlencoded", "&".join("a=b" for _ in range(50)) + "&csrf={csrf}"),
        ("application/x-www-form-urlencoded", ""),
    ],
    ids=["text", "json", "multipart", "no-type", "70-KiB", "many-fields", "empty"],
)  # fmt: skip
async def test_k1_p2_a_body_that_is_not_our_form_signs_nobody_out(
    stand: Stand, kind: str, body: str
) -> None:
    browser = await stand.signed_in()
    text = body.format(csrf=await token_of(browser)).encode()
    headers = (*NAVIGATE, ("Origin", AUTH), *((("Content-Type", kind),) if kind else ()))
    page = await browser.send("POST", LOGOUT, headers=headers, body=text)
    assert page.status in (400, 403, 413), page.status
    assert page.get("x-request-id")
    assert await stand.sees(browser)


async def test_k1_an_application_cannot_sign_anybody_out(stand: Stand) -> None:
    """Its pages share an origin with an upstream that we do not trust."""
    browser = await stand.signed_in()
    token = await token_of(browser)
    page = await browser.post(f"{APP1}/.heim/logout", {"csrf": token}, origin=APP1)
    assert page.status in (303, 403)
    if page.status == 303:
        assert page.location == LOGOUT
    assert await stand.sees(browser)
    page = await browser.post(LOGOUT, {"csrf": token}, origin=APP1)
    assert page.status == 403
    assert await stand.sees(browser)


async def test_k1_the_form_cannot_be_read_by_another_origin(stand: Stand) -> None:
    browser = await stand.signed_in()
    page = await browser.send("GET", LOGOUT, headers=(*NAVIGATE, ("Origin", APP1)))
    assert page.get("access-control-allow-origin") is None
    assert "frame-ancestors 'none'" in (page.get("content-security-policy") or "")
    page = await browser.send(
        "OPTIONS", LOGOUT,
        headers=(("Origin", APP1), ("Access-Control-Request-Method", "POST")),
    )  # fmt: skip
    assert page.status == 405
    assert page.get("access-control-allow-origin") is None


async def test_k2_a_sign_out_ends_every_cookie_at_once(stand: Stand) -> None:
    browser = await stand.signed_in()
    await browser.open(f"{APP2}/")
    copy = stand.browser()
    copy.jar = {host: dict(cookies) for host, cookies in browser.jar.items()}
    assert (await press(browser)).status == 303
    assert browser.cookie(LOGIN_HOST) is None
    for one in (browser, copy):
        for url in (APP1, APP2):
            assert not await stand.sees(one, f"{url}/")
        assert (await one.get(f"{AUTH}/.heim/me")).status == 401
        assert (await one.get(f"{AUTH}/.heim/login?host=app1.example.test&rd=/&h={'A' * 43}")
                ).location.startswith(stand.idp.issuer)  # fmt: skip
    assert stand.audit.of("logout")


async def test_k2_a_sign_out_is_of_one_session_only(stand: Stand) -> None:
    here, there = await stand.signed_in(), await stand.signed_in()
    await press(here)
    assert not await stand.sees(here)
    assert await stand.sees(there), "the same person on another machine"


async def test_k2_tickets_on_their_way_are_worth_nothing_after_it(stand: Stand) -> None:
    browser = await stand.signed_in("alice", f"{APP2}/")
    handoff = await browser.to_handoff(f"{APP1}/")
    await press(browser)
    page = await browser.open(handoff)
    assert not any(step.status == 200 and step.url == f"{APP1}/" for step in browser.trail[:-1])
    assert browser.trail[0].status == 303
    assert not [x for x in browser.trail[0].all("set-cookie") if x.startswith("__Host-heim=A")]
    assert page.status in (200, 400)
    assert stand.idp.hits["token"] == 2, "they signed in again, at the provider"


async def test_k2_twenty_presses_at_once_are_one_sign_out(stand: Stand) -> None:
    browser = await stand.signed_in()
    token = await token_of(browser)
    tabs = [
        Browser(stand.heim, jar={host: dict(own) for host, own in browser.jar.items()})
        for _ in range(20)
    ]
    pages = await asyncio.gather(*(tab.post(LOGOUT, {"csrf": token}, origin=AUTH) for tab in tabs))
    assert {page.status for page in pages} == {303}
    assert not await stand.sees(browser)
    for tab in tabs:
        tab.close()
    again = await browser.post(LOGOUT, {"csrf": token}, origin=AUTH)
    assert (again.status, again.location) == (303, f"{AUTH}/.heim/signed-out")


async def test_k2_an_old_token_does_not_sign_the_next_session_out(stand: Stand) -> None:
    browser = await stand.signed_in()
    token = await token_of(browser)
    await press(browser)
    await browser.open(f"{APP1}/")
    page = await browser.post(LOGOUT, {"csrf": token}, origin=AUTH)
    assert page.status == 403
    assert await stand.sees(browser)


async def test_k2_a_sign_out_while_a_page_is_open_in_another_tab(stand: Stand) -> None:
    """Keys rotated between the page and the button: the button still works or says why."""
    browser = await stand.signed_in()
    token = await token_of(browser)
    before = stand.keys.read_text()
    from_now = "rot:" + "B" * 43
    await stand.use_keys(from_now, *before.splitlines())
    page = await browser.post(LOGOUT, {"csrf": token}, origin=AUTH)
    assert page.status == 303
    assert not await stand.sees(browser)


async def test_k3_the_providers_session_ends_too(stand: Stand) -> None:
    stand.later(3700.0)  # past what another test let its metadata say
    browser = await stand.signed_in()
    page = await press(browser)
    assert page.location.startswith(f"{stand.idp.issuer}/end?")
    asked = query_of(page.location)
    assert asked["post_logout_redirect_uri"] == f"{AUTH}/.heim/signed-out"
    assert asked["client_id"] == "heim"
    assert asked["id_token_hint"].count(".") == 2
    last = await browser.open(page.location)
    assert (last.status, last.url) == (200, f"{AUTH}/.heim/signed-out")
    assert asked["id_token_hint"] not in last.text


@pytest.mark.parametrize(
    "lies",
    [
        Lies(discovery={"end_session_endpoint": OMIT}),
        Lies(discovery={"end_session_endpoint": "http://evil.test/end"}),
        Lies(discovery={"end_session_endpoint": "javascript:alert(1)"}),
        Lies(discovery_status=500, discovery_body=b"{}"),
        Lies(discovery_delay=5.0),
    ],
    ids=["none", "elsewhere", "javascript", "down", "slow"],
)
async def test_k3_signing_out_here_depends_on_nobody_else(stand: Stand, lies: Lies) -> None:
    stand.later(90_000.0)
    browser = await stand.signed_in()
    token = await token_of(browser)
    stand.idp.lies = lies
    stand.later(3700.0)
    page = await browser.post(LOGOUT, {"csrf": token}, origin=AUTH)
    assert page.status == 303
    assert page.location == f"{AUTH}/.heim/signed-out" or page.location.startswith(
        f"{stand.idp.issuer}/end?"
    )
    assert not await stand.sees(browser)
    assert (await browser.get(f"{AUTH}/.heim/me")).status == 401


async def test_k3_a_planted_state_is_not_believed_when_coming_back(stand: Stand) -> None:
    browser = await stand.signed_in()
    url = f"{AUTH}/.heim/signed-out?state=x&rd=//evil.test&post_logout_redirect_uri=//evil.test"
    page = await browser.get(url)
    assert page.status == 200
    assert "evil" not in page.text
    assert await stand.sees(browser), "coming there signs nobody out"
