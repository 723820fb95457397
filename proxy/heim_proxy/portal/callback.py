"""The provider sends the browser back: is it this browser's login, and who is it?

The order is the security: nothing of the response is used before its `state` was found in a sealed
cookie of this browser, nothing is exchanged before the issuer matched and the flow was burned, and
a session exists only after the token was verified, the rules admitted its holder and the e-mail
address was found pinned to this very account.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from heim_proxy.access.subject import Subject
from heim_proxy.identity.admission import MAX_EMAIL_CHARS, Refusal, RefusalReason, admit
from heim_proxy.identity.cookies import LOGIN_PREFIX, clear_cookie
from heim_proxy.identity.flow import COOKIE_LIFETIME_S, LoginFlow, flow_id_of, open_flow
from heim_proxy.identity.login_errors import LoginError
from heim_proxy.identity.oidc import Login
from heim_proxy.identity.providers import Provider
from heim_proxy.identity.session import Session
from heim_proxy.live import EndReason
from heim_proxy.portal.destination import Goal
from heim_proxy.portal.errors import PortalError, TryAgain
from heim_proxy.portal.login import LoginPages, fresh_enough, login_failed, parameters, url_of
from heim_proxy.portal.visit import Visit
from heim_proxy.store.base import PinResult

__all__ = ["Callback", "id_token_of"]

log = logging.getLogger(__name__)

# What the store keeps of a login; a token that makes it longer is a hint we can do without.
MAX_TOKENS_BYTES: Final = 48 * 1024

# RFC 6749, 4.1.2.1 and Core 1.0, 3.1.2.6: what a person can do something about.
_ERRORS: Final[Mapping[str, str]] = {
    "access_denied": "The sign-in was cancelled or refused there.",
    "temporarily_unavailable": "It is overloaded or under maintenance; try again in a minute.",
    "server_error": "It had an error; try again in a minute.",
}


class Callback:
    """GET /.heim/callback on the login host."""

    __slots__ = ("_login",)

    def __init__(self, login: LoginPages) -> None:
        self._login = login

    async def __call__(self, visit: Visit) -> web.StreamResponse:
        """Finish the flow that this browser started."""
        visit.refuse_speculation()
        query = visit.query()
        flow = _flow(visit, query.get("state", ""))
        if flow is None or flow.expired(visit.now):
            return await self._without_flow(visit, flow, given=bool(query.get("state")))
        goal = Goal(flow.host, flow.path, flow.binding)
        provider = visit.settings.provider(flow.provider)
        clear = (clear_cookie(flow.cookie_name),)
        if provider is None:
            raise _start_over(visit, goal, "The provider you chose is no longer configured.", clear)
        try:
            await visit.ctx.login.check_issuer(provider, query.get("iss"))
            if "error" in query:
                raise _provider_said_no(visit, provider, query["error"], goal, clear)
            code = query.get("code")
            if not code:
                raise _start_over(visit, goal, "The provider sent no code.", clear)
            if not await visit.ctx.store.burn(
                f"login:{flow.id}", expires=flow.started + COOKIE_LIFETIME_S
            ):
                return await self._again(visit, goal, clear)
            login = await visit.ctx.login.finish(provider, flow, code, now=visit.now)
        except LoginError as error:
            raise login_failed(visit, provider, error, goal, clear) from error
        session, cookies = await self._session(visit, provider, login, flow)
        if not fresh_enough(visit, session, goal):
            raise _start_over(
                visit, goal, f"{provider.title} did not ask you to sign in again.", cookies
            )
        return await self._login.send_on(visit, session, goal, (*clear, *cookies))

    async def _session(
        self, visit: Visit, provider: Provider, login: Login, flow: LoginFlow
    ) -> tuple[Session, tuple[str, ...]]:
        """The session of a completed login, and the cookies that carry it."""
        claims = login.claims
        who = admit(provider, claims.issuer, claims.subject, claims.all)
        if isinstance(who, Subject):
            who = await _pinned(visit, who)
        if isinstance(who, Refusal):
            raise _refused(visit, provider, login, who, flow)
        auth_time = visit.now if claims.auth_time is None else claims.auth_time
        before = await visit.session()
        if before is not None and _same_login(before, who, flow, auth_time):
            # Another tab of this browser finished first: ending its session would sign it out.
            return before, ()
        session = await visit.ctx.sessions.create(
            who, auth_time=auth_time, tokens=_pack(login), now=visit.now
        )
        if before is not None:
            await visit.ctx.sessions.end(before.sid, EndReason.LOGOUT, visit.now)
        visit.audit(
            "login.succeeded",
            subject=who.subject,
            issuer=who.issuer,
            email=who.email,
            provider=provider.name,
            host=flow.host,
        )
        visit.audit("session.created", sid=session.sid, subject=who.subject, email=who.email)
        cookie = visit.ctx.sessions.cookie_for(session, visit.settings.login_host, visit.now)
        return session, (cookie,)

    async def _without_flow(
        self, visit: Visit, flow: LoginFlow | None, *, given: bool
    ) -> web.StreamResponse:
        """A response to no flow of this browser: stale tabs are helped, everything else refused."""
        goal = Goal() if flow is None else Goal(flow.host, flow.path, flow.binding)
        session = await visit.session() if given else None
        if session is not None and fresh_enough(visit, session, goal):
            # A tab left open overnight, or the back button: they are signed in, so go on (#1888).
            clear = () if flow is None else (clear_cookie(flow.cookie_name),)
            return await self._login.send_on(visit, session, goal, clear)
        visit.audit("login.failed", step="state")
        raise PortalError(
            400,
            "This sign-in was not started in this browser, or it took too long.",
            "Start again. If it happens twice, allow cookies for this site.",
            step="matching the response to a sign-in",
            link=TryAgain(url_of(visit, goal)),
        )

    async def _again(self, visit: Visit, goal: Goal, clear: tuple[str, ...]) -> web.StreamResponse:
        """The same response a second time (reload, double click): never a second session (H2)."""
        session = await visit.session()
        if session is not None and fresh_enough(visit, session, goal):
            return await self._login.send_on(visit, session, goal, clear)
        raise _start_over(visit, goal, "This sign-in was used already.", clear)


def id_token_of(stored: bytes) -> str | None:
    """The ID token among a session's stored tokens."""
    try:
        found = json.loads(stored) if stored else {}
    except ValueError:
        return None
    token = found.get("id_token")
    return token if isinstance(token, str) else None


