"""The page on which somebody lets the command line on their own machine act as them.

The authorization endpoint of RFC 8252: the program listens on loopback, the browser comes here with
the program's address and challenge, and goes back with a code. Nothing happens by looking at the
page, and there is no other place to be sent to than a literal loopback address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from heim_proxy.identity.authorization_codes import is_challenge, is_loopback_redirect
from heim_proxy.portal.errors import PortalError
from heim_proxy.portal.forms import csrf_token, is_ours, read_form
from heim_proxy.portal.pages import Pages
from heim_proxy.portal.visit import Visit, redirect

__all__ = ["AuthorizePages", "device_label"]

PATH: Final = "/.heim/cli/authorize"
MAX_LABEL_CHARACTERS: Final = 64

_ACTION: Final = "authorize"
_STATE: Final = re.compile(r"[A-Za-z0-9._~-]{16,256}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Request:
    """What a program asks for; every field has been checked."""

    redirect_uri: str
    state: str
    challenge: str
    label: str

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> _Request:
        """Read the parameters of an authorization request.

        Raises:
            PortalError: 400. Never a redirect that says so: whoever made a mistake in one
                parameter may have made it in the address.
        """
        redirect_uri, state = fields.get("redirect_uri", ""), fields.get("state", "")
        challenge = fields.get("code_challenge", "")
        if not is_loopback_redirect(redirect_uri):
            raise _not_a_request("redirect_uri is not http://127.0.0.1:PORT/callback.")
        if _STATE.fullmatch(state) is None:
            raise _not_a_request("state is missing, or not 16 to 256 letters, digits or -._~.")
        if fields.get("code_challenge_method") != "S256" or not is_challenge(challenge):
            raise _not_a_request("code_challenge is missing, or its method is not S256.")
        return cls(redirect_uri, state, challenge, device_label(fields.get("device", "")))

    def fields(self) -> dict[str, str]:
        """The parameters again, for a link or a form."""
        return {
            "redirect_uri": self.redirect_uri,
            "state": self.state,
            "code_challenge": self.challenge,
            "code_challenge_method": "S256",
            "device": self.label,
        }

    def answer(self, issuer: str, **parameters: str) -> web.Response:
        """Send the browser back to the program, which is told whose answer it is (RFC 9207)."""
        query = urlencode({**parameters, "state": self.state, "iss": issuer})
        return redirect(f"{self.redirect_uri}?{query}")


class AuthorizePages:
    """The handlers of `PATH` on the login host."""

    __slots__ = ("_pages",)

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    async def ask(self, visit: Visit) -> web.StreamResponse:
        """GET: show who would act for whom; sign in first when nobody is."""
        visit.refuse_speculation()
        asked = _Request.of(visit.query())
        session, cookie = await visit.session(), visit.session_cookie
        if session is None or cookie is None:
            return _sign_in_first(asked)
        return self._pages.form(
            "authorize",
            session=session,
            label=asked.label,
            action=PATH,
            csrf=csrf_token(cookie, _ACTION),
            fields=asked.fields().items(),
            # Browsers hold redirects after a form to form-action, which cannot name [::1].
            form_may_leave=True,
        )

    async def decide(self, visit: Visit) -> web.StreamResponse:
        """POST: a button was pressed; go back to the program with a code, or without."""
        form = await read_form(visit.request)
        asked = _Request.of(form or {})
        session, cookie = await visit.session(), visit.session_cookie
        if session is None or cookie is None:
            return _sign_in_first(asked)
        if not is_ours(visit, form, session_cookie=cookie, action=_ACTION):
            raise PortalError(
                403,
                "This approval did not come from our page.",
                "Run heim-tunnel login again, and press the button on the page that it opens.",
            )
        decision = (form or {}).get("decision")
        who = {"subject": session.subject.subject, "email": session.subject.email}
        if decision != "approve":
            visit.audit("device.denied", **who, label=asked.label, via="browser")
            return asked.answer(visit.settings.login_url, error="access_denied")
        visit.audit("device.approved", **who, label=asked.label, via="browser")
        code = visit.ctx.programs.codes.issue(
            session,
            redirect_uri=asked.redirect_uri,
            challenge=asked.challenge,
            label=asked.label,
            now=visit.now,
        )
        return asked.answer(visit.settings.login_url, code=code.reveal())


def device_label(text: str) -> str:
    """What a device calls itself, fit for pages, logs and terminals: printable and short.

    It is the device's own word, so it may be wrong, but it cannot hide or rearrange what stands
    around it.
    """
    shown = "".join(char for char in text if char.isprintable()).strip()
    return " ".join(shown[:MAX_LABEL_CHARACTERS].split()) or "unnamed device"


def _sign_in_first(asked: _Request) -> web.Response:
    page = f"{PATH}?{urlencode(asked.fields())}"
    return redirect(f"/.heim/login?{urlencode({'rd': page})}")


def _not_a_request(detail: str) -> PortalError:
    return PortalError(
        400,
        "This is not a sign-in that heim-tunnel started.",
        f"Run heim-tunnel login again. ({detail})",
        step="reading the address",
    )
