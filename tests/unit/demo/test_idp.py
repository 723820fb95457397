from __future__ import annotations

import re
from functools import cache
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
import pytest

from heim_proxy.demo.grants import DemoClient
from heim_proxy.demo.idp import DemoProvider
from heim_proxy.demo.loopback import listen
from heim_proxy.demo.signing import IdTokenKey
from tests.fakes.sessions import ManualClock
from tests.unit.demo.conftest import Serve

BACK = "https://auth.localhost:8443/.heim/callback"
START_AT = "https://app.localhost:8443/"
QUERY = urlencode(
    {
        "client_id": "heim",
        "redirect_uri": BACK,
        "response_type": "code",
        "scope": "openid email",
        "state": "s",
        "code_challenge": "c" * 43,
        "code_challenge_method": "S256",
    }
)


@cache
def id_token_key() -> IdTokenKey:
    """One for all: making it takes a tenth of a second."""
    return IdTokenKey()


@pytest.fixture
async def provider(serve: Serve, clock: ManualClock) -> DemoProvider:
    sock = listen()
    provider = DemoProvider(
        port=sock.getsockname()[1],
        client=DemoClient("heim", "secret", BACK, "https://auth.localhost:8443/bye"),
        key=id_token_key(),
        clock=clock,
        start_at=START_AT,
    )
    await serve(provider.app(), sock)
    return provider


async def open_start_link(provider: DemoProvider, http: aiohttp.ClientSession) -> str:
    async with http.get(provider.start_url, allow_redirects=False) as answer:
        assert answer.status == 303
        return answer.headers["Location"]


async def sign_in(
    provider: DemoProvider, http: aiohttp.ClientSession, *, origin: str | None = None, **form: str
) -> tuple[int, str]:
    """Post the sign-in form; the status and where it leads."""
    headers = {"Origin": origin or provider.issuer}
    url = f"{provider.issuer}/authorize?{QUERY}"
    async with http.post(url, data=form, headers=headers, allow_redirects=False) as answer:
        return answer.status, answer.headers.get("Location", "")


async def test_start_link_leads_to_the_application(
    provider: DemoProvider, http: aiohttp.ClientSession
) -> None:
    assert await open_start_link(provider, http) == START_AT


async def test_browser_that_opened_the_link_chooses_a_person(
    provider: DemoProvider, http: aiohttp.ClientSession
) -> None:
    await open_start_link(provider, http)
    status, location = await sign_in(provider, http, login="alice")
    assert (status, location.partition("?")[0]) == (303, BACK)
    assert {"code", "state", "iss"} == set(parse_qs(urlsplit(location).query))


async def test_sign_in_page_offers_everybody_and_no_key_field(
    provider: DemoProvider, http: aiohttp.ClientSession
) -> None:
    await open_start_link(provider, http)
    async with http.get(f"{provider.issuer}/authorize?{QUERY}") as answer:
        text = await answer.text()
    assert re.findall(r'name="login" value="(\w+)"', text) == ["alice", "bob", "mallory"]
    assert 'name="secret"' not in text


@pytest.mark.parametrize("form", [{}, {"secret": ""}, {"secret": "guess"}], ids=str)
async def test_browser_without_the_secret_of_the_run_is_refused(
    provider: DemoProvider, http: aiohttp.ClientSession, form: dict[str, str]
) -> None:
    assert await sign_in(provider, http, login="alice", **form) == (403, "")


async def test_secret_may_be_typed_instead_of_opening_the_link(
    provider: DemoProvider, http: aiohttp.ClientSession
) -> None:
    secret = provider.start_url.rpartition("/")[2]
    assert (await sign_in(provider, http, login="alice", secret=secret))[0] == 303
    assert (await sign_in(provider, http, login="bob"))[0] == 303


async def test_link_of_another_run_is_refused(
    provider: DemoProvider, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{provider.issuer}/start/guess", allow_redirects=False) as answer:
        assert (answer.status, "Set-Cookie" in answer.headers) == (403, False)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
async def test_form_of_another_site_is_refused(
    provider: DemoProvider, http: aiohttp.ClientSession, origin: str
) -> None:
    await open_start_link(provider, http)
    assert (await sign_in(provider, http, origin=origin, login="alice"))[0] == 403


async def test_stranger_cannot_sign_in(provider: DemoProvider, http: aiohttp.ClientSession) -> None:
    await open_start_link(provider, http)
    assert await sign_in(provider, http, login="root") == (400, "")


@pytest.mark.parametrize("host", ["evil.example", "localhost", "127.0.0.1", "127.0.0.1:1"])
@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/authorize", "/jwks"])
async def test_other_host_is_refused(
    provider: DemoProvider, http: aiohttp.ClientSession, host: str, path: str
) -> None:
    async with http.get(f"{provider.issuer}{path}", headers={"Host": host}) as answer:
        assert answer.status == 421


async def test_secret_is_not_where_every_visitor_is_sent(provider: DemoProvider) -> None:
    assert provider.start_url.rpartition("/")[2] not in provider.issuer


async def test_cookie_is_out_of_reach_of_scripts_and_foreign_forms(
    provider: DemoProvider, http: aiohttp.ClientSession
) -> None:
    async with http.get(provider.start_url, allow_redirects=False) as answer:
        cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


@pytest.mark.parametrize("twice", ["client_id=heim", f"redirect_uri={BACK}"])
async def test_repeated_parameter_is_refused_without_a_redirect(
    provider: DemoProvider, http: aiohttp.ClientSession, twice: str
) -> None:
    url = f"{provider.issuer}/authorize?{QUERY}&{twice}"
    async with http.get(url, allow_redirects=False) as answer:
        assert answer.status == 400


async def test_logout_without_a_way_back_shows_a_page(
    provider: DemoProvider, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{provider.issuer}/end_session") as answer:
        assert (answer.status, "signed out" in await answer.text()) == (200, True)
