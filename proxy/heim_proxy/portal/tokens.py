"""What programs ask the login host: tokens, device codes, the end of a login, what they may reach.

No cookies, no pages, and nothing for scripts of other sites: answers carry no CORS header.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from heim_proxy.identity.authorization_codes import CodeProblem, Consent
from heim_proxy.identity.bearer import BearerProblem
from heim_proxy.identity.cli_logins import CliLogin, Refused
from heim_proxy.identity.device_codes import INTERVAL_S, LIFETIME_S, DeviceProblem, SlowDown
from heim_proxy.identity.session import Session
from heim_proxy.portal.authorize import device_label
from heim_proxy.portal.device import PATH as DEVICE_PATH
from heim_proxy.portal.limits import RateLimit, client_key, network_key
from heim_proxy.portal.oauth import Handler, OAuthError, for_programs, form_of, needed
from heim_proxy.portal.visit import Visit

__all__ = ["TokenEndpoints"]

DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"

_DEVICE_ERRORS: Final[Mapping[DeviceProblem, str]] = {
    DeviceProblem.PENDING: "Nobody has typed the code yet.",
    DeviceProblem.DENIED: "The login was refused.",
    DeviceProblem.EXPIRED: "The code has expired or was used; start again.",
}
_OVER: Final = "The login is over; log in again."


class TokenEndpoints:
    """The handlers, each within its rate: `token`, `device`, `revoke` and `backends`."""

    def __init__(self) -> None:
        # Apart from the rate of sign-in pages: programs that run wild must not lock people out.
        often, seldom = RateLimit(), RateLimit(burst=20.0, per_second=0.2)
        self.token: Handler = for_programs(_token, rate_limit=often)
        self.revoke: Handler = for_programs(_revoke, rate_limit=often)
        self.backends: Handler = for_programs(_backends, rate_limit=often)
        self.device: Handler = for_programs(_device, rate_limit=seldom)


async def _token(visit: Visit) -> web.Response:
    """POST /.heim/cli/token: a grant for tokens (RFC 6749, 3.2)."""
    form = await form_of(visit)
    (grant_type,) = needed(form, "grant_type")
    grant = _GRANTS.get(grant_type)
    if grant is None:
        raise OAuthError("unsupported_grant_type", "There is no such grant_type here.")
    return _granted(visit, await grant(visit, form))


async def _code_grant(visit: Visit, form: Mapping[str, str]) -> CliLogin:
    code, redirect_uri, verifier = needed(form, "code", "redirect_uri", "code_verifier")
    consent = await visit.ctx.programs.codes.redeem(
        code, redirect_uri=redirect_uri, verifier=verifier, now=visit.now
    )
    if isinstance(consent, CodeProblem):
        visit.audit("login.failed", step="code", detail=consent.value)
        raise OAuthError("invalid_grant", "The code is not good (any more); start again.")
    return await _begin(visit, consent, via="browser")


async def _device_grant(visit: Visit, form: Mapping[str, str]) -> CliLogin:
    (device_code,) = needed(form, "device_code")
    outcome = await visit.ctx.programs.devices.poll(device_code, visit.now)
    if isinstance(outcome, SlowDown):
        wait = f"Ask again in {outcome.interval:g} seconds."
        raise OAuthError("slow_down", wait, headers={"Retry-After": f"{outcome.interval:.0f}"})
    if isinstance(outcome, DeviceProblem):
        raise OAuthError(outcome.value, _DEVICE_ERRORS[outcome])
    return await _begin(visit, outcome, via="code")


async def _begin(visit: Visit, consent: Consent, *, via: str) -> CliLogin:
    login = await visit.ctx.programs.logins.begin(consent, visit.now)
    if login is None:
        visit.audit("login.failed", step="code", detail="browser_session_ended")
        raise OAuthError("access_denied", "Whoever approved this has signed out; start again.")
    visit.audit("login.cli", **_who(login.session), via=via)
    return login


async def _refresh_grant(visit: Visit, form: Mapping[str, str]) -> CliLogin:
    (token,) = needed(form, "refresh_token")
    outcome = await visit.ctx.programs.logins.refresh(token, visit.now)
    if isinstance(outcome, Refused):
        if outcome.session is not None and outcome.reused:
            visit.audit("token.reuse", **_who(outcome.session))
        raise OAuthError("invalid_grant", _OVER)
    return outcome


_Grant = Callable[[Visit, Mapping[str, str]], Awaitable[CliLogin]]

_GRANTS: Final[Mapping[str, _Grant]] = {
    "authorization_code": _code_grant,
    "refresh_token": _refresh_grant,
    DEVICE_GRANT: _device_grant,
}


def _granted(visit: Visit, login: CliLogin) -> web.Response:
    return web.json_response(
        {
            "access_token": login.access.text.reveal(),
            "token_type": "Bearer",
            "expires_in": max(0, math.floor(login.access.expires - visit.now)),
            "refresh_token": login.refresh.reveal(),
            "session_expires": math.floor(login.session.expires),
            "user": login.session.subject.name,
            "login_url": visit.settings.login_url,
            "domains": visit.settings.token_domains,
        }
    )


async def _device(visit: Visit) -> web.Response:
    """POST /.heim/cli/device: begin to wait for somebody (RFC 8628, 3.1)."""
    form = await form_of(visit)
    label = device_label(form.get("device", ""))
    client = visit.facts.client
    start = await visit.ctx.programs.devices.start(
        label, client, visit.now, client_key=client_key(client), network=network_key(client)
    )
    if start is None:
        raise OAuthError(
            "temporarily_unavailable",
            "Too many devices are waiting to be signed in; try again in ten minutes.",
            503,
            {"Retry-After": "60"},
        )
    return web.json_response(
        {
            "device_code": start.device_code.reveal(),
            "user_code": start.user_code,
            "verification_uri": f"{visit.settings.login_url}{DEVICE_PATH}",
            "expires_in": int(LIFETIME_S),
            "interval": int(INTERVAL_S),
        }
    )


async def _revoke(visit: Visit) -> web.Response:
    """POST /.heim/cli/revoke: end a login by its refresh token.

    RFC 7009, 2.2: a token that is none, or is over already, is answered like one that was revoked.
    """
    (token,) = needed(await form_of(visit), "token")
    session = await visit.ctx.programs.logins.end(token, visit.now)
    if session is not None:
        visit.audit("token.revoked", **_who(session))
    return web.json_response({})


async def _backends(visit: Visit) -> web.Response:
    """GET /.heim/cli/backends: what the bearer of a token may reach."""
    token = _bearer_token(visit)
    found = await visit.ctx.programs.bearers.authenticate(token, visit.now)
    if isinstance(found, BearerProblem):
        raise _unauthorized(visit, found.detail, error="invalid_token")
    subject = found.session.subject
    backends = [
        {"name": one.name, "kind": one.kind, "host": one.host, "url": one.url}
        for one in visit.settings.reachable(subject)
    ]
    return web.json_response({"user": subject.name, "backends": backends})


def _bearer_token(visit: Visit) -> str:
    """The token of ``Authorization: Bearer`` (RFC 6750, 2.1); the only place it may come in."""
    values = visit.request.headers.getall("Authorization", [])
    scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token:
        raise _unauthorized(visit, "The request has no bearer token; log in.")
    return token.strip()


def _unauthorized(visit: Visit, detail: str, *, error: str = "") -> OAuthError:
    # RFC 6750, 3.1: no error code for a request that lacks any authentication.
    challenge = f'Bearer realm="{visit.settings.login_host}"'
    if error:
        challenge += f', error="{error}"'
    return OAuthError(error or "invalid_request", detail, 401, {"WWW-Authenticate": challenge})


def _who(session: Session) -> dict[str, str | None]:
    return {
        "sid": session.sid,
        "subject": session.subject.subject,
        "email": session.subject.email,
        "label": session.label,
    }
