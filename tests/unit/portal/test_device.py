"""Typing the code of a device, and saying yes or no to it (L5)."""

from __future__ import annotations

import asyncio
import re

import pytest

from heim_proxy.live import EndReason
from tests.fakes.portal import APP1, LOGIN, Browser, PortalStand, Reply

ORIGIN = f"https://{LOGIN}"
PATH = "/.heim/device"


async def signed_in(stand: PortalStand, client: str = "192.0.2.1") -> Browser:
    browser = stand.browser(client)
    await browser.open(APP1)
    return browser


async def waiting(stand: PortalStand, label: str = "build host") -> tuple[str, str]:
    client = "203.0.113.7"
    start = await stand.ctx.programs.devices.start(
        label, client, stand.clock.now(), client_key=client, network=client
    )
    assert start is not None
    return start.device_code.reveal(), start.user_code


def field(page: Reply, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page.text)
    assert found, page.text
    return found[1]


async def post(browser: Browser, origin: str | None = ORIGIN, **form: str) -> Reply:
    if "csrf" not in form:
        form["csrf"] = field(await browser.get(PATH), "csrf")
    headers = {} if origin is None else {"Origin": origin}
    return await browser.request("POST", PATH, headers=headers, form=form)


async def poll(stand: PortalStand, device_code: str) -> str:
    return repr(await stand.ctx.programs.devices.poll(device_code, stand.clock.now()))


async def test_a_code_leads_to_a_page_that_says_what_asks(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    device_code, code = await waiting(stand)
    page = await post(browser, code=code.lower().replace("-", " "))
    assert page.status == 200
    for told in ("alice@example.com", "build host", "203.0.113.7", code):
        assert told in page.text
    assert "PENDING" in await poll(stand, device_code), "typing it was taken for a yes"


async def test_yes_signs_the_device_in(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    device_code, code = await waiting(stand)
    asked = await post(browser, code=code)
    done = await post(browser, csrf=field(asked, "csrf"), code=field(asked, "code"),
                      decision="approve")  # fmt: skip
    assert done.status == 200
    assert "signed in" in done.text
    assert "Consent" in await poll(stand, device_code)
    event = stand.audit.last("device.approved")
    assert (event["label"], event["device_client"], event["email"]) == (
        "build host", "203.0.113.7", "alice@example.com",
    )  # fmt: skip


@pytest.mark.parametrize("decision", ["deny", "", "APPROVE"])
async def test_anything_else_refuses_it(stand: PortalStand, decision: str) -> None:
    browser = await signed_in(stand)
    device_code, code = await waiting(stand)
    done = await post(browser, code=code, decision=decision)
    assert "refused" in done.text
    assert "DENIED" in await poll(stand, device_code)
    assert stand.audit.last("device.denied")["label"] == "build host"


async def test_of_two_people_one_decides(stand: PortalStand) -> None:
    _, code = await waiting(stand)
    one, other = await signed_in(stand), await signed_in(stand, "192.0.2.2")
    replies = await asyncio.gather(
        post(one, code=code, decision="approve"), post(other, code=code, decision="deny")
    )
    assert sorted(reply.status for reply in replies) == [200, 400]


async def test_a_code_in_the_address_is_not_looked_at(stand: PortalStand) -> None:
    """Typed, never prefilled: a link must not bring the code along (decision 31)."""
    browser = await signed_in(stand)
    _, code = await waiting(stand)
    page = await browser.get(f"{PATH}?user_code={code}&code={code}")
    assert page.status == 200
    assert code not in page.text


async def test_whoever_is_not_signed_in_does_so_and_comes_back(stand: PortalStand) -> None:
    page = await stand.browser().follow(PATH)
    assert (page.status, page.url) == (200, f"{ORIGIN}{PATH}")
    assert 'name="code"' in page.text


async def test_a_session_that_ended_meanwhile_leads_to_signing_in_again(
    stand: PortalStand,
) -> None:
    browser = await signed_in(stand)
    _, code = await waiting(stand)
    for sid in list(stand.store.sessions):
        await stand.stage.sessions.end(sid, EndReason.REVOKED, stand.clock.now())
    reply = await post(browser, csrf="x", code=code)
    assert (reply.status, reply.location) == (303, "/.heim/login?rd=%2F.heim%2Fdevice")


@pytest.mark.parametrize("code", ["", "x", "BCDF-GHJK", "<script>", "B" * 16])
async def test_a_wrong_code_is_asked_for_again(stand: PortalStand, code: str) -> None:
    page = await post(await signed_in(stand), code=code)
    assert page.status == 400
    assert "no such code" in page.text
    assert "<script>" not in page.text
    assert 'name="code"' in page.text


async def test_an_expired_code_is_a_wrong_one(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    _, code = await waiting(stand)
    asked = await post(browser, code=code)
    stand.clock.time += 600
    late = await post(browser, csrf=field(asked, "csrf"), code=code, decision="approve")
    assert late.status == 400


@pytest.mark.parametrize("origin", [None, "null", "https://evil.test", f"https://{APP1}"])
async def test_p2_a_form_of_another_origin_decides_nothing(
    stand: PortalStand, origin: str | None
) -> None:
    browser = await signed_in(stand)
    device_code, code = await waiting(stand)
    reply = await post(browser, origin, code=code, decision="approve")
    assert reply.status == 403
    assert "PENDING" in await poll(stand, device_code)


async def test_p2_a_form_without_our_token_decides_nothing(stand: PortalStand) -> None:
    browser, other = await signed_in(stand), await signed_in(stand)
    device_code, code = await waiting(stand)
    foreign = field(await other.get(PATH), "csrf")
    logout = field(await browser.get("/.heim/logout"), "csrf")
    for csrf in ("", "x", foreign, logout):
        reply = await post(browser, csrf=csrf, code=code, decision="approve")
        assert reply.status == 403
    assert "PENDING" in await poll(stand, device_code)


async def test_guessing_ends_after_twenty_codes(stand: PortalStand) -> None:
    """L5: by person and by address, and a right guess is not told any more."""
    browser = await signed_in(stand)
    csrf = field(await browser.get(PATH), "csrf")
    _, code = await waiting(stand)
    statuses = [(await post(browser, csrf=csrf, code="BCDF-GHJK")).status for _ in range(22)]
    assert statuses == [400] * 20 + [429] * 2
    told = await post(browser, csrf=csrf, code=code)
    assert told.status == 429
    assert int(told.headers["Retry-After"]) > 0
    elsewhere = await signed_in(stand, "198.51.100.1")
    assert (await post(elsewhere, code=code)).status == 429, "the same person, another address"
    stand.clock.time += 60
    assert (await post(browser, csrf=csrf, code=code)).status == 200


async def test_a_device_cannot_write_on_the_page(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    _, code = await waiting(stand, "</dd><script>alert(1)</script>")
    page = await post(browser, code=code)
    assert "<script>" not in page.text
    assert "form-action 'self'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_are_refused(stand: PortalStand, method: str) -> None:
    reply = await (await signed_in(stand)).request(method, PATH)
    assert reply.status == 405


async def test_without_a_store_it_is_a_page_that_says_so(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    csrf = field(await browser.get(PATH), "csrf")
    stand.store.down = "gone"
    assert (await post(browser, csrf=csrf, code="BCDF-GHJK")).status == 503
