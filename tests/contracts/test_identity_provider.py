"""What an OpenID Provider of our tests must do, whoever wrote it.

The suite runs against the demo's provider, the fake of the unit tests and a certified one, so that
what our login is tested with behaves as the real thing does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import aiohttp
import jwt
import pytest
import pytest_asyncio
from aiohttp import web

from heim_proxy.demo.grants import DemoClient
from heim_proxy.demo.idp import DemoProvider
from heim_proxy.demo.loopback import listen
from heim_proxy.demo.signing import IdTokenKey
from heim_runtime.clock import SystemClock
from tests.fakes.idp import FakeIdp
from tests.fakes.real_idp import real_idp

REDIRECT = "https://auth.localhost:8443/.heim/callback"
AFTER_LOGOUT = "https://auth.localhost:8443/.heim/signed-out"
MAX_STEPS = 10

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Candidate:
    """A running provider, and what a client and its person need to know to use it."""

    issuer: str
    client_id: str
    client_secret: str
    open_first: str | None = None


@asynccontextmanager
async def demo_candidate() -> AsyncIterator[Candidate]:
    sock = listen()
    client = DemoClient("heim", secrets.token_urlsafe(32), REDIRECT, AFTER_LOGOUT)
    provider = DemoProvider(
        port=sock.getsockname()[1],
        client=client,
        key=IdTokenKey(),
        clock=SystemClock(),
        start_at=AFTER_LOGOUT,
    )
    runner = web.AppRunner(provider.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, sock).start()
    try:
        yield Candidate(provider.issuer, client.client_id, client.client_secret, provider.start_url)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def fake_candidate() -> AsyncIterator[Candidate]:
    idp = FakeIdp(redirect_uri=REDIRECT, post_logout_redirect_uri=AFTER_LOGOUT)
    idp.user = None
    await idp.start()
    try:
        yield Candidate(idp.issuer, idp.client_id, idp.client_secret)
    finally:
        await idp.stop()


@asynccontextmanager
async def real_candidate() -> AsyncIterator[Candidate]:
    async with real_idp(redirect_uri=REDIRECT, post_logout_redirect_uri=AFTER_LOGOUT) as idp:
        yield Candidate(idp.issuer, idp.client_id, idp.client_secret)


# One process per provider, not per test: node takes longer to start than all its tests to run.
@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[
        pytest.param(demo_candidate, id="demo"),
        pytest.param(fake_candidate, id="fake"),
        pytest.param(real_candidate, id="oidc-provider", marks=pytest.mark.real),
    ],
)
async def candidate(request: pytest.FixtureRequest) -> AsyncIterator[Candidate]:
    async with request.param() as running:
        yield running


class Form(HTMLParser):
    """The first form of a page: where it goes and its hidden fields."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "form" and self.action is None:
            self.action = values.get("action") or ""
        if tag == "input" and values.get("type") == "hidden":
            self.fields[values["name"] or ""] = values.get("value") or ""


