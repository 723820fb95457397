"""The demo's story in a real browser: who is let in, who is not, and how it ends."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.e2e.browser import Person, chromium
from tests.e2e.demo import Demo, paste
from tests.e2e.demo import demo as running_demo

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Demo]:
    async with running_demo(tmp_path_factory.mktemp("demo")) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(demo: Demo) -> AsyncIterator[Browser]:
    async with chromium(demo.directory / "tls" / "server.crt") as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def person(browser: Browser) -> AsyncIterator[Person]:
    async with Person.at(browser) as somebody:
        yield somebody


async def received(page: Page) -> dict[str, Any]:
    """What the application's headers.json, shown in this tab, says it was sent."""
    found: dict[str, Any] = json.loads(await page.inner_text("body"))
    return found


# -- who is let in ------------------------------------------------------------------------------


async def test_alice_signs_in_and_the_application_proves_who_she_is(
    demo: Demo, person: Person
) -> None:
    page = await demo.sign_in(person, "alice")
    assert page.url == f"{demo.app}/"
    assert await page.inner_text("#who") == "alice@example.com"
    assert "admin" in await page.inner_text("#roles")
    await page.goto(f"{demo.app}/headers.json")
    found = await received(page)
    assert found["verified"] is True
    assert ["X-Auth-Id", "alice@example.com"] in found["headers"]
    # The session is Heim's: the application never sees the cookie.
    assert "__Host-heim" not in json.dumps(found["headers"])
    answer = await page.goto(f"{demo.app}/admin")
    assert answer is not None
    assert answer.status == 200
    assert person.complaints == []


async def test_alice_reaches_a_machine_that_only_dials_out(demo: Demo, person: Person) -> None:
    page = await demo.sign_in(person, "alice")
    async with asyncio.timeout(20):
        # Its agent joins while people read what the demo printed.
        while (answer := await page.goto(f"{demo.office}/")) is None or answer.status != 200:
            assert answer is None or "agent office" in await page.inner_text("body")
            await asyncio.sleep(0.2)
    assert await page.inner_text("#who") == "alice@example.com"
    await page.goto(f"{demo.office}/headers.json")
    assert (await received(page))["verified"] is True
    # A WebSocket and an event stream through it, too.
    await page.goto(f"{demo.office}/live")
    await expect(page.locator("#ws")).to_have_text("open")
    await expect(page.locator("#sse")).not_to_have_text("connecting")
    await expect(page.locator("#sse")).not_to_have_text("closed")


async def test_bob_is_let_in_but_refused_admin_with_a_readable_reason(
    demo: Demo, person: Person
) -> None:
    page = await demo.sign_in(person, "bob")
    assert await page.inner_text("#who") == "bob@example.com"
    answer = await page.goto(f"{demo.app}/admin")
    assert answer is not None
    assert answer.status == 403
    text = await page.inner_text("body")
    assert "bob@example.com" in text
    assert "Your role dev on app does not include GET /admin" in text
    assert "administrator" in text
    assert answer.headers["x-request-id"] in text
    assert person.complaints == []


async def test_mallory_is_refused_everywhere_with_a_readable_reason(
    demo: Demo, person: Person
) -> None:
    page = await demo.sign_in(person, "mallory")
    for path in ("/", "/admin", "/live", "/headers.json", "/ws"):
        answer = await page.goto(f"{demo.app}{path}")
        assert answer is not None
        assert answer.status == 403, path
        text = await page.inner_text("body")
        assert "mallory@example.com" in text
        assert "You have no role that gives access to app" in text
    answer = await page.goto(f"{demo.status}/")
    assert answer is not None
    assert answer.status == 200
    assert "Nobody is signed in here" in await page.inner_text("#who")
    assert person.complaints == []


async def test_who_was_refused_comes_back_to_the_same_page_as_somebody_else(
    demo: Demo, person: Person
) -> None:
    page = await demo.sign_in(person, "mallory", "/?plain=1&to=a%2Fb")
    await page.click("a:has-text('Sign in as somebody else')")
    await page.click("button:has-text('Sign out')")
    await page.wait_for_url(f"{demo.auth}/.heim/signed-out")
    await page.click("a:has-text('Sign in again')")
    await demo.choose(page, "alice")
    assert await page.inner_text("#who") == "alice@example.com"
    assert page.url == f"{demo.app}/?plain=1&to=a%2Fb"
    assert person.complaints == []


