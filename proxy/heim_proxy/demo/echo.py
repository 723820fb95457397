"""The demo's application: it shows who Heim says you are, proves it, and holds connections open.

It knows nothing about signing in. The same application stands behind the public backend, where it
shows that nobody is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp import WSMsgType, web

from heim_proxy.demo.pages import page
from heim_proxy.demo.proof import AssertionVerifier, UnprovenError

__all__ = ["EchoApp", "Who"]

MAX_MESSAGE_BYTES: Final = 64 * 1024
MAX_BODY_BYTES: Final = 1024 * 1024

MAX_SLOW_S: Final = 60
"""The longest `/slow` keeps a response open; more than any timeout a newcomer will try."""

SHOWN_CHARACTERS: Final = 60
"""How much of a header value the page shows; an assertion is some 600 and would fill the screen."""


@dataclass(frozen=True, slots=True)
class Who:
    """Who a request says it is from, and whether that is proven."""

    claimed: str | None = None
    verified: bool = False
    problem: str = ""
    claims: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The proven name."""
        return str(self.claims.get("email") or self.claims.get("sub") or "")

    @property
    def roles(self) -> list[str]:
        """The proven roles."""
        return _strings(self.claims.get("roles"))

    @property
    def groups(self) -> list[str]:
        """The proven groups."""
        return _strings(self.claims.get("groups"))


class EchoApp:
    """The application; `app()` is served by the caller on a loopback socket."""

    def __init__(self, verifier: AssertionVerifier, *, tick_s: float = 1.0) -> None:
        self._verifier = verifier
        self._tick_s = tick_s

    def app(self) -> web.Application:
        """The pages and streams as an aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.add_routes(
            [
                web.get("/", self._home),
                web.get("/admin", self._admin),
                web.get("/headers.json", self._headers),
                web.get("/live", self._live),
                web.get("/ws", self._websocket),
                web.get("/events", self._events),
                web.get("/slow", self._slow),
                web.post("/echo", self._echo),
            ]
        )
        return app

    async def _home(self, request: web.Request) -> web.Response:
        return await self._who_page(request, title="Who are you?", lead="")

    async def _admin(self, request: web.Request) -> web.Response:
        lead = "Only people with the role admin get this page; for all others, Heim answers."
        return await self._who_page(request, title="The control room", lead=lead)

    async def _headers(self, request: web.Request) -> web.Response:
        who = await self._who(request)
        return web.json_response(
            {
                "method": request.method,
                "path": request.raw_path,
                "headers": [[name, value] for name, value in request.headers.items()],
                "verified": who.verified,
                "problem": who.problem,
                "claims": dict(who.claims),
            },
            headers={"Cache-Control": "no-store"},
        )

    async def _live(self, _request: web.Request) -> web.Response:
        return page("live", {})

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES, heartbeat=20.0)
        if not socket.can_prepare(request):
            return web.Response(status=426, headers={"Upgrade": "websocket"}, text="see /live\n")
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    async def _events(self, request: web.Request) -> web.StreamResponse:
        return await self._drip(request, "text/event-stream", "data: tick {}\n\n", count=None)

    async def _slow(self, request: web.Request) -> web.StreamResponse:
        try:
            count = min(int(request.query.get("seconds", "5")), MAX_SLOW_S)
        except ValueError:
            return web.Response(status=400, text="seconds must be a whole number\n")
        return await self._drip(request, "text/plain", "line {}\n", count=count)

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=await request.read(), content_type="application/octet-stream")

    async def _drip(
        self, request: web.Request, content_type: str, line: str, *, count: int | None
    ) -> web.StreamResponse:
        """One numbered line per tick; without a count, until the client goes away."""
        headers = {"Content-Type": content_type, "Cache-Control": "no-store"}
        answer = web.StreamResponse(headers=headers)
        await answer.prepare(request)
        number = 0
        try:
            while count is None or number < count:
                number += 1
                await answer.write(line.format(number).encode())
                await asyncio.sleep(self._tick_s)
        except ConnectionResetError:
            # The reader left: the ordinary end of a stream of events.
            pass
        return answer

    async def _who_page(self, request: web.Request, *, title: str, lead: str) -> web.Response:
        who = await self._who(request)
        headers = [(name, _shortened(value)) for name, value in request.headers.items()]
        return page("who", {"title": title, "lead": lead, "who": who, "headers": headers})

    async def _who(self, request: web.Request) -> Who:
        claimed = request.headers.get("X-Auth-Id")
        token = request.headers.get("X-Auth-Token")
        if token is None:
            return Who(claimed=claimed, problem="there is no X-Auth-Token" if claimed else "")
        try:
            claims = await self._verifier.verify(token)
        except UnprovenError as error:
            return Who(claimed=claimed or "somebody", problem=str(error))
        return Who(claimed=claimed, verified=True, claims=claims)


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _shortened(value: str) -> str:
    if len(value) <= SHOWN_CHARACTERS:
        return value
    return f"{value[:SHOWN_CHARACTERS]}… ({len(value)} characters; whole in headers.json)"
