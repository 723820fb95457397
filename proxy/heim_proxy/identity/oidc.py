"""Signing people in with OpenID Connect: the code flow, from first redirect to verified token.

authlib gives the metadata model, the request parameters and the client authentication; state lives
in the browser (`heim_proxy.identity.flow`), never in authlib's shared cache. PKCE with S256, nonce,
browser-bound state and RFC 9207's `iss` are always on. Requests are ours (`fetch`), so that every
one has a deadline and a size limit and none follows a redirect.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote_plus

from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from heim_proxy.identity.discovery import STEP as DISCOVERY
from heim_proxy.identity.discovery import Metadata, fetch_metadata
from heim_proxy.identity.fetch import Answer, Fetcher, place
from heim_proxy.identity.flow import LoginFlow
from heim_proxy.identity.idtoken import MAX_TOKEN_BYTES, Claims, Expected, read_header, verify
from heim_proxy.identity.jwks import KeySet, parse_jwks
from heim_proxy.identity.login_errors import LoginRejected, ProviderDown, ProviderFault
from heim_proxy.identity.providers import Provider, ProviderType
from heim_proxy.identity.refreshing import Refreshing
from heim_proxy.identity.troubles import Troubles
from heim_runtime.clock import Clock
from heim_wire.strict_json import StrictJsonError, read_object

__all__ = ["Login", "OidcLogin"]

EXCHANGE: Final = "token exchange"
RESPONSE: Final = "authorization response"
KEYS: Final = "signing keys"
USERINFO: Final = "user information"

# Metadata changes with migrations, keys with rotations; an unknown kid refreshes keys at once.
METADATA_FRESH_S: Final = 3600.0
KEYS_FRESH_S: Final = 3600.0
# With the metadata document gone but the token endpoint alive, logins go on for a day.
STALE_S: Final = 86400.0
# The least time between two tries, also for unknown kids: 1000 forged ones cost one fetch.
RETRY_S: Final = 5.0
# Providers of past configurations are forgotten beyond this many.
MAX_PROVIDERS: Final = 64
MAX_CODE_CHARS: Final = 4096
# Longer hints would make a URL that front ends refuse; the provider then asks instead.
MAX_HINT_CHARS: Final = 4096

_ERROR_CODE: Final = re.compile(r"[a-z_]{1,64}")
_FROM_USERINFO: Final = ("email", "email_verified")


@dataclass(frozen=True, slots=True)
class Login:
    """A completed code flow. `claims` are verified; the tokens are secrets."""

    claims: Claims
    id_token: str
    refresh_token: str | None

    def __repr__(self) -> str:
        return f"<Login sub={self.claims.subject!r} <sealed>>"


@dataclass(frozen=True, slots=True)
class _Known:
    metadata: Refreshing[Metadata]
    keys: Refreshing[KeySet]
    troubles: Troubles


class OidcLogin:
    """The relying party. One per process; providers are passed in, so a reload needs no new one."""

    __slots__ = ("_clock", "_fetcher", "_known", "_redirect_uri")

    def __init__(self, fetcher: Fetcher, clock: Clock, *, redirect_uri: Callable[[], str]) -> None:
        """Hold nothing yet: providers are contacted when somebody signs in.

        Args:
            fetcher: Makes the requests; the caller closes it.
            clock: Tells ages of cached documents.
            redirect_uri: The configured callback URL, never derived from a request (H17).
        """
        self._fetcher = fetcher
        self._clock = clock
        self._redirect_uri = redirect_uri
        self._known: OrderedDict[tuple[str, str, bool], _Known] = OrderedDict()

    async def authorization_url(
        self, provider: Provider, flow: LoginFlow, *, again: bool = False
    ) -> str:
        """Where to send the browser so that its owner signs in.

        Args:
            provider: With whom.
            flow: The flow that this browser keeps.
            again: Ask the person even if the provider still knows them (`prompt=login`).

        Raises:
            ProviderDown: Its metadata cannot be fetched.
            ProviderFault: Its metadata is not usable.
        """
        metadata = await self._provider(provider).metadata.get()
        extra: dict[str, str] = {}
        if again:
            # Google knows no "login"; choosing the account is the nearest it offers.
            google = provider.type is ProviderType.GOOGLE
            extra["prompt"] = "select_account" if google else "login"
        if flow.max_age_s is not None:
            extra["max_age"] = str(int(flow.max_age_s))
        if provider.type is ProviderType.GOOGLE and len(provider.hosted_domains) == 1:
            # A convenience for the account chooser; what counts is the claim in the token.
            extra["hd"] = next(iter(provider.hosted_domains))
        return str(
            prepare_grant_uri(
                metadata.authorization_endpoint,
                provider.client_id,
                "code",
                redirect_uri=self._redirect_uri(),
                scope=" ".join(provider.scopes),
                state=flow.state,
                nonce=flow.nonce,
                code_challenge=create_s256_code_challenge(flow.verifier),
                code_challenge_method="S256",
                **extra,
            )
        )

    async def check_issuer(self, provider: Provider, iss: str | None) -> None:
        """Refuse a response that another provider sent (RFC 9207, 2.4), error or not.

        Raises:
            LoginRejected: `iss` is not the provider's, or is missing although promised.
            ProviderDown: Its metadata cannot be fetched.
            ProviderFault: Its metadata is not usable.
        """
        metadata = await self._provider(provider).metadata.get()
        if iss is None and metadata.iss_required:
            raise LoginRejected(RESPONSE, "the response does not name its issuer")
        if iss is not None and not hmac.compare_digest(
            iss.encode("utf-8", "replace"), metadata.issuer.encode()
        ):
            raise LoginRejected(RESPONSE, "the response names another issuer")

    async def finish(self, provider: Provider, flow: LoginFlow, code: str, *, now: float) -> Login:
        """Exchange `code` and verify what comes back.

        The caller has compared the flow's state and the response's issuer, and has made sure that a
        flow is finished once only.

        Raises:
            LoginRejected: The code was refused, or the token does not prove this login.
            ProviderDown: The provider cannot be reached.
            ProviderFault: It answered nonsense.
        """
        if not 0 < len(code) <= MAX_CODE_CHARS:
            raise LoginRejected(RESPONSE, "the code has an impossible length")
        known = self._provider(provider)
        metadata = await known.metadata.get()
        with known.troubles.watch(EXCHANGE):
            answer = await self._exchange(provider, metadata, flow, code)
        tokens = _tokens(answer)
        id_token, access_token = str(tokens["id_token"]), str(tokens["access_token"])
        header = read_header(id_token, metadata.algorithms)
        keys = await known.keys.get()
        key = keys.find(header.kid, header.algorithm)
        if key is None:
            # The provider may have rotated since; asked at most once per interval, fail closed.
            key = (await known.keys.newer()).find(header.kid, header.algorithm)
        if key is None:
            raise LoginRejected("ID token", "signed with a key the provider does not publish")
        expected = Expected(
            issuer=provider.issuer,
            client_id=provider.client_id,
            nonce=flow.nonce,
            algorithms=metadata.algorithms,
            access_token=access_token,
            max_age_s=flow.max_age_s,
        )
        claims = verify(id_token, key, expected, now=now)
        claims = await self._completed(provider, metadata, claims, access_token)
        refresh = tokens.get("refresh_token")
        return Login(claims, id_token, refresh if isinstance(refresh, str) else None)

    async def end_session_endpoint(self, provider: Provider) -> str | None:
        """Where the provider's own sign-out lives; None when it has none.

        Raises:
            ProviderDown: Its metadata cannot be fetched.
            ProviderFault: Its metadata is not usable.
        """
        return (await self._provider(provider).metadata.get()).end_session_endpoint

    async def end_session_url(
        self, provider: Provider, *, id_token: str | None, return_to: str
    ) -> str | None:
        """The provider's sign-out URL (RP-Initiated Logout 1.0, 2); None when it has none.

        Args:
            provider: Where the session came from.
            id_token: The token of the login, as a hint about whose session to end.
            return_to: Our signed-out page, which is registered with the provider.

        Raises:
            ProviderDown: Its metadata cannot be fetched.
            ProviderFault: Its metadata is not usable.
        """
        endpoint = await self.end_session_endpoint(provider)
        if endpoint is None:
            return None
        params = {"client_id": provider.client_id, "post_logout_redirect_uri": return_to}
        if id_token is not None and len(id_token) <= MAX_HINT_CHARS:
            params["id_token_hint"] = id_token
        query = "&".join(f"{name}={quote_plus(value)}" for name, value in params.items())
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    def troubles(self, providers: Iterable[Provider]) -> dict[str, str]:
        """For each provider by name what failed when sign-ins last asked it; "" when nothing did.

        What nobody has tried since may work again: no request is made for this.
        """
        known = ((one.name, self._known.get(_key(one))) for one in providers)
        return {name: "" if it is None else it.troubles.words() for name, it in known}

    async def _exchange(
        self, provider: Provider, metadata: Metadata, flow: LoginFlow, code: str
    ) -> Answer:
        body = prepare_token_request(
            "authorization_code",
            redirect_uri=self._redirect_uri(),
            code=code,
            code_verifier=flow.verifier,
        )
        secret = provider.secret.reveal() if provider.secret.configured else None
        client_id = provider.client_id
        if metadata.auth_method == "client_secret_basic" and secret is not None:
            # authlib joins them as they are; RFC 6749, 2.3.1 wants both form-encoded first.
            headers = {"Authorization": _basic(client_id, secret)}
        else:
            auth = ClientAuth(client_id, secret, metadata.auth_method)
            _, headers, body = auth.prepare("POST", metadata.token_endpoint, {}, body)
        return await self._fetcher.post_form(
            metadata.token_endpoint, body, step=EXCHANGE, ca_file=provider.ca_file, headers=headers
        )

    async def _completed(
        self, provider: Provider, metadata: Metadata, claims: Claims, access_token: str
    ) -> Claims:
        """Add address and groups from the userinfo endpoint where the provider keeps them there.

        Some providers put only `sub` into tokens of the code flow (Core 1.0, 5.4). The address and
        its verification are taken from one of the two places together, never mixed; `hd` and
        `tid`, which decide about organisations, only ever count in the token.
        """
        if metadata.userinfo_endpoint is None or provider.type not in (
            ProviderType.OIDC,
            ProviderType.OKTA,
        ):
            return claims
        wanted = () if claims.all.keys() >= set(_FROM_USERINFO) else _FROM_USERINFO
        if provider.groups_claim is not None and provider.groups_claim not in claims.all:
            wanted = (*wanted, provider.groups_claim)
        if not wanted:
            return claims
        with self._provider(provider).troubles.watch(USERINFO):
            answer = await self._fetcher.get(
                metadata.userinfo_endpoint,
                step=USERINFO,
                ca_file=provider.ca_file,
                headers={"Authorization": f"Bearer {access_token}"},
            )
        found = _object(answer, USERINFO)
        # Without this comparison an access token could be swapped for another person's (5.3.2).
        if answer.status != 200 or found.get("sub") != claims.subject:
            raise ProviderFault(USERINFO, "not the information of the person who signed in")
        merged = dict(claims.all)
        if "email" in wanted and "email" in found:
            merged.pop("email_verified", None)
        merged.update({name: found[name] for name in wanted if name in found})
        return Claims(claims.issuer, claims.subject, claims.auth_time, merged)

    def _provider(self, provider: Provider) -> _Known:
        key = _key(provider)
        known = self._known.get(key)
        if known is None:
            troubles = Troubles(self._clock)
            metadata = Refreshing(
                "login.discovery",
                lambda: self._fetch_metadata(provider, troubles),
                clock=self._clock,
                fresh_for_s=METADATA_FRESH_S,
                stale_for_s=STALE_S,
                retry_after_s=RETRY_S,
            )
            keys = Refreshing(
                "login.keys",
                lambda: self._fetch_keys(provider, metadata, troubles),
                clock=self._clock,
                fresh_for_s=KEYS_FRESH_S,
                # No stale keys: one may be gone from the document because it was stolen.
                stale_for_s=KEYS_FRESH_S,
                retry_after_s=RETRY_S,
            )
            known = self._known[key] = _Known(metadata, keys, troubles)
            while len(self._known) > MAX_PROVIDERS:
                self._known.popitem(last=False)
        return known

    async def _fetch_metadata(self, provider: Provider, troubles: Troubles) -> Metadata:
        with troubles.watch(DISCOVERY):
            return await fetch_metadata(self._fetcher, provider)

    async def _fetch_keys(
        self, provider: Provider, metadata: Refreshing[Metadata], troubles: Troubles
    ) -> KeySet:
        url = (await metadata.get()).jwks_uri
        with troubles.watch(KEYS):
            answer = await self._fetcher.get(url, step=KEYS, ca_file=provider.ca_file)
            if answer.status != 200:
                raise ProviderFault(KEYS, f"{place(url)}: HTTP {answer.status}")
            return parse_jwks(answer.body)


def _key(provider: Provider) -> tuple[str, str, bool]:
    """Everything that decides what is fetched, so that a changed provider starts anew."""
    return provider.issuer, str(provider.ca_file), provider.secret.configured


def _basic(client_id: str, secret: str) -> str:
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}".encode("ascii")
    return f"Basic {base64.b64encode(pair).decode('ascii')}"


def _object(answer: Answer, step: str) -> dict[str, object]:
    try:
        return read_object(answer.body, max_bytes=4 * MAX_TOKEN_BYTES)
    except StrictJsonError as error:
        raise ProviderFault(step, f"answered {answer.status}, and the body {error}") from error


def _tokens(answer: Answer) -> Mapping[str, object]:
    """The token endpoint's answer (RFC 6749, 5.1 and 5.2), checked."""
    found = _object(answer, EXCHANGE)
    if answer.status != 200:
        code = found.get("error")
        shown = code if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else "no error code"
        if shown == "invalid_grant":
            raise LoginRejected(EXCHANGE, "the provider refused the code")
        if shown in ("temporarily_unavailable", "server_error"):
            raise ProviderDown(EXCHANGE, f"answered {answer.status}: {shown}")
        raise ProviderFault(EXCHANGE, f"answered {answer.status}: {shown}")
    for name in ("id_token", "access_token"):
        value = found.get(name)
        if not isinstance(value, str) or not value:
            raise ProviderFault(EXCHANGE, f"the answer has no {name}")
    kind = found.get("token_type")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise ProviderFault(EXCHANGE, "token_type is not Bearer")
    lifetime = found.get("expires_in", 1)
    if isinstance(lifetime, str) and lifetime.isascii() and lifetime.isdigit():
        lifetime = int(lifetime[:9])  # Azure's older endpoints send a string
    if isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or lifetime <= 0:
        raise ProviderFault(EXCHANGE, "expires_in is not a positive number")
    return found