class Flow:
    """One login at a candidate, step by step, as a client and a browser would do it."""

    def __init__(self, candidate: Candidate, http: aiohttp.ClientSession) -> None:
        self.candidate = candidate
        self.http = http
        self.metadata: dict[str, object] = {}
        self.verifier = secrets.token_urlsafe(48)
        self.nonce = secrets.token_urlsafe(16)
        self.state = secrets.token_urlsafe(16)

    def endpoint(self, name: str) -> str:
        value = self.metadata[name]
        assert isinstance(value, str)
        return value

    def authorize_url(self, **changes: str | None) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        query: dict[str, str | None] = {
            "client_id": self.candidate.client_id,
            "redirect_uri": REDIRECT,
            "response_type": "code",
            "scope": "openid email profile groups",
            "state": self.state,
            "nonce": self.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            **changes,
        }
        given = {name: value for name, value in query.items() if value is not None}
        return f"{self.endpoint('authorization_endpoint')}?{urlencode(given)}"

    async def browse(self, url: str, *, login: str) -> tuple[int, str]:
        """Follow redirects, sign in where asked; the status and the address of where it ends."""
        method, data = "GET", None
        for _ in range(MAX_STEPS):
            async with self.http.request(method, url, data=data, allow_redirects=False) as answer:
                text = await answer.text()
            if "Location" in answer.headers:
                method, data, url = "GET", None, urljoin(url, answer.headers["Location"])
                if not url.startswith(self.candidate.issuer):
                    return answer.status, url
                continue
            form = Form(text)
            if answer.status != 200 or form.action is None or method == "POST":
                return answer.status, url
            method, data = "POST", {**form.fields, "login": login, "logout": "yes"}
            url = urljoin(url, form.action)
        raise AssertionError(f"still redirecting after {MAX_STEPS} steps, at {url}")

    async def answer(self, *, login: str = "alice", **changes: str | None) -> dict[str, str]:
        """The query with which the provider sends the browser back to the client."""
        _, url = await self.browse(self.authorize_url(**changes), login=login)
        assert url.startswith(f"{REDIRECT}?"), url
        return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}

    async def exchange(self, code: str, **changes: str) -> tuple[int, dict[str, object]]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT,
            "code_verifier": self.verifier,
            **changes,
        }
        authorization = aiohttp.encode_basic_auth(
            form.pop("client_id", self.candidate.client_id),
            form.pop("client_secret", self.candidate.client_secret),
        )
        headers = {"Authorization": authorization}
        url = self.endpoint("token_endpoint")
        async with self.http.post(url, data=form, headers=headers) as answer:
            return answer.status, json.loads(await answer.text())

    async def claims(self, id_token: object) -> dict[str, object]:
        """The claims of an id token, its signature checked with the published keys."""
        assert isinstance(id_token, str)
        async with self.http.get(self.endpoint("jwks_uri")) as answer:
            keys = jwt.PyJWKSet.from_json(await answer.text())
        return jwt.decode(
            id_token,
            keys[jwt.get_unverified_header(id_token)["kid"]],
            algorithms=["RS256", "ES256"],
            audience=self.candidate.client_id,
            issuer=self.candidate.issuer,
            options={"require": ["iss", "sub", "aud", "exp", "iat", "nonce"]},
        )


@pytest_asyncio.fixture(loop_scope="module")
async def flow(candidate: Candidate) -> AsyncIterator[Flow]:
    jar = aiohttp.CookieJar(unsafe=True)  # the providers live on an address, not on a name
    async with aiohttp.ClientSession(
        cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=10)
    ) as http:
        flow = Flow(candidate, http)
        if candidate.open_first is not None:
            async with http.get(candidate.open_first, allow_redirects=False):
                pass
        url = f"{candidate.issuer}/.well-known/openid-configuration"
        async with http.get(url) as answer:
            flow.metadata = await answer.json()
        yield flow


async def test_discovery_names_the_issuer_it_was_fetched_from(flow: Flow) -> None:
    assert flow.metadata["issuer"] == flow.candidate.issuer


@pytest.mark.parametrize(
    "name",
    [
        "authorization_endpoint",
        "token_endpoint",
        "userinfo_endpoint",
        "jwks_uri",
        "end_session_endpoint",
    ],
)
async def test_endpoint_is_on_the_issuer(flow: Flow, name: str) -> None:
    assert flow.endpoint(name).startswith(f"{flow.candidate.issuer}/")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("response_types_supported", "code", id="code flow"),
        pytest.param("code_challenge_methods_supported", "S256", id="PKCE"),
        pytest.param("id_token_signing_alg_values_supported", "RS256", id="RS256"),
        pytest.param("scopes_supported", "openid", id="openid"),
    ],
)
async def test_discovery_offers(flow: Flow, name: str, value: str) -> None:
    offered = flow.metadata[name]
    assert isinstance(offered, list)
    assert value in offered


async def test_answer_echoes_the_state_and_names_the_issuer(flow: Flow) -> None:
    answer = await flow.answer()
    assert (answer["state"], answer["iss"]) == (flow.state, flow.candidate.issuer)


async def test_id_token_says_who_signed_in(flow: Flow) -> None:
    _, tokens = await flow.exchange((await flow.answer(login="bob"))["code"])
    claims = await flow.claims(tokens["id_token"])
    assert {name: claims[name] for name in ("sub", "email", "email_verified", "groups")} == {
        "sub": "bob",
        "email": "bob@example.com",
        "email_verified": True,
        "groups": ["developers"],
    }


