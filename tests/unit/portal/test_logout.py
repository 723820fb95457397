"""security.md K1-K3: signing out."""

from __future__ import annotations

import re

import pytest

from heim_proxy.live import EndReason
from heim_proxy.portal.forms import csrf_token
from tests.fakes.idp import OMIT, Lies
from tests.fakes.portal import (
    APP1,
    LOGIN,
    Browser,
    PortalStand,
    Reply,
    command_line,
    query_of,
)

ORIGIN = f"https://{LOGIN}"


async def signed_in(stand: PortalStand) -> Browser:
    browser = stand.browser()
    await browser.open(APP1)
    return browser


async def token(browser: Browser) -> str:
    page = await browser.get("/.heim/logout")
    found = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert found, page
    return found[1]


async def press(browser: Browser, csrf: str, origin: str | None = ORIGIN) -> Reply:
    headers = {} if origin is None else {"Origin": origin}
    return await browser.request("POST", "/.heim/logout", headers=headers, form={"csrf": csrf})


async def test_k1_looking_at_the_page_signs_nobody_out(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    reply = await browser.get("/.heim/logout?rd=//evil.test")
    assert reply.status == 200
    assert "evil" not in reply.text
    assert all(row.ended is None for row in stand.store.sessions.values())


async def test_k2_signing_out_ends_the_session_everywhere(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    ((sid, _),) = stand.store.sessions.items()
    session = await stand.stage.sessions.get(sid, stand.clock.now())
    assert session is not None
    exchange = stand.stage.open_exchange(session)
    reply = await press(browser, await token(browser))
    assert reply.status == 303
    assert stand.store.sessions[sid].end_reason == EndReason.LOGOUT.value
    assert exchange.ended is EndReason.LOGOUT
    assert browser.session(LOGIN) is None
    assert (await browser.get(f"https://{APP1}/.heim/me")).status == 401
    assert stand.audit.last("logout")["email"] == "alice@example.com"


async def test_the_page_says_what_stays_signed_in(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    link = 'href="/.heim/devices"'
    assert link not in (await browser.get("/.heim/logout")).text
    for told in ("One command line is signed in", "2 command lines are signed in"):
        await command_line(stand)
        page = await browser.get("/.heim/logout")
        assert told in page.text
        assert link in page.text
    stand.store.down = "gone"
    page = await browser.get("/.heim/logout")
    assert page.status == 200
    assert link not in page.text


async def test_very_many_command_lines_are_not_counted(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    for _ in range(101):
        await command_line(stand)
    page = await browser.get("/.heim/logout")
    assert "More than 100 command lines are signed in" in page.text


async def test_k3_the_providers_session_is_ended_too(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    reply = await press(browser, await token(browser))
    assert reply.location.startswith(f"{stand.idp.issuer}/end?")
    sent = query_of(reply.location)
    assert sent["post_logout_redirect_uri"] == f"{ORIGIN}/.heim/signed-out"
    assert len(sent["id_token_hint"].split(".")) == 3
    assert (await browser.get(reply.location)).location == f"{ORIGIN}/.heim/signed-out"


async def test_the_form_may_be_answered_with_a_redirect_to_the_provider(
    stand: PortalStand,
) -> None:
    browser = await signed_in(stand)
    page = await browser.get("/.heim/logout")
    assert "form-action" not in page.headers["Content-Security-Policy"]
    # With no-referrer the browser would send "Origin: null" with the form.
    assert page.headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("how", ["down", "no endpoint", "removed"])
async def test_k3_signing_out_here_needs_nobody_else(stand: PortalStand, how: str) -> None:
    if how == "no endpoint":
        stand.idp.lies = Lies(discovery={"end_session_endpoint": OMIT})
    browser = await signed_in(stand)
    if how == "down":
        await stand.idp.stop()
        stand.clock.time += 5 * 3600
        stand.clock.time += 24 * 3600 - 5 * 3600 - 1
        await stand.stage.store.touch_sessions(
            {sid: stand.clock.now() for sid in stand.store.sessions}
        )
    if how == "removed":
        stand.providers.clear()
    csrf = csrf_token(browser.session() or "", "logout")
    reply = await press(browser, csrf)
    assert (reply.status, browser.session()) == (303, None)
    if how != "down":
        assert reply.location == "/.heim/signed-out"
    assert (await browser.get("/.heim/signed-out")).status == 200


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "",
        "https://evil.test",
        f"https://{APP1}",
        f"http://{LOGIN}",
        f"{ORIGIN}:8443",
        f"{ORIGIN}.evil.test",
        f"{ORIGIN}/",
    ],
)
async def test_p2_a_form_of_another_origin_signs_nobody_out(
    stand: PortalStand, origin: str | None
) -> None:
    browser = await signed_in(stand)
    reply = await press(browser, await token(browser), origin)
    assert reply.status == 403
    assert all(row.ended is None for row in stand.store.sessions.values())


@pytest.mark.parametrize("csrf", ["", "x", "é", "A" * 43])
async def test_p2_a_form_without_our_token_signs_nobody_out(stand: PortalStand, csrf: str) -> None:
    browser = await signed_in(stand)
    assert (await press(browser, csrf)).status == 403
    assert all(row.ended is None for row in stand.store.sessions.values())


async def test_p2_another_sessions_token_is_no_good(stand: PortalStand) -> None:
    browser, other = await signed_in(stand), await signed_in(stand)
    assert (await press(browser, await token(other))).status == 403


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param("csrf={}&x=" + "y" * 5000, "application/x-www-form-urlencoded", id="too long"),
        pytest.param('{{"csrf":"{}"}}', "application/json", id="JSON"),
        pytest.param("csrf={}", "text/plain", id="plain text"),
        pytest.param("&".join(f"a{n}=" for n in range(20)), "application/x-www-form-urlencoded",
                     id="many fields"),
    ],
)  # fmt: skip
async def test_a_body_that_is_not_our_form_signs_nobody_out(
    stand: PortalStand, body: str, kind: str
) -> None:
    browser = await signed_in(stand)
    csrf = await token(browser)
    headers = {"Origin": ORIGIN, "Content-Type": kind}
    reply = await browser.request("POST", "/.heim/logout", headers=headers, body=body.format(csrf))
    assert reply.status == 403
    assert all(row.ended is None for row in stand.store.sessions.values())


async def test_whoever_is_signed_out_already_is_told_so(stand: PortalStand) -> None:
    browser = stand.browser()
    assert (await browser.get("/.heim/logout")).location == "/.heim/signed-out"
    assert (await press(browser, "x")).location == "/.heim/signed-out"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_application_sends_people_to_the_login_hosts_page(
    stand: PortalStand, method: str
) -> None:
    browser = await signed_in(stand)
    reply = await browser.request(method, f"https://{APP1}/.heim/logout?rd=//evil.test")
    assert (reply.status, reply.location) == (303, f"{ORIGIN}/.heim/logout")
    assert all(row.ended is None for row in stand.store.sessions.values())


async def test_a_sign_out_that_cannot_be_written_down_is_not_called_one(
    stand: PortalStand,
) -> None:
    browser = await signed_in(stand)
    csrf = await token(browser)
    stand.store.full = True
    assert (await press(browser, csrf)).status == 503
