"""The list of command lines that are signed in as somebody, and its buttons."""

from __future__ import annotations

import re
import time

import pytest

from heim_proxy.live import EndReason
from heim_proxy.portal.forms import csrf_token
from tests.fakes.portal import APP1, LOGIN, Browser, PortalStand, Reply, command_line

ORIGIN = f"https://{LOGIN}"
PATH = "/.heim/devices"


async def signed_in(stand: PortalStand, who: str = "alice") -> Browser:
    stand.idp.user = who
    browser = stand.browser()
    await browser.open(APP1)
    return browser


def fields(page: Reply, name: str) -> list[str]:
    return re.findall(rf'name="{name}" value="([^"]*)"', page.text)


async def press(browser: Browser, origin: str | None = ORIGIN, **form: str) -> Reply:
    form.setdefault("csrf", csrf_token(browser.session() or "", "devices"))
    headers = {} if origin is None else {"Origin": origin}
    return await browser.request("POST", PATH, headers=headers, form=form)


def live(stand: PortalStand) -> set[str]:
    return {sid for sid, row in stand.store.sessions.items() if row.ended is None}


async def test_people_see_the_command_lines_that_are_signed_in_as_them(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    assert f'href="{PATH}"' in (await browser.get("/.heim/me")).text
    assert "There are none." in (await browser.get(PATH)).text
    laptop = await command_line(stand, "alice's laptop")
    stand.clock.time += 1800
    await command_line(stand, "build host")
    page = await browser.get(PATH)
    shown = re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", page.text)
    assert shown == [
        ("Device", "build host"),
        ("Signed in", "15 Jan 2027, 08:30 UTC"),
        ("Last seen", "15 Jan 2027, 08:30 UTC"),
        ("Device", "alice&#39;s laptop"),
        ("Signed in", "15 Jan 2027, 08:00 UTC"),
        ("Last seen", "15 Jan 2027, 08:00 UTC"),
    ]
    assert fields(page, "sid")[1] == laptop.sid
    assert fields(page, "all") == ["1"]
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert "form-action 'self'" in page.headers["Content-Security-Policy"]


async def test_a_button_ends_one_with_what_it_has_open(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    lost, kept = await command_line(stand, "lost"), await command_line(stand, "kept")
    streams = [stand.stage.open_exchange(one) for one in (lost, kept)]
    page = await browser.get(PATH)
    began = time.monotonic()
    reply = await press(browser, csrf=fields(page, "csrf")[0], sid=lost.sid)
    assert time.monotonic() - began < 2
    assert [stream.ended for stream in streams] == [EndReason.LOGOUT, None]
    assert (reply.status, reply.location) == (303, PATH)
    page = await browser.get(PATH)
    assert fields(page, "sid") == [kept.sid]
    assert "lost" not in page.text
    event = stand.audit.last("token.revoked")
    assert (event["sid"], event["label"], event["email"]) == (
        lost.sid, "lost", "alice@example.com",
    )  # fmt: skip


async def test_one_button_ends_all_command_lines_and_no_browser(stand: PortalStand) -> None:
    browser, second = await signed_in(stand), await signed_in(stand)
    browsers = live(stand)
    streams = [stand.stage.open_exchange(await command_line(stand)) for _ in range(3)]
    reply = await press(browser, all="1")
    assert (reply.status, reply.location) == (303, PATH)
    assert [stream.ended for stream in streams] == [EndReason.LOGOUT] * 3
    assert live(stand) == browsers
    assert "There are none." in (await second.get(PATH)).text
    assert stand.audit.events().count("token.revoked") == 3


async def test_somebody_elses_login_is_neither_shown_nor_ended(stand: PortalStand) -> None:
    alice = await signed_in(stand)
    alices = await command_line(stand, "alice's laptop")
    before = live(stand)
    bob = await signed_in(stand, "bob")
    assert "laptop" not in (await bob.get(PATH)).text
    mine = await command_line(stand, "bob's")
    ended = await press(bob, sid=mine.sid)
    (alices_browser,) = before - {alices.sid}
    for sid in (alices.sid, alices_browser, mine.sid, "nobody", ""):
        reply = await press(bob, sid=sid)
        assert (reply.status, reply.location) == (ended.status, ended.location)
        assert reply.text == ended.text
        assert reply.headers.keys() == ended.headers.keys()
    await press(bob, all="1")
    assert before <= live(stand)
    assert stand.audit.events().count("token.revoked") == 1
    assert "laptop" in (await alice.get(PATH)).text


async def test_one_that_was_revoked_elsewhere_is_gone_from_the_list(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    login = await command_line(stand, "revoked")
    assert "revoked" in (await browser.get(PATH)).text
    # As `heim-proxy session revoke` does, before this process has heard of it.
    await stand.store.end_session(login.sid, reason="revoked", now=stand.clock.now())
    assert "There are none." in (await browser.get(PATH)).text
    assert (await press(browser, sid=login.sid)).status == 303
    assert stand.store.sessions[login.sid].end_reason == "revoked"
    assert "token.revoked" not in stand.audit.events()


async def test_there_are_buttons_for_a_hundred_and_one_for_all(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    browsers = live(stand)
    for _ in range(101):
        await command_line(stand)
    page = await browser.get(PATH)
    assert len(fields(page, "sid")) == 100
    assert "There are more." in page.text
    await press(browser, all="1")
    assert live(stand) == browsers


async def test_a_label_cannot_write_on_the_page(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    await command_line(stand, '</dd><script>alert(1)</script>"><b>')
    page = await browser.get(PATH)
    assert "<script" not in page.text
    assert "<b>" not in page.text
    assert "&lt;script&gt;alert(1)" in page.text


@pytest.mark.parametrize(
    "origin", [None, "null", "https://evil.test", f"https://{APP1}", f"{ORIGIN}:8443"]
)
@pytest.mark.parametrize("what", ["sid", "all"])
async def test_p2_a_form_of_another_origin_ends_nothing(
    stand: PortalStand, origin: str | None, what: str
) -> None:
    browser = await signed_in(stand)
    login = await command_line(stand)
    reply = await press(browser, origin, **{what: login.sid})
    assert reply.status == 403
    assert login.sid in live(stand)
    assert stand.audit.events()[-1] == "logout.refused"


async def test_p2_a_form_without_our_token_ends_nothing(stand: PortalStand) -> None:
    browser, other = await signed_in(stand), await signed_in(stand)
    login = await command_line(stand)
    foreign = csrf_token(other.session() or "", "devices")
    logout = csrf_token(browser.session() or "", "logout")
    for csrf in ("", "x", "é", foreign, logout):
        assert (await press(browser, csrf=csrf, sid=login.sid)).status == 403
        assert (await press(browser, csrf=csrf, all="1")).status == 403
    assert login.sid in live(stand)


async def test_looking_ends_nothing_whatever_the_address_says(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    login = await command_line(stand)
    assert (await browser.get(f"{PATH}?sid={login.sid}&all=1")).status == 200
    assert login.sid in live(stand)


async def test_whoever_is_not_signed_in_does_so_and_comes_back(stand: PortalStand) -> None:
    page = await stand.browser().follow(PATH)
    assert (page.status, page.url) == (200, f"{ORIGIN}{PATH}")
    reply = await press(stand.browser(), csrf="x", all="1")
    assert (reply.status, reply.location) == (303, "/.heim/login?rd=%2F.heim%2Fdevices")


async def test_applications_hosts_have_no_such_page(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    assert (await browser.get(f"https://{APP1}{PATH}")).status == 404


async def test_an_end_that_cannot_be_written_down_is_not_called_one(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    login = await command_line(stand)
    stand.store.full = True
    assert (await press(browser, sid=login.sid)).status == 503
    stand.store.full, stand.store.down = False, "gone"
    assert (await browser.get(PATH)).status == 503