async def test_the_start_page_leads_to_the_applications_somebody_may_open(
    demo: Demo, person: Person
) -> None:
    page = await demo.sign_in(person, "alice")
    await page.goto(f"{demo.auth}/")
    await page.click("a:text-is('app')")
    await page.wait_for_url(f"{demo.app}/")
    assert await page.inner_text("#who") == "alice@example.com"
    assert person.complaints == []


async def test_a_browser_without_the_printed_link_cannot_sign_in(
    demo: Demo, person: Person
) -> None:
    page = await person.tab()
    await page.goto(f"{demo.app}/")
    await page.fill("input[name=secret]", "a guess")
    await page.click("button[value=alice]")
    await page.wait_for_load_state()
    assert page.url.startswith("http://127.0.0.1:")
    assert await person.cookie_names(demo.app) == ["__Host-heim-flow"] or not [
        name for name in await person.cookie_names(demo.app) if name == "__Host-heim"
    ]


# -- what stays open ----------------------------------------------------------------------------


async def test_revoking_a_session_ends_its_websocket_and_its_events_within_2_s_saying_why(
    demo: Demo, person: Person
) -> None:
    page = await demo.sign_in(person, "alice", "/live")
    await expect(page.locator("#ws")).to_have_text("open")
    await page.fill("#text", "hello there")
    await page.press("#text", "Enter")
    await expect(page.locator("#log")).to_contain_text("ws: hello there")
    await expect(page.locator("#sse")).to_contain_text("tick")

    # What the demo prints, and her other sessions are those that other tests left.
    revoked = await paste(demo.to_paste[-1])
    began = time.monotonic()
    assert re.fullmatch(r"[1-9]\d* sessions? revoked\n", revoked.err)
    await expect(page.locator("#ws")).to_have_text("closed, code 4401: heim: revoked")
    await expect(page.locator("#sse")).to_have_text("closed")
    assert time.monotonic() - began < 2
    await page.reload()
    assert await page.inner_text("h1") == "Sign in"


async def test_signing_out_ends_everything_in_every_tab(demo: Demo, person: Person) -> None:
    page = await demo.sign_in(person, "alice", "/live")
    await expect(page.locator("#ws")).to_have_text("open")
    await expect(page.locator("#sse")).to_contain_text("tick")

    other = await person.tab()
    await other.goto(f"{demo.app}/.heim/logout")
    assert "alice@example.com" in await other.inner_text("body")
    await other.click("button:has-text('Sign out')")
    await other.wait_for_url(f"{demo.auth}/.heim/signed-out")
    assert "You are signed out" in await other.inner_text("body")

    await expect(page.locator("#ws")).to_have_text("closed, code 4401: heim: logout")
    await expect(page.locator("#sse")).to_have_text("closed")
    await page.goto(f"{demo.app}/")
    assert await page.inner_text("h1") == "Sign in"
    assert person.complaints == []


# -- tabs, links, history -----------------------------------------------------------------------


async def test_two_tabs_opened_at_once_both_land_on_their_own_url(
    demo: Demo, person: Person
) -> None:
    link = await person.tab()
    await link.goto(demo.start)
    first, second = await person.tab(), await person.tab()
    await asyncio.gather(
        first.goto(f"{demo.app}/headers.json?tab=1"), second.goto(f"{demo.app}/headers.json?tab=2")
    )
    await demo.choose(first, "alice")
    await demo.choose(second, "alice")
    assert first.url == f"{demo.app}/headers.json?tab=1"
    assert second.url == f"{demo.app}/headers.json?tab=2"


async def test_ten_tabs_opened_at_once_all_land_on_their_own_url(
    demo: Demo, person: Person
) -> None:
    link = await person.tab()
    await link.goto(demo.start)
    tabs = [await person.tab() for _ in range(10)]
    urls = [f"{demo.app}/headers.json?tab={number}" for number in range(10)]
    await asyncio.gather(*(tab.goto(url) for tab, url in zip(tabs, urls, strict=True)))
    # The oldest first: its flow cookie made room for the younger ones.
    for tab in tabs:
        await demo.choose(tab, "alice")
    assert [tab.url for tab in tabs] == urls


