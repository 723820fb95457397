"""Letting a command line act as somebody: by pressing a button, and in no other way (L1-L4)."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from heim_proxy.identity.cookies import SESSION_COOKIE
from heim_proxy.live import EndReason
from heim_proxy.portal.authorize import device_label
from tests.fakes.portal import APP1, LOGIN, Browser, PortalStand, Reply, query_of
from tests.fakes.programs import challenge_of

ORIGIN = f"https://{LOGIN}"
HERE = "http://127.0.0.1:49152/callback"
ASKED: dict[str, str] = {
    "redirect_uri": HERE,
    "state": "s" * 32,
    "code_challenge": challenge_of(),
    "code_challenge_method": "S256",
    "device": "alice's laptop",
}
PATH = "/.heim/cli/authorize"


def page_of(**change: Any) -> str:
    return f"{PATH}?{urlencode({k: v for k, v in (ASKED | change).items() if v is not None})}"


async def signed_in(stand: PortalStand) -> Browser:
    browser = stand.browser()
    await browser.open(APP1)
    return browser


def field(page: Reply, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page.text)
    assert found, page.text
    return found[1]


async def press(
    browser: Browser, decision: str = "approve", *, origin: str | None = ORIGIN, **change: str
) -> Reply:
    page = await browser.get(page_of())
    form = {**ASKED, "csrf": field(page, "csrf"), "decision": decision, **change}
    headers = {} if origin is None else {"Origin": origin}
    return await browser.request("POST", PATH, headers=headers, form=form)


async def test_the_page_says_who_lets_what_act(stand: PortalStand) -> None:
    page = await (await signed_in(stand)).get(page_of())
    assert page.status == 200
    assert "alice@example.com" in page.text
    assert "alice&#39;s laptop" in page.text
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert page.headers["X-Frame-Options"] == "DENY"


async def test_looking_at_the_page_gives_nothing(stand: PortalStand) -> None:
    """L2: a page on the internet can open it, and that is all."""
    browser = await signed_in(stand)
    before = len(stand.store.sessions), dict(stand.store.burned)
    for _ in range(3):
        assert (await browser.get(page_of())).status == 200
    assert (len(stand.store.sessions), dict(stand.store.burned)) == before


async def test_the_button_sends_the_browser_back_with_a_code(stand: PortalStand) -> None:
    reply = await press(await signed_in(stand))
    assert reply.status == 303
    assert reply.location.startswith(f"{HERE}?")
    assert query_of(reply.location).keys() == {"code", "state", "iss"}
    assert query_of(reply.location)["state"] == ASKED["state"]
    assert query_of(reply.location)["iss"] == stand.settings().login_url
    assert stand.audit.last("device.approved")["label"] == "alice's laptop"


@pytest.mark.parametrize("decision", ["deny", "", "Approve", "approve "])
async def test_anything_but_the_button_is_a_refusal(stand: PortalStand, decision: str) -> None:
    reply = await press(await signed_in(stand), decision)
    assert query_of(reply.location) == {
        "error": "access_denied",
        "state": ASKED["state"],
        "iss": stand.settings().login_url,
    }
    assert stand.audit.last("device.denied")["email"] == "alice@example.com"


async def test_a_program_on_ipv6_is_as_good(stand: PortalStand) -> None:
    there = "http://[::1]:8080/callback"
    reply = await press(await signed_in(stand), redirect_uri=there)
    assert reply.location.startswith(f"{there}?code=")


async def test_whoever_is_not_signed_in_does_so_and_comes_back(stand: PortalStand) -> None:
    browser = stand.browser()
    reply = await browser.follow(page_of())
    assert (reply.status, urlsplit(reply.url).path) == (200, PATH)
    assert query_of(reply.url) == ASKED
    assert "alice@example.com" in reply.text


async def test_coming_back_survives_a_second_try_at_the_provider(stand: PortalStand) -> None:
    stand.providers.append(stand.providers[0].__class__(
        "second", stand.providers[0].type, stand.idp.issuer, stand.idp.client_id,
        secret=stand.providers[0].secret, groups_claim="groups", display_name="Second",
    ))  # fmt: skip
    browser = stand.browser()
    picker = await browser.follow(page_of())
    link = re.search(r'href="(/\.heim/login/idp[^"]*)"', picker.text)
    assert link, picker.text
    reply = await browser.follow(link[1].replace("&amp;", "&"))
    assert query_of(reply.url) == ASKED


async def test_a_session_that_ended_on_the_page_leads_to_signing_in_again(
    stand: PortalStand,
) -> None:
    browser = await signed_in(stand)
    page = await browser.get(page_of())
    browser.jar.clear()
    form = {**ASKED, "csrf": field(page, "csrf"), "decision": "approve"}
    reply = await browser.request("POST", PATH, headers={"Origin": ORIGIN}, form=form)
    assert reply.status == 303
    assert reply.location.startswith("/.heim/login?rd=%2F.heim%2Fcli%2Fauthorize%3F")


BAD: dict[str, dict[str, Any]] = {
    "no redirect_uri": {"redirect_uri": None},
    "another host": {"redirect_uri": "http://evil.test:8080/callback"},
    "localhost": {"redirect_uri": "http://localhost:8080/callback"},
    "https": {"redirect_uri": "https://127.0.0.1:8080/callback"},
    "user info": {"redirect_uri": "http://127.0.0.1:8080@evil.test/callback"},
    "another path": {"redirect_uri": "http://127.0.0.1:8080/other"},
    "a header line": {"redirect_uri": f"{HERE}\r\nX-Evil: 1"},
    "no state": {"state": None},
    "a short state": {"state": "s" * 15},
    "a state with a header line": {"state": "s" * 16 + "\r\nX-Evil: 1"},
    "a state with markup": {"state": "<script>" * 4},
    "a state with a parameter": {"state": "s" * 16 + "&code=evil"},
    "no challenge": {"code_challenge": None},
    "a short challenge": {"code_challenge": "x"},
    "no method": {"code_challenge_method": None},
    "the plain method": {"code_challenge_method": "plain"},
    "another method": {"code_challenge_method": "s256"},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
async def test_a_damaged_request_is_a_page_and_no_redirect(
    stand: PortalStand, change: dict[str, Any]
) -> None:
    """L3, L4."""
    browser = await signed_in(stand)
    page = await browser.get(page_of(**change))
    assert (page.status, page.location) == (400, "")
    posted = await press(browser, **{k: v or "" for k, v in change.items()})
    assert (posted.status, posted.location) == (400, "")
    assert "X-Evil" not in posted.headers
    assert "device.approved" not in stand.audit.events()


async def test_a_parameter_twice_is_a_damaged_request(stand: PortalStand) -> None:
    page = await (await signed_in(stand)).get(f"{page_of()}&redirect_uri=http://evil.test/")
    assert page.status == 400


@pytest.mark.parametrize(
    "origin",
    [None, "null", "https://evil.test", f"https://{APP1}", f"http://{LOGIN}", f"{ORIGIN}:8443"],
)
async def test_p2_a_form_of_another_origin_lets_nothing_act(
    stand: PortalStand, origin: str | None
) -> None:
    reply = await press(await signed_in(stand), origin=origin)
    assert (reply.status, reply.location) == (403, "")


@pytest.mark.parametrize("csrf", ["", "x", "A" * 43])
async def test_p2_a_form_without_our_token_lets_nothing_act(stand: PortalStand, csrf: str) -> None:
    reply = await press(await signed_in(stand), csrf=csrf)
    assert (reply.status, reply.location) == (403, "")


async def test_p2_the_token_of_another_page_or_person_is_no_good(stand: PortalStand) -> None:
    browser, other = await signed_in(stand), await signed_in(stand)
    for page in (await other.get(page_of()), await browser.get("/.heim/logout")):
        assert (await press(browser, csrf=field(page, "csrf"))).status == 403


@pytest.mark.parametrize("name", ["Sec-Purpose", "Purpose"])
async def test_a_prefetch_starts_nothing(stand: PortalStand, name: str) -> None:
    reply = await stand.browser().get(page_of(), **{name: "prefetch"})
    assert reply.status == 401


async def test_backends_do_not_serve_the_page(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    assert (await browser.get(f"https://{APP1}{page_of()}")).status == 404


async def test_a_stolen_page_does_not_outlive_the_session(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    page = await browser.get(page_of())
    cookie = browser.session()
    assert cookie
    for sid in list(stand.store.sessions):
        await stand.stage.sessions.end(sid, EndReason.REVOKED, stand.clock.now())
    browser.jar[LOGIN] = {SESSION_COOKIE: cookie}
    form = {**ASKED, "csrf": field(page, "csrf"), "decision": "approve"}
    reply = await browser.request("POST", PATH, headers={"Origin": ORIGIN}, form=form)
    assert reply.location.startswith("/.heim/login?")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("laptop", "laptop"),
        ("", "unnamed device"),
        ("   ", "unnamed device"),
        ("\r\nSet-Cookie: x", "Set-Cookie: x"),
        ("a\u202eb\u200bc", "abc"),
        ("\x1b[31mred\x07", "[31mred"),
        ("größe 💻", "größe 💻"),
        ("x" * 1000, "x" * 64),
        ("two   words", "two words"),
    ],
)
def test_a_device_cannot_hide_behind_its_name(text: str, label: str) -> None:
    assert device_label(text) == label


async def test_markup_in_a_name_is_text(stand: PortalStand) -> None:
    page = await (await signed_in(stand)).get(page_of(device='"><script>alert(1)</script>'))
    assert "<script>" not in page.text
    assert "&lt;script&gt;" in page.text