async def test_id_token_echoes_the_nonce(flow: Flow) -> None:
    _, tokens = await flow.exchange((await flow.answer())["code"])
    assert (await flow.claims(tokens["id_token"]))["nonce"] == flow.nonce


async def test_userinfo_agrees_with_the_id_token(flow: Flow) -> None:
    _, tokens = await flow.exchange((await flow.answer())["code"])
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    async with flow.http.get(flow.endpoint("userinfo_endpoint"), headers=headers) as answer:
        told = await answer.json()
    claims = await flow.claims(tokens["id_token"])
    assert (told["sub"], told["email"]) == (claims["sub"], claims["email"])


async def test_userinfo_without_a_token_is_refused(flow: Flow) -> None:
    headers = {"Authorization": "Bearer made-up"}
    async with flow.http.get(flow.endpoint("userinfo_endpoint"), headers=headers) as answer:
        assert answer.status == 401


async def test_code_works_once(flow: Flow) -> None:
    code = (await flow.answer())["code"]
    first, _ = await flow.exchange(code)
    second, refusal = await flow.exchange(code)
    assert (first, second, refusal["error"]) == (200, 400, "invalid_grant")


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        pytest.param({"code_verifier": "w" * 64}, 400, "invalid_grant", id="another code verifier"),
        pytest.param({"code": "made-up"}, 400, "invalid_grant", id="made-up code"),
        pytest.param(
            {"redirect_uri": f"{REDIRECT}2"}, 400, "invalid_grant", id="another redirect_uri"
        ),
        pytest.param({"client_secret": "wrong"}, 401, "invalid_client", id="wrong secret"),
        pytest.param({"client_id": "nobody"}, 401, "invalid_client", id="unknown client"),
        pytest.param(
            {"grant_type": "password"}, 400, "unsupported_grant_type", id="another grant type"
        ),
    ],
)
async def test_code_is_not_exchanged_with(
    flow: Flow, changes: dict[str, str], status: int, error: str
) -> None:
    code = (await flow.answer())["code"]
    refused, answer = await flow.exchange(**{"code": code, **changes})
    assert (refused, answer["error"]) == (status, error)
    assert "id_token" not in answer


async def test_authorization_without_pkce_is_refused(flow: Flow) -> None:
    answer = await flow.answer(code_challenge=None, code_challenge_method=None)
    assert answer["error"] == "invalid_request"
    assert "code" not in answer


async def test_prompt_none_without_a_login_answers_login_required(flow: Flow) -> None:
    assert (await flow.answer(prompt="none"))["error"] == "login_required"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"client_id": "nobody"}, id="unknown client"),
        pytest.param({"redirect_uri": f"{REDIRECT}/evil"}, id="longer redirect_uri"),
        pytest.param({"redirect_uri": "https://evil.example/"}, id="foreign redirect_uri"),
    ],
)
async def test_browser_is_not_sent_anywhere_for(flow: Flow, changes: dict[str, str]) -> None:
    status, url = await flow.browse(flow.authorize_url(**changes), login="alice")
    assert status == 400
    assert url.startswith(flow.candidate.issuer)


async def test_logout_sends_the_browser_back_with_the_state(flow: Flow) -> None:
    _, tokens = await flow.exchange((await flow.answer())["code"])
    query = urlencode(
        {
            "id_token_hint": tokens["id_token"],
            "post_logout_redirect_uri": AFTER_LOGOUT,
            "state": "back",
        }
    )
    url = f"{flow.endpoint('end_session_endpoint')}?{query}"
    assert (await flow.browse(url, login=""))[1] == f"{AFTER_LOGOUT}?state=back"


async def test_logout_does_not_send_the_browser_elsewhere(flow: Flow) -> None:
    _, tokens = await flow.exchange((await flow.answer())["code"])
    query = urlencode(
        {
            "id_token_hint": tokens["id_token"],
            "post_logout_redirect_uri": "https://evil.example/",
        }
    )
    url = f"{flow.endpoint('end_session_endpoint')}?{query}"
    assert (await flow.browse(url, login=""))[1].startswith(flow.candidate.issuer)
