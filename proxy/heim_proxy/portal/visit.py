"""One request to the portal: where it came in, what it carries, and who is asking."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

from heim_proxy.identity.cookies import SESSION_COOKIE, parse
from heim_proxy.identity.session import Miss, Session
from heim_proxy.portal.context import PortalContext, PortalSettings
from heim_proxy.portal.errors import PortalError
from heim_proxy.portal.pages import wants_html

__all__ = ["Facts", "Visit", "redirect"]

MAX_QUERY_FIELDS: Final = 32

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the edge tells about a request; it strips these headers from clients (contract)."""

    host: str
    on_login_host: bool
    client: str
    request_id: str

    @classmethod
    def of(cls, request: web.BaseRequest) -> Facts | None:
        """Read the edge's headers; None when they are not complete, which is never the edge."""
        host = request.headers.get("X-Heim-Host")
        surface = request.headers.get("X-Heim-Surface")
        request_id = request.headers.get("X-Heim-Request", "")
        if not host or surface not in ("login", "backend") or not _REQUEST_ID.fullmatch(request_id):
            return None
        client = request.headers.get("X-Heim-Client", "unknown")
        return cls(host, surface == "login", client, request_id)

    @property
    def ids(self) -> dict[str, str]:
        """What a line of the log says of the request."""
        return {"request_id": self.request_id, "host": self.host}


class Visit:
    """A request with its context. Settings and time are taken once, so that they agree."""

    __slots__ = (
        "_session",
        "cookies",
        "ctx",
        "facts",
        "html",
        "now",
        "path",
        "request",
        "settings",
    )

    def __init__(self, request: web.BaseRequest, facts: Facts, ctx: PortalContext) -> None:
        self.request = request
        self.facts = facts
        self.ctx = ctx
        self.settings: PortalSettings = ctx.settings()
        self.now = ctx.clock.now()
        self.path = request.raw_path.partition("?")[0]
        # Several Cookie headers are as good as one (RFC 9113, 8.2.3).
        self.cookies = parse("; ".join(request.headers.getall("Cookie", [])))
        self.html = wants_html(request.headers.get("Accept", ""))
        self._session: Session | None = None

    @property
    def session_cookie(self) -> str | None:
        """Our cookie's value; None when it is absent or there twice: one was planted (G8)."""
        values = [value for name, value in self.cookies if name == SESSION_COOKIE]
        return values[0] if len(values) == 1 else None

    async def session(self) -> Session | None:
        """The live session that this browser has on this host.

        Raises:
            StoreUnavailable: Only the store could tell, and it does not answer.
        """
        if self._session is None:
            value = self.session_cookie
            if value is None:
                return None
            cookie = value.encode("ascii", "replace")
            found = self.ctx.sessions.find(self.facts.host, cookie, self.now)
            if found is Miss.LOAD:
                self._session = await self.ctx.sessions.load(self.facts.host, cookie, self.now)
            elif isinstance(found, Session):
                self._session = found
        return self._session

    def query(self) -> Mapping[str, str]:
        """The query's parameters.

        Raises:
            PortalError: 400 when one is given twice: two programs would each believe another one
                (A17, H7), or when it cannot be decoded.
        """
        text = self.request.raw_path.partition("?")[2]
        try:
            pairs = parse_qsl(
                text, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS
            )
        except ValueError as error:
            raise _bad_query() from error
        found = dict(pairs)
        if len(found) != len(pairs):
            raise _bad_query()
        return found

    def refuse_speculation(self) -> None:
        """Stop prefetches and subresource loads: nobody asked for what they would start (H19, H20).

        A prefetched login makes cookies nobody wanted, and a prefetched hand-off burns its ticket.

        Raises:
            PortalError: 401.
        """
        headers = self.request.headers
        purposes = (headers.get(name, "") for name in ("Sec-Purpose", "Purpose", "X-Moz"))
        speculative = any("prefetch" in value.lower() for value in purposes)
        mode = headers.get("Sec-Fetch-Mode", "navigate").strip().lower()
        if speculative or mode != "navigate":
            raise PortalError(
                401,
                "Signing in needs a page of its own.",
                "Open the address in a browser window.",
                login_url=f"{self.settings.login_url}/",
            )

    def audit(self, event: str, **fields: str | float | None) -> None:
        """Record a security decision with who asked and under which request id."""
        if event.startswith("login."):
            self.ctx.count_login(event.removeprefix("login."))
        self.ctx.audit.emit(
            event, request_id=self.facts.request_id, client=self.facts.client, **fields
        )


def redirect(url: str, set_cookies: Iterable[str] = ()) -> web.Response:
    """A 303 without a body: the next request is a GET whatever this one was."""
    response = web.Response(status=303, headers={"Location": url})
    for value in set_cookies:
        response.headers.add("Set-Cookie", value)
    return response


def _bad_query() -> PortalError:
    return PortalError(
        400,
        "The address of this page is damaged.",
        "Go back to where you started and try again.",
        step="reading the address",
    )
