"""The page on which people see the command lines that are signed in as them, and end them.

A login of a command line outlives the browser session it was approved in. Whoever lost a machine,
or fears that somebody else had their browser, must not need an operator to end what was made there.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from heim_proxy.identity.session import Session
from heim_proxy.portal.errors import PortalError, TryAgain
from heim_proxy.portal.forms import csrf_token, is_ours, read_form
from heim_proxy.portal.pages import Pages
from heim_proxy.portal.visit import Visit, redirect

__all__ = ["PATH", "DevicesPages"]

PATH: Final = "/.heim/devices"

_ACTION: Final = "devices"
_SIGN_IN: Final = "/.heim/login?rd=%2F.heim%2Fdevices"


class DevicesPages:
    """The handlers of `PATH` on the login host."""

    __slots__ = ("_pages",)

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def show(self, visit: Visit) -> web.StreamResponse:
        """GET: the list; sign in first when nobody is."""
        visit.refuse_speculation()
        session, cookie = await visit.session(), visit.session_cookie
        if session is None or cookie is None:
            return redirect(_SIGN_IN)
        logins, more = await visit.ctx.programs.logins.of(session.subject, visit.now)
        return self._pages.form(
            "devices",
            session=session,
            logins=logins,
            more=more,
            action=PATH,
            csrf=csrf_token(cookie, _ACTION),
        )

    async def end(self, visit: Visit) -> web.StreamResponse:
        """POST: end the login `sid`, or all of them; then the list again.

        An id that is unknown, over, or somebody else's is answered like one that was ended.
        """
        form = await read_form(visit.request)
        session, cookie = await visit.session(), visit.session_cookie
        if session is None or cookie is None:
            return redirect(_SIGN_IN)
        if form is None or not is_ours(visit, form, session_cookie=cookie, action=_ACTION):
            visit.audit("logout.refused")
            raise PortalError(
                403,
                "This sign-out did not come from our page.",
                "Open the list of your command lines and press the button there.",
                link=TryAgain(PATH, "Your command lines"),
            )
        logins = visit.ctx.programs.logins
        if "all" in form:
            async for ended in logins.end_all(session.subject, visit.now):
                _record(visit, ended)
        elif sid := form.get("sid"):
            one = await logins.end_one(sid, session.subject, visit.now)
            if one is not None:
                _record(visit, one)
        return redirect(PATH)


def _record(visit: Visit, ended: Session) -> None:
    visit.audit(
        "token.revoked",
        sid=ended.sid,
        subject=ended.subject.subject,
        email=ended.subject.email,
        label=ended.label,
    )
