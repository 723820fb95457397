"""An OpenID Provider on loopback that tests control: it behaves, or lies in one chosen way.

Behaving, it passes `tests/contracts/test_identity_provider.py`. Every field of `Lies` is one lie; a
test sets it, signs in, and watches what Heim makes of it.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import hmac
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote_plus, urlencode

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

__all__ = ["OMIT", "FakeIdp", "Lies", "b64", "forge", "rsa_key"]

OMIT: Final = object()
"""As a value of a change: leave the member out."""

REDIRECT: Final = "https://auth.example.test/.heim/callback"
AFTER_LOGOUT: Final = "https://auth.example.test/.heim/signed-out"

USERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "alice": {
        "sub": "alice",
        "email": "alice@example.com",
        "email_verified": True,
        "name": "Alice",
        "groups": ["admins", "developers"],
    },
    "bob": {
        "sub": "bob",
        "email": "bob@example.com",
        "email_verified": True,
        "name": "Bob",
        "groups": ["developers"],
    },
    "mallory": {
        "sub": "mallory",
        "email": "mallory@example.com",
        "email_verified": True,
        "name": "Mallory",
        "groups": [],
    },
}


@functools.cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key that is generated once per test process: each takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forge(header: object, payload: object, key: Any = None) -> str:
    """A compact JWS with exactly these parts, whatever they are; bytes are taken as they come.

    `key` signs by what it is: RSA with RS256 (PS256 if the header says so), EC with ES256, bytes
    with HS256, None leaves the signature empty.
    """
    parts = [
        b64(part if isinstance(part, bytes) else json.dumps(part).encode())
        for part in (header, payload)
    ]
    signed = ".".join(parts).encode()
    if key is None:
        signature = b""
    elif isinstance(key, bytes):
        signature = hmac.new(key, signed, hashlib.sha256).digest()
    else:
        name = "ES256" if isinstance(key, ec.EllipticCurvePrivateKey) else "RS256"
        if isinstance(header, dict) and header.get("alg") == "PS256":
            name = "PS256"
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            name = "EdDSA"
        signature = jwt.get_algorithm_by_name(name).sign(signed, key)
    return f"{signed.decode()}.{b64(signature)}"


@dataclass
class Lies:
    """What the provider does wrong; as it is built, nothing. Times are in seconds."""

    discovery: Mapping[str, object] = field(default_factory=dict)
    discovery_body: bytes | None = None
    discovery_status: int = 200
    discovery_redirect: str | None = None
    discovery_delay: float = 0.0
    authorize: Mapping[str, object] = field(default_factory=dict)
    error: str | None = None
    error_description: str | None = None
    token: Mapping[str, object] = field(default_factory=dict)
    token_body: bytes | None = None
    token_status: int = 200
    token_type: str = "application/json"
    token_redirect: str | None = None
    token_delay: float = 0.0
    claims: Mapping[str, object] = field(default_factory=dict)
    header: Mapping[str, object] = field(default_factory=dict)
    id_token: str | None = None
    sign_with: Any = None
    unsigned: bool = False
    hmac_with_public_key: bool = False
    jwks_body: bytes | None = None
    jwks_status: int = 200
    jwks_delay: float = 0.0
    userinfo: Mapping[str, object] = field(default_factory=dict)
    userinfo_status: int = 200


@dataclass
class Grant:
    """What an authorization code stands for."""

    user: str
    redirect_uri: str
    challenge: str
    nonce: str | None
    auth_time: float


class FakeIdp:
    """One provider. `start` listens; `stop` is an outage; `start` again ends it on the same port.

    Attributes:
        user: Who is signed in at the provider and approves at once; None shows a form instead.
        users: Claims by login name.
        lies: What it does wrong now.
        hits: How often each endpoint was asked.
        codes: The codes it gave, newest last.
        requests: The parameters of the authorization requests, newest last.
        token_forms: The forms of the token requests, newest last.
        auth_time: When `user` proved who they are, epoch seconds; None for "just now".
        now: Tells the time; tests with their own clock hand it in.
    """

    def __init__(
        self, *, redirect_uri: str = REDIRECT, post_logout_redirect_uri: str = AFTER_LOGOUT
    ) -> None:
        self.client_id = "heim"
        self.client_secret = f"s3cret/+&= {secrets.token_urlsafe(16)}"
        self.redirect_uri = redirect_uri
        self.post_logout_redirect_uri = post_logout_redirect_uri
        self.issuer = ""
        self.now: Callable[[], float] = time.time
        self.user: str | None = "alice"
        self.users: dict[str, dict[str, Any]] = {name: dict(who) for name, who in USERS.items()}
        self.lies = Lies()
        self.hits: Counter[str] = Counter()
        self.codes: list[str] = []
        self.requests: list[Mapping[str, str]] = []
        self.token_forms: list[Mapping[str, str]] = []
        self.auth_time: float | None = None
        self.kid = "key-1"
        self._key_name = "idp-1"
        self._grants: dict[str, Grant] = {}
        self._access: dict[str, str] = {}
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        app.router.add_get("/jwks", self._jwks)
        app.router.add_get("/userinfo", self._userinfo)
        app.router.add_get("/end", self._end)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.issuer = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def rotate(self) -> None:
        """Sign with a new key from now on, and publish only that one."""
        number = int(self.kid.removeprefix("key-")) + 1
        self.kid, self._key_name = f"key-{number}", f"idp-{number}"

    @property
    def key(self) -> rsa.RSAPrivateKey:
        return rsa_key(self._key_name)

    def public_jwk(self) -> dict[str, Any]:
        jwk: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(
            self.key.public_key(), as_dict=True
        )
        return {**jwk, "kid": self.kid, "use": "sig", "alg": "RS256"}

    def id_token(self, claims: Mapping[str, object], access_token: str) -> str:
        """An ID token with these claims, as honest as `lies` allow."""
        lies = self.lies
        half = hashlib.sha256(access_token.encode()).digest()[:16]
        payload = _changed({**claims, "at_hash": b64(half)}, lies.claims)
        header = _changed({"alg": "RS256", "kid": self.kid, "typ": "JWT"}, lies.header)
        key: Any = lies.sign_with if lies.sign_with is not None else self.key
        if lies.hmac_with_public_key:
            header["alg"] = "HS256"
            key = self.key.public_key().public_bytes(
                Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
            )
        return forge(header, payload, None if lies.unsigned else key)

    async def _discovery(self, request: web.Request) -> web.Response:
        self.hits["discovery"] += 1
        lies = self.lies
        await asyncio.sleep(lies.discovery_delay)
        if lies.discovery_redirect is not None:
            return web.Response(status=302, headers={"Location": lies.discovery_redirect})
        if lies.discovery_body is not None:
            return web.Response(status=lies.discovery_status, body=lies.discovery_body)
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/jwks",
            "end_session_endpoint": f"{self.issuer}/end",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "scopes_supported": ["openid", "email", "profile", "groups"],
            "id_token_signing_alg_values_supported": ["RS256", "none"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "authorization_response_iss_parameter_supported": True,
        }
        return web.json_response(_changed(document, lies.discovery), status=lies.discovery_status)

    async def _authorize(self, request: web.Request) -> web.Response:
        self.hits["authorize"] += 1
        posted = await request.post()
        asked = {k: v for k, v in (*request.query.items(), *posted.items()) if isinstance(v, str)}
        if (
            asked.get("client_id") != self.client_id
            or asked.get("redirect_uri") != self.redirect_uri
        ):
            return web.Response(status=400, text="unknown client")
        if request.method == "GET":
            self.requests.append(asked)
        login = self.user or asked.get("login")
        if asked.get("code_challenge_method") != "S256" or not asked.get("code_challenge"):
            return self._back(asked, {"error": "invalid_request"})
        if self.lies.error is not None:
            found = {"error": self.lies.error, "error_description": self.lies.error_description}
            return self._back(asked, {k: v for k, v in found.items() if v is not None})
        if login is None and asked.get("prompt") == "none":
            return self._back(asked, {"error": "login_required"})
        if login is None:
            fields = "".join(
                f'<input type="hidden" name="{name}" value="{value}">'
                for name, value in asked.items()
            )
            page = f'<form method="post" action="/authorize">{fields}<input name="login"></form>'
            return web.Response(text=page, content_type="text/html")
        code = secrets.token_urlsafe(24)
        proven = self.auth_time
        age = float(asked.get("max_age", "inf"))
        if proven is None or asked.get("prompt") == "login" or self.now() - proven > age:
            proven = self.now()
        self._grants[code] = Grant(
            login, asked["redirect_uri"], asked["code_challenge"], asked.get("nonce"), proven
        )
        self.codes.append(code)
        return self._back(asked, {"code": code})

    def _back(self, asked: Mapping[str, str], found: Mapping[str, str]) -> web.Response:
        full = {**found, "state": asked.get("state", OMIT), "iss": self.issuer}
        query = urlencode(_changed(_changed(full, {}), self.lies.authorize))
        return web.Response(status=303, headers={"Location": f"{self.redirect_uri}?{query}"})

    async def _token(self, request: web.Request) -> web.Response:
        self.hits["token"] += 1
        form = {k: v for k, v in (await request.post()).items() if isinstance(v, str)}
        self.token_forms.append(form)
        lies = self.lies
        await asyncio.sleep(lies.token_delay)
        if lies.token_redirect is not None:
            return web.Response(status=307, headers={"Location": lies.token_redirect})
        if lies.token_body is not None or lies.token_status != 200:
            body = lies.token_body or b"{}"
            return web.Response(status=lies.token_status, body=body, content_type=lies.token_type)
        if self._client(request, form) != (self.client_id, self.client_secret):
            return web.json_response({"error": "invalid_client"}, status=401)
        if form.get("grant_type") != "authorization_code":
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
        grant = self._grants.pop(form.get("code", ""), None)
        digest = b64(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if (
            grant is None
            or grant.challenge != digest
            or grant.redirect_uri != form.get("redirect_uri")
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        access = secrets.token_urlsafe(24)
        self._access[access] = grant.user
        now = int(self.now())
        claims = {
            **self.users[grant.user],
            "iss": self.issuer,
            "aud": self.client_id,
            "iat": now,
            "exp": now + 300,
            "auth_time": int(grant.auth_time),
            "nonce": OMIT if grant.nonce is None else grant.nonce,
        }
        document = {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": 300,
            "id_token": lies.id_token or self.id_token(_changed(claims, {}), access),
        }
        return web.json_response(_changed(document, lies.token))

    def _client(self, request: web.Request, form: Mapping[str, str]) -> tuple[str, str]:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return form.get("client_id", ""), form.get("client_secret", "")
        client_id, _, secret = base64.b64decode(given).decode().partition(":")
        if (client_id, secret) == (self.client_id, self.client_secret):
            return client_id, secret  # not form-encoded, as most clients do it
        return unquote_plus(client_id), unquote_plus(secret)

    async def _jwks(self, request: web.Request) -> web.Response:
        self.hits["jwks"] += 1
        await asyncio.sleep(self.lies.jwks_delay)
        body = self.lies.jwks_body
        if body is None:
            body = json.dumps({"keys": [self.public_jwk()]}).encode()
        return web.Response(status=self.lies.jwks_status, body=body)

    async def _userinfo(self, request: web.Request) -> web.Response:
        self.hits["userinfo"] += 1
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        user = self._access.get(token)
        if user is None:
            return web.json_response({"error": "invalid_token"}, status=401)
        answer = _changed(self.users[user], self.lies.userinfo)
        return web.json_response(answer, status=self.lies.userinfo_status)

    async def _end(self, request: web.Request) -> web.Response:
        self.hits["end"] += 1
        if request.query.get("post_logout_redirect_uri") != self.post_logout_redirect_uri:
            return web.Response(text="signed out")
        state = request.query.get("state")
        query = f"?{urlencode({'state': state})}" if state else ""
        return web.Response(
            status=303, headers={"Location": f"{self.post_logout_redirect_uri}{query}"}
        )


def _changed(document: Mapping[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    merged = {**document, **changes}
    return {name: value for name, value in merged.items() if value is not OMIT}