async def test_ten_tabs_of_somebody_signed_in_elsewhere_need_no_click(
    demo: Demo, person: Person
) -> None:
    await demo.sign_in(person, "alice")
    await person.context.clear_cookies(domain="app.localhost")
    tabs = [await person.tab() for _ in range(10)]
    urls = [f"{demo.app}/headers.json?tab={number}" for number in range(10)]
    await asyncio.gather(*(tab.goto(url) for tab, url in zip(tabs, urls, strict=True)))
    assert [tab.url for tab in tabs] == urls


@pytest.mark.parametrize(
    "target",
    [
        "/headers.json?a=1&b=%2Fx%3Fy&c=%C3%BC",
        "/headers.json?next=https://evil.example/",
        "/?q=a+b",
    ],
    ids=["escapes", "a URL as a value", "on the root"],
)
async def test_a_deep_link_arrives_with_its_query(target: str, demo: Demo, person: Person) -> None:
    page = await demo.sign_in(person, "alice", target)
    assert page.url == f"{demo.app}{target}"
    if target.startswith("/headers"):
        assert (await received(page))["path"] == target


async def test_the_back_button_after_a_login_leads_to_no_dead_end(
    demo: Demo, person: Person
) -> None:
    page = await demo.sign_in(person, "alice", "/headers.json?deep=link")
    await page.go_back()
    assert await page.inner_text("h1") == "Sign in"
    # Signing in again on the page of a login that is over: where it wanted to go is forgotten.
    answer = await demo.choose(page, "alice")
    assert answer.status == 200
    assert "You are signed in as alice@example.com" in await page.inner_text("body")
    await page.goto(f"{demo.app}/headers.json")
    assert (await received(page))["verified"] is True


# -- cookies, policies, scripts -----------------------------------------------------------------


async def test_cookies_are_host_bound_secure_and_out_of_reach_of_scripts(
    demo: Demo, person: Person
) -> None:
    page = await demo.sign_in(person, "alice")
    for origin in (demo.app, demo.auth):
        # What a login leaves is one cookie per host; flow and login cookies are gone.
        (cookie,) = await person.context.cookies(origin)
        host = origin.removeprefix("https://").partition(":")[0]
        # A leading dot would be a Domain attribute.
        assert (cookie["name"], cookie["domain"], cookie["path"]) == ("__Host-heim", host, "/")
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")
        assert 0 < cookie["expires"] - time.time() <= 8 * 3600
    assert await page.evaluate("document.cookie") == ""


async def test_a_login_under_way_holds_only_host_bound_cookies(demo: Demo, person: Person) -> None:
    page = await person.tab()
    await page.goto(f"{demo.app}/")
    for origin, prefix in ((demo.app, "__Host-heim-flow-"), (demo.auth, "__Host-heim-login-")):
        (cookie,) = await person.context.cookies(origin)
        assert cookie["name"].startswith(prefix)
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")
        assert cookie["expires"] - time.time() < 3600


async def test_no_page_of_ours_trips_over_its_own_content_security_policy(
    demo: Demo, person: Person
) -> None:
    page = await demo.sign_in(person, "alice")
    for url in (
        f"{demo.app}/",
        f"{demo.app}/live",
        f"{demo.app}/.heim/nosuch",
        f"{demo.app}/.heim/handoff?t=nonsense",
        f"{demo.auth}/",
        f"{demo.auth}/nosuch",
        f"{demo.auth}/.heim/me",
        f"{demo.auth}/.heim/callback?state=nonsense&code=x",
        f"{demo.auth}/.heim/logout",
        f"{demo.auth}/.heim/signed-out",
    ):
        answer = await page.goto(url)
        assert answer is not None
        if url.startswith(demo.auth):
            assert "default-src 'none'" in answer.headers["content-security-policy"], url
    assert person.complaints == []


async def test_everything_but_the_live_page_works_without_scripts(
    demo: Demo, browser: Browser
) -> None:
    async with Person.at(browser, scripts=False) as person:
        page = await demo.sign_in(person, "alice", "/?plain=1")
        assert page.url == f"{demo.app}/?plain=1"
        assert await page.inner_text("#who") == "alice@example.com"
        await page.click("text=Sign out")
        await page.click("button:has-text('Sign out')")
        await page.wait_for_url(f"{demo.auth}/.heim/signed-out")
        await page.goto(f"{demo.app}/")
        assert await page.inner_text("h1") == "Sign in"
