"""A: whatever a link says, nobody ends up on a host that is not ours."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from tests.fakes.browser import Browser, Page
from tests.fakes.heim import LOGIN_HOST
from tests.fakes.thorough import THOROUGH
from tests.fakes.whatwg import resolve
from tests.hostile.redirects import EVIL, hostile_redirects
from tests.hostile.signin import APP1, APP2, AUTH, OPEN, STRICT, TEAMS, Stand, host_of, login_url

pytest_plugins = ("tests.hostile.signin_fixtures",)
pytestmark = pytest.mark.asyncio(loop_scope="module")

REGISTERED = {host_of(url) for url in (AUTH, APP1, APP2, TEAMS, STRICT, OPEN)}
BINDING = "A" * 43

NUMBERED = {
    "A1": "//evil.test",
    "A2": "/\\evil.test",
    "A3": "/%5cevil.test",
    "A4-encoded": "/%09/evil.test",
    "A4-raw": "/\t/evil.test",
    "A5": "/%0d%0aLocation:https://evil.test",
    "A5-raw": "/\r\nLocation: https://evil.test",
    "A6-no-slash": "https:evil.test",
    "A6-one-slash": "https:/evil.test",
    "A6-http": "http:www.evil.test",
    "A7": "https://app1.example.test.evil.test/",
    "A8": "https://evil-example.test/",
    "A9": "https://app1.example.test@evil.test/",
    "A10": "https://evil.test\\.app1.example.test/",
    "A11": "https://app1.example.test:443@evil.test",
    "A12": "javascript:alert(1)",
    "A12-case": "JaVaScRiPt:alert(1)",
    "A12-data": "data:text/html,<script>alert(1)</script>",
    "A13": "https://app1.example.test%2eevil.test",
    "A15": "https://аpp1.example.test",
    "A15-kelvin": "https://app1.example.test/".replace("1", "\u212a"),
    "A16": "https://app1.example.test:8443/",
    "A18": "/" + "x" * 2048,
    "A18-url": "https://app1.example.test/" + "x" * 2048,
    "A19-login": "/.heim/login?rd=/",
    "A19-callback": "/.heim/callback?code=x&state=y",
    "A19-encoded": "/%2eheim/login",
    "A19-url": "https://auth.example.test/.heim/login",
}


def stays(stand: Stand, page: Page) -> None:
    """Wherever this answer could lead a browser is one of our hosts, or the provider we chose."""
    assert len(page.all("location")) <= 1
    assert page.get("refresh") is None
    raw = page.raw.decode("latin-1")
    assert not re.search(r"(?im)^\s*(location|set-cookie):\s*(https://evil|x=1)", raw), raw
    if page.get("location") is not None:
        there = page.location
        assert host_of(there) in REGISTERED or there.startswith(f"{stand.idp.issuer}/authorize?")
        assert resolve(page.get("location") or "", page.url) == there
    for link in page.links:
        assert host_of(resolve(link, page.url)) in REGISTERED, link


async def wander(stand: Stand, browser: Browser, url: str) -> Page:
    """Follow every redirect; each step must stay."""
    page = await browser.open(url)
    for step in browser.trail:
        stays(stand, step)
    assert page.status, f"left for {page.url}"
    return page


@pytest.mark.parametrize("rd", NUMBERED.values(), ids=NUMBERED)
async def test_a_sign_in_ends_on_a_host_of_ours(stand: Stand, rd: str) -> None:
    """The whole way: link, provider, callback, hand-off, application."""
    encoded = quote(rd, safe="")
    for url in (
        f"{AUTH}/.heim/login?rd={encoded}",
        f"{AUTH}/.heim/login?host=app1.example.test&rd={encoded}",
        f"{APP1}/.heim/login?rd={encoded}",
    ):
        browser = stand.browser()
        page = await wander(stand, browser, url)
        assert page.status == 200
        assert page.url in (f"{AUTH}/", f"{APP1}/")
        assert stand.idp.codes, "nobody signed in, so nothing was proven"


@pytest.mark.parametrize("rd", NUMBERED.values(), ids=NUMBERED)
async def test_a_session_that_is_passed_on_stays_with_us(stand: Stand, rd: str) -> None:
    browser = await stand.signed_in()
    encoded = quote(rd, safe="")
    page = await wander(
        stand, browser, f"{AUTH}/.heim/login?host=app1.example.test&rd={encoded}&h={BINDING}"
    )
    assert page.url == f"{APP1}/"
    page = await wander(stand, browser, f"{APP1}/.heim/login?rd={encoded}")
    assert page.url == f"{APP1}/"


@pytest.mark.parametrize("rd", NUMBERED.values(), ids=NUMBERED)
async def test_a_sign_out_leads_nowhere_else(stand: Stand, rd: str) -> None:
    browser = await stand.signed_in()
    names = ("rd", "next", "post_logout_redirect_uri")
    query = "&".join(f"{name}={quote(rd, safe='')}" for name in names)
    stays(stand, await browser.get(f"{APP1}/.heim/logout?{query}"))
    page = await browser.get(f"{AUTH}/.heim/logout?{query}")
    assert page.status == 200
    stays(stand, page)
    gone = await browser.post(
        f"{AUTH}/.heim/logout?{query}", {**page.fields_of_form, "rd": rd[:999]}, origin=AUTH
    )
    assert gone.location.startswith(f"{stand.idp.issuer}/end?")
    assert EVIL not in gone.location
    last = await browser.get(f"{AUTH}/.heim/signed-out?{query}")
    assert last.status == 200
    assert EVIL not in last.text
    stays(stand, last)


@pytest.mark.parametrize(
    ("rd", "final"),
    [
        pytest.param("https://APP1.example.test./x", f"{APP1}/x", id="A14"),
        pytest.param("https://app1.example.test:443/x?y=1", f"{APP1}/x?y=1", id="A14-port"),
        pytest.param("https://app2.example.test/x", f"{APP2}/x", id="A14-sibling"),
    ],
)
async def test_a14_a_host_of_ours_is_accepted_as_we_spell_it(
    stand: Stand, rd: str, final: str
) -> None:
    browser = stand.browser()
    page = await wander(stand, browser, login_url(rd=rd))
    assert (page.status, page.url) == (200, final)


async def test_a14_an_application_cannot_send_people_to_a_sibling(stand: Stand) -> None:
    browser = stand.browser()
    page = await wander(stand, browser, f"{APP1}/.heim/login?rd={quote(APP2 + '/x', safe='')}")
    assert page.url == f"{APP1}/"


@pytest.mark.parametrize("name", ["rd", "host", "h"])
async def test_a17_a_parameter_given_twice_is_refused(stand: Stand, name: str) -> None:
    browser = await stand.signed_in()
    for url in (
        f"{AUTH}/.heim/login?{name}=/ok&{name}=//evil.test",
        f"{AUTH}/.heim/login?{name}=/ok&%72%64=/&{name}=/ok",
        f"{APP2}/.heim/login?rd=/ok&{name}=/ok&{name}=//evil.test",
    ):
        page = await browser.get(url)
        assert page.status == 400
        stays(stand, page)


TOTAL = hostile_redirects()


async def test_a20_the_corpus_is_hostile() -> None:
    """Values that stay by themselves would prove nothing."""
    leaving = [rd for rd in TOTAL if host_of(resolve(rd, f"{APP1}/")) not in REGISTERED]
    assert len(TOTAL) > 800
    assert len(leaving) > 500


@pytest.mark.parametrize("form", ["raw", "encoded", "twice"])
async def test_a20_no_value_of_the_corpus_leaves(stand: Stand, form: str) -> None:
    """Signed in, so that each value is acted on at once, on both hosts and after the hand-off."""
    browser = await stand.signed_in()
    acted = 0
    values = [_in_form(rd, form) for number, rd in enumerate(TOTAL) if _is_tried(number, rd, form)]
    for number, value in enumerate(value for value in values if value is not None):
        browser.move()
        for url in (
            f"{AUTH}/.heim/login?rd={value}",
            f"{APP1}/.heim/login?rd={value}",
        ):
            page = await browser.get(url)
            stays(stand, page)
            acted += page.status == 303
        if number % 6:
            continue
        # Past the loop guard's window, for most of them lead to the same start page.
        stand.later(11.0)
        final = await wander(
            stand, browser, f"{AUTH}/.heim/login?host=app1.example.test&rd={value}&h={BINDING}"
        )
        assert final.status in (200, 400), (value, final.status)
        assert host_of(final.url) in REGISTERED
    assert acted > len(values), "most of the corpus has to be understood, or it proves nothing"


@pytest.mark.parametrize("plain", [False, True], ids=["https", "http"])
async def test_a20_no_request_target_of_the_corpus_leaves(stand: Stand, plain: bool) -> None:
    """What an application is asked for becomes the rd of a login, or the Location to https."""
    browser = stand.browser()
    scheme = "http" if plain else "https"
    moved = 0
    for rd in TOTAL:
        value = _in_form(rd, "raw")
        if value is None or not value.startswith("/"):
            continue
        page = await browser.get(f"{scheme}://app1.example.test{value}")
        assert page.status in (303, 308, 400, 404), (value, page.status)
        stays(stand, page)
        if page.status in (303, 308):
            moved += 1
            assert host_of(page.location) == (host_of(APP1) if plain else LOGIN_HOST)
        browser.jar.clear()
    assert moved > 50
    assert not stand.sent


async def test_a20_a_path_that_looks_like_a_host_is_where_the_sign_in_ends(stand: Stand) -> None:
    for target in ("//evil.test/x", "/.//evil.test/x", "/x/..//evil.test/x"):
        browser = stand.browser()
        page = await wander(stand, browser, f"{APP1}{target}")
        assert (page.status, page.url) == (200, f"{APP1}/evil.test/x")


async def test_a21_the_goal_is_taken_from_no_header(stand: Stand) -> None:
    headers = tuple(
        (name, value)
        for name, value in (
            ("Referer", "https://evil.test/x"),
            ("Origin", "https://evil.test"),
            ("X-Forwarded-Host", "evil.test"),
            ("X-Forwarded-Proto", "javascript"),
            ("X-Forwarded-Uri", "//evil.test"),
            ("X-Forwarded-Prefix", "//evil.test"),
            ("X-Original-URL", "//evil.test"),
            ("X-Rewrite-URL", "//evil.test"),
            ("X-Heim-Host", "evil.test"),
            ("Forwarded", "host=evil.test;proto=http"),
        )
    )
    browser = stand.browser()
    for url in (f"{AUTH}/.heim/login", f"{APP1}/.heim/login", f"{APP1}/x", f"{AUTH}/.heim/logout"):
        page = await browser.get(url, headers=headers)
        stays(stand, page)
        assert EVIL not in page.raw.decode() + page.text
    browser = await stand.signed_in()
    for url in (f"{AUTH}/.heim/login", f"{APP1}/.heim/login", f"{AUTH}/", f"{AUTH}/.heim/logout"):
        page = await browser.get(url, headers=headers)
        stays(stand, page)
        assert EVIL not in page.raw.decode() + page.text


async def test_a22_the_goal_survives_only_in_the_sealed_state(stand: Stand) -> None:
    for extra in ("rd=//evil.test", "host=evil.test", f"rd={quote(APP2)}", "next=//evil.test"):
        browser = stand.browser()
        callback = await browser.to_callback(f"{AUTH}/.heim/login?rd={quote(APP1 + '/deep?x=1')}")
        assert "app1" not in callback
        page = await wander(stand, browser, f"{callback}&{extra}")
        assert page.url == f"{APP1}/deep?x=1"


async def test_a22_an_edited_state_is_refused(stand: Stand) -> None:
    browser = stand.browser()
    callback = await browser.to_callback(f"{AUTH}/.heim/login?rd={quote(APP1 + '/deep')}")
    state = re.search(r"state=([^&]+)", callback)
    assert state is not None
    for at in range(len(state[1])):
        edited = state[1][:at] + ("A" if state[1][at] != "A" else "B") + state[1][at + 1 :]
        page = await browser.get(callback.replace(state[1], edited))
        assert page.status == 400
        assert browser.cookie(LOGIN_HOST) is None
    assert not stand.idp.hits["token"]


async def test_a22_an_edited_flow_cookie_is_refused(stand: Stand) -> None:
    browser = stand.browser()
    callback = await browser.to_callback(f"{AUTH}/.heim/login?rd={quote(APP1 + '/deep')}")
    (name,) = browser.names(LOGIN_HOST, "__Host-heim-login-")
    value = browser.cookie(LOGIN_HOST, name)
    assert value is not None
    for at in range(0, len(value), 3):
        edited = value[:at] + ("A" if value[at] != "A" else "B") + value[at + 1 :]
        browser.plant(LOGIN_HOST, name, edited)
        page = await browser.get(callback)
        assert page.status == 400
        assert browser.cookie(LOGIN_HOST) is None
    assert not stand.idp.hits["token"]


def _is_tried(number: int, rd: str, form: str) -> bool:
    """Whether a value is: in each form, but where time is short once, and seldom a second time."""
    if form == "twice":
        return number % (3 if THOROUGH else 9) == 0
    as_it_is = _in_form(rd, "raw") is not None and number % 2 == 0
    return THOROUGH or form == ("raw" if as_it_is else "encoded")


def _in_form(rd: str, form: str) -> str | None:
    """How a value stands in the request line; None when it cannot stand there that way."""
    if form == "encoded":
        return quote(rd, safe="", errors="surrogatepass")
    if form == "twice":
        return quote(quote(rd, safe="", errors="surrogatepass"), safe="")
    if re.search(r"[\x00-\x20\x7f#&]", rd):
        return None
    return rd.encode("utf-8", "surrogatepass").decode("latin-1")
