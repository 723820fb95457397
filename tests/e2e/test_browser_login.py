"""A real browser signing in at a certified OpenID provider that we did not write."""

from __future__ import annotations

import asyncio
import html
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from heim_proxy.demo.loopback import free_port
from tests.e2e.browser import Person, chromium
from tests.fakes.heim import DOMAIN, LOGIN_HOST
from tests.fakes.real_idp import RealIdp, real_idp
from tests.fakes.upstream import Received, Upstream, answer
from tests.integration.process import HeimProcess, heim_proxy, running
from tests.integration.setup import alice_only, app_backend, public_backend

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]


@dataclass
class Site:
    """A proxy, its provider and its browser."""

    heim: HeimProcess
    idp: RealIdp
    browser: Browser
    port: int

    def url(self, name: str, path: str = "/") -> str:
        return f"https://{name}.{DOMAIN}:{self.port}{path}"


async def show_request(
    received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bytes:
    """A page with the request as JSON."""
    shown = json.dumps({"path": received.path, "headers": received.fields})
    body = f"<!doctype html><title>App</title><pre>{html.escape(shown)}</pre>"
    return answer(body.encode(), headers="Content-Type: text/html; charset=utf-8\r\n")


async def seen(page: Page) -> dict[str, str]:
    """The headers that the application got for this page."""
    found = json.loads(await page.inner_text("pre"))
    return {name.lower(): value for name, value in found["headers"]}


def provider(idp: RealIdp, name: str, domain: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": "oidc",
        "issuer": idp.issuer,
        "client_id": idp.client_id,
        "client_secret_file": "idp-secret",
        "domains": [domain],
        "groups_claim": "groups",
        "scopes": ["openid", "email", "profile", "groups"],
        **more,
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    port = free_port(8444)
    login_url = f"https://{LOGIN_HOST}:{port}"
    upstream = await Upstream(script=show_request).start()
    async with real_idp(
        redirect_uri=f"{login_url}/.heim/callback",
        post_logout_redirect_uri=f"{login_url}/.heim/signed-out",
    ) as idp:
        (directory / "idp-secret").write_text(idp.client_secret)
        second = {**app_backend(upstream.url), "name": "second"}
        roles = alice_only()
        roles[0]["members"].append({"group": "developers", "provider": "corp"})
        roles[0]["bindings"].append({"backend": "second", "permission": "all"})
        async with (
            running(
                directory,
                backends=[app_backend(upstream.url), second, public_backend(upstream.url)],
                roles=roles,
                public_port=port,
                listeners={
                    "https": {"address": f"127.0.0.1:{port}"},
                    "http": {"address": "127.0.0.1:0"},
                    "admin": {"address": f"unix:{directory / 'admin.sock'}"},
                },
                identity={"providers": [provider(idp, "corp", "example.com")]},
            ) as heim,
            chromium(directory / "tls.crt", hosts=f"*.{DOMAIN}") as browser,
        ):
            yield Site(heim, idp, browser, port)
    await upstream.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def person(site: Site) -> AsyncIterator[Person]:
    async with Person.at(site.browser) as somebody:
        yield somebody


async def sign_in(site: Site, person: Person, name: str, path: str = "/") -> Page:
    """Open the application, choose who to be at the provider."""
    page = await person.tab()
    await page.goto(site.url("app", path))
    assert page.url.startswith(f"{site.idp.issuer}/interaction/")
    async with page.expect_navigation(wait_until="load"):
        await page.click(f"button[value={name}]")
    return page


async def test_alice_signs_in_at_the_certified_provider(site: Site, person: Person) -> None:
    page = await sign_in(site, person, "alice", "/deep/link?q=1&r=%2F")
    assert page.url == site.url("app", "/deep/link?q=1&r=%2F")
    headers = await seen(page)
    assert headers["x-auth-id"] == "alice@example.com"
    assert "cookie" not in headers
    assert person.complaints == []


async def test_a_second_application_asks_for_nothing(site: Site, person: Person) -> None:
    page = await sign_in(site, person, "alice")
    await page.goto(site.url("second", "/x"))
    assert page.url == site.url("second", "/x")
    assert (await seen(page))["x-auth-id"] == "alice@example.com"


async def test_a_group_of_the_providers_is_a_role_and_a_stranger_has_none(
    site: Site, person: Person
) -> None:
    page = await sign_in(site, person, "bob")
    assert (await seen(page))["x-auth-id"] == "bob@example.com"
    async with Person.at(site.browser) as stranger:
        refused = await sign_in(site, stranger, "mallory")
        assert "You have no role that gives access to app" in await refused.inner_text("body")


async def test_somebody_with_an_unverified_address_is_told_so(site: Site, person: Person) -> None:
    page = await sign_in(site, person, "trudy")
    assert page.url.startswith(site.url("auth", "/.heim/callback"))
    text = await page.inner_text("body")
    assert "verified" in text
    assert "Request" in text
    assert await person.cookie_names(site.url("auth")) == []
    assert person.complaints == []


async def test_signing_out_ends_the_providers_session_too(site: Site, person: Person) -> None:
    page = await sign_in(site, person, "alice")
    await page.goto(site.url("app", "/.heim/logout"))
    await page.click("button:has-text('Sign out')")
    await page.wait_for_url(f"{site.idp.issuer}/session/end**")
    await page.click("button:has-text('Sign out')")
    await page.wait_for_url(site.url("auth", "/.heim/signed-out**"))
    assert "You are signed out" in await page.inner_text("body")
    # Without the provider's part, this would come back without a question.
    await page.goto(site.url("app"))
    assert page.url.startswith(f"{site.idp.issuer}/interaction/")
    assert person.complaints == []


async def test_after_a_revocation_the_providers_session_signs_in_again_by_itself(
    site: Site, person: Person
) -> None:
    page = await sign_in(site, person, "alice", "/?before")
    revoked = await heim_proxy(
        "session", "revoke", "--config", str(site.heim.config_file), "--everybody"
    )
    assert revoked.status == 0
    async with asyncio.timeout(2):
        before = await person.context.cookies(site.url("app"))
        while await person.context.cookies(site.url("app")) == before:
            await page.goto(site.url("app", "/?after"))
    assert page.url == site.url("app", "/?after")
    assert (await seen(page))["x-auth-id"] == "alice@example.com"


async def test_with_two_providers_people_pick_one(site: Site, person: Person) -> None:
    before = site.heim.document["identity"]
    generation = (await site.heim.status())["generation"]
    site.heim.document["identity"] = {
        "providers": [
            provider(site.idp, "corp", "example.com", display_name="Corporate account"),
            provider(site.idp, "partner", "partner.example", display_name="Partner account"),
        ]
    }
    try:
        await reloaded(site, generation + 1)
        page = await person.tab()
        await page.goto(site.url("app", "/picked"))
        assert page.url.startswith(site.url("auth", "/.heim/login?"))
        text = await page.inner_text("main")
        assert f"to continue to app.{DOMAIN}" in text
        assert "Partner account" in text
        await page.click("a:has-text('Corporate account')")
        await page.click("button[value=alice]")
        await page.wait_for_url(site.url("app", "/picked"))
        assert person.complaints == []

        # The other provider may not vouch for addresses of example.com.
        async with Person.at(site.browser) as somebody:
            page = await somebody.tab()
            await page.goto(site.url("app"))
            await page.click("a:has-text('Partner account')")
            await page.click("button[value=alice]")
            await page.wait_for_url(site.url("auth", "/.heim/callback**"))
            assert "not of a domain allowed here" in await page.inner_text("body")
            assert await somebody.cookie_names(site.url("auth")) == []
    finally:
        site.heim.document["identity"] = before
        await reloaded(site, generation + 2)


async def test_a_provider_that_is_down_is_named_and_who_is_signed_in_goes_on(
    site: Site, person: Person
) -> None:
    page = await sign_in(site, person, "alice")
    before = site.heim.document["identity"]
    generation = (await site.heim.status())["generation"]
    # Nothing listens there any more.
    site.heim.document["identity"] = {
        "providers": [
            {
                **provider(site.idp, "corp", "example.com", display_name="Corporate account"),
                "issuer": f"http://127.0.0.1:{free_port(9)}",
            }
        ]
    }
    try:
        await reloaded(site, generation + 1)
        async with Person.at(site.browser) as somebody:
            other = await somebody.tab()
            failed = await other.goto(site.url("app"))
            assert failed is not None
            assert failed.status == 503
            text = await other.inner_text("body")
            assert "Corporate account" in text
            assert "Whoever is signed in already is not affected" in text
            assert somebody.complaints == []
        answered = await page.goto(site.url("app", "/still"))
        assert answered is not None
        assert answered.status == 200
    finally:
        site.heim.document["identity"] = before
        await reloaded(site, generation + 2)


async def test_a_page_of_a_sibling_host_cannot_use_alices_session(
    site: Site, person: Person
) -> None:
    await sign_in(site, person, "alice")
    # Siblings are same-site, so the browser sends her cookie along; what stops it is the Origin.
    page = await person.tab()
    await page.goto(site.url("open"))
    posted = """(url) => fetch(url, {method: "POST", body: "x", mode: "no-cors",
                                     credentials: "include"}).then((answer) => answer.type)"""
    assert await page.evaluate(posted, site.url("app", "/stolen")) == "opaque"
    opened = """(url) => new Promise((resolve) => {
        const socket = new WebSocket(url);
        socket.onopen = () => resolve("open");
        socket.onclose = (event) => resolve("closed " + event.code);
    })"""
    url = site.url("app", "/stolen").replace("https", "wss")
    assert await page.evaluate(opened, url) == "closed 1006"

    def refused() -> set[tuple[str, str]]:
        lines = site.heim.log.read_text().splitlines()
        entries = [json.loads(line) for line in lines if '"/stolen"' in line]
        return {(entry["method"], entry["decision"]) for entry in entries}

    wanted = {("POST", "deny:foreign_origin"), ("GET", "deny:foreign_origin")}
    await site.heim.until(lambda: refused() == wanted)


async def test_the_session_page_says_who_and_until_when(site: Site, person: Person) -> None:
    page = await sign_in(site, person, "alice")
    await page.goto(site.url("auth", "/.heim/me"))
    text = await page.inner_text("main")
    for shown in ("alice@example.com", "corp", "Signed in", "Ends by", "admins, developers"):
        assert shown in text
    await expect(page.locator("a:has-text('Sign out')")).to_be_visible()
    # What a program gets on an application's host holds no token and no session id.
    await page.goto(site.url("app", "/.heim/me"))
    facts = json.loads(await page.inner_text("body"))
    assert set(facts) == {"subject", "email", "provider", "auth_time", "expires"}


async def reloaded(site: Site, generation: int) -> None:
    site.heim.write()
    async with asyncio.timeout(3):
        while (await site.heim.status())["generation"] < generation:
            await asyncio.sleep(0.05)
