"""The provider sends the browser back (security.md H1-H15, J1, J4)."""

from __future__ import annotations

import asyncio
import html
import json
import re
from dataclasses import replace
from urllib.parse import urlencode

import pytest

from heim_proxy.identity.cookies import LOGIN_PREFIX
from heim_proxy.identity.flow import FLOW_LIFETIME_S
from heim_proxy.identity.providers import ProviderType
from heim_proxy.live import EndReason
from heim_proxy.portal.callback import id_token_of
from tests.fakes.idp import OMIT, REDIRECT, FakeIdp, Lies
from tests.fakes.portal import APP1, APP2, LOGIN, STRICT, PortalStand, query_of


def without(url: str, *names: str) -> str:
    kept = {name: value for name, value in query_of(url).items() if name not in names}
    return f"{url.partition('?')[0]}?{urlencode(kept)}"


def changed(url: str, **changes: str) -> str:
    return f"{url.partition('?')[0]}?{urlencode({**query_of(url), **changes})}"


async def test_somebody_signs_in_and_arrives_where_they_wanted_to_go(stand: PortalStand) -> None:
    browser = stand.browser()
    arrived = await browser.open(APP1, "/reports?year=2026")
    assert arrived.url == f"https://{APP1}/reports?year=2026"
    assert browser.session(LOGIN)
    assert browser.session(APP1)
    assert [name for name in browser.jar[LOGIN] if name.startswith(LOGIN_PREFIX)] == []
    assert list(browser.jar[APP1]) == ["__Host-heim"]
    (row,) = stand.store.sessions.values()
    assert (row.email, row.provider, row.groups) == (
        "alice@example.com",
        "idp",
        ("admins", "developers"),
    )


async def test_a_second_application_needs_no_second_login(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    await browser.open(APP2)
    assert stand.idp.hits["authorize"] == 1
    assert len(stand.store.sessions) == 1
    assert browser.session(APP1) != browser.session(APP2)


async def test_outcomes_are_counted(stand: PortalStand) -> None:
    await stand.browser().open(APP1)
    stand.idp.lies = Lies(claims={"email_verified": False})
    await stand.browser().open(APP1)
    stand.idp.lies = Lies(token_status=500)
    await stand.browser().open(APP1)
    assert stand.outcomes == {"succeeded": 1, "refused": 1, "failed": 1}


async def test_audit_tells_who_signed_in(stand: PortalStand) -> None:
    await stand.browser().open(APP1)
    told = stand.audit.last("login.succeeded")
    assert (told["email"], told["provider"], told["host"]) == ("alice@example.com", "idp", APP1)
    assert "session.created" in stand.audit.events()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda url: without(url, "state"), id="H1 without state"),
        pytest.param(lambda url: changed(url, state=""), id="H1 empty"),
        pytest.param(lambda url: changed(url, state="x" * 55), id="H1 unknown"),
        pytest.param(lambda url: changed(url, state="é"), id="not ASCII"),
        pytest.param(
            lambda url: changed(url, state=query_of(url)["state"][:-1] + "_"), id="H1 altered"
        ),
        pytest.param(
            lambda url: changed(url, state=f"{'A' * 11}.{query_of(url)['state'][12:]}"),
            id="H1 another flow's name",
        ),
        pytest.param(lambda url: f"{url}&state=again", id="H7 state twice"),
        pytest.param(lambda url: f"{url}&code=again", id="H7 code twice"),
        pytest.param(lambda url: f"{url}&iss=again", id="H7 iss twice"),
        pytest.param(lambda url: f"{url}&x=%ff", id="not UTF-8"),
        pytest.param(lambda url: url + "&x=1" * 1 + "".join(f"&y{n}=" for n in range(40)), id="40"),
        pytest.param(lambda url: without(url, "code"), id="no code"),
        pytest.param(lambda url: changed(url, code=""), id="empty code"),
        pytest.param(lambda url: changed(url, code="made-up"), id="H3 another code"),
        pytest.param(lambda url: changed(url, code="x" * 5000), id="impossible code"),
        pytest.param(lambda url: changed(url, iss="https://evil.test"), id="H6 another issuer"),
        pytest.param(lambda url: without(url, "iss"), id="H6 promised issuer missing"),
        pytest.param(lambda url: changed(url, error="access_denied"), id="H8 error beside a code"),
        pytest.param(lambda url: REDIRECT, id="nothing at all"),
    ],
)
async def test_a_response_that_is_not_this_flows_is_refused(
    stand: PortalStand, damage: object
) -> None:
    browser = stand.browser()
    url = await browser.to_callback(f"https://{APP1}/.heim/login?rd=/")
    reply = await browser.get(damage(url))  # type: ignore[operator]
    assert reply.status == 400
    assert browser.session() is None
    assert stand.store.sessions == {}


