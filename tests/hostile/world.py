"""One proxy with one backend of every kind, for a whole module of attacks.

A test sees three things: what the attacker is answered, what the upstreams were sent (`sent`), and,
after the test, that the proxy still serves and that no exception reached the event loop.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import os
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from heim_proxy.access.subject import Subject
from heim_proxy.edge.limits import LINGER_S
from tests.fakes.heim import DOMAIN, LOGIN_HOST, Answer, Heim, Wire, user
from tests.fakes.upstream import Received, Upstream

__all__ = [
    "ALICE",
    "BOB",
    "DENIED",
    "LOGIN_HOST",
    "MALLORY",
    "SPOOF",
    "SWITCHING",
    "WEIRD",
    "World",
    "host",
    "websocket_head",
    "within",
]

ALICE: Final = user("alice", groups=("sre", "unnamed-group"))
BOB: Final = user("bob")
MALLORY: Final = user("mallory")
# What a provider without scruples may say somebody is.
WEIRD: Final = dataclasses.replace(
    user("weird", groups=("with,comma", "sre")), email="eve\r\nX-Admin: 1@ex\u00e4mple.com"
)

# The value of every forged header: it must never be seen behind the proxy.
SPOOF: Final = "spoofed-admin"

# What an attacker may be told instead of an upstream's answer.
DENIED: Final = frozenset((303, 400, 401, 403, 404, 405, 408, 414, 417, 421, 426, 431))

ALL: Final = {"name": "all", "locations": [{"any": "/"}]}


def host(backend: str) -> str:
    return f"{backend}.{DOMAIN}"


def websocket_head(
    target: str = "/",
    *,
    at: str = "app",
    cookie: str | None = None,
    origin: str | None = "same",
    extra: str = "",
) -> bytes:
    """A correct WebSocket handshake; `origin` "same" is the backend's own, None sends none."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host(at)}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    ]
    if origin is not None:
        lines.append(f"Origin: https://{host(at)}" if origin == "same" else f"Origin: {origin}")
    if cookie is not None:
        lines.append(f"Cookie: {cookie}")
    return ("\r\n".join(lines) + "\r\n" + extra + "\r\n").encode("latin-1")


SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
)


@dataclass(repr=False)
class World:
    heim: Heim
    upstream: Upstream
    errors: list[dict[str, Any]] = field(default_factory=list)
    cookies: dict[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    async def start(
        cls, directory: Path, *, extra: tuple[dict[str, Any], ...] = (), **more: Any
    ) -> World:
        """Start both. `extra` are further backends, which alice may use; `more` as `Heim.start`."""
        upstream = await Upstream().start()
        heim = await Heim.start(
            directory,
            backends=[*backends(upstream.url), *extra],
            roles=roles(*(str(backend["name"]) for backend in extra)),
            hosts=(f"*.{DOMAIN}", DOMAIN, f"*.wild.{DOMAIN}"),
            **more,
        )
        world = cls(heim, upstream)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: world.errors.append(context))
        return world

    async def stop(self) -> None:
        await self.heim.stop()
        await self.upstream.stop()

    async def cookie(self, who: Subject, at: str = "app") -> str:
        """The Cookie header of a session that lasts for the whole module."""
        key = (who.subject, at)
        if key not in self.cookies:
            self.cookies[key] = await self.heim.signed_in(who, host(at))
        return self.cookies[key]

    @property
    def sent(self) -> list[Received]:
        """What the upstream was sent since the test began."""
        return self.upstream.requests

    async def change(self, **keys: Any) -> None:
        """See `Heim.change_now`."""
        await self.heim.change_now(**keys)

    def only(self) -> Received:
        """The one request that the upstream was sent."""
        assert len(self.sent) == 1, [one.line for one in self.sent]
        return self.sent[0]

    def untouched(self) -> None:
        assert not self.sent, [one.head for one in self.sent]

    def forget(self) -> None:
        """Count what the upstream is sent from here on."""
        self.upstream.requests.clear()

    def reset(self) -> None:
        self.upstream.requests.clear()
        self.upstream.script = None
        self.errors.clear()
        for wire in self.heim._wires:
            reset(wire)
        self.heim._wires.clear()
        edge = self.heim.proxy._edge
        for pool in edge._pools.values() if edge is not None else ():
            while pool._idle:
                pool._idle.pop().close()

    async def fresh(self) -> None:
        """Nothing is left of the test before: no connection, no exchange, no script."""
        self.reset()
        for _ in range(2000):
            if not self.upstream.open and not self.live:
                return
            await asyncio.sleep(0.001)
        left = [one.backend.name for one in self.heim.proxy._live._exchanges]
        raise AssertionError(f"left: exchanges {left}, {self.upstream.open} upstream connections")

    async def get(self, target: str = "/", *, at: str = "app", **more: Any) -> Answer:
        return await self.heim.request(target, host=host(at), **more)

    async def as_alice(self, target: str = "/", *, at: str = "app", **more: Any) -> Answer:
        return await self.get(target, at=at, cookie=await self.cookie(ALICE, at), **more)

    async def wire(self, at: str = "app", *, plain: bool = False) -> Wire:
        return await self.heim.connect(host(at), plain=plain)

    async def websocket(self, at: str = "app", *, cookie: str | None = None) -> Wire:
        """An open WebSocket through the proxy; what the upstream does is the test's script."""
        wire = await self.wire(at)
        wire.send(websocket_head(at=at, cookie=cookie))
        assert (await within(wire.answer())).status == 101
        return wire

    def sweep(self, after_s: float) -> None:
        """Check every deadline as if `after_s` seconds had passed, most of them in silence."""
        edge = self.heim.proxy._edge
        assert edge is not None
        now = asyncio.get_running_loop().time()
        for front in list(edge._fronts):
            # The first sweep after an event starts the clock, the next one reads it.
            front.check(now)
            front.check(now + after_s)

    async def shut(self, wire: Wire) -> bytes:
        """What still came before the proxy closed; the second it lingers for is skipped."""
        async with asyncio.timeout(3):
            reading = asyncio.ensure_future(wire.closed())
            while not reading.done():
                self.sweep(LINGER_S + 0.5)
                await asyncio.sleep(0.01)
            return await reading

    @property
    def live(self) -> int:
        return len(self.heim.proxy._live)

    async def alive(self) -> None:
        """The proxy still serves, and nothing escaped into the event loop."""
        self.upstream.script = None
        answer = await within(self.get("/still-there", at="open", plain=True))
        assert answer.status == 200
        assert not self.errors, self.errors


