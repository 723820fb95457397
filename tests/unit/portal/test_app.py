"""Dispatch, and what every answer of the portal carries (H16, P5, P7)."""

from __future__ import annotations

import json
import logging

import pytest

from heim_proxy.identity.keys import KeyRing
from heim_proxy.portal.forms import csrf_token
from tests.fakes.portal import APP1, LOGIN, PortalStand

EVERYWHERE = (
    "/",
    "/.heim/login",
    "/.heim/login/idp",
    "/.heim/login/nobody",
    "/.heim/callback",
    "/.heim/callback?error=x",
    "/.heim/handoff?t=x",
    "/.heim/logout",
    "/.heim/signed-out",
    "/.heim/me",
    "/.heim/jwks.json",
    "/.heim/nothing",
)


@pytest.mark.parametrize("path", EVERYWHERE)
@pytest.mark.parametrize("host", [LOGIN, APP1])
@pytest.mark.parametrize("accept", ["text/html", "*/*"], ids=["browser", "program"])
@pytest.mark.parametrize("known", [True, False], ids=["signed in", "anonymous"])
async def test_every_answer_is_private_unframed_and_tells_nobody(
    stand: PortalStand, path: str, host: str, accept: str, known: bool
) -> None:
    browser = stand.browser()
    if known:
        await browser.open(APP1)
    reply = await browser.get(f"https://{host}{path}", Accept=accept)
    headers = reply.headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] in ("no-referrer", "same-origin")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "Server" not in headers
    assert "<script" not in reply.text
    if headers.get("Content-Type", "").startswith("text/html") and reply.status >= 400:
        assert "req-" in reply.text
        assert "127.0.0.1" not in reply.text


@pytest.mark.parametrize(
    ("host", "path"),
    [
        (APP1, "/"),
        (APP1, "/.heim"),
        (APP1, "/.heim/"),
        (APP1, "/.heim/callback"),
        (APP1, "/.heim/login/idp"),
        (APP1, "/.heim/jwks.json"),
        (APP1, "/.heim/signed-out"),
        (APP1, "/.heim/../admin"),
        (LOGIN, "/.heim/handoff"),
        (LOGIN, "/.heim/me/"),
        (LOGIN, "/.heim//me"),
        (LOGIN, "/.HEIM/me"),
        (LOGIN, "/.heim/%6de"),
        (LOGIN, "/.heim/login/../me"),
        (LOGIN, "/index.html"),
        (LOGIN, "/.heim/me;x=1"),
    ],
)
async def test_there_is_no_other_way_to_a_page(stand: PortalStand, host: str, path: str) -> None:
    assert (await stand.browser().get(f"https://{host}{path}")).status == 404


async def test_an_error_is_at_most_four_lines_with_the_request_id(stand: PortalStand) -> None:
    page = await stand.browser().get("/.heim/callback?state=x")
    assert page.text.count("<p") + page.text.count("<h1") <= 4
    assert "Request <code>req-" in page.text


async def test_a_program_gets_a_problem_document(stand: PortalStand) -> None:
    reply = await stand.browser().get("/.heim/callback?state=x", Accept="application/json")
    assert reply.headers["Content-Type"].startswith("application/problem+json")
    problem = json.loads(reply.text)
    assert (problem["status"], problem["code"]) == (400, "bad_request")
    assert problem["request_id"].startswith("req-")
    assert problem["step"]


@pytest.mark.parametrize(
    "headers",
    [
        {"X_Heim_Host": ""},
        {"X_Heim_Surface": "admin"},
        {"X_Heim_Surface": ""},
        {"X_Heim_Request": ""},
        {"X_Heim_Request": "a b"},
        {"X_Heim_Request": "<script>"},
    ],
    ids=str,
)
async def test_without_the_edges_facts_nothing_is_answered(
    stand: PortalStand, headers: dict[str, str]
) -> None:
    reply = await stand.browser().get("/", **headers)
    assert (reply.status, reply.text) == (400, "bad request\n")


@pytest.mark.parametrize(
    ("host", "path"), [(LOGIN, "/"), (LOGIN, "/.heim/me"), (APP1, "/.heim/me")]
)
@pytest.mark.parametrize("cookie", ["x", "a" * 30000, "=;=", "\"'", "AAAA.BBBB"])
async def test_g1_a_garbage_cookie_is_an_anonymous_visitor(
    stand: PortalStand, host: str, path: str, cookie: str
) -> None:
    browser = stand.browser()
    browser.jar[host] = {"__Host-heim": cookie}
    reply = await browser.get(f"https://{host}{path}")
    assert reply.status in (200, 401)
    assert "alice" not in reply.text


async def test_g8_two_session_cookies_are_none(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    good = browser.session()
    reply = await browser.get("/.heim/me", Cookie=f"__Host-heim={good}; __Host-heim=planted")
    assert reply.status == 401
    reply = await browser.get("/.heim/me", Cookie=f"a=b; __Host-heim={good}; c=d")
    assert reply.status == 200


async def test_g9_a_cookie_of_an_older_key_is_sealed_anew(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    before = browser.session()
    old = stand.ctx.sealer
    lines = [KeyRing.generate_line("k2"), stand.key_line]
    stand.stage.sessions.set_keys(KeyRing.parse("\n".join(lines)))
    assert old is stand.stage.sealer
    assert (await browser.get("/")).status == 200
    after = browser.session()
    assert after != before
    stand.stage.sessions.set_keys(KeyRing.parse(lines[0]))
    assert "alice" in (await browser.get("/")).text


async def test_a_bug_is_a_page_without_a_stack(
    stand: PortalStand, caplog: pytest.LogCaptureFixture
) -> None:
    stand.backends = None  # type: ignore[assignment]
    with caplog.at_level(logging.ERROR):
        reply = await stand.browser().get(f"/.heim/login?host={APP1}")
    assert reply.status == 500
    assert "Traceback" not in reply.text
    assert "NoneType" not in reply.text
    assert "req-" in reply.text
    assert [record.message for record in caplog.records] == ["portal.failed"]


async def test_g12_with_the_store_down_known_sessions_go_on(stand: PortalStand) -> None:
    browser, unknown = stand.browser(), stand.browser()
    await browser.open(APP1)
    unknown.jar = {host: dict(jar) for host, jar in browser.jar.items()}
    restarted = await stand.stage.restarted()
    stand.store.down = "gone"
    assert (await browser.get("/.heim/me")).status == 200
    object.__setattr__(stand.ctx, "sessions", restarted.sessions)
    assert (await unknown.get("/.heim/me")).status == 503


async def test_s3_a_body_is_never_unpacked(stand: PortalStand) -> None:
    """400 KB of gzip would stop every request of the process for half a second."""
    browser = stand.browser()
    await browser.open(APP1)
    form = {"csrf": csrf_token(browser.session() or "", "logout")}
    headers = {"Origin": f"https://{LOGIN}", "Content-Encoding": "gzip"}
    # Read as it came, plain; a server that unpacked would call it damaged.
    assert (
        await browser.request("POST", "/.heim/logout", headers=headers, form=form)
    ).status == 303