async def test_h14_an_attackers_callback_does_not_sign_a_victim_in(stand: PortalStand) -> None:
    attacker, victim = stand.browser(), stand.browser("192.0.2.2")
    url = await attacker.to_callback(f"https://{APP1}/.heim/login?rd=/")
    reply = await victim.get(url)
    assert reply.status == 400
    assert victim.session() is None
    assert stand.idp.hits["token"] == 0


async def test_h14_an_attackers_callback_does_not_switch_a_victims_account(
    stand: PortalStand,
) -> None:
    victim, attacker = stand.browser(), stand.browser("192.0.2.2")
    await victim.open(APP1)
    before = victim.session()
    stand.idp.user = "mallory"
    reply = await victim.get(await attacker.to_callback(f"https://{APP1}/.heim/login?rd=/"))
    assert (reply.status, reply.location) == (303, f"https://{LOGIN}/")
    assert victim.session() == before
    assert len(stand.store.sessions) == 1


async def test_h5_a_victims_browser_with_its_own_flow_still_refuses_the_attackers_code(
    stand: PortalStand,
) -> None:
    attacker, victim = stand.browser(), stand.browser("192.0.2.2")
    theirs = await attacker.to_callback(f"https://{APP1}/.heim/login?rd=/")
    ours = await victim.to_callback(f"https://{APP1}/.heim/login?rd=/")
    reply = await victim.get(changed(ours, code=query_of(theirs)["code"]))
    assert reply.status == 400
    assert victim.session() is None


async def test_h1_a_flow_of_another_provider_is_refused(stand: PortalStand) -> None:
    other = FakeIdp()
    other.now = stand.clock.now
    await other.start()
    try:
        stand.providers.append(replace(stand.providers[0], name="other", issuer=other.issuer))
        browser = stand.browser()
        url = await browser.to_callback("/.heim/login/idp")
        assert query_of(url)["iss"] == stand.idp.issuer
        mixed = await browser.to_callback("/.heim/login/other")
        reply = await browser.get(changed(mixed, iss=stand.idp.issuer))
        assert reply.status == 400
        assert other.hits["token"] == 0
    finally:
        await other.stop()


async def test_h1_a_flow_whose_provider_was_removed_is_refused(stand: PortalStand) -> None:
    browser = stand.browser()
    url = await browser.to_callback("/.heim/login")
    stand.providers[:] = [replace(stand.providers[0], name="renamed")]
    assert (await browser.get(url)).status == 400


async def test_h2_a_replayed_response_makes_no_second_session(stand: PortalStand) -> None:
    browser = stand.browser()
    url = await browser.to_callback(f"https://{APP1}/.heim/login?rd=/x")
    jar = dict(browser.jar[LOGIN])
    await browser.follow(url)
    reply = await browser.get(url)
    assert (reply.status, reply.location) == (303, f"https://{LOGIN}/")
    browser.jar[LOGIN] = {**browser.jar[LOGIN], **jar}
    reply = await browser.get(url)
    assert reply.status == 303
    assert reply.location.startswith(f"https://{APP1}/.heim/handoff?t=")
    del browser.jar[LOGIN]["__Host-heim"]
    assert (await browser.get(url)).status == 400
    assert len(stand.store.sessions) == 1
    assert stand.idp.hits["token"] == 1


async def test_h2_the_same_response_twice_at_once_makes_one_session(stand: PortalStand) -> None:
    browser = stand.browser()
    url = await browser.to_callback(f"https://{APP1}/.heim/login?rd=/x")
    replies = await asyncio.gather(*(browser.get(url) for _ in range(5)))
    assert sorted(reply.status for reply in replies) == [303, 400, 400, 400, 400]
    assert len(stand.store.sessions) == 1


