"""Signing in through a whole proxy: edge, portal, store and provider, with real sockets and TLS."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.fakes.heim import DOMAIN, LOGIN_HOST, Answer, Heim
from tests.fakes.idp import FakeIdp, Lies
from tests.fakes.upstream import Upstream

APP = f"app.{DOMAIN}"
OTHER = f"other.{DOMAIN}"
PAGE = (("Accept", "text/html"),)


class Browser:
    """Cookies by host, and redirects followed from host to host as a browser does."""

    def __init__(self, heim: Heim) -> None:
        self.heim = heim
        self.jar: dict[str, dict[str, str]] = {}

    async def request(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: tuple[tuple[str, str], ...] = PAGE,
        body: bytes = b"",
    ) -> Answer:
        parts = urlsplit(url)
        host = parts.hostname or ""
        target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        cookies = "; ".join(f"{name}={value}" for name, value in self.jar.get(host, {}).items())
        answer = await self.heim.request(
            target, host=host, method=method, cookie=cookies or None, headers=headers, body=body
        )
        for line in answer.all("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.jar.setdefault(host, {})[name] = value
            if "Max-Age=0" in line:
                del self.jar[host][name]
        return answer

    async def open(self, url: str) -> tuple[str, Answer]:
        """Open a page as a person does; where it ends and the answer there."""
        for _ in range(12):
            answer = await self.request(url)
            location = answer.get("location")
            while location is not None and location.startswith("http://127.0.0.1:"):
                async with (
                    aiohttp.ClientSession() as http,
                    http.get(location, allow_redirects=False) as away,
                ):
                    location = away.headers["Location"]
            if location is None:
                return url, answer
            url = location
        raise AssertionError(f"still redirecting, at {url}")


@pytest.fixture
async def idp() -> AsyncIterator[FakeIdp]:
    made = FakeIdp()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def heim(tmp_path: Path, idp: FakeIdp, upstream: Upstream) -> AsyncIterator[Heim]:
    secret = tmp_path / "idp-secret"
    secret.write_text(idp.client_secret)
    every = {"name": "all", "locations": [{"any": "/"}]}
    route = [{"path": "/", "upstream": upstream.url}]
    made = await Heim.start(
        tmp_path,
        backends=[
            {"name": "app", "http": route, "permissions": [every]},
            {"name": "other", "http": route, "permissions": [every], "max_session_age": "10m"},
        ],
        roles=[
            {
                "name": "people",
                "members": [{"user": "alice@example.com"}, {"group": "developers"}],
                "bindings": [
                    {"backend": "app", "permission": "all"},
                    {"backend": "other", "permission": "all"},
                ],
            }
        ],
        identity={
            "providers": [
                {
                    "name": "idp",
                    "type": "oidc",
                    "issuer": idp.issuer,
                    "client_id": idp.client_id,
                    "client_secret_file": str(secret),
                }
            ]
        },
    )
    yield made
    await made.stop()


async def test_alice_signs_in_and_the_upstream_learns_who_she_is(
    heim: Heim, upstream: Upstream
) -> None:
    browser = Browser(heim)
    url, answer = await browser.open(f"https://{APP}/reports?a=b%2Fc")
    assert (url, answer.status) == (f"https://{APP}/reports?a=b%2Fc", 200)
    seen = upstream.requests[-1]
    assert b"alice@example.com" in seen.head
    assert b"__Host-heim" not in seen.head
    assert set(browser.jar) == {APP, LOGIN_HOST}
    assert list(browser.jar[APP]) == ["__Host-heim"]


async def test_bob_is_let_in_by_his_group(heim: Heim, idp: FakeIdp) -> None:
    idp.user = "bob"
    assert (await Browser(heim).open(f"https://{APP}/"))[1].status == 200


async def test_mallory_signs_in_and_is_refused_by_policy(
    heim: Heim, idp: FakeIdp, upstream: Upstream
) -> None:
    idp.user = "mallory"
    url, answer = await Browser(heim).open(f"https://{APP}/")
    assert (url, answer.status) == (f"https://{APP}/", 403)
    assert upstream.requests == []


async def test_a_second_application_with_an_age_limit_needs_no_second_login(
    heim: Heim, idp: FakeIdp
) -> None:
    browser = Browser(heim)
    await browser.open(f"https://{APP}/")
    assert (await browser.open(f"https://{OTHER}/"))[1].status == 200
    assert idp.hits["authorize"] == 1


async def test_signing_out_reaches_every_application(heim: Heim, idp: FakeIdp) -> None:
    browser = Browser(heim)
    await browser.open(f"https://{APP}/")
    _, page = await browser.open(f"https://{APP}/.heim/logout")
    csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert csrf
    answer = await browser.request(
        f"https://{LOGIN_HOST}/.heim/logout",
        method="POST",
        headers=(
            ("Origin", f"https://{LOGIN_HOST}"),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ),
        body=f"csrf={csrf[1]}".encode(),
    )
    assert answer.status == 303
    assert (answer.get("location") or "").startswith(f"{idp.issuer}/end?")
    again = await browser.request(f"https://{APP}/")
    assert again.status == 303
    assert (again.get("location") or "").startswith(f"https://{LOGIN_HOST}/.heim/login?")


async def test_with_the_provider_down_only_signing_in_fails(heim: Heim, idp: FakeIdp) -> None:
    browser = Browser(heim)
    await browser.open(f"https://{APP}/")
    await idp.stop()
    assert (await browser.open(f"https://{APP}/"))[1].status == 200


async def test_a_provider_that_lies_signs_nobody_in(heim: Heim, idp: FakeIdp) -> None:
    idp.lies = Lies(discovery={"issuer": "https://evil.test"})
    browser = Browser(heim)
    url, answer = await browser.open(f"https://{APP}/")
    assert answer.status == 503
    assert urlsplit(url).hostname == LOGIN_HOST
    assert "is unavailable" in answer.text
    assert (await browser.request(f"https://{LOGIN_HOST}/")).status == 200


@pytest.mark.parametrize("large", [9000, 25000])
async def test_large_cookies_of_an_application_do_not_break_signing_in(
    heim: Heim, large: int
) -> None:
    browser = Browser(heim)
    browser.jar[APP] = {"theme": "x" * large}
    assert (await browser.open(f"https://{APP}/"))[1].status == 200


async def test_no_query_of_ours_is_in_the_access_log(heim: Heim, idp: FakeIdp) -> None:
    browser = Browser(heim)
    await browser.open(f"https://{APP}/x?mine=1")
    await heim.until(lambda: "/.heim/handoff" in heim.log.read_text())
    text = heim.log.read_text()
    assert idp.codes[-1] not in text
    assert "handoff?" not in text
    assert "callback?" not in text
