"""What the demo's provider has promised: codes and access tokens, in memory, without any I/O."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_plus

from heim_proxy.demo.people import Person

__all__ = ["TOKEN_LIFETIME_S", "DemoClient", "Grant", "Grants", "OAuthError", "check_authorize"]

CODE_LIFETIME_S: Final = 60.0
TOKEN_LIFETIME_S: Final = 300.0

MAX_PENDING: Final = 1000
"""Codes and access tokens kept; the oldest is forgotten first. One person needs one of each."""


@dataclass(frozen=True, slots=True)
class DemoClient:
    """The one application that may use the provider: Heim itself."""

    client_id: str
    client_secret: str = field(repr=False)
    redirect_uri: str
    post_logout_redirect_uri: str


class OAuthError(Exception):
    """A refusal in the words of RFC 6749 (4.1.2.1 and 5.2)."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(f"{code}: {description}")
        self.code = code
        self.description = description


@dataclass(frozen=True, slots=True)
class Grant:
    """What a code stands for: who signed in, when, and who may redeem it."""

    person: Person
    nonce: str | None
    challenge: str
    scopes: frozenset[str]
    signed_in: float


def check_authorize(query: Mapping[str, str]) -> None:
    """Judge an authorization request whose client and redirect_uri are already known to be right.

    Raises:
        OAuthError: with the code that goes back to the client's redirect_uri.
    """
    if query.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "only response_type=code")
    if "openid" not in query.get("scope", "").split():
        raise OAuthError("invalid_scope", "scope must contain openid")
    if query.get("code_challenge_method") != "S256":
        raise OAuthError("invalid_request", "PKCE with code_challenge_method=S256 is required")
    if not 43 <= len(query.get("code_challenge", "")) <= 128:
        raise OAuthError("invalid_request", "code_challenge must have 43 to 128 characters")
    if query.get("prompt") == "none":
        raise OAuthError("login_required", "nobody is ever signed in here already")


class Grants:
    """The codes and tokens of one run; both tables are bounded and forget the oldest first."""

    def __init__(self, client: DemoClient) -> None:
        self._client = client
        self._codes: OrderedDict[str, tuple[Grant, float]] = OrderedDict()
        self._tokens: OrderedDict[str, tuple[Person, float]] = OrderedDict()

    def issue_code(self, person: Person, query: Mapping[str, str], *, now: float) -> str:
        """A one-time code for a checked authorization request, good for a minute."""
        code = secrets.token_urlsafe(32)
        grant = Grant(
            person=person,
            nonce=query.get("nonce"),
            challenge=query["code_challenge"],
            scopes=frozenset(query["scope"].split()),
            signed_in=now,
        )
        self._codes[code] = (grant, now + CODE_LIFETIME_S)
        if len(self._codes) > MAX_PENDING:
            self._codes.popitem(last=False)
        return code

    def redeem(self, form: Mapping[str, str], *, authorization: str, now: float) -> Grant:
        """Exchange a code (RFC 6749 4.1.3, RFC 7636 4.5).

        Args:
            form: The token request's fields.
            authorization: Its Authorization header, or "" when the form holds the secret.
            now: Seconds since the epoch.

        Raises:
            OAuthError: invalid_client, unsupported_grant_type or invalid_grant.
        """
        self._authenticate(form, authorization)
        if form.get("grant_type") != "authorization_code":
            raise OAuthError("unsupported_grant_type", "only authorization_code")
        # Taken out before it is judged: a code is good for one attempt, also a failed one.
        grant, expires = self._codes.pop(form.get("code", ""), (None, 0.0))
        if grant is None or expires <= now:
            raise OAuthError("invalid_grant", "the code is unknown, used or expired")
        if form.get("redirect_uri") != self._client.redirect_uri:
            raise OAuthError("invalid_grant", "redirect_uri is not the one the code was made for")
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=")
        if not hmac.compare_digest(challenge, grant.challenge.encode()):
            raise OAuthError("invalid_grant", "code_verifier does not match code_challenge")
        return grant

    def issue_token(self, person: Person, *, now: float) -> str:
        """An opaque access token for the userinfo endpoint, good for five minutes."""
        token = secrets.token_urlsafe(32)
        self._tokens[token] = (person, now + TOKEN_LIFETIME_S)
        if len(self._tokens) > MAX_PENDING:
            self._tokens.popitem(last=False)
        return token

    def holder_of(self, authorization: str, *, now: float) -> Person | None:
        """Whose bearer token that Authorization header carries (RFC 6750 2.1), if any."""
        scheme, _, token = authorization.partition(" ")
        person, expires = self._tokens.get(token, (None, 0.0))
        return person if scheme.lower() == "bearer" and now < expires else None

    def _authenticate(self, form: Mapping[str, str], authorization: str) -> None:
        client_id, client_secret = form.get("client_id", ""), form.get("client_secret", "")
        scheme, _, encoded = authorization.partition(" ")
        if scheme.lower() == "basic":
            try:
                pair = base64.b64decode(encoded, validate=True).decode()
            except ValueError:
                raise OAuthError("invalid_client", "unreadable Authorization header") from None
            # RFC 6749 2.3.1: both halves are form-encoded before base64.
            client_id, _, client_secret = (unquote_plus(part) for part in pair.partition(":"))
        right = hmac.compare_digest(client_secret.encode(), self._client.client_secret.encode())
        if client_id != self._client.client_id or not right:
            raise OAuthError("invalid_client", "unknown client or wrong secret")