@pytest.mark.parametrize("live", [True, False], ids=["live session", "no session"])
async def test_h13_an_expired_flow_goes_on_only_with_a_live_session(
    stand: PortalStand, live: bool
) -> None:
    browser = stand.browser()
    url = await browser.to_callback(f"https://{APP1}/.heim/login?rd=/wanted")
    stand.clock.time += FLOW_LIFETIME_S
    if live:
        await browser.follow("/.heim/login/idp")
    reply = await browser.get(url)
    if live:
        assert reply.status == 303
        assert reply.location.startswith(f"https://{APP1}/.heim/handoff?t=")
        assert (await browser.follow(reply.location)).url == f"https://{APP1}/wanted"
    else:
        assert reply.status == 400


async def test_h8_what_the_provider_says_went_wrong_is_not_repeated(stand: PortalStand) -> None:
    stand.idp.lies = Lies(error="access_denied", error_description="<script>alert(1)</script>")
    reply = await stand.browser().open(APP1)
    assert reply.status == 400
    assert "script" not in reply.text
    assert "access_denied" not in reply.text
    assert "req-" in reply.text
    stand.idp.lies = Lies(error="<script>")
    reply = await stand.browser().open(APP1)
    assert reply.status == 400
    assert "script" not in reply.text


@pytest.mark.parametrize(
    ("lies", "status"),
    [
        pytest.param(Lies(token_status=500), 503, id="H11 500"),
        pytest.param(Lies(token_delay=5), 503, id="slow"),
        pytest.param(Lies(token_body=b"<html>"), 502, id="H11 html"),
        pytest.param(Lies(token={"id_token": OMIT}), 502, id="H11 no id_token"),
        pytest.param(Lies(token={"expires_in": -1}), 502, id="H11 expires_in"),
        pytest.param(Lies(jwks_status=500), 503, id="no keys"),
        pytest.param(Lies(header={"alg": "none"}, unsigned=True), 400, id="I1"),
        pytest.param(Lies(hmac_with_public_key=True), 400, id="I2"),
        pytest.param(Lies(claims={"nonce": "x"}), 400, id="H4 wrong nonce"),
        pytest.param(Lies(claims={"nonce": OMIT}), 400, id="H4 no nonce"),
        pytest.param(Lies(claims={"aud": "x"}), 400, id="I6"),
        pytest.param(Lies(claims={"iss": "https://evil.test"}), 400, id="I7"),
        pytest.param(Lies(claims={"exp": 1}), 400, id="I8"),
        pytest.param(Lies(authorize={"iss": "https://evil.test"}), 400, id="H6"),
        pytest.param(Lies(authorize={"state": "forged"}), 400, id="H1 state"),
    ],
)
async def test_a_lying_provider_signs_nobody_in(
    stand: PortalStand, lies: Lies, status: int
) -> None:
    stand.idp.lies = lies
    browser = stand.browser()
    reply = await browser.open(APP1)
    assert reply.status == status
    assert browser.session() is None
    assert stand.store.sessions == {}
    assert stand.idp.issuer not in reply.text
    assert "login.failed" in stand.audit.events()


async def test_a_failed_login_leaves_the_session_before_it_alone(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    before = browser.session()
    stand.idp.lies = Lies(claims={"nonce": "x"})
    reply = await browser.follow("/.heim/login/idp")
    assert reply.status == 400
    assert browser.session() == before
    assert (await browser.get("/.heim/me", Accept="application/json")).status == 200


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        pytest.param({"email_verified": False}, "email_unverified", id="J1 false"),
        pytest.param({"email_verified": "false"}, "email_unverified", id="J1 text"),
        pytest.param({"email_verified": 1}, "email_unverified", id="J1 number"),
        pytest.param({"email": "a＠example.com"}, "email_malformed", id="J3 full-width"),
        pytest.param({"email": "a@evil.test@example.com"}, "email_malformed", id="J3 two at"),
        pytest.param({"email": "a@example.com.evil.test"}, "domain", id="J3 suffix"),
        pytest.param({"email": "a@sub.example.com"}, "domain", id="J3 subdomain"),
    ],
)
async def test_somebody_who_is_not_admitted_gets_a_reason_and_no_session(
    stand: PortalStand, claims: dict[str, object], reason: str
) -> None:
    stand.providers[:] = [replace(stand.providers[0], domains=frozenset({"example.com"}))]
    stand.idp.lies = Lies(claims=claims, userinfo=claims)
    browser = stand.browser()
    reply = await browser.open(APP1)
    assert reply.status == 403
    assert browser.session() is None
    assert "Use another account" in reply.text
    assert stand.audit.last("login.refused")["reason"] == reason


