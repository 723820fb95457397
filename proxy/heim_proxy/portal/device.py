"""The page on which somebody types the code of a device without a browser (RFC 8628, 3.3).

The code is typed and never comes with a link, and the page that asks for consent shows what the
device calls itself and which address it asked from: whoever sends somebody here with a code of
their own has to get past both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from heim_proxy.identity.device_codes import user_code_of
from heim_proxy.identity.session import Session
from heim_proxy.portal.attempts import Attempts
from heim_proxy.portal.errors import PortalError
from heim_proxy.portal.forms import csrf_token, is_ours, read_form
from heim_proxy.portal.pages import Pages
from heim_proxy.portal.visit import Visit, redirect
from heim_proxy.store.base import DeviceRow

__all__ = ["DevicePages"]

PATH: Final = "/.heim/device"

_ACTION: Final = "device"
_SIGN_IN: Final = "/.heim/login?rd=%2F.heim%2Fdevice"
_NO_SUCH: Final = "There is no such code, or it was used or has expired. Look at it again."


class DevicePages:
    """The handlers of `PATH` on the login host."""

    __slots__ = ("_attempts", "_pages")

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._attempts = Attempts()

    async def ask(self, visit: Visit) -> web.StreamResponse:
        """GET: the form; sign in first when nobody is. A code in the address is not looked at."""
        visit.refuse_speculation()
        session, cookie = await visit.session(), visit.session_cookie
        if session is None or cookie is None:
            return redirect(_SIGN_IN)
        return self._form(session, cookie)

    async def answer(self, visit: Visit) -> web.StreamResponse:
        """POST: a code was typed, or a decision made about it."""
        form = await read_form(visit.request)
        session, cookie = await visit.session(), visit.session_cookie
        if session is None or cookie is None:
            return redirect(_SIGN_IN)
        if form is None or not is_ours(visit, form, session_cookie=cookie, action=_ACTION):
            raise PortalError(
                403,
                "This code did not come from our page.",
                "Open the page where codes are typed, and type it there.",
            )
        self._attempts.count(visit, session)
        code = user_code_of(form.get("code", ""))
        device = None if code is None else await visit.ctx.programs.devices.find(code, visit.now)
        if code is None or device is None:
            return self._form(session, cookie, problem=_NO_SUCH)
        if "decision" in form:
            return await self._decide(visit, session, form, code, device)
        return self._pages.form(
            "device_asked",
            session=session,
            device=device,
            code=code,
            action=PATH,
            csrf=csrf_token(cookie, _ACTION),
        )

    async def _decide(
        self,
        visit: Visit,
        session: Session,
        form: Mapping[str, str],
        code: str,
        device: DeviceRow,
    ) -> web.StreamResponse:
        approved = form["decision"] == "approve"
        decided = await visit.ctx.programs.devices.decide(
            code, sid=session.sid if approved else "", now=visit.now
        )
        if not decided:
            return self._form(session, visit.session_cookie or "", problem=_NO_SUCH)
        facts = {
            "subject": session.subject.subject,
            "email": session.subject.email,
            "label": device.label,
            "device_client": device.client,
            "via": "code",
        }
        if approved:
            visit.audit("device.approved", **facts)
        else:
            visit.audit("device.denied", **facts)
        return self._pages.page("device_decided", approved=approved)

    def _form(self, session: Session, cookie: str, *, problem: str = "") -> web.Response:
        return self._pages.form(
            "device",
            status=400 if problem else 200,
            session=session,
            problem=problem,
            action=PATH,
            csrf=csrf_token(cookie, _ACTION),
        )
