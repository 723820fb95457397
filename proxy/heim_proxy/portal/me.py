"""Who am I: the start page, what a session says about its owner, and our public keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aiohttp import web

from heim_proxy.access.applications import Application
from heim_proxy.identity.session import Session
from heim_proxy.portal.agents import PATH as AGENTS_PATH
from heim_proxy.portal.errors import PortalError, TryAgain
from heim_proxy.portal.pages import Pages
from heim_proxy.portal.visit import Visit

__all__ = ["MePages", "jwks", "me_here"]

MAX_GROUPS_SHOWN: Final = 50


class MePages:
    """The handlers of the login host."""

    __slots__ = ("_pages",)

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def home(self, visit: Visit) -> web.StreamResponse:
        """GET / on the login host."""
        session = await visit.session()
        approver = None if session is None else visit.settings.approver(session.subject)
        return self._pages.page(
            "home",
            session=session,
            applications=_applications(visit, session),
            agents=AGENTS_PATH if approver is not None else "",
        )

    async def me(self, visit: Visit) -> web.StreamResponse:
        """GET /.heim/me on the login host: a page, or JSON for programs."""
        if not visit.html:
            return await me_here(visit)
        session = await visit.session()
        if session is None:
            raise _nobody(visit)
        provider = visit.settings.provider(session.provider)
        return self._pages.page(
            "me",
            session=session,
            provider=provider.title if provider else session.provider,
            groups=sorted(session.subject.groups)[:MAX_GROUPS_SHOWN],
            applications=_applications(visit, session),
        )


async def me_here(visit: Visit) -> web.StreamResponse:
    """GET /.heim/me on any host, as JSON. No tokens, no session id: an upstream could read it."""
    session = await visit.session()
    if session is None:
        raise _nobody(visit)
    return web.json_response(_facts(session))


async def jwks(visit: Visit) -> web.StreamResponse:
    """GET /.heim/jwks.json on the login host: what upstreams verify assertions with."""
    return web.json_response(visit.ctx.keys().jwks())


def _applications(visit: Visit, session: Session | None) -> Sequence[Application]:
    return () if session is None else visit.settings.applications(session.subject)


def _facts(session: Session) -> dict[str, str | int | None]:
    return {
        "subject": session.subject.subject,
        "email": session.subject.email,
        "provider": session.provider,
        "auth_time": int(session.auth_time),
        "expires": int(session.expires),
    }


def _nobody(visit: Visit) -> PortalError:
    if visit.facts.on_login_host:
        title, todo = "You are not signed in.", "Sign in and open this page again."
    else:
        # They may well be, on the login host: the session has not been passed on.
        title, todo = (
            "You are not signed in to this application yet.",
            "Open one of its pages, then this one again.",
        )
    return PortalError(
        401,
        title,
        todo,
        link=TryAgain("/.heim/login", "Sign in"),
        login_url=f"{visit.settings.login_url}/",
    )