def reset(wire: Wire) -> None:
    """Close with a reset: on plain http a mere end of input lets an answer under way go out."""
    sock = wire.writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.close()


async def within(awaitable: Any, seconds: float = 5.0) -> Any:
    async with asyncio.timeout(seconds):
        return await awaitable


def roles(*extra: str) -> list[dict[str, Any]]:
    """Alice may do everything; bob may read /public and use `plain`; mallory may do nothing."""
    return [
        {
            "name": "staff",
            "members": [
                {"user": "alice@example.com"},
                {"issuer": WEIRD.issuer, "subject": WEIRD.subject},
            ],
            "bindings": [
                {"backend": name, "permission": "all"}
                for name in ("app", "two", "raw", "strip", "cors", "plain", "wild", "deep", *extra)
            ],
        },
        # Named, so that assertions and headers may tell of them.
        {"name": "ops", "members": [{"group": "sre"}, {"group": "with,comma"}], "bindings": []},
        {
            "name": "reader",
            "members": [{"user": "bob@example.com"}],
            "bindings": [
                {"backend": "app", "permission": "public"},
                {"backend": "raw", "permission": "public"},
                {"backend": "strip", "permission": "public"},
                {"backend": "plain", "permission": "all"},
            ],
        },
    ]


def backends(url: str) -> list[dict[str, Any]]:
    public = {"name": "public", "locations": [{"get": "/public"}, {"options": "/public"}]}
    route = [{"path": "/", "upstream": url}]
    return [
        {
            "name": "app",
            "http": route,
            "permissions": [ALL, public],
            "identity_headers": ["heimdallr", "forwarded"],
        },
        {"name": "two", "http": route, "permissions": [ALL]},
        {"name": "open", "http": route, "public": True, "allow_http": True},
        {"name": "plain", "http": route, "permissions": [ALL], "identity_headers": ["forwarded"]},
        {"name": "raw", "http": route, "permissions": [ALL, public], "forward_path": "raw"},
        {
            "name": "strip",
            "http": [{"path": "/api", "upstream": url, "strip_prefix": True}],
            "permissions": [
                ALL,
                {"name": "public", "locations": [{"get": "/api/public"}]},
            ],
        },
        {
            "name": "cors",
            "http": route,
            "permissions": [ALL],
            "cors": {
                "allow_origins": ["https://listed.test"],
                "allow_methods": ["GET", "PUT"],
                "allow_headers": ["X-Custom"],
                "allow_credentials": True,
            },
        },
        {"name": "wild", "host": f"*.wild.{DOMAIN}", "http": route, "permissions": [ALL]},
        {"name": "deep", "host": f"exact.wild.{DOMAIN}", "http": route, "permissions": [ALL]},
    ]