@pytest.mark.parametrize(
    ("claims", "account"),
    [
        pytest.param({"email": "alice@other.test"}, "alice@other.test", id="e-mail"),
        pytest.param({"email": "<b>@other.test"}, "&lt;b&gt;@other.test", id="markup"),
        pytest.param({"email": "\u202ealice@other.test"}, "", id="turned around"),
        pytest.param({"email": "a" * 300}, "a" * 254, id="long"),
        pytest.param({"email": OMIT, "upn": "alice@other.test"}, "alice@other.test", id="Azure"),
        pytest.param({"email": OMIT}, "", id="none"),
        pytest.param({"email": ["alice"]}, "", id="no text"),
    ],
)
async def test_whoever_is_refused_reads_which_account_they_chose(
    stand: PortalStand, claims: dict[str, object], account: str
) -> None:
    stand.providers[:] = [replace(stand.providers[0], domains=frozenset({"example.com"}))]
    stand.idp.lies = Lies(claims=claims, userinfo=claims)
    reply = await stand.browser().open(APP1)
    assert reply.status == 403
    shown = re.findall(r"<p>Account: (.*?)</p>", reply.text, re.DOTALL)
    assert shown == ([account] if account else [])


async def test_a_program_is_told_the_refused_account_too(stand: PortalStand) -> None:
    stand.idp.lies = Lies(claims={"email_verified": False})
    browser = stand.browser()
    url = await browser.to_callback("/.heim/login")
    reply = await browser.get(url, Accept="application/json")
    assert json.loads(reply.text)["account"] == "alice@example.com"


async def test_another_account_goes_where_the_refused_one_wanted_to_go(
    stand: PortalStand,
) -> None:
    stand.idp.lies = Lies(claims={"email_verified": False}, userinfo={"email_verified": False})
    browser = stand.browser()
    reply = await browser.open(APP1, "/deep")
    (link,) = re.findall(r'href="([^"]*)">Use another account<', reply.text)
    stand.idp.lies = Lies()
    arrived = await browser.follow(html.unescape(link))
    assert arrived.url == f"https://{APP1}/deep"
    assert browser.session(APP1), "its binding came with it"
    assert stand.idp.requests[-1]["prompt"] == "login"


async def test_j2_hd_in_the_request_helps_nobody(stand: PortalStand) -> None:
    google = replace(
        stand.providers[0], type=ProviderType.GOOGLE, hosted_domains=frozenset({"example.com"})
    )
    stand.providers[:] = [google]
    browser = stand.browser()
    url = await browser.to_callback("/.heim/login")
    assert stand.idp.requests[-1]["hd"] == "example.com"
    assert (await browser.get(f"{url}&hd=example.com")).status == 403


async def test_j4_an_address_stays_with_the_first_account_that_had_it(stand: PortalStand) -> None:
    await stand.browser().open(APP1)
    stand.idp.users["mallory"]["email"] = "alice@example.com"
    stand.idp.user = "mallory"
    browser = stand.browser()
    reply = await browser.open(APP1)
    assert reply.status == 403
    assert "another account" in reply.text
    assert browser.session() is None
    assert stand.audit.last("login.refused")["reason"] == "pinned_to_another_account"
    assert await stand.store.unpin("alice@example.com")
    assert (await stand.browser().open(APP1)).url == f"https://{APP1}/"


async def test_g6_a_planted_session_cookie_is_replaced_at_login(stand: PortalStand) -> None:
    browser = stand.browser()
    browser.jar[LOGIN] = {"__Host-heim": "planted"}
    await browser.open(APP1)
    assert browser.session() != "planted"


