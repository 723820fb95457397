"""U: logins of programs (L1-L7, I14, I15): who can get one, keep one, and make others give one."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from heim_proxy.identity import service_tokens
from heim_proxy.store.base import SessionKind
from heim_proxy.store.sqlite import SqliteStore
from tests.fakes.browser import Browser, Page
from tests.fakes.programs import VERIFIER, challenge_of
from tests.hostile.redirects import hostile_redirects
from tests.hostile.signin import APP1, AUTH, Stand, query_of, signin_stand

pytest_plugins = ("tests.hostile.signin_fixtures",)
pytestmark = pytest.mark.asyncio(loop_scope="module")

AUTHORIZE, DEVICE = f"{AUTH}/.heim/cli/authorize", f"{AUTH}/.heim/device"
TOKEN, START = f"{AUTH}/.heim/cli/token", f"{AUTH}/.heim/cli/device"
REVOKE, BACKENDS = f"{AUTH}/.heim/cli/revoke", f"{AUTH}/.heim/cli/backends"
OWN = f"{AUTH}/.heim/devices"
BOBS = f"{APP1}/public"
HERE = "http://127.0.0.1:49152/callback"
ASKED = {
    "redirect_uri": HERE,
    "state": "s" * 32,
    "code_challenge": challenge_of(),
    "code_challenge_method": "S256",
    "device": "laptop",
}
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


def page(**change: str) -> str:
    return f"{AUTHORIZE}?{urlencode(ASKED | change)}"


async def code_of(browser: Browser) -> str:
    asked = await browser.open(page())
    assert asked.status == 200, asked.text
    answer = await browser.post(
        AUTHORIZE, {**asked.fields_of_form, "decision": "approve"}, origin=AUTH
    )
    return query_of(answer.get("location") or "")["code"]


async def ask(stand: Stand, url: str, form: Mapping[str, str]) -> Page:
    return await stand.browser().post(url, form, navigate=False)


async def bearer(stand: Stand, token: str, url: str = BACKENDS) -> Page:
    return await stand.browser().send("GET", url, headers=(("Authorization", f"Bearer {token}"),))


def with_code(code: str, **change: str) -> dict[str, str]:
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": HERE,
        "code_verifier": VERIFIER,
        **change,
    }


def said(answer: Page) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.body)
    return found


async def login(stand: Stand, browser: Browser | None = None) -> dict[str, Any]:
    browser = browser or await stand.signed_in()
    answer = await ask(stand, TOKEN, with_code(await code_of(browser)))
    assert answer.status == 200, answer.text
    return said(answer)


async def refresh(stand: Stand, token: str) -> Page:
    form = {"grant_type": "refresh_token", "refresh_token": token}
    return await ask(stand, TOKEN, form)


async def programs(stand: Stand) -> int:
    return len(await stand.store.list_sessions(kind=SessionKind.CLI))


# -- who can make somebody's browser give a login ---------------------------------------------


async def test_l2_no_link_image_or_prefetch_gives_a_code(stand: Stand) -> None:
    browser, before = await stand.signed_in(), await programs(stand)
    for headers in (
        (("Sec-Fetch-Mode", "navigate"), ("Accept", "text/html")),
        (("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "image"), ("Accept", "image/*")),
        (("Sec-Purpose", "prefetch"), ("Accept", "text/html")),
        (("Sec-Fetch-Mode", "cors"), ("Origin", "https://evil.test"), ("Accept", "*/*")),
    ):
        for url in (page(), page(decision="approve", csrf="x"), page(_method="POST")):
            answer = await browser.send("GET", url, headers=headers)
            assert answer.status in (200, 401)
            assert answer.get("location") is None
            assert answer.get("access-control-allow-origin") is None
    assert await programs(stand) == before


@pytest.mark.parametrize(
    ("origins", "csrf"),
    [
        pytest.param((), "{ours}", id="no origin"),
        pytest.param(("null",), "{ours}", id="null"),
        pytest.param((APP1,), "{ours}", id="an application"),
        pytest.param(("https://evil.test",), "{ours}", id="another site"),
        pytest.param((AUTH.replace("https", "http"),), "{ours}", id="http"),
        pytest.param((f"{AUTH}:443",), "{ours}", id="port"),
        pytest.param((f"{AUTH}.evil.test",), "{ours}", id="prefix"),
        pytest.param((AUTH, "https://evil.test"), "{ours}", id="two"),
        pytest.param((AUTH,), "", id="no token"),
        pytest.param((AUTH,), "A" * 43, id="a wrong token"),
        pytest.param((AUTH,), "{other}", id="another person's token"),
        pytest.param((AUTH,), "{logout}", id="another page's token"),
    ],
)
async def test_l2_a_forged_form_gives_no_code_and_approves_no_device(
    stand: Stand, origins: tuple[str, ...], csrf: str
) -> None:
    browser, other = await stand.signed_in(), await stand.signed_in("bob", BOBS)
    start = said(await ask(stand, START, {"device": "x"}))
    tokens = {
        "{ours}": (await browser.get(page())).fields_of_form["csrf"],
        "{other}": (await other.get(page())).fields_of_form["csrf"],
        "{logout}": (await browser.get(f"{AUTH}/.heim/logout")).fields_of_form["csrf"],
    }
    device_csrf = (await browser.get(DEVICE)).fields_of_form["csrf"]
    headers = tuple(("Origin", origin) for origin in origins)
    form = ("Content-Type", "application/x-www-form-urlencoded")
    for url, fields in (
        (AUTHORIZE, {**ASKED, "csrf": tokens.get(csrf, csrf)}),
        (DEVICE, {"code": start["user_code"],
                  "csrf": device_csrf if csrf == "{ours}" else tokens.get(csrf, csrf)}),
    ):  # fmt: skip
        body = urlencode({**fields, "decision": "approve"}).encode()
        answer = await browser.send("POST", url, headers=(*headers, form), body=body)
        assert answer.status == 403
        assert answer.get("location") is None
    poll = {"grant_type": DEVICE_GRANT, "device_code": start["device_code"]}
    assert said(await ask(stand, TOKEN, poll))["error"] == "authorization_pending"


async def test_p7_the_pages_cannot_be_framed_or_scripted(stand: Stand) -> None:
    browser = await stand.signed_in()
    for url in (page(), DEVICE):
        answer = await browser.get(url)
        policy = answer.get("content-security-policy") or ""
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert answer.get("x-frame-options") == "DENY"
        assert answer.get("cache-control") == "no-store"
        assert "<script" not in answer.text


# -- where a code may be sent -----------------------------------------------------------------


async def test_l4_no_address_but_loopback_is_gone_to(stand: Stand) -> None:
    """GHSA-35vc: the corpus of open redirects, as it is and around the address that is allowed."""
    browser = await stand.signed_in()
    csrf = (await browser.get(page())).fields_of_form["csrf"]
    attempts = list(hostile_redirects())[::61]
    attempts += [f"{HERE}{end}" for end in ("/", "?x=1", "#x", "@evil.test", "\r\nX: y", "%0d%0a")]
    attempts += [
        "http://localhost:49152/callback",
        "http://127.0.0.1:49152@evil.test/callback",
        "http://127.0.0.1.evil.test:49152/callback",
        "https://127.0.0.1:49152/callback",
        "http://[::ffff:127.0.0.1]:49152/callback",
        "http://2130706433:49152/callback",
        "custom-scheme://callback",
        f"{AUTH}/.heim/login",
        APP1,
    ]
    for uri in attempts:
        form = {**ASKED, "redirect_uri": uri, "csrf": csrf, "decision": "approve"}
        body = urlencode(form, errors="replace").encode()
        answer = await browser.send(
            "POST", AUTHORIZE, body=body,
            headers=(("Origin", AUTH), ("Content-Type", "application/x-www-form-urlencoded")),
        )  # fmt: skip
        assert (answer.status, answer.get("location")) == (400, None), uri


async def test_l4_coming_back_from_signing_in_leads_to_our_own_page_only(stand: Stand) -> None:
    for uri in ("http://evil.test:1/callback", "//evil.test"):
        browser = stand.browser()
        answer = await browser.open(
            f"{AUTH}/.heim/login?rd={quote(page(redirect_uri=uri)[len(AUTH) :], safe='')}"
        )
        assert (answer.status, answer.host) == (400, AUTH[8:])
        assert all("evil" not in one.url.partition("?")[0] for one in browser.trail)
    for rd in ("/.heim/device/../../..//evil.test", "/.heim/device\\@evil.test", f"{DEVICE}/"):
        answer = await stand.browser().open(f"{AUTH}/.heim/login?rd={quote(rd, safe='')}")
        assert answer.url == f"{AUTH}/"


# -- codes --------------------------------------------------------------------------------------


async def test_l3_a_code_buys_one_login_however_many_ask_at_once(stand: Stand) -> None:
    before = await programs(stand)
    form = with_code(await code_of(await stand.signed_in()))
    answers = await asyncio.gather(*(ask(stand, TOKEN, form) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] + [400] * 9
    assert await programs(stand) == before + 1
    (won,) = (answer for answer in answers if answer.status == 200)
    assert (await refresh(stand, said(won)["refresh_token"])).status == 200


@pytest.mark.parametrize(
    "change",
    [
        {"code_verifier": "w" * 43},
        {"code_verifier": challenge_of()},
        {"redirect_uri": HERE.replace("49152", "49153")},
        {"redirect_uri": f"{HERE}/"},
    ],
    ids=["verifier", "challenge", "port", "path"],
)
async def test_l3_a_thief_of_a_code_gets_nothing_and_burns_it(
    stand: Stand, change: dict[str, str]
) -> None:
    form = with_code(await code_of(await stand.signed_in()))
    assert said(await ask(stand, TOKEN, {**form, **change}))["error"] == "invalid_grant"
    assert said(await ask(stand, TOKEN, form))["error"] == "invalid_grant"


@pytest.mark.parametrize("decision", ["approve", "deny"])
async def test_l3_an_answer_says_whose_it_is(stand: Stand, decision: str) -> None:
    """RFC 9207: another login host that sends the browser on to us gets no code of ours."""
    browser = await stand.signed_in()
    fields = (await browser.open(page())).fields_of_form
    answer = await browser.post(AUTHORIZE, {**fields, "decision": decision}, origin=AUTH)
    assert query_of(answer.get("location") or "")["iss"] == AUTH


async def test_l3_a_code_does_not_outlive_its_minute(stand: Stand) -> None:
    form = with_code(await code_of(await stand.signed_in()))
    stand.later(61)
    assert said(await ask(stand, TOKEN, form))["error"] == "invalid_grant"


@pytest.mark.parametrize("method", ["plain", "", "S512"])
async def test_l3_without_s256_there_is_no_page(stand: Stand, method: str) -> None:
    answer = await (await stand.signed_in()).get(page(code_challenge_method=method))
    assert (answer.status, answer.get("location")) == (400, None)


# -- tokens -------------------------------------------------------------------------------------


async def test_i14_what_an_upstream_was_told_is_no_token(stand: Stand) -> None:
    """A hostile application reflects the assertion it was sent."""
    await stand.signed_in()
    assertions = [value for one in stand.sent for value in one.all("x-auth-token")]
    assertion = assertions[-1]
    assert len(assertion.split(".")) == 3
    assert (await bearer(stand, assertion)).status == 401


async def test_i15_a_token_opens_no_application(stand: Stand) -> None:
    made = await login(stand)
    stand.upstream.requests.clear()
    token = made["access_token"]
    for headers in (
        (("Authorization", f"Bearer {token}"),),
        (("Cookie", f"__Host-heim={token}"),),
        (("Cookie", f"__Host-heim={made['refresh_token']}"),),
    ):
        for path in ("/", f"/?access_token={token}"):
            answer = await stand.browser().send("GET", f"{APP1}{path}", headers=headers)
            assert answer.status in (303, 401)
    assert stand.sent == []


@pytest.mark.parametrize("how", ["query", "form", "cookie", "twice", "basic", "refresh"])
async def test_a_token_comes_in_one_header_or_not_at_all(stand: Stand, how: str) -> None:
    made = await login(stand)
    token, browser = made["access_token"], stand.browser()
    if how == "query":
        answer = await browser.send("GET", f"{BACKENDS}?access_token={token}")
    elif how == "form":
        answer = await browser.send("GET", BACKENDS, body=f"access_token={token}".encode())
    elif how == "cookie":
        answer = await browser.send("GET", BACKENDS, cookies=f"__Host-heim={token}")
    elif how == "twice":
        line = ("Authorization", f"Bearer {token}")
        answer = await browser.send("GET", BACKENDS, headers=(line, line))
    elif how == "basic":
        answer = await browser.send("GET", BACKENDS, headers=(("Authorization", f"Basic {token}"),))
    else:
        answer = await bearer(stand, made["refresh_token"])
    assert answer.status in (400, 401)


async def test_a_copied_refresh_token_ends_the_login_for_both(stand: Stand) -> None:
    first = await login(stand)
    second = said(await refresh(stand, first["refresh_token"]))
    third = said(await refresh(stand, second["refresh_token"]))
    assert said(await refresh(stand, first["refresh_token"]))["error"] == "invalid_grant"
    assert said(await refresh(stand, third["refresh_token"]))["error"] == "invalid_grant"
    assert (await bearer(stand, third["access_token"])).status == 401
    (event,) = stand.audit.of("token.reuse")
    assert event["email"] == "alice@example.com"


async def test_a_storm_of_refreshes_ends_with_one_token(stand: Stand) -> None:
    made = await login(stand)
    answers = await asyncio.gather(*(refresh(stand, made["refresh_token"]) for _ in range(30)))
    assert {answer.status for answer in answers} == {200}
    assert len({said(answer)["refresh_token"] for answer in answers}) == 1


@pytest.mark.parametrize("seconds", [-3600.0, 901.0, 25 * 3600.0], ids=["back", "late", "a day"])
async def test_tokens_do_not_mind_only_what_they_should(stand: Stand, seconds: float) -> None:
    """A clock that jumps: an access token is neither good too early nor too late."""
    made = await login(stand)
    stand.later(seconds)
    try:
        assert (await bearer(stand, made["access_token"])).status == 401
    finally:
        stand.later(-seconds)


async def test_revoking_a_person_reaches_programs_within_two_seconds(stand: Stand) -> None:
    browser = await stand.signed_in("bob", BOBS)
    made = await login(stand, browser)
    assert (await bearer(stand, made["access_token"])).status == 200
    other = SqliteStore(stand.store.path)
    await other.open()
    began = time.monotonic()
    ended = await other.end_sessions_of(now=time.time(), reason="revoked", email="bob@example.com")
    await other.close()
    assert ended >= 2
    async with asyncio.timeout(3):
        while (await bearer(stand, made["access_token"])).status == 200:
            await asyncio.sleep(0.02)
    assert time.monotonic() - began < 2.0
    assert said(await refresh(stand, made["refresh_token"]))["error"] == "invalid_grant"


async def test_signing_out_of_the_browser_leaves_the_program(stand: Stand) -> None:
    browser = await stand.signed_in()
    made = await login(stand, browser)
    asked = await browser.get(f"{AUTH}/.heim/logout")
    await browser.post(f"{AUTH}/.heim/logout", asked.fields_of_form, origin=AUTH)
    assert not await stand.sees(browser)
    assert (await bearer(stand, made["access_token"])).status == 200


async def test_k_anybody_can_ask_to_revoke_and_nobody_elses_login_ends(stand: Stand) -> None:
    made = await login(stand)
    token = made["refresh_token"]
    for forged in (token[:-1] + ("A" if token[-1] != "A" else "B"), "heim_rt_" + "A" * 91, "x"):
        if forged[:56] == token[:56]:
            continue  # the family is right: whoever has it has had a token
        assert (await ask(stand, REVOKE, {"token": forged})).status == 200
    sid_alone = f"{token[:32]}_{'A' * 22}_{'A' * 43}"
    assert (await ask(stand, REVOKE, {"token": sid_alone})).status == 200
    assert (await refresh(stand, sid_alone)).status == 400
    assert (await refresh(stand, token)).status == 200


# -- the owner's own page -----------------------------------------------------------------------


async def test_what_a_stolen_cookie_made_is_seen_and_ended_by_its_owner(stand: Stand) -> None:
    bobs = (await login(stand, await stand.signed_in("bob", BOBS)))["access_token"]
    owner = await stand.signed_in()
    thief = stand.browser()
    thief.jar = {host: dict(cookies) for host, cookies in owner.jar.items()}
    token = (await login(stand, thief))["access_token"]
    asked = await owner.get(f"{AUTH}/.heim/logout")
    assert f'href="{OWN[len(AUTH) :]}"' in asked.text
    await owner.post(f"{AUTH}/.heim/logout", asked.fields_of_form, origin=AUTH)
    assert (await bearer(stand, token)).status == 200
    await owner.open(OWN)
    shown = await owner.get(OWN)
    form = {"csrf": shown.fields_of_form["csrf"]}
    assert ">laptop<" in shown.text
    for origin, sent in (("https://evil.test", form), (AUTH, {"csrf": "A" * 43})):
        refused = await owner.post(OWN, {**sent, "all": "1"}, origin=origin)
        assert refused.status == 403
    assert (await thief.post(OWN, {**form, "all": "1"}, origin=AUTH)).status == 303
    assert (await bearer(stand, token)).status == 200, "without a session of its own"
    began = time.monotonic()
    assert (await owner.post(OWN, {**form, "all": "1"}, origin=AUTH)).status == 303
    assert (await bearer(stand, token)).status == 401
    assert time.monotonic() - began < 2
    assert "There are none." in (await owner.get(OWN)).text
    assert (await bearer(stand, bobs)).status == 200, "somebody else's login ended, too"


async def test_another_persons_login_is_answered_like_ones_own_and_stays(stand: Stand) -> None:
    token = (await login(stand))["access_token"]
    # Of alice's alone: other tests may have left logins of bob's.
    rows = await stand.store.list_sessions(email="alice@example.com", kind=SessionKind.CLI)
    alices = [row.sid for row in rows]
    bob = await stand.signed_in("bob", BOBS)
    await login(stand, bob)
    shown = await bob.get(OWN)
    form = shown.fields_of_form
    assert form["sid"] not in alices
    assert not [sid for sid in alices if sid in shown.text]
    own = await bob.post(OWN, form, origin=AUTH)
    for sid in (alices[0], form["sid"], "A" * 24, "../x", "A" * 3000):
        answer = await bob.post(OWN, {**form, "sid": sid}, origin=AUTH)
        assert (answer.status, answer.get("location"), answer.body) == (
            own.status, own.get("location"), own.body,
        )  # fmt: skip
    assert (await bearer(stand, token)).status == 200


# -- devices ------------------------------------------------------------------------------------


async def test_l5_a_link_brings_no_code_along(stand: Stand) -> None:
    start = said(await ask(stand, START, {"device": "x"}))
    browser = await stand.signed_in()
    for name in ("user_code", "code", "usercode"):
        answer = await browser.get(f"{DEVICE}?{name}={start['user_code']}")
        assert start["user_code"] not in answer.text


async def test_l5_codes_of_strangers_are_not_guessed(stand: Stand) -> None:
    browser = await stand.signed_in("bob", BOBS)
    csrf = (await browser.get(DEVICE)).fields_of_form["csrf"]
    statuses: list[int] = []
    for _ in range(25):
        browser.move()  # another address each time: the person is counted, too
        form = {"csrf": csrf, "code": "BCDF-GHJK"}
        statuses.append((await browser.post(DEVICE, form, origin=AUTH)).status)
    assert statuses == [400] * 20 + [429] * 5


async def test_l5_the_page_says_what_asks_whatever_it_calls_itself(stand: Stand) -> None:
    label = 'x"></dd><script>alert(1)</script>\r\nSet-Cookie: a=b\u202e\x1b[2J'
    answer = await ask(stand, START, {"device": label})
    assert answer.get("set-cookie") is None
    browser = await stand.signed_in()
    csrf = (await browser.get(DEVICE)).fields_of_form["csrf"]
    form = {"csrf": csrf, "code": said(answer)["user_code"]}
    shown = await browser.post(DEVICE, form, origin=AUTH)
    assert shown.status == 200
    assert "<script" not in shown.text
    assert not {"\u202e", "\x1b", "\r"} & set(shown.text)
    assert "10." in shown.text, "the address that asked is not shown"
    assert shown.get("set-cookie") is None


async def test_s_strangers_leave_a_bounded_number_of_devices(stand: Stand) -> None:
    browser = stand.browser()
    statuses = [
        (await browser.post(START, {"device": "x" * 3000}, navigate=False)).status
        for _ in range(30)
    ]
    assert statuses[:20] == [200] * 20
    assert set(statuses[25:]) == {429}
    (count,) = await stand.store._read(
        lambda db: db.execute("SELECT max(length(label)) FROM devices").fetchone()
    )
    assert count <= 64


# -- service tokens -----------------------------------------------------------------------------


async def test_l7_a_service_token_lives_and_dies_with_its_row_and_its_account(
    tmp_path: Any,
) -> None:
    async with signin_stand(tmp_path, service_accounts=[{"name": "backup"}]) as stand:
        row, token = service_tokens.issue("backup", now=time.time(), expires=float("inf"))
        other = SqliteStore(stand.store.path)
        await other.open()
        await other.create_session(row)
        assert said(await bearer(stand, token.reveal()))["user"] == "backup"
        for wrong in (token.reveal()[:-1] + "_", token.reveal()[:33] + "A" * 43, "heim_st_x"):
            answer = await bearer(stand, wrong)
            assert (answer.status, answer.get("location")) == (401, None)
        await stand.change(service_accounts=[])
        refused = await bearer(stand, token.reveal())
        assert refused.status == 401
        assert "no longer configured" in said(refused)["error_description"]
        await stand.change(service_accounts=[{"name": "backup"}])
        assert (await bearer(stand, token.reveal())).status == 200
        began = time.monotonic()
        await other.end_session(row.sid, reason="revoked", now=time.time())
        await other.close()
        async with asyncio.timeout(3):
            while (await bearer(stand, token.reveal())).status == 200:
                await asyncio.sleep(0.02)
        assert time.monotonic() - began < 2.0


# -- outages and what is left behind ------------------------------------------------------------


async def test_g12_without_a_store_programs_are_told_so_and_lose_nothing(stand: Stand) -> None:
    made = await login(stand)
    browser = await stand.signed_in()
    code = await code_of(browser)
    async with stand.store_down():
        for url, form in (
            (TOKEN, with_code(code)),
            (TOKEN, {"grant_type": "refresh_token", "refresh_token": made["refresh_token"]}),
            (TOKEN, {"grant_type": DEVICE_GRANT, "device_code": "heim_dc_" + "A" * 43}),
            (START, {"device": "x"}),
            (REVOKE, {"token": made["refresh_token"]}),
        ):
            answer = await ask(stand, url, form)
            assert (answer.status, said(answer)["error"]) == (503, "temporarily_unavailable")
            assert "state.db" not in answer.text
        assert (await bearer(stand, made["access_token"])).status == 200, "known to be good"
    assert (await refresh(stand, made["refresh_token"])).status == 200
    assert (await ask(stand, TOKEN, with_code(code))).status == 200


async def test_r1_no_log_has_a_code_or_a_token(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    browser = await stand.signed_in()
    code = await code_of(browser)
    made = said(await ask(stand, TOKEN, with_code(code)))
    await ask(stand, TOKEN, with_code(code))
    again = said(await refresh(stand, made["refresh_token"]))
    start = said(await ask(stand, START, {"device": "x"}))
    await bearer(stand, again["access_token"])
    await bearer(stand, f"{again['access_token']}x")
    await ask(stand, REVOKE, {"token": again["refresh_token"]})
    # The access log is written a moment later.
    await stand.heim.until(lambda: "/.heim/cli/revoke" in stand.heim.log.read_text())
    logged = "".join(repr(vars(record)) for record in caplog.records)
    logged += stand.heim.log.read_text()
    assert "/.heim/cli/token" in logged
    for secret in (
        code, VERIFIER, ASKED["code_challenge"], ASKED["state"], made["access_token"],
        made["refresh_token"], again["refresh_token"], again["access_token"],
        start["device_code"], start["user_code"],
    ):  # fmt: skip
        assert secret not in logged
        assert quote(secret, safe="") not in logged
    stored = stand.store.path.read_bytes()
    for secret in (code, made["refresh_token"][33:], start["device_code"], start["user_code"]):
        assert secret.encode() not in stored
