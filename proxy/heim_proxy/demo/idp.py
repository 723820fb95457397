"""The demo's OpenID Provider: real OpenID Connect, pretend people, loopback only.

It speaks the code flow of OpenID Connect Core 1.0 with PKCE (RFC 7636), the `iss` answer of
RFC 9207 and RP-initiated logout, for exactly one client, and keeps everything in memory. Since it
signs anybody in without a password, three things guard it: its listener is loopback, the Host
header must be its own (a name rebound to 127.0.0.1 is refused), and a browser must have opened the
link with this run's secret, so that other accounts of the same machine stay outside. The secret is
not part of the issuer: Heim sends every visitor there, so it would be no secret.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from heim_proxy.demo.grants import (
    TOKEN_LIFETIME_S,
    DemoClient,
    Grant,
    Grants,
    OAuthError,
    check_authorize,
)
from heim_proxy.demo.pages import page
from heim_proxy.demo.people import PEOPLE, Person, person_called
from heim_proxy.demo.signing import IdTokenKey
from heim_runtime.clock import Clock

__all__ = ["DemoProvider"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES: Final = 16 * 1024
"""A token request is about 400 bytes."""

NO_STORE: Final = {"Cache-Control": "no-store"}


class DemoProvider:
    """One provider for one run; `app()` is served by the caller on a loopback socket."""

    def __init__(
        self, *, port: int, client: DemoClient, key: IdTokenKey, clock: Clock, start_at: str
    ) -> None:
        """Nothing listens yet.

        Args:
            port: Where the caller serves `app()` on 127.0.0.1; part of the issuer.
            client: The one client.
            key: Signs the id tokens of this run.
            clock: Time for codes and tokens.
            start_at: Where the printed link leads once the browser holds the run's secret.
        """
        self.authority = f"127.0.0.1:{port}"
        self.issuer = f"http://{self.authority}"
        # Cookies ignore ports, so two demos side by side need two names.
        self._cookie = f"heim-demo-{port}"
        self._client = client
        self._key = key
        self._clock = clock
        self._start_at = start_at
        self._secret = secrets.token_urlsafe(16)
        self._grants = Grants(client)

    @property
    def start_url(self) -> str:
        """The link to print: it lets the browser that opens it sign in. Holds the run's secret."""
        return f"{self.issuer}/start/{self._secret}"

    def app(self) -> web.Application:
        """The provider as an aiohttp application."""

        @web.middleware
        async def check_host(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.headers.getall("Host", []) != [self.authority]:
                return _refusal(f"The demo's provider answers to {self.authority} only.", 421)
            return await handler(request)

        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[check_host])
        app.add_routes(
            [
                web.get("/.well-known/openid-configuration", self._discovery),
                web.get("/jwks", self._jwks),
                web.get("/start/{secret}", self._start),
                web.get("/authorize", self._authorize),
                web.post("/authorize", self._authorize),
                web.post("/token", self._token),
                web.get("/userinfo", self._userinfo),
                web.post("/userinfo", self._userinfo),
                web.get("/end_session", self._end_session),
                web.post("/end_session", self._end_session),
            ]
        )
        return app

    async def _discovery(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "userinfo_endpoint": f"{self.issuer}/userinfo",
                "jwks_uri": f"{self.issuer}/jwks",
                "end_session_endpoint": f"{self.issuer}/end_session",
                "response_types_supported": ["code"],
                "response_modes_supported": ["query"],
                "grant_types_supported": ["authorization_code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "scopes_supported": ["openid", "email", "profile", "groups"],
                "claims_supported": ["sub", "email", "email_verified", "name", "groups"],
                "token_endpoint_auth_methods_supported": [
                    "client_secret_basic",
                    "client_secret_post",
                ],
                "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    async def _jwks(self, _request: web.Request) -> web.Response:
        return web.json_response(self._key.jwks())

    async def _start(self, request: web.Request) -> web.Response:
        if not self._is_secret(request.match_info["secret"]):
            return _refusal("This link is of another run. Open the one that was printed last.", 403)
        answer = _see_other(self._start_at)
        self._remember_browser(answer)
        return answer

    async def _authorize(self, request: web.Request) -> web.Response:
        """Show the sign-in page; on POST, with the same query, take its answer."""
        query = request.query
        # RFC 6749 4.1.2.1: with these two wrong there is nowhere safe to redirect to.
        if query.getall("client_id", []) != [self._client.client_id]:
            return _refusal("The application that sent you here is not known here.", 400)
        if query.getall("redirect_uri", []) != [self._client.redirect_uri]:
            return _refusal("The application wants you sent to an address not its own.", 400)
        try:
            check_authorize(query)
        except OAuthError as error:
            return self._to_client(query, error=error.code, error_description=error.description)
        if request.method == "POST":
            return await self._sign_in(request)
        return self._sign_in_page(request)

    async def _sign_in(self, request: web.Request) -> web.Response:
        if request.headers.get("Origin", self.issuer) != self.issuer:
            return _refusal("That form came from another site.", 403)
        form = await request.post()
        known = self._knows_browser(request)
        if not known and not self._is_secret(str(form.get("secret", ""))):
            return self._sign_in_page(request, wrong_secret=True, status=403)
        person = person_called(str(form.get("login", "")))
        if person is None:
            return self._sign_in_page(request, status=400)
        code = self._grants.issue_code(person, request.query, now=self._clock.now())
        answer = self._to_client(request.query, code=code)
        if not known:
            self._remember_browser(answer)
        return answer

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        now = self._clock.now()
        try:
            grant = self._grants.redeem(
                form, authorization=request.headers.get("Authorization", ""), now=now
            )
        except OAuthError as error:
            return web.json_response(
                {"error": error.code, "error_description": error.description},
                status=401 if error.code == "invalid_client" else 400,
                headers=NO_STORE,
            )
        return web.json_response(
            {
                "access_token": self._grants.issue_token(grant.person, now=now),
                "token_type": "Bearer",
                "expires_in": int(TOKEN_LIFETIME_S),
                "scope": " ".join(sorted(grant.scopes)),
                "id_token": self._key.sign(self._id_claims(grant, now)),
            },
            headers=NO_STORE,
        )

    async def _userinfo(self, request: web.Request) -> web.Response:
        authorization = request.headers.get("Authorization", "")
        person = self._grants.holder_of(authorization, now=self._clock.now())
        if person is None:
            return web.json_response(
                {"error": "invalid_token"},
                status=401,
                headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
            )
        return web.json_response(_person_claims(person), headers=NO_STORE)

    async def _end_session(self, request: web.Request) -> web.Response:
        """RP-initiated logout 1.0: nobody stays signed in here, so it is only the way back."""
        values = await request.post() if request.method == "POST" else request.query
        back = str(values.get("post_logout_redirect_uri", ""))
        client_id = values.get("client_id") or self._key.audience_of(
            str(values.get("id_token_hint", ""))
        )
        ours = client_id == self._client.client_id
        if ours and back == self._client.post_logout_redirect_uri:
            state = values.get("state")
            return _see_other(f"{back}?{urlencode({'state': str(state)})}" if state else back)
        text = "You are signed out of the demo's provider."
        return page("message", {"title": "Signed out", "text": text, "bad": False})

    def _sign_in_page(
        self, request: web.Request, *, wrong_secret: bool = False, status: int = 200
    ) -> web.Response:
        values = {
            "people": PEOPLE,
            "ask_secret": not self._knows_browser(request),
            "wrong_secret": wrong_secret,
        }
        return page("sign-in", values, status=status)

    def _to_client(self, query: Mapping[str, str], **answer: str) -> web.Response:
        if "state" in query:
            answer["state"] = query["state"]
        answer["iss"] = self.issuer
        return _see_other(f"{self._client.redirect_uri}?{urlencode(answer)}")

    def _id_claims(self, grant: Grant, now: float) -> dict[str, object]:
        claims: dict[str, object] = {
            "iss": self.issuer,
            "aud": self._client.client_id,
            "iat": int(now),
            "exp": int(now + TOKEN_LIFETIME_S),
            "auth_time": int(grant.signed_in),
            **_person_claims(grant.person),
        }
        if grant.nonce is not None:
            claims["nonce"] = grant.nonce
        return claims

    def _is_secret(self, value: str) -> bool:
        return hmac.compare_digest(value.encode(), self._secret.encode())

    def _knows_browser(self, request: web.Request) -> bool:
        return self._is_secret(request.cookies.get(self._cookie, ""))

    def _remember_browser(self, answer: web.Response) -> None:
        # Not Secure: the provider is plain http on 127.0.0.1. Lax: arriving from Heim's login host
        # is a cross-site navigation, while another site's form must not carry it.
        answer.set_cookie(self._cookie, self._secret, httponly=True, samesite="Lax", path="/")


def _person_claims(person: Person) -> dict[str, object]:
    return {
        "sub": person.login,
        "email": person.email,
        "email_verified": True,
        "name": person.name,
        "groups": list(person.groups),
    }


def _see_other(location: str) -> web.Response:
    headers = {"Location": location, "Referrer-Policy": "no-referrer", **NO_STORE}
    return web.Response(status=303, headers=headers)


def _refusal(text: str, status: int) -> web.Response:
    return page("message", {"title": "Refused", "text": text, "bad": True}, status=status)