async def test_another_login_ends_the_session_before_it(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    (first,) = stand.store.sessions
    stand.clock.time += 5
    stand.idp.user = "bob"
    await browser.follow("/.heim/login/idp")
    rows = stand.store.sessions
    assert rows[first].end_reason == EndReason.LOGOUT.value
    assert [row.email for row in rows.values() if row.ended is None] == ["bob@example.com"]


async def test_h12_ten_tabs_land_each_on_their_own_page(stand: PortalStand) -> None:
    browser = stand.browser()
    urls = [await browser.to_callback(f"https://{APP1}/.heim/login?rd=/tab{n}") for n in range(5)]
    urls += [
        await browser.to_callback(f"https://{APP2}/.heim/login?rd=/tab{n}") for n in range(5, 10)
    ]
    cookies = "; ".join(f"{name}={value}" for name, value in browser.jar[LOGIN].items())
    assert len(cookies) < 6000
    landed = [(await browser.follow(url)).url for url in urls]
    hosts = [APP1] * 5 + [APP2] * 5
    assert landed == [f"https://{host}/tab{n}" for n, host in enumerate(hosts)]
    assert len(stand.store.sessions) == 1
    for host in (APP1, APP2):
        assert (await browser.get(f"https://{host}/.heim/me")).status == 200


async def test_h12_twenty_pending_logins_leave_the_latest(stand: PortalStand) -> None:
    browser = stand.browser()
    urls = []
    for number in range(20):
        stand.clock.time += 1
        urls.append(await browser.to_callback(f"https://{APP1}/.heim/login?rd=/tab{number}"))
    names = [name for name in browser.jar[LOGIN] if name.startswith(LOGIN_PREFIX)]
    assert len(names) <= 12
    assert (await browser.get(urls[0])).status == 400
    assert (await browser.follow(urls[-1])).url == f"https://{APP1}/tab19"


async def test_h22_a_backend_with_an_age_limit_gets_a_fresh_login(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    stand.clock.time += 601
    stand.idp.auth_time = stand.clock.now() - 601
    assert (await browser.open(STRICT, "/x")).url == f"https://{STRICT}/x"
    asked = stand.idp.requests[-1]
    assert (asked["prompt"], asked["max_age"]) == ("login", "600")
    alive = [row for row in stand.store.sessions.values() if row.ended is None]
    assert [row.auth_time for row in alive] == [stand.clock.now()]
    assert len(stand.store.sessions) == 2


async def test_h22_a_provider_that_does_not_ask_again_does_not_get_people_in(
    stand: PortalStand,
) -> None:
    stand.idp.lies = Lies(claims={"auth_time": int(stand.clock.now()) - 4000})
    browser = stand.browser()
    assert (await browser.open(STRICT)).status == 400
    assert browser.session(STRICT) is None


async def test_h22_a_proof_that_only_the_skew_lets_through_is_not_passed_on(
    stand: PortalStand,
) -> None:
    stand.idp.lies = Lies(claims={"auth_time": int(stand.clock.now()) - 630})
    browser = stand.browser()
    assert (await browser.open(STRICT)).status == 400
    assert browser.session(STRICT) is None


async def test_h22_without_auth_time_the_login_itself_counts(stand: PortalStand) -> None:
    stand.idp.lies = Lies(claims={"auth_time": OMIT})
    assert (await stand.browser().open(STRICT)).url == f"https://{STRICT}/"


async def test_tokens_are_kept_sealed_for_signing_out_at_the_provider(stand: PortalStand) -> None:
    stand.idp.lies = Lies(token={"refresh_token": "canary-refresh"})
    await stand.browser().open(APP1)
    ((sid, row),) = stand.store.sessions.items()
    assert b"canary-refresh" not in row.sealed_tokens
    stored = await stand.stage.sessions.tokens(sid)
    assert json.loads(stored)["refresh_token"] == "canary-refresh"
    assert id_token_of(stored)


@pytest.mark.parametrize("stored", [b"", b"{}", b"garbage", b'{"id_token":1}'])
def test_a_session_without_tokens_has_no_hint(stored: bytes) -> None:
    assert id_token_of(stored) is None


async def test_g12_nothing_is_granted_while_the_store_is_down(stand: PortalStand) -> None:
    browser = stand.browser()
    url = await browser.to_callback(f"https://{APP1}/.heim/login?rd=/")
    stand.store.down = "disk full"
    reply = await browser.get(url)
    assert reply.status == 503
    assert browser.session() is None
    assert "disk" not in reply.text


async def test_r1_no_secret_of_a_login_is_in_a_page_or_an_audit_event(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    form = stand.idp.token_forms[-1]
    canaries = (form["code"], form["code_verifier"], stand.idp.client_secret)
    told = repr([vars(record) for record in stand.audit.records])
    shown = " ".join(reply.text for reply in browser.trail)
    assert not [canary for canary in canaries if canary in told or canary in shown]
