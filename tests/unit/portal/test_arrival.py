"""security.md H18, H21: the ticket from the login host to an application's host."""

from __future__ import annotations

import pytest

from heim_proxy.identity.cookies import FLOW_PREFIX
from heim_proxy.live import EndReason
from tests.fakes.portal import APP1, APP2, LOGIN, Browser, PortalStand


async def stop_at_ticket(browser: Browser, host: str = APP1, path: str = "/x") -> str:
    url = f"https://{host}/.heim/login?rd={path}"
    for _ in range(10):
        reply = await browser.get(url)
        assert reply.status == 303, reply
        url = reply.location
        if "/.heim/handoff?t=" in url:
            return url
    raise AssertionError("no ticket")


async def test_h18_a_ticket_becomes_a_session_and_a_clean_address(stand: PortalStand) -> None:
    browser = stand.browser()
    url = await stop_at_ticket(browser)
    reply = await browser.get(url)
    assert (reply.status, reply.location, reply.text) == (303, f"https://{APP1}/x", "")
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    assert list(browser.jar[APP1]) == ["__Host-heim"]
    cookie = next(line for line in reply.set_cookies if line.startswith("__Host-heim="))
    for attribute in ("Path=/", "Secure", "HttpOnly", "SameSite=Lax", "Max-Age="):
        assert attribute in cookie
    assert "Domain" not in cookie


async def test_h18_a_ticket_is_worthless_in_another_browser(stand: PortalStand) -> None:
    browser, thief = stand.browser(), stand.browser("192.0.2.66")
    url = await stop_at_ticket(browser)
    reply = await thief.get(url)
    assert reply.status == 400
    assert thief.session(APP1) is None
    assert "cookie" in reply.text
    assert f'href="https://{APP1}/x"' in reply.text
    assert stand.audit.last("login.failed")["detail"] == "ticket_from_another_browser"


async def test_h18_a_ticket_that_somebody_looked_at_is_burned(stand: PortalStand) -> None:
    browser, thief = stand.browser(), stand.browser("192.0.2.66")
    url = await stop_at_ticket(browser)
    await thief.get(url)
    assert (await browser.get(url)).status == 400
    assert browser.session(APP1) is None


async def test_h18_a_victim_cannot_be_signed_in_with_an_attackers_ticket(
    stand: PortalStand,
) -> None:
    attacker, victim = stand.browser("192.0.2.66"), stand.browser()
    await victim.get(f"https://{APP1}/.heim/login?rd=/")
    assert (await victim.get(await stop_at_ticket(attacker))).status == 400
    assert victim.session(APP1) is None


async def test_h18_a_ticket_works_on_its_own_host_only(stand: PortalStand) -> None:
    browser = stand.browser()
    url = await stop_at_ticket(browser)
    browser.jar[APP2] = dict(browser.jar[APP1])
    reply = await browser.get(url.replace(APP1, APP2))
    assert reply.status == 400
    assert browser.session(APP2) is None


async def test_h18_a_ticket_lasts_thirty_seconds(stand: PortalStand) -> None:
    browser = stand.browser()
    url = await stop_at_ticket(browser)
    stand.clock.time += 30
    assert (await browser.get(url)).status == 400


async def test_the_back_button_after_arriving_leads_to_the_page(stand: PortalStand) -> None:
    browser = stand.browser()
    url = await stop_at_ticket(browser)
    await browser.get(url)
    before = browser.session(APP1)
    for later in (0, 3000):
        stand.clock.time += later
        reply = await browser.get(url)
        assert (reply.status, reply.location) == (303, f"https://{APP1}/x")
    assert browser.session(APP1) == before


@pytest.mark.parametrize("t", ["", "x", "a" * 4097, "%00", "%ff"])
async def test_garbage_is_no_ticket(stand: PortalStand, t: str) -> None:
    reply = await stand.browser().get(f"https://{APP1}/.heim/handoff?t={t}")
    assert reply.status == 400
    assert reply.set_cookies == []


async def test_h7_a_ticket_given_twice_is_refused(stand: PortalStand) -> None:
    browser = stand.browser()
    url = await stop_at_ticket(browser)
    assert (await browser.get(f"{url}&t=x")).status == 400
    assert (await browser.get(url)).status == 303


async def test_the_login_host_redeems_no_tickets(stand: PortalStand) -> None:
    url = await stop_at_ticket(stand.browser())
    assert (await stand.browser().get(url.replace(APP1, LOGIN))).status == 404


async def test_a_session_that_ended_on_the_way_is_not_given(stand: PortalStand) -> None:
    browser = stand.browser()
    url = await stop_at_ticket(browser)
    (sid,) = stand.store.sessions
    await stand.stage.sessions.end(sid, EndReason.REVOKED, stand.clock.now())
    reply = await browser.get(url)
    assert (reply.status, reply.location) == (303, f"https://{APP1}/x")
    assert browser.session(APP1) is None
    assert [name for name in browser.jar[APP1] if name.startswith(FLOW_PREFIX)] == []


async def test_a_session_cookie_of_an_application_is_nothing_on_the_login_host(
    stand: PortalStand,
) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    thief = stand.browser("192.0.2.66")
    thief.jar = {LOGIN: dict(browser.jar[APP1]), APP2: dict(browser.jar[APP1])}
    assert (await thief.get("/.heim/me", Accept="application/json")).status == 401
    assert (await thief.get(f"https://{APP2}/.heim/me")).status == 401
