"""Who am I: pages and JSON (P1, P4), and our public keys."""

from __future__ import annotations

import json
import re

import pytest

from heim_proxy.access.applications import Application
from tests.fakes.portal import APP1, LOGIN, PortalStand


async def test_the_start_page_says_who_is_signed_in(stand: PortalStand) -> None:
    browser = stand.browser()
    assert "You are not signed in" in (await browser.get("/")).text
    await browser.open(APP1)
    page = await browser.get("/")
    assert "alice@example.com" in page.text
    assert 'href="/.heim/logout"' in page.text


@pytest.mark.parametrize("path", ["/", "/.heim/me"])
async def test_pages_list_the_applications_somebody_may_open(stand: PortalStand, path: str) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    assert "Applications" not in (await browser.get(path)).text
    stand.applications[:] = [
        Application("wiki", f"https://{APP1}/"),
        Application("<b>", f'https://{APP1}/"x'),
    ]
    page = await browser.get(path)
    links = re.findall(r'<a class="button first" href="([^"]*)">([^<]*)</a>', page.text)
    assert links == [(f"https://{APP1}/", "wiki"), (f"https://{APP1}/&#34;x", "&lt;b&gt;")]
    assert "wiki" not in (await stand.browser().get(path)).text


async def test_the_list_of_applications_is_bounded(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    stand.applications[:] = [Application(f"app{n}", f"https://{APP1}/") for n in range(103)]
    page = await browser.get("/")
    assert page.text.count(f'href="https://{APP1}/"') == 100
    assert "and 3 more" in page.text


@pytest.mark.parametrize("host", [LOGIN, APP1])
async def test_a_program_gets_json_without_tokens_or_ids(stand: PortalStand, host: str) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    reply = await browser.get(f"https://{host}/.heim/me", Accept="*/*")
    now = int(stand.clock.now())
    assert json.loads(reply.text) == {
        "subject": "alice",
        "email": "alice@example.com",
        "provider": "idp",
        "auth_time": now,
        "expires": now + 86400,
    }


async def test_an_application_answers_json_even_to_browsers(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    reply = await browser.get(f"https://{APP1}/.heim/me")
    assert reply.headers["Content-Type"].startswith("application/json")


async def test_p4_the_page_shows_no_tokens_and_no_session_id(stand: PortalStand) -> None:
    browser = stand.browser()
    await browser.open(APP1)
    page = await browser.get("/.heim/me")
    ((sid, row),) = stand.store.sessions.items()
    stored = json.loads(await stand.stage.sessions.tokens(sid))
    assert "Example Accounts" in page.text
    assert "developers" in page.text
    assert '<a class="button" href="/">Overview</a>' in page.text
    for secret in (sid, stored["id_token"], browser.session() or "", row.sid):
        assert secret not in page.text


@pytest.mark.parametrize(
    ("host", "title"),
    [
        pytest.param(LOGIN, "You are not signed in.", id="login host"),
        pytest.param(APP1, "You are not signed in to this application yet.", id="application"),
    ],
)
async def test_nobody_is_told_that_they_are_nobody(
    stand: PortalStand, host: str, title: str
) -> None:
    reply = await stand.browser().get(f"https://{host}/.heim/me", Accept="application/json")
    assert reply.status == 401
    assert f"https://{LOGIN}/" in reply.headers["WWW-Authenticate"]
    document = json.loads(reply.text)
    assert (document["status"], document["detail"]) == (401, title)


async def test_p1_claims_are_escaped(stand: PortalStand) -> None:
    stand.idp.users["alice"].update(
        sub="</p><script>alert(1)</script>", groups=['"><script>alert(2)</script>']
    )
    browser = stand.browser()
    await browser.open(APP1)
    pages = [await browser.get(path) for path in ("/", "/.heim/me", "/.heim/logout")]
    assert all("<script" not in page.text for page in pages)
    assert "&lt;script&gt;alert(2)" in pages[1].text


async def test_keys_are_published_without_their_private_half(stand: PortalStand) -> None:
    reply = await stand.browser().get("/.heim/jwks.json", Accept="*/*")
    (key,) = json.loads(reply.text)["keys"]
    assert (key["kty"], key["crv"], key["use"]) == ("EC", "P-256", "sig")
    assert "d" not in key
    assert (await stand.browser().get(f"https://{APP1}/.heim/jwks.json")).status == 404
