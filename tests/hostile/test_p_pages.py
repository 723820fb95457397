"""P: what pages show, to whom, and what a page of somebody else can do with them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.fakes.browser import NAVIGATE, Page
from tests.fakes.heim import LOGIN_HOST
from tests.fakes.idp import Lies
from tests.hostile.signin import (
    APP1,
    APP2,
    AUTH,
    OPEN,
    Stand,
    host_of,
    query_of,
    signin_stand,
)

pytest_plugins = ("tests.hostile.signin_fixtures",)
pytestmark = pytest.mark.asyncio(loop_scope="module")

MARKUP = (
    "</title></pre></code><script>alert('canary')</script><img src=x onerror=alert(1)>\"'`{{7*7}}"
)


def harmless(page: Page) -> None:
    """No markup of an attacker, and a policy under which it could not do anything."""
    if "json" not in (page.get("content-type") or ""):  # which no browser reads as a page
        assert not re.search(r"(?i)<script|<img|<[^>]*\son\w+\s*=|href=.?javascript:", page.text)
    assert page.get("x-content-type-options") == "nosniff"
    if "text/html" in (page.get("content-type") or ""):
        policy = page.get("content-security-policy") or ""
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "base-uri 'none'" in policy
        assert "unsafe-inline" not in policy
        assert "script-src" not in policy
        assert page.get("cross-origin-opener-policy") == "same-origin"


PLACES = {
    "app-path": f"{APP1}/admin%22%3E{quote(MARKUP, safe='')}",
    "app-query": f"{APP1}/admin?x={quote(MARKUP, safe='')}",
    "portal-path": f"{AUTH}/.heim/%3Cscript%3Ealert(1)%3C/script%3E",
    "portal-raw-path": f"{AUTH}/.heim/x'(alert)",
    "provider-name": f"{AUTH}/.heim/login/{quote(MARKUP, safe='')}",
    "host": f"{AUTH}/.heim/login?host={quote(MARKUP, safe='')}",
    "rd": f"{AUTH}/.heim/login?rd={quote('/' + MARKUP, safe='')}",
    "error": f"{AUTH}/.heim/callback?error={quote(MARKUP, safe='')}",
    "description": f"{AUTH}/.heim/callback?error=x&error_description={quote(MARKUP, safe='')}",
    "state": f"{AUTH}/.heim/callback?code=x&state={quote(MARKUP, safe='')}",
    "ticket": f"{APP1}/.heim/handoff?t={quote(MARKUP, safe='')}",
    "signed-out": f"{AUTH}/.heim/signed-out?x={quote(MARKUP, safe='')}",
    "me": f"{AUTH}/.heim/me?x={quote(MARKUP, safe='')}",
}


@pytest.mark.parametrize("url", PLACES.values(), ids=PLACES)
async def test_p1_what_is_in_an_address_is_never_markup(stand: Stand, url: str) -> None:
    known = await stand.signed_in("bob", f"{APP1}/public")
    for browser in (stand.browser(), known):
        for headers in (NAVIGATE, (("Accept", "text/html"),), ()):
            page = await browser.send("GET", url, headers=headers)
            if page.status < 300 or page.status >= 400:
                harmless(page)


async def test_p1_what_a_provider_claims_is_never_markup(stand: Stand) -> None:
    claims = {
        "name": MARKUP,
        "sub": "x</code><script>alert(1)</script>",
        "email": "p1@example.com",
        "groups": [MARKUP, "<script>alert(1)</script>", "developers"],
        "picture": "javascript:alert(1)",
    }
    stand.idp.lies = Lies(claims=claims)
    browser = stand.browser()
    page = await browser.open(f"{APP2}/")
    assert page.status == 200
    for url in (f"{AUTH}/", f"{AUTH}/.heim/me", f"{AUTH}/.heim/logout", f"{APP1}/"):
        page = await browser.open(url)
        assert page.status in (200, 403)
        harmless(page)
    assert "&lt;script&gt;" in (await browser.get(f"{AUTH}/.heim/me")).text, "shown, as text"
    page = await browser.fetch(f"{APP1}/.heim/me")
    assert page.get("content-type") == "application/json; charset=utf-8"


async def test_p1_a_refused_address_is_never_markup(stand: Stand) -> None:
    stand.idp.lies = Lies(claims={"email": f"{MARKUP}@example.com", "sub": "p1b"})
    page = await stand.browser().open(f"{APP1}/")
    assert page.status == 403
    harmless(page)


async def test_p1_names_of_the_configuration_are_escaped_too(tmp_path: Path) -> None:
    async with signin_stand(tmp_path, two=True) as stand:
        providers = stand.heim.document["identity"]["providers"]
        named = [{**one, "display_name": f"<script>{one['name']}</script>"} for one in providers]
        await stand.change(identity={"providers": named})
        page = await stand.browser().open(f"{APP1}/")
        assert page.status == 200
        harmless(page)
        assert "&lt;script&gt;one" in page.text
        await stand.idp.stop()
        failed = await stand.browser().get(f"{AUTH}/.heim/login/one?rd=/")
        assert failed.status == 503
        harmless(failed)


async def test_p2_looking_changes_nothing(stand: Stand) -> None:
    """Every page by GET and HEAD: the session and the store are as before."""
    browser = await stand.signed_in()
    await browser.get(f"{AUTH}/")
    rows = {row.sid for row in await stand.store.list_sessions()}
    for path in ("/", "/.heim/me", "/.heim/logout", "/.heim/signed-out", "/.heim/jwks.json",
                 "/.heim/login", "/.heim/login/nobody"):  # fmt: skip
        for method in ("GET", "HEAD"):
            page = await browser.send(method, f"{AUTH}{path}", headers=NAVIGATE)
            assert page.status in (200, 303, 404), path
            assert not page.all("set-cookie"), path
    assert {row.sid for row in await stand.store.list_sessions()} == rows
    assert await stand.sees(browser)


@pytest.mark.parametrize("referer", ["javascript:alert('canary')", f"https://evil.test/{MARKUP}"])
async def test_p3_a_referer_is_never_shown(stand: Stand, referer: str) -> None:
    browser = await stand.signed_in("bob", f"{APP1}/public")
    headers = (("Referer", referer.encode().decode("latin-1")), ("User-Agent", MARKUP))
    for url in (f"{AUTH}/", f"{AUTH}/.heim/x", f"{AUTH}/.heim/logout", f"{APP1}/admin",
                f"{AUTH}/.heim/callback?state=x", f"{APP1}/.heim/handoff?t=x"):  # fmt: skip
        page = await browser.get(url, headers=headers)
        assert "canary" not in page.text
        assert "evil.test" not in page.text
        harmless(page)


async def test_p4_pages_show_no_tokens_and_no_ids(stand: Stand) -> None:
    browser = await stand.signed_in()
    session = max(stand.sessions._resident, key=lambda one: one.created)
    tokens = json.loads(await stand.sessions.tokens(session.sid))
    secrets = [session.sid, tokens["id_token"], stand.idp.client_secret,
               *(value for jar in browser.jar.values() for value in jar.values())]  # fmt: skip
    for url in (f"{AUTH}/", f"{AUTH}/.heim/me", f"{AUTH}/.heim/logout", f"{APP1}/.heim/me"):
        for page in (await browser.get(url), await browser.fetch(url)):
            for secret in secrets:
                assert secret not in page.text
    shown = json.loads((await browser.fetch(f"{APP1}/.heim/me")).body)
    assert shown.keys() == {"subject", "email", "provider", "auth_time", "expires"}


async def test_p5_errors_tell_no_internals(stand: Stand) -> None:
    async def dies(*_: Any) -> None:
        return None

    known, browser = await stand.signed_in(), stand.browser()
    stand.upstream.script = dies
    pages = [await known.get(f"{APP1}/x")]
    assert pages[0].status == 502
    for url in (f"{AUTH}/.heim/x", f"{AUTH}/.heim/callback", f"{APP1}/.heim/handoff",
                f"{APP1}/.heim/x", f"{APP1}/%zz", f"{AUTH}/%00", f"{AUTH}/.heim/login?rd=%ff",
                f"{AUTH}/.heim/login?{'&'.join(f'a{n}=1' for n in range(99))}",
                f"{APP1}/.heim/logout/../me/x"):  # fmt: skip
        pages += [await browser.send("GET", url, headers=headers) for headers in (NAVIGATE, ())]
    for page in pages:
        assert page.status >= 400, page.url
        for text in ("Traceback", 'File "', str(stand.upstream.port), "127.0.0.1", "aiohttp",
                     "Python", "uvloop", str(stand.heim.directory)):  # fmt: skip
            assert text not in page.text + page.raw.decode("latin-1"), (page.url, text)
        assert page.get("server") is None
        assert str(page.get("x-request-id")) in page.text, page.url


async def test_p5_an_upstream_that_is_gone_is_not_named(tmp_path: Path) -> None:
    async with signin_stand(tmp_path) as stand:
        browser = await stand.signed_in()
        port = stand.upstream.port
        await stand.upstream.stop()
        page = await browser.get(f"{APP1}/x")
        assert page.status == 502
        assert str(port) not in page.text + page.raw.decode("latin-1")
        assert "127.0.0.1" not in page.text
        await stand.upstream.start()


async def test_p6_ids_in_an_address_open_nothing(stand: Stand) -> None:
    """There are no ids in addresses: asking for somebody else's session gives one's own, or 404."""
    alice = await stand.signed_in()
    session = max(stand.sessions._resident, key=lambda one: one.created)
    bob = await stand.signed_in("bob", f"{APP1}/public")
    for url in (f"{AUTH}/.heim/me?sid={session.sid}", f"{AUTH}/.heim/me?user=alice@example.com",
                f"{AUTH}/.heim/logout?sid={session.sid}"):  # fmt: skip
        page = await bob.get(url)
        assert page.status == 200
        assert "alice" not in page.text
    for path in (f"/.heim/me/{session.sid}", f"/.heim/sessions/{session.sid}", "/.heim/sessions"):
        assert (await bob.get(f"{AUTH}{path}")).status == 404
    page = await bob.get(f"{AUTH}/.heim/logout")
    await bob.post(f"{AUTH}/.heim/logout", {**page.fields_of_form, "sid": session.sid}, origin=AUTH)
    assert await stand.sees(alice)


async def test_p7_every_page_is_of_one_origin(stand: Stand) -> None:
    browser = await stand.signed_in()
    seen = 0
    for who in (browser, stand.browser()):
        for url in (f"{AUTH}/", f"{AUTH}/.heim/me", f"{AUTH}/.heim/logout", f"{AUTH}/.heim/x",
                    f"{AUTH}/.heim/signed-out", f"{APP1}/.heim/x", f"{APP1}/%zz",
                    f"{APP1}/.heim/handoff?t=x", f"{AUTH}/.heim/callback?state=x"):  # fmt: skip
            page = await who.get(url)
            if not 300 <= page.status < 400:
                harmless(page)
                seen += "text/html" in (page.get("content-type") or "")
                assert page.get("cache-control") == "no-store"
            assert page.get("access-control-allow-origin") is None
    assert seen >= 12


async def test_p8_what_is_protected_is_never_sent_with_the_way_to_sign_in(stand: Stand) -> None:
    browser = stand.browser()
    for method in ("GET", "HEAD", "POST", "PUT"):
        page = await browser.send(method, f"{APP1}/secret", headers=NAVIGATE)
        assert page.status in (303, 401)
        if page.status == 303:
            assert page.body == b""
            assert page.get("content-length") == "0"
    assert not stand.sent
    # Nor after a session ended in the middle of a kept connection.
    known = await stand.signed_in()
    assert await stand.sees(known)
    page = await known.get(f"{AUTH}/.heim/logout")
    await known.post(f"{AUTH}/.heim/logout", page.fields_of_form, origin=AUTH)
    stand.sent.clear()
    page = await known.get(f"{APP1}/secret")
    assert (page.status, page.body) == (303, b"")
    assert not stand.sent


async def test_p8_a_login_on_the_way_carries_no_referer(stand: Stand) -> None:
    browser = stand.browser()
    await browser.open(f"{APP1}/secret?token=canary")
    for step in browser.trail[:-1]:
        if host_of(step.url) in (LOGIN_HOST, host_of(APP1)):
            assert step.get("referrer-policy") == "no-referrer", step.url
    authorize = next(step for step in browser.trail if step.url.startswith(stand.idp.issuer))
    assert "canary" not in authorize.url, "the provider is not told where somebody goes"
    assert query_of(authorize.url)["redirect_uri"] == f"{AUTH}/.heim/callback"


async def test_p5_a_public_page_is_not_ours_to_dress(stand: Stand) -> None:
    """Our headers are on our pages only; an upstream's answer keeps its own."""
    page = await stand.browser().get(f"{OPEN}/")
    assert page.status == 200
    assert page.get("content-security-policy") is None
