"""The portal as an aiohttp application: which handler answers what, and what every answer carries.

It is reached through the edge only, over a socket pair (decision 19), so the `X-Heim-*` headers are
the edge's own words. Paths are compared byte for byte: there is no pattern, no normalisation and no
other way to a handler than the two tables below.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from heim_proxy.portal.agents import PATH as AGENTS_PATH
from heim_proxy.portal.agents import AgentPages
from heim_proxy.portal.arrival import arrive
from heim_proxy.portal.authorize import AuthorizePages
from heim_proxy.portal.callback import Callback
from heim_proxy.portal.context import PortalContext
from heim_proxy.portal.device import DevicePages
from heim_proxy.portal.devices import PATH as DEVICES_PATH
from heim_proxy.portal.devices import DevicesPages
from heim_proxy.portal.enrolling import EnrolmentEndpoints
from heim_proxy.portal.errors import PortalError
from heim_proxy.portal.limits import RateLimit, client_key
from heim_proxy.portal.login import LoginPages, login_here
from heim_proxy.portal.logout import LogoutPages, logout_here
from heim_proxy.portal.me import MePages, jwks, me_here
from heim_proxy.portal.pages import Pages, wants_html
from heim_proxy.portal.tokens import TokenEndpoints
from heim_proxy.portal.visit import Facts, Visit
from heim_proxy.store.base import StoreUnavailable
from heim_wire.agents import ENROL_PATH, ENROLLED_PATH, JOIN_PATH

__all__ = ["build", "runner"]

log = logging.getLogger(__name__)

Handler = Callable[[Visit], Awaitable[web.StreamResponse]]
Methods = Mapping[str, Handler]

LOGIN_PREFIX: Final = "/.heim/login/"
# Three documents of the provider at 5 s each and the store; the person has given up by then.
HANDLER_TIMEOUT_S: Final = 25.0

# Above what the edge lets through: 32 KiB of fields, 100 of them, and then its own.
MAX_HEAD_BYTES: Final = 64 * 1024
MAX_HEADERS: Final = 256

# On every answer. `no-referrer` keeps tickets and codes in URLs from being told to the next site.
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def build(ctx: PortalContext, *, rate_limit: RateLimit | None = None) -> web.Application:
    """The application; the caller runs it and owns everything in `ctx`.

    Args:
        ctx: What the handlers use.
        rate_limit: Of the endpoints that start or finish a login, per client.
    """
    portal = _Portal(ctx, RateLimit() if rate_limit is None else rate_limit)
    app = web.Application(client_max_size=64 * 1024)
    app.router.add_route("*", "/{path:.*}", portal.answer)
    app.on_response_prepare.append(_finish_headers)
    return app


def runner(app: web.Application) -> web.AppRunner:
    """What serves the application; the caller sets it up, connects it and cleans it up.

    The edge has judged sizes already and lets requests through that aiohttp's own limits would
    refuse, with an answer and a log line that quote the cookie.
    """
    return web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        shutdown_timeout=1.0,
        max_line_size=MAX_HEAD_BYTES,
        max_field_size=MAX_HEAD_BYTES,
        max_headers=MAX_HEADERS,
        # Nothing here takes a compressed body, and unpacking 400 KB stops the loop for 0.5 s.
        auto_decompress=False,
    )


class _Portal:
    """Dispatch, and the place where every failure becomes an answer."""

    def __init__(self, ctx: PortalContext, rate_limit: RateLimit) -> None:
        self._ctx = ctx
        self._rate_limit = rate_limit
        self._pages = pages = Pages()
        login = LoginPages(pages)
        logout = LogoutPages(pages)
        me = MePages(pages)
        authorize = AuthorizePages(pages)
        device = DevicePages(pages)
        devices = DevicesPages(pages)
        programs = TokenEndpoints()
        agents = AgentPages(pages)
        enrolment = EnrolmentEndpoints()
        self._login_with = {"GET": self._limited(login.login_with)}
        self._login_host: Mapping[str, Methods] = {
            "/": {"GET": me.home},
            "/.heim/login": {"GET": self._limited(login.login)},
            "/.heim/callback": {"GET": self._limited(Callback(login))},
            "/.heim/logout": {"GET": logout.ask, "POST": logout.do},
            "/.heim/signed-out": {"GET": logout.done},
            "/.heim/me": {"GET": me.me},
            DEVICES_PATH: {"GET": devices.show, "POST": devices.end},
            "/.heim/jwks.json": {"GET": jwks},
            "/.heim/device": {
                "GET": self._limited(device.ask),
                "POST": self._limited(device.answer),
            },
            "/.heim/cli/authorize": {
                "GET": self._limited(authorize.ask),
                "POST": self._limited(authorize.decide),
            },
            "/.heim/cli/token": {"POST": programs.token},
            "/.heim/cli/device": {"POST": programs.device},
            "/.heim/cli/revoke": {"POST": programs.revoke},
            "/.heim/cli/backends": {"GET": programs.backends},
            AGENTS_PATH: {
                "GET": self._limited(agents.ask),
                "POST": self._limited(agents.answer),
            },
            JOIN_PATH: {"POST": enrolment.join},
            ENROL_PATH: {"POST": enrolment.enrol},
            ENROLLED_PATH: {"POST": enrolment.enrolled},
        }
        self._backend_host: Mapping[str, Methods] = {
            "/.heim/login": {"GET": self._limited(login_here)},
            "/.heim/handoff": {"GET": self._limited(arrive)},
            "/.heim/logout": {"GET": logout_here, "POST": logout_here},
            "/.heim/me": {"GET": me_here},
        }

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; nothing is raised from here."""
        facts = Facts.of(request)
        if facts is None:
            # Not the edge, or a broken one: without its facts nothing here is safe.
            return web.Response(status=400, text="bad request\n")
        html = wants_html(request.headers.get("Accept", ""))
        try:
            visit = Visit(request, facts, self._ctx)
            async with asyncio.timeout(HANDLER_TIMEOUT_S):
                response = await self._handler(visit)(visit)
            self._renew(visit, response)
            return response
        except PortalError as error:
            failure = error
        except StoreUnavailable as error:
            log.warning("portal.store_unavailable", extra={"reason": str(error), **facts.ids})
            failure = _unavailable()
        except TimeoutError:
            log.warning("portal.timeout", extra=facts.ids)
            failure = _unavailable()
        except Exception:
            log.exception("portal.failed", extra=facts.ids)
            failure = PortalError(
                500, "Something went wrong here.", "Tell the operator the request id."
            )
        return self._pages.error(failure, request_id=facts.request_id, html=html)

    def _handler(self, visit: Visit) -> Handler:
        methods: Methods | None
        if not visit.facts.on_login_host:
            methods = self._backend_host.get(visit.path)
        elif visit.path.startswith(LOGIN_PREFIX):
            methods = self._login_with
        else:
            methods = self._login_host.get(visit.path)
        if methods is None:
            # The edge's words for the same thing on an application's host.
            raise PortalError(404, "Nothing is served here.", "Check the address.")
        method = visit.request.method
        handler = methods.get("GET" if method == "HEAD" else method)
        if handler is None:
            raise PortalError(
                405,
                "This page cannot be used that way.",
                "Open it in a browser.",
                headers={"Allow": ", ".join(methods)},
            )
        return handler

    def _limited(self, handler: Handler) -> Handler:
        async def within_limit(visit: Visit) -> web.StreamResponse:
            key = client_key(visit.facts.client)
            wait = self._rate_limit.wait(key, self._ctx.clock.monotonic())
            if wait > 0:
                raise PortalError(
                    429,
                    "Too many sign-ins from your address.",
                    "Wait a moment, then try again.",
                    headers={"Retry-After": str(int(wait) + 1)},
                )
            return await handler(visit)

        return within_limit

    def _renew(self, visit: Visit, response: web.StreamResponse) -> None:
        """Replace a session cookie that an older key sealed, unless the handler set one itself."""
        cookie = visit.session_cookie
        if cookie is None or "Set-Cookie" in response.headers:
            return
        renewed = self._ctx.sessions.renewal(visit.facts.host, cookie.encode("ascii", "replace"))
        if renewed is not None:
            response.headers.add("Set-Cookie", renewed)


async def _finish_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    # Which library and version answers is nobody's business (P5).
    response.headers.popall("Server", None)


def _unavailable() -> PortalError:
    return PortalError(
        503,
        "Signing in is unavailable right now.",
        "Try again in a minute. Whoever is signed in already is not affected.",
        headers={"Retry-After": "5"},
    )
