"""What programs ask the login host: every grant, and every way to ask for it wrongly."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from heim_proxy.identity import service_tokens
from heim_proxy.identity.access_tokens import LIFETIME_S
from heim_proxy.identity.device_codes import MAX_WAITING_PER_CLIENT
from heim_proxy.identity.session import Session
from heim_proxy.live import EndReason
from heim_proxy.portal.reachable import Reachable
from heim_proxy.portal.tokens import DEVICE_GRANT
from heim_proxy.store.base import SessionKind
from tests.fakes.portal import APP1, LOGIN, Browser, PortalStand, Reply
from tests.fakes.programs import VERIFIER, challenge_of

HERE = "http://127.0.0.1:49152/callback"
TOKEN, DEVICE = "/.heim/cli/token", "/.heim/cli/device"
REVOKE, BACKENDS = "/.heim/cli/revoke", "/.heim/cli/backends"
JSON = {"Accept": "application/json"}


class Program:
    """A command line: no cookies, no Accept for pages."""

    def __init__(self, stand: PortalStand, client: str = "192.0.2.50") -> None:
        self.stand = stand
        self._client = client

    async def post(self, path: str, **form: str) -> Reply:
        browser = self.stand.browser(self._client)
        reply = await browser.request("POST", path, headers=JSON, form=form or {"x": ""})
        assert not reply.set_cookies
        return reply

    async def get(self, path: str, token: str | None) -> Reply:
        headers = JSON if token is None else {**JSON, "Authorization": f"Bearer {token}"}
        return await self.stand.browser(self._client).request("GET", path, headers=headers)

    async def granted(self, **form: str) -> dict[str, Any]:
        reply = await self.post(TOKEN, **form)
        assert reply.status == 200, reply.text
        found: dict[str, Any] = json.loads(reply.text)
        return found


@pytest.fixture
def program(stand: PortalStand) -> Program:
    return Program(stand)


def error_of(reply: Reply) -> str:
    assert reply.headers["Content-Type"].startswith("application/json"), reply.text
    document = json.loads(reply.text)
    assert document.keys() == {"error", "error_description", "request_id"}
    return str(document["error"])


async def person(stand: PortalStand) -> Session:
    browser: Browser = stand.browser()
    await browser.open(APP1)
    sids = [sid for sid, row in stand.store.sessions.items() if row.kind is SessionKind.BROWSER]
    session = await stand.stage.sessions.peek(sids[-1], stand.clock.now())
    assert session is not None
    return session


async def code(stand: PortalStand, session: Session | None = None, label: str = "laptop") -> str:
    session = session or await person(stand)
    return stand.ctx.programs.codes.issue(
        session, redirect_uri=HERE, challenge=challenge_of(), label=label, now=stand.clock.now()
    ).reveal()


def with_code(value: str, **change: str) -> dict[str, str]:
    form = {
        "grant_type": "authorization_code",
        "code": value,
        "redirect_uri": HERE,
        "code_verifier": VERIFIER,
        **change,
    }
    return {name: text for name, text in form.items() if text != "OMIT"}


async def logged_in(program: Program) -> dict[str, Any]:
    return await program.granted(**with_code(await code(program.stand)))


def refresh(login: Mapping[str, Any]) -> dict[str, str]:
    return {"grant_type": "refresh_token", "refresh_token": str(login["refresh_token"])}


# -- authorization code -------------------------------------------------------------------------


async def test_a_code_buys_a_login(program: Program, stand: PortalStand) -> None:
    stand.port = ":8443"
    login = await logged_in(program)
    now = stand.clock.now()
    assert login.keys() == {
        "access_token", "token_type", "expires_in", "refresh_token", "session_expires", "user",
        "login_url", "domains",
    }  # fmt: skip
    assert (login["token_type"], login["expires_in"]) == ("Bearer", LIFETIME_S)
    assert login["session_expires"] == int(now + 86400)
    assert login["user"] == "alice@example.com"
    assert login["login_url"] == f"https://{LOGIN}:8443"
    assert login["domains"] == ["example.test"]
    assert re.fullmatch(r"heim_rt_[\w-]{91}", login["refresh_token"])
    found = await program.get(BACKENDS, login["access_token"])
    assert found.status == 200


async def test_a_login_is_recorded_with_its_device(program: Program, stand: PortalStand) -> None:
    await logged_in(program)
    event = stand.audit.last("login.cli")
    assert (event["label"], event["email"], event["via"], event["client"]) == (
        "laptop", "alice@example.com", "browser", "192.0.2.50",
    )  # fmt: skip
    assert stand.outcomes["cli"] == 1


BAD_CODE: dict[str, dict[str, str]] = {
    "no code": {"code": "OMIT"},
    "an empty code": {"code": ""},
    "no redirect_uri": {"redirect_uri": "OMIT"},
    "no verifier": {"code_verifier": "OMIT"},
    "another code": {"code": "A" * 200},
    "another redirect_uri": {"redirect_uri": "http://127.0.0.1:49153/callback"},
    "another verifier": {"code_verifier": "w" * 43},
    "the challenge for a verifier": {"code_verifier": challenge_of()},
}


@pytest.mark.parametrize("change", BAD_CODE.values(), ids=BAD_CODE)
async def test_what_is_wrong_with_a_code_buys_nothing(
    program: Program, stand: PortalStand, change: dict[str, str]
) -> None:
    reply = await program.post(TOKEN, **with_code(await code(stand), **change))
    assert reply.status == 400
    assert error_of(reply) == (
        "invalid_request" if set(change.values()) & {"OMIT", ""} else "invalid_grant"
    )
    assert len(stand.store.sessions) == 1


async def test_a_code_is_worth_one_login(program: Program, stand: PortalStand) -> None:
    form = with_code(await code(stand))
    replies = await asyncio.gather(*(program.post(TOKEN, **form) for _ in range(8)))
    assert sorted(reply.status for reply in replies) == [200] + [400] * 7
    assert stand.audit.last("login.failed")["detail"] == "code_replayed"
    assert len(stand.store.sessions) == 2


async def test_an_old_code_buys_nothing(program: Program, stand: PortalStand) -> None:
    form = with_code(await code(stand))
    stand.clock.time += 60
    assert error_of(await program.post(TOKEN, **form)) == "invalid_grant"


async def test_signing_out_before_the_code_is_used_undoes_the_consent(
    program: Program, stand: PortalStand
) -> None:
    session = await person(stand)
    form = with_code(await code(stand, session))
    await stand.stage.sessions.end(session.sid, EndReason.LOGOUT, stand.clock.now())
    assert error_of(await program.post(TOKEN, **form)) == "access_denied"


# -- refresh ------------------------------------------------------------------------------------


async def test_a_refresh_token_buys_the_next_tokens(program: Program, stand: PortalStand) -> None:
    first = await logged_in(program)
    stand.clock.time += LIFETIME_S
    second = await program.granted(**refresh(first))
    assert second["session_expires"] == first["session_expires"]
    assert second["refresh_token"] != first["refresh_token"]
    assert (await program.get(BACKENDS, first["access_token"])).status == 401
    assert (await program.get(BACKENDS, second["access_token"])).status == 200


async def test_refreshing_is_no_audit_event(program: Program, stand: PortalStand) -> None:
    login = await logged_in(program)
    before = stand.audit.events()
    await program.granted(**refresh(login))
    assert stand.audit.events() == before


async def test_a_copy_ends_the_login_and_is_recorded(program: Program, stand: PortalStand) -> None:
    first = await logged_in(program)
    second = await program.granted(**refresh(first))
    stand.clock.time += 31
    assert error_of(await program.post(TOKEN, **refresh(first))) == "invalid_grant"
    event = stand.audit.last("token.reuse")
    assert (event["email"], event["label"]) == ("alice@example.com", "laptop")
    assert error_of(await program.post(TOKEN, **refresh(second))) == "invalid_grant"
    assert (await program.get(BACKENDS, second["access_token"])).status == 401


@pytest.mark.parametrize("token", ["", "x", "heim_rt_" + "A" * 91, "heim_st_" + "A" * 68])
async def test_what_is_no_refresh_token_buys_nothing(program: Program, token: str) -> None:
    reply = await program.post(TOKEN, grant_type="refresh_token", refresh_token=token)
    assert reply.status == 400
    assert error_of(reply) == ("invalid_grant" if token else "invalid_request")


# -- devices ------------------------------------------------------------------------------------


async def begin(program: Program, device: str = "build host") -> dict[str, Any]:
    reply = await program.post(DEVICE, device=device)
    assert reply.status == 200, reply.text
    found: dict[str, Any] = json.loads(reply.text)
    return found


def poll(start: Mapping[str, Any]) -> dict[str, str]:
    return {"grant_type": DEVICE_GRANT, "device_code": str(start["device_code"])}


async def test_a_device_gets_two_codes(program: Program, stand: PortalStand) -> None:
    start = await begin(program)
    assert start.keys() == {
        "device_code", "user_code", "verification_uri", "expires_in", "interval",
    }  # fmt: skip
    assert start["verification_uri"] == f"https://{LOGIN}/.heim/device"
    assert (start["expires_in"], start["interval"]) == (600, 5)
    assert "verification_uri_complete" not in start, "a link would bring the code along"
    (row,) = stand.store.devices.values()
    assert (row.label, row.client) == ("build host", "192.0.2.50")


async def test_a_device_waits_then_logs_in_once(program: Program, stand: PortalStand) -> None:
    start = await begin(program)
    assert error_of(await program.post(TOKEN, **poll(start))) == "authorization_pending"
    hasty = await program.post(TOKEN, **poll(start))
    assert (hasty.status, error_of(hasty)) == (400, "slow_down")
    session = await person(stand)
    await stand.ctx.programs.devices.decide(
        start["user_code"], sid=session.sid, now=stand.clock.now()
    )
    login = await program.granted(**poll(start))
    assert login["user"] == "alice@example.com"
    assert stand.audit.last("login.cli")["via"] == "code"
    assert error_of(await program.post(TOKEN, **poll(start))) == "expired_token"


@pytest.mark.parametrize(
    ("how", "error"),
    [("denied", "access_denied"), ("late", "expired_token"), ("signed out", "access_denied")],
)
async def test_a_device_that_gets_nothing_is_told_why(
    program: Program, stand: PortalStand, how: str, error: str
) -> None:
    start, session, now = await begin(program), await person(stand), stand.clock.now()
    sid = "" if how == "denied" else session.sid
    await stand.ctx.programs.devices.decide(start["user_code"], sid=sid, now=now)
    if how == "late":
        stand.clock.time += 600
    if how == "signed out":
        await stand.stage.sessions.end(sid, EndReason.LOGOUT, now)
    assert error_of(await program.post(TOKEN, **poll(start))) == error
    assert len(stand.store.sessions) == 1


async def test_a_restarted_store_knows_the_device(program: Program, stand: PortalStand) -> None:
    start = await begin(program)
    await stand.store.close()
    assert (await program.post(TOKEN, **poll(start))).status == 503
    await stand.store.open()
    assert error_of(await program.post(TOKEN, **poll(start))) == "authorization_pending"


async def test_a_devices_name_cannot_carry_a_header_or_a_control(
    program: Program, stand: PortalStand
) -> None:
    reply = await program.post(DEVICE, device="evil\r\nSet-Cookie: a=b\x1b[2J\u202e")
    assert "Set-Cookie" not in reply.headers
    (row,) = stand.store.devices.values()
    assert row.label == "evilSet-Cookie: a=b[2J"


@pytest.mark.parametrize(
    "addresses",
    [
        pytest.param(["192.0.2.1"], id="an address"),
        pytest.param([f"2001:db8:1:2::{n:x}" for n in range(1, 8)], id="a 64"),
    ],
)
async def test_one_client_cannot_fill_the_table(stand: PortalStand, addresses: list[str]) -> None:
    programs = itertools.cycle(Program(stand, address) for address in addresses)
    statuses = []
    for _ in range(MAX_WAITING_PER_CLIENT + 20):
        stand.clock.time += 5  # within the rate
        statuses.append((await next(programs).post(DEVICE, device="x")).status)
    assert statuses[-1] == 503
    assert len(stand.store.devices) == MAX_WAITING_PER_CLIENT
    assert {row.client for row in stand.store.devices.values()} == set(addresses), "not as shown"
    for other in ("198.51.100.1", "2001:db8:1:3::1"):
        assert (await Program(stand, other).post(DEVICE, device="x")).status == 200
    (row,) = [one for one in stand.store.devices.values() if one.client == "2001:db8:1:3::1"]
    assert (row.client_key, row.network) == ("2001:db8:1:3::/64", "2001:db8:1::/48")


# -- the end ------------------------------------------------------------------------------------


async def test_revoking_ends_the_login_and_what_it_has_open(
    program: Program, stand: PortalStand
) -> None:
    login = await logged_in(program)
    sid = next(sid for sid, row in stand.store.sessions.items() if row.label == "laptop")
    session = await stand.stage.sessions.peek(sid, stand.clock.now())
    assert session is not None
    stream = stand.stage.open_exchange(session)
    reply = await program.post(REVOKE, token=login["refresh_token"])
    assert reply.status == 200
    assert stream.ended is EndReason.LOGOUT
    assert stand.audit.last("token.revoked")["label"] == "laptop"
    assert (await program.get(BACKENDS, login["access_token"])).status == 401
    assert error_of(await program.post(TOKEN, **refresh(login))) == "invalid_grant"
    assert (await program.post(REVOKE, token=login["refresh_token"])).status == 200


@pytest.mark.parametrize("token", ["x", "heim_rt_" + "A" * 91])
async def test_revoking_what_is_no_token_is_no_mistake(
    program: Program, stand: PortalStand, token: str
) -> None:
    """RFC 7009, 2.2."""
    await logged_in(program)
    assert (await program.post(REVOKE, token=token, token_type_hint="x")).status == 200
    assert all(row.ended is None for row in stand.store.sessions.values())
    assert "token.revoked" not in stand.audit.events()


# -- backends -----------------------------------------------------------------------------------


async def test_backends_are_told_to_people_and_programs(
    program: Program, stand: PortalStand
) -> None:
    stand.reachable.append(Reachable("db", "tcp", "db.example.test", "https://db.example.test"))
    stand.accounts.append("backup")
    row, token = service_tokens.issue("backup", now=stand.clock.now(), expires=float("inf"))
    await stand.store.create_session(row)
    login = await logged_in(program)
    for user, bearer in (("alice@example.com", login["access_token"]), ("backup", token.reveal())):
        reply = await program.get(BACKENDS, bearer)
        assert json.loads(reply.text) == {
            "user": user,
            "backends": [
                {"name": "db", "kind": "tcp", "host": "db.example.test",
                 "url": "https://db.example.test"}
            ],
        }  # fmt: skip


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic eDp5", "x", "Bearer a.b"])
async def test_without_a_token_nothing_is_told(stand: PortalStand, header: str | None) -> None:
    headers = JSON if header is None else {**JSON, "Authorization": header}
    reply = await stand.browser().request("GET", BACKENDS, headers=headers)
    assert reply.status == 401
    challenge = reply.headers["WWW-Authenticate"]
    assert challenge.startswith(f'Bearer realm="{LOGIN}"')
    assert ("error=" in challenge) == (header == "Bearer a.b")
    assert error_of(reply) in ("invalid_request", "invalid_token")


async def test_a_browsers_cookie_is_no_bearer_token(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    assert (await browser.get(BACKENDS)).status == 401


# -- all of them --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [TOKEN, DEVICE, REVOKE, BACKENDS])
async def test_answers_are_for_programs_and_not_for_scripts_of_other_sites(
    stand: PortalStand, path: str
) -> None:
    method = "GET" if path == BACKENDS else "POST"
    headers = {**JSON, "Origin": "https://evil.test"}
    reply = await stand.browser().request(method, path, headers=headers, form={"x": "y"})
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert not [name for name in reply.headers if name.startswith("Access-Control")]
    preflight = await stand.browser().request(
        "OPTIONS", path, headers={**headers, "Access-Control-Request-Method": method}
    )
    assert preflight.status == 405
    assert not [name for name in preflight.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("path", [TOKEN, DEVICE, REVOKE])
async def test_a_get_does_nothing(program: Program, path: str) -> None:
    assert (await program.get(path, None)).status == 405


@pytest.mark.parametrize("path", [TOKEN, DEVICE, REVOKE, BACKENDS])
async def test_backends_do_not_serve_them(stand: PortalStand, path: str) -> None:
    reply = await stand.browser().request("POST", f"https://{APP1}{path}", headers=JSON)
    assert reply.status == 404


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param('{"grant_type":"refresh_token"}', "application/json", id="JSON"),
        pytest.param("grant_type=x&grant_type=y", "application/x-www-form-urlencoded", id="twice"),
        pytest.param("x=" + "y" * 5000, "application/x-www-form-urlencoded", id="too long"),
        pytest.param("grant_type=%ff", "application/x-www-form-urlencoded", id="not UTF-8"),
        pytest.param("", "application/x-www-form-urlencoded", id="empty"),
    ],
)
async def test_a_body_that_is_no_form_is_a_wrong_request(
    stand: PortalStand, body: str, kind: str
) -> None:
    headers = {**JSON, "Content-Type": kind}
    reply = await stand.browser().request("POST", TOKEN, headers=headers, body=body)
    assert (reply.status, error_of(reply)) == (400, "invalid_request")


@pytest.mark.parametrize("grant", ["password", "client_credentials", "", "implicit", "é"])
async def test_there_are_three_grants(program: Program, grant: str) -> None:
    reply = await program.post(TOKEN, grant_type=grant)
    assert reply.status == 400
    assert error_of(reply) == ("unsupported_grant_type" if grant else "invalid_request")


async def test_programs_that_run_wild_do_not_lock_people_out(
    program: Program, stand: PortalStand
) -> None:
    statuses = [(await program.post(TOKEN, grant_type="x")).status for _ in range(302)]
    assert statuses[299:] == [400, 429, 429]
    assert (await stand.browser("192.0.2.50").follow("/.heim/login")).status == 200


ASKED: dict[str, Callable[[Program, Mapping[str, Any], str], Awaitable[Reply]]] = {
    "code": lambda one, login, code: one.post(TOKEN, **with_code(code)),
    "refresh": lambda one, login, code: one.post(TOKEN, **refresh(login)),
    "poll": lambda one, login, code: one.post(
        TOKEN, grant_type=DEVICE_GRANT, device_code="heim_dc_" + "A" * 43
    ),
    "device": lambda one, login, code: one.post(DEVICE, device="x"),
    "revoke": lambda one, login, code: one.post(REVOKE, token=str(login["refresh_token"])),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
async def test_without_a_store_it_is_503_in_json_and_nobody_loses_a_login(
    program: Program, stand: PortalStand, ask: Any
) -> None:
    login = await logged_in(program)
    another = await code(stand, await person(stand))
    stand.store.down = "/var/lib/heim: disk on fire"
    reply = await ask(program, login, another)
    assert (reply.status, error_of(reply)) == (503, "temporarily_unavailable")
    assert "/var/lib" not in reply.text
    assert int(reply.headers["Retry-After"]) > 0
    stand.store.down = None
    await program.granted(**refresh(login))


async def test_nothing_secret_is_logged(
    program: Program, stand: PortalStand, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    a_code, start = await code(stand), await begin(program)
    login = await program.granted(**with_code(a_code))
    await program.post(TOKEN, **with_code(a_code))
    await program.post(TOKEN, **poll(start))
    second = await program.granted(**refresh(login))
    stand.clock.time += 31
    await program.post(TOKEN, **refresh(login))
    await program.get(BACKENDS, second["access_token"])
    logged = "".join(repr(vars(record)) for record in caplog.records)
    for secret in (
        a_code, VERIFIER, start["device_code"], start["user_code"], login["access_token"],
        login["refresh_token"], second["refresh_token"], second["access_token"],
    ):  # fmt: skip
        assert secret not in logged
