"""Starting to sign in on the login host and on an application's (A, H9, H10, H19-H22, S7)."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import pytest

from heim_proxy.identity.cookies import FLOW_PREFIX, LOGIN_PREFIX
from heim_proxy.portal.limits import LoopGuard, RateLimit
from tests.fakes.idp import Lies
from tests.fakes.portal import APP1, APP2, LOGIN, STRICT, PortalStand, portal_stand, query_of
from tests.unit.portal.test_destination import HOSTILE

BINDING = "A" * 43


async def test_one_provider_is_gone_to_at_once(stand: PortalStand) -> None:
    reply = await stand.browser().get("/.heim/login")
    assert reply.status == 303
    assert reply.location.startswith(f"{stand.idp.issuer}/authorize?")
    assert query_of(reply.location)["redirect_uri"] == f"https://{LOGIN}/.heim/callback"


async def test_several_providers_are_a_choice_that_keeps_the_goal(stand: PortalStand) -> None:
    stand.providers.append(replace(stand.providers[0], name="other", display_name="<b>Other"))
    browser = stand.browser()
    reply = await browser.get(f"/.heim/login?host={APP1}&rd=/x%3Fy%3D1&h={BINDING}")
    assert reply.status == 200
    assert "&lt;b&gt;Other" in reply.text
    assert f"/.heim/login/idp?host={APP1}&amp;rd=%2Fx%3Fy%3D1&amp;h={BINDING}" in reply.text
    assert browser.jar == {}


async def test_the_chosen_provider_is_gone_to(stand: PortalStand) -> None:
    stand.providers.append(replace(stand.providers[0], name="other"))
    browser = stand.browser()
    assert (await browser.follow(f"/.heim/login/idp?host={APP1}&rd=/x")).url == f"https://{APP1}/x"


async def test_an_unknown_provider_is_not_found(stand: PortalStand) -> None:
    for name in ("nobody", "", "idp/x", "../idp"):
        assert (await stand.browser().get(f"/.heim/login/{name}")).status == 404


async def test_nobody_can_sign_in_without_a_provider(stand: PortalStand) -> None:
    stand.providers.clear()
    assert (await stand.browser().get("/.heim/login")).status == 503


@pytest.mark.parametrize("rd", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_rd_never_leaves_our_hosts(stand: PortalStand, rd: str) -> None:
    browser = stand.browser()
    await browser.open(APP2)
    for query in (f"rd={quote(rd)}", f"host={APP1}&rd={quote(rd)}&h={BINDING}"):
        reply = await browser.get(f"/.heim/login?{query}")
        assert reply.status == 303
        assert urlsplit(reply.location).hostname in (LOGIN, APP1, APP2)
        assert reply.location.startswith("https://")
        assert "Location" not in reply.text


@pytest.mark.parametrize("rd", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_rd_on_an_application_comes_back_to_it(stand: PortalStand, rd: str) -> None:
    browser = stand.browser()
    arrived = await browser.follow(f"https://{APP1}/.heim/login?rd={quote(rd)}")
    assert arrived.text == "arrived"
    assert urlsplit(arrived.url).hostname == APP1


async def test_an_application_cannot_send_people_to_another_one(stand: PortalStand) -> None:
    url = f"https://{APP1}/.heim/login?rd={quote(f'https://{APP2}/x')}"
    assert (await stand.browser().follow(url)).url == f"https://{APP1}/"


@pytest.mark.parametrize("name", ["rd", "host", "h"])
@pytest.mark.parametrize("where", [LOGIN, APP1])
async def test_a17_a_parameter_given_twice_is_refused(
    stand: PortalStand, name: str, where: str
) -> None:
    reply = await stand.browser().get(f"https://{where}/.heim/login?{name}=/ok&{name}=//evil")
    assert reply.status == 400
    assert reply.set_cookies == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Referer": "https://evil.test/"},
        {"X_Forwarded_Uri": "//evil.test", "X_Forwarded_Host": "evil.test"},
        {"X_Original_URL": "https://evil.test/", "Forwarded": "host=evil.test"},
    ],
    ids=["Referer", "X-Forwarded", "X-Original"],
)
async def test_a21_the_goal_is_taken_from_no_header(
    stand: PortalStand, headers: dict[str, str]
) -> None:
    browser = stand.browser()
    arrived = await browser.follow(f"https://{APP1}/.heim/login", **headers)
    assert arrived.url == f"https://{APP1}/"


async def test_a22_the_goal_survives_only_in_the_sealed_flow(stand: PortalStand) -> None:
    browser = stand.browser()
    url = await browser.to_callback(f"https://{APP1}/.heim/login?rd=/mine")
    ((name, value),) = [
        item for item in browser.jar[LOGIN].items() if item[0].startswith(LOGIN_PREFIX)
    ]
    browser.jar[LOGIN][name] = value[:-2] + ("A" if value[-2] != "A" else "B") + value[-1]
    assert (await browser.get(f"{url}&rd=//evil.test")).status == 400


async def test_a_live_session_is_passed_on_without_the_provider(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.follow("/.heim/login")
    await stand.idp.stop()
    assert (await browser.open(APP1, "/x")).url == f"https://{APP1}/x"


async def test_an_application_with_a_live_session_is_gone_to_directly(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    reply = await browser.get(f"https://{APP1}/.heim/login?rd=/x")
    assert (reply.location, reply.set_cookies) == (f"https://{APP1}/x", [])


async def test_a_goal_without_a_binding_gets_no_ticket(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    reply = await browser.get(f"/.heim/login?host={APP2}&rd=/x")
    assert reply.location == f"https://{APP2}/x"


async def test_tickets_are_issued_to_configured_hosts_only(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    for host in ("evil.test", "app3.example.test", LOGIN, f"{APP1}.evil.test"):
        reply = await browser.get(f"/.heim/login?host={host}&rd=/x&h={BINDING}")
        assert reply.location == f"https://{LOGIN}/"


async def test_the_port_of_public_urls_is_kept(stand: PortalStand) -> None:
    stand.port = ":8443"
    reply = await stand.browser().get(f"https://{APP1}/.heim/login?rd=/x")
    assert reply.location.startswith(f"https://{LOGIN}:8443/.heim/login?host={APP1}&rd=/x&h=")


async def test_at_most_five_flow_cookies_are_kept_on_an_application(stand: PortalStand) -> None:
    browser = stand.browser()
    for _ in range(8):
        stand.clock.time += 1
        await browser.get(f"https://{APP1}/.heim/login?rd=/x")
    assert len([name for name in browser.jar[APP1] if name.startswith(FLOW_PREFIX)]) == 5


async def test_h22_the_age_limit_of_a_backend_is_asked_for_from_the_start(
    stand: PortalStand,
) -> None:
    assert (await stand.browser().open(STRICT)).url == f"https://{STRICT}/"
    asked = stand.idp.requests[-1]
    assert asked["max_age"] == "600"
    assert "prompt" not in asked


async def test_h22_a_session_that_is_young_enough_is_passed_on(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    stand.clock.time += 599
    await browser.open(STRICT)
    assert stand.idp.hits["authorize"] == 1


@pytest.mark.parametrize(
    "lies",
    [
        pytest.param(Lies(discovery={"issuer": "https://evil.test"}), id="H9 issuer"),
        pytest.param(Lies(discovery={"token_endpoint": "http://evil.test/"}), id="H9 http"),
        pytest.param(Lies(discovery_redirect="http://169.254.169.254/"), id="H9 redirect"),
        pytest.param(Lies(discovery_body=b"x" * 10_000_000), id="H9 10 MB"),
        pytest.param(Lies(discovery_delay=5), id="H9 slow"),
        pytest.param(Lies(discovery_body=b"<html>"), id="html"),
    ],
)
async def test_h9_an_unusable_provider_is_said_to_be_unavailable(
    stand: PortalStand, lies: Lies
) -> None:
    browser = stand.browser()
    stand.idp.lies = lies
    reply = await browser.get("/.heim/login")
    assert reply.status == 503
    assert "Example Accounts is unavailable" in reply.text
    assert "req-" in reply.text
    assert reply.set_cookies == []
    assert stand.idp.issuer not in reply.text


async def test_h10_a_provider_that_is_down_affects_only_signing_in(stand: PortalStand) -> None:
    browser, late = stand.browser(), stand.browser()
    await browser.open(APP1)
    url = await late.to_callback("/.heim/login")
    await stand.idp.stop()
    assert (await late.get(url)).status == 503
    stand.clock.time += 3500
    assert (await browser.open(APP2)).url == f"https://{APP2}/"


async def test_h10_the_portal_starts_without_its_provider(tmp_path: Path) -> None:
    async with portal_stand(tmp_path) as stand:
        await stand.idp.stop()
        assert (await stand.browser().get("/")).status == 200
        assert (await stand.browser().get("/.heim/login")).status == 503
        await stand.idp.start()
        stand.clock.time += 5
        assert (await stand.browser().open(APP1)).url == f"https://{APP1}/"


async def test_a_provider_that_is_down_is_written_down_once_and_with_its_reason(
    stand: PortalStand, caplog: pytest.LogCaptureFixture
) -> None:
    await stand.idp.stop()
    with caplog.at_level(logging.DEBUG):
        page = await stand.browser().get("/.heim/login?rd=canary")
    written = [record for record in caplog.records if record.message == "login.failed"]
    assert len(written) == 1
    event = stand.audit.last("login.failed")
    place = f"{stand.idp.issuer.removeprefix('http://')}/.well-known/openid-configuration"
    assert event["detail"] == f"{place}: connection refused"
    assert (event["step"], event["provider"]) == ("discovery", "idp")
    assert place not in page.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Purpose": "prefetch"},
        {"Sec_Purpose": "prefetch;prerender"},
        {"Purpose": "prefetch"},
        {"X_Moz": "prefetch"},
        {"Sec_Fetch_Mode": "cors"},
        {"Sec_Fetch_Mode": "no-cors"},
        {"Sec_Fetch_Mode": "websocket"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "url",
    [
        f"https://{LOGIN}/.heim/login",
        f"https://{LOGIN}/.heim/login/idp",
        f"https://{LOGIN}/.heim/callback?state=x",
        f"https://{APP1}/.heim/login?rd=/",
        f"https://{APP1}/.heim/handoff?t=x",
    ],
)
async def test_h20_what_nobody_asked_for_starts_nothing(
    stand: PortalStand, url: str, headers: dict[str, str]
) -> None:
    reply = await stand.browser().get(url, **headers)
    assert reply.status == 401
    assert "WWW-Authenticate" in reply.headers
    assert reply.set_cookies == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("where", [LOGIN, APP1])
async def test_h19_other_methods_start_nothing(stand: PortalStand, method: str, where: str) -> None:
    reply = await stand.browser().request(method, f"https://{where}/.heim/login")
    assert (reply.status, reply.headers["Allow"], reply.set_cookies) == (405, "GET", [])


async def test_h21_a_browser_that_goes_in_circles_is_told_why(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    for _ in range(LoopGuard.MAX_ROUNDS - 1):
        del browser.jar[APP1]["__Host-heim"]
        assert (await browser.open(APP1)).text == "arrived"
    del browser.jar[APP1]["__Host-heim"]
    reply = await browser.open(APP1)
    assert reply.status == 400
    assert f"Allow cookies for {APP1}" in reply.text
    stand.clock.time += LoopGuard.WINDOW_S + 1
    assert (await browser.open(APP1)).text == "arrived"


async def test_s7_signing_in_is_limited_by_address(tmp_path: Path) -> None:
    async with portal_stand(tmp_path, rate_limit=RateLimit(burst=5, per_second=1)) as stand:
        flood, other = stand.browser("2001:db8::1"), stand.browser("192.0.2.9")
        statuses = [(await flood.get("/.heim/login")).status for _ in range(8)]
        assert statuses == [303] * 5 + [429] * 3
        assert (await other.get("/.heim/login")).status == 303
        assert (await stand.browser("2001:db8::2").get("/.heim/login")).status == 429
        assert (await flood.get("/")).status == 200
        stand.clock.time += 1
        assert (await flood.get("/.heim/login")).status == 303


async def test_g18_anonymous_visitors_leave_nothing_in_memory(stand: PortalStand) -> None:
    for number in range(30):
        await stand.browser(f"192.0.2.{number}").get("/.heim/login")
    assert stand.store.sessions == {}
    assert stand.store.burned == {}
    assert len(stand.stage.sessions) == 0


OWN_PAGE = "/.heim/cli/authorize?state=abc&device=x"


async def test_people_come_back_to_a_page_of_the_login_host(stand: PortalStand) -> None:
    browser = stand.browser()
    callback = await browser.to_callback(f"/.heim/login?{urlencode({'rd': OWN_PAGE})}")
    reply = await browser.get(callback)
    assert (reply.status, reply.location) == (303, f"https://{LOGIN}{OWN_PAGE}")


async def test_whoever_is_signed_in_goes_to_the_page_at_once(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    reply = await browser.get(f"/.heim/login?{urlencode({'rd': '/.heim/device'})}")
    assert reply.location == f"https://{LOGIN}/.heim/device"


async def test_a_failed_sign_in_offers_the_same_page_again(stand: PortalStand) -> None:
    browser = stand.browser()
    callback = await browser.to_callback(f"/.heim/login?{urlencode({'rd': OWN_PAGE})}")
    denied = callback.replace("code=", "error=access_denied&x=")
    page = await browser.get(denied, Accept="text/html")
    assert page.status == 400
    assert f'href="/.heim/login?{urlencode({"rd": OWN_PAGE})}"'.replace("&", "&amp;") in page.text
