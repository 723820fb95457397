"""Signing out: a page that asks, a form that does it, and the provider's own sign-out after."""

from __future__ import annotations

import logging
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from heim_proxy.identity.cookies import SESSION_COOKIE, clear_cookie
from heim_proxy.identity.login_errors import LoginError
from heim_proxy.identity.session import Session
from heim_proxy.live import EndReason
from heim_proxy.portal.callback import id_token_of
from heim_proxy.portal.destination import Goal
from heim_proxy.portal.errors import PortalError, TryAgain
from heim_proxy.portal.forms import csrf_token, is_ours, read_form
from heim_proxy.portal.login import url_of
from heim_proxy.portal.pages import Pages
from heim_proxy.portal.returning import keep_page, kept_page, page_left
from heim_proxy.portal.visit import Visit, redirect
from heim_proxy.store.base import StoreUnavailable

__all__ = ["LogoutPages", "logout_here"]

log = logging.getLogger(__name__)

LOGOUT_PATH: Final = "/.heim/logout"
SIGNED_OUT_PATH: Final = "/.heim/signed-out"
_ACTION: Final = "logout"


class LogoutPages:
    """The handlers of the login host."""

    __slots__ = ("_pages",)

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def ask(self, visit: Visit) -> web.StreamResponse:
        """GET /.heim/logout?host&rd: nothing happens yet, so no <img> signs anybody out (K1).

        `host` and `rd` are the application's page that "Sign in again" will lead to.
        """
        page = page_left(visit)
        session = await visit.session()
        cookie = visit.session_cookie
        if session is None or cookie is None:
            return redirect(SIGNED_OUT_PATH, () if page is None else keep_page(visit, page))
        return self._pages.form(
            "logout",
            session=session,
            command_lines=await _command_lines(visit, session),
            csrf=csrf_token(cookie, _ACTION),
            action=_with_page(LOGOUT_PATH, page),
            stay="/" if page is None else url_of(visit, page),
            # Browsers hold redirects after a form to form-action, and this one may wander through
            # several hosts of the provider.
            form_may_leave=True,
        )

    async def do(self, visit: Visit) -> web.StreamResponse:
        """POST /.heim/logout?host&rd: end the session everywhere, then at the provider."""
        page = page_left(visit)
        cookies = (clear_cookie(SESSION_COOKIE), *keep_page(visit, page))
        cookie = visit.session_cookie
        session = await visit.session()
        if session is None or cookie is None:
            return redirect(SIGNED_OUT_PATH, cookies)
        await _check_intent(visit, cookie, page)
        # Before the session ends, because it is the session's row that holds the token.
        elsewhere = await self._provider_logout(visit, session)
        # Raises when the store cannot write it down: then it must not look like a sign-out.
        await visit.ctx.sessions.end(session.sid, EndReason.LOGOUT, visit.now)
        visit.audit(
            "logout", subject=session.subject.subject, email=session.subject.email, sid=session.sid
        )
        return redirect(elsewhere or SIGNED_OUT_PATH, cookies)

    async def done(self, visit: Visit) -> web.StreamResponse:
        """GET /.heim/signed-out: where the provider sends people back to."""
        page = kept_page(visit)
        # The application's page starts a sign-in by itself, and comes back to itself.
        return self._pages.page(
            "signed_out",
            host=None if page is None else page.host,
            again="/.heim/login" if page is None else url_of(visit, page),
        )

    async def _provider_logout(self, visit: Visit, session: Session) -> str | None:
        """Where to end the provider's session, too; None when it cannot be (K3)."""
        provider = visit.settings.provider(session.provider)
        if provider is None:
            return None
        try:
            id_token = id_token_of(await visit.ctx.sessions.tokens(session.sid))
            return await visit.ctx.login.end_session_url(
                provider,
                id_token=id_token,
                return_to=f"{visit.settings.login_url}{SIGNED_OUT_PATH}",
            )
        except (LoginError, StoreUnavailable) as error:
            # Signing out here must not depend on anybody else.
            log.info(
                "logout.provider_unreachable",
                extra={
                    "provider": provider.name,
                    "reason": error.detail if isinstance(error, LoginError) else str(error),
                },
            )
            return None


async def logout_here(visit: Visit) -> web.StreamResponse:
    """/.heim/logout?rd on a backend's host: the page lives on the login host (decision 10)."""
    return redirect(_with_page(f"{visit.settings.login_url}{LOGOUT_PATH}", page_left(visit)))


def _with_page(url: str, page: Goal | None) -> str:
    return url if page is None else f"{url}?{urlencode({'host': page.host, 'rd': page.path})}"


async def _command_lines(visit: Visit, session: Session) -> str:
    """How many command lines stay signed in, in words; empty when none, or nobody can say."""
    try:
        logins, more = await visit.ctx.programs.logins.of(session.subject, visit.now)
    except StoreUnavailable:
        # The page is about the browser; what else there is must not keep anybody from it.
        return ""
    if more:
        return f"More than {len(logins)} command lines are"
    if len(logins) == 1:
        return "One command line is"
    return f"{len(logins)} command lines are" if logins else ""


async def _check_intent(visit: Visit, cookie: str, page: Goal | None) -> None:
    """Refuse a form that was not sent from our page by this browser's owner (P2)."""
    form = await read_form(visit.request)
    if not is_ours(visit, form, session_cookie=cookie, action=_ACTION):
        visit.audit("logout.refused")
        raise PortalError(
            403,
            "This sign-out did not come from our page.",
            "Open the sign-out page and press the button there.",
            link=TryAgain(_with_page(LOGOUT_PATH, page), "Sign out"),
        )