def _flow(visit: Visit, state: str) -> LoginFlow | None:
    flow_id = flow_id_of(state)
    if flow_id is None:
        return None
    name = f"{LOGIN_PREFIX}{flow_id}"
    values = [value for cookie, value in visit.cookies if cookie == name]
    if len(values) != 1:
        return None
    flow = open_flow(name, values[0], visit.ctx.sealer, visit.settings.login_host)
    return flow if flow is not None and flow.matches(state) else None


def _same_login(before: Session, who: Subject, flow: LoginFlow, auth_time: float) -> bool:
    return (
        before.subject.issuer == who.issuer
        and before.subject.subject == who.subject
        and before.subject == who
        and before.created >= flow.started
        and before.auth_time >= auth_time - 1.0
    )


async def _pinned(visit: Visit, who: Subject) -> Subject | Refusal:
    if who.email is None:
        return who
    result = await visit.ctx.store.pin(
        who.email, issuer=who.issuer, subject=who.subject, now=visit.now
    )
    if result is not PinResult.CONFLICT:
        return who
    return Refusal(
        RefusalReason.PINNED,
        f"{who.email} belongs to another account here. If the address was given to you, "
        "ask the operator to unpin it.",
    )


def _refused(
    visit: Visit, provider: Provider, login: Login, refusal: Refusal, flow: LoginFlow
) -> PortalError:
    email = login.claims.all.get("email")
    visit.audit(
        "login.refused",
        reason=refusal.reason.value,
        provider=provider.name,
        issuer=login.claims.issuer,
        subject=login.claims.subject,
        email=email[:254] if isinstance(email, str) else None,
    )
    # With another account they still want to go where they wanted to go with this one.
    query = urlencode({"again": "1", **parameters(Goal(flow.host, flow.path, flow.binding))})
    return PortalError(
        403,
        "You signed in, but this account is not let in.",
        refusal.detail,
        account=_account(login.claims.all),
        link=TryAgain(f"/.heim/login/{provider.name}?{query}", "Use another account"),
        set_cookies=(clear_cookie(flow.cookie_name),),
    )


def _account(claims: Mapping[str, object]) -> str:
    """What the person calls the account they chose; what could rearrange a page is left out."""
    names = (claims.get(name) for name in ("email", "upn", "preferred_username"))
    told = next((name for name in names if isinstance(name, str) and name), "")
    return told[:MAX_EMAIL_CHARS] if told.isprintable() else ""


def _provider_said_no(
    visit: Visit, provider: Provider, error: str, goal: Goal, clear: tuple[str, ...]
) -> PortalError:
    # Neither the code nor the description is shown: whoever makes the link writes them (H8, P1).
    known = error if error in _ERRORS else "other"
    visit.audit("login.failed", provider=provider.name, step="authorization", detail=known)
    todo = _ERRORS.get(error, "Start again; if it happens twice, tell the operator the request id.")
    return PortalError(
        400,
        f"{provider.title} did not sign you in.",
        todo,
        step="signing in at the provider",
        link=TryAgain(url_of(visit, goal)),
        set_cookies=clear,
    )


def _start_over(visit: Visit, goal: Goal, title: str, set_cookies: tuple[str, ...]) -> PortalError:
    visit.audit("login.failed", step="authorization response", detail=title)
    return PortalError(
        400,
        title,
        "Start again.",
        step="finishing the sign-in",
        link=TryAgain(url_of(visit, goal)),
        set_cookies=set_cookies,
    )


def _pack(login: Login) -> bytes:
    found = {"id_token": login.id_token, "refresh_token": login.refresh_token}
    packed = json.dumps(found, separators=(",", ":")).encode()
    if len(packed) > MAX_TOKENS_BYTES:
        packed = json.dumps({"refresh_token": login.refresh_token}).encode()
    return packed if len(packed) <= MAX_TOKENS_BYTES else b""
