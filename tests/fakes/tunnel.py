"""A small tunnel client: it speaks the wire through `heim_wire`, and lies where a test wants it to.

`TunnelClient.connect` sends an upgrade to a `Heim` and joins the session; everything that comes is
noted. `refused` is for requests that are to fail. Tokens come from `cli_login` and `service_token`,
which leave what a real login leaves.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heim_proxy.access.subject import Subject
from heim_proxy.identity.access_tokens import AccessTokens
from heim_proxy.identity.refresh_tokens import begin
from heim_proxy.identity.service_tokens import issue
from heim_proxy.identity.session import Session
from heim_wire.events import Data, Ended, Event, GoAway, Notice, Ready, Reset
from heim_wire.session import Session as WireSession
from heim_wire.websocket import Close, WebSocket
from tests.fakes.heim import DOMAIN, Answer, Heim, Wire, user
from tests.fakes.sessions import ManualClock
from tests.fakes.site import Site
from tests.fakes.wire_peer import WirePeer

__all__ = [
    "PATH",
    "Login",
    "TcpServer",
    "TunnelClient",
    "TunnelSite",
    "cli_login",
    "refused",
    "rst",
    "service_token",
    "tcp_backend",
    "tunnel_head",
    "tunnel_role",
    "tunnel_site",
]

PATH = "/.heim/tunnel/connect"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def tcp_backend(name: str, upstream: str, **more: Any) -> dict[str, Any]:
    """A backend that only takes connections. `more` may hold `tcp` keys: idle, max_duration."""
    tcp = {"upstream": upstream}
    tcp |= {key: more.pop(key) for key in ("idle", "max_duration") if key in more}
    return {"name": name, "tcp": tcp, **more}


def tunnel_role(
    name: str, *backends: str, members: list[dict[str, str]] | None = None
) -> dict[str, Any]:
    """A role that may connect; of alice's unless told otherwise."""
    return {
        "name": name,
        "members": members or [{"user": "alice@example.com"}],
        "bindings": [{"backend": backend} for backend in backends],
    }


def tunnel_head(
    token: str | None,
    *,
    host: str,
    backend: str | None = None,
    drop: tuple[str, ...] = (),
    extra: tuple[str, ...] = (),
    path: str = PATH,
    method: str = "GET",
) -> bytes:
    """A correct request for a stream, without the headers named in `drop`, with `extra` lines."""
    fields = {
        "Host": host,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Protocol": "heim.tunnel.v1",
    }
    if token is not None:
        fields["Authorization"] = f"Bearer {token}"
    if backend is not None:
        fields["Heim-Backend"] = backend
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields.items() if name not in drop]
    return "\r\n".join((*lines, *extra, "", "")).encode("latin-1")


@dataclass
class Login:
    """A CLI login: its session, and tokens as they are asked for."""

    heim: Heim
    session: Session

    def token(self, now: float | None = None) -> str:
        """An access token as issued at `now`."""
        proxy = self.heim.proxy
        access = AccessTokens(
            lambda: proxy._snapshot.signing_keys, lambda: proxy._snapshot.login_url
        )
        issued = access.issue(self.session, proxy._clock.now() if now is None else now)
        return issued.text.reveal()


async def cli_login(heim: Heim, who: Subject, *, auth_time: float | None = None) -> Login:
    """A command line that somebody signed in."""
    sessions = heim.proxy._sessions
    assert sessions is not None
    browser = await heim.session(who, auth_time=auth_time)
    now = heim.proxy._clock.now()
    row, _ = begin(now)
    session = await sessions.create_cli(browser, label="test", refresh=row, now=now)
    return Login(heim, session)


async def service_token(heim: Heim, account: str, *, expires: float = float("inf")) -> str:
    """A token of a service account, as `heim-proxy token create` makes it."""
    sessions = heim.proxy._sessions
    assert sessions is not None
    row, secret = issue(account, now=time.time(), expires=expires)
    await sessions._store.create_session(row)
    return secret.reveal()


async def refused(heim: Heim, request: bytes, *, sni: str) -> tuple[Answer, dict[str, Any]]:
    """The answer to a request that does not become a stream, and its problem document."""
    wire = await heim.connect(sni)
    wire.send(request)
    async with asyncio.timeout(5):
        found = await wire.answer()
    wire.close()
    assert found.get("content-type") == "application/problem+json", found.raw
    return found, json.loads(found.body)


@dataclass(eq=False)
class TunnelClient(WirePeer):
    """One stream through a proxy. What came is in the fields; `until` waits for it."""

    wire: Wire
    answer: Answer
    session: WireSession
    websocket: WebSocket
    stream: Any = None
    received: bytearray = field(default_factory=bytearray)
    readies: list[dict[str, Any]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    goaway: GoAway | None = None
    ended: bool = False
    reset: Reset | None = None
    # The server's last words, and whether the connection is gone.
    close: Close | None = None
    gone: bool = False
    # While set, nothing that comes is credited: the local side does not read.
    stalled: bool = False
    owed: int = 0
    # While set, the session says nothing by itself: what a test writes is all there is.
    mute: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        heim: Heim,
        token: str,
        *,
        host: str = f"web1.{DOMAIN}",
        backend: str | None = None,
        extra: tuple[str, ...] = (),
        early: bytes = b"",
        silent: bool = False,
    ) -> TunnelClient:
        """A running stream; fails when it is refused. `silent` sends no HELLO, and no answers."""
        wire = await heim.connect(host.partition(":")[0])
        wire.send(tunnel_head(token, host=host, backend=backend, extra=extra) + early)
        async with asyncio.timeout(5):
            answer = await wire.answer()
        assert answer.status == 101, answer.raw + answer.body
        client = cls(
            wire,
            answer,
            WireSession(initiator=True, now=time.monotonic()),
            WebSocket(client=True),
        )
        client.stream = client.session.adopt()
        client.mute = silent
        if not silent:
            client.flush()
        client._task = asyncio.get_running_loop().create_task(client._read())
        if not silent:
            await client.until(lambda: client.readies)
        return client

    # -- what it says -----------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self.stream.send(data)
        self.flush()

    def end(self) -> None:
        self.stream.end()
        self.flush()

    def cut(self, code: int, reason: str = "") -> None:
        self.stream.reset(code, reason)
        self.flush()

    def auth(self, token: str, kind: str = "bearer") -> None:
        self.session.auth({"kind": kind, "token": token})
        self.flush()

    def credit(self) -> None:
        """Read on, after having been `stalled`."""
        self.stalled = False
        self.stream.consumed(self.owed)
        self.owed = 0
        self.flush()

    # -- what it hears ----------------------------------------------------------------------

    async def read(self, size: int, within_s: float = 4.0) -> bytes:
        """The next `size` bytes."""
        await self.until(lambda: len(self.received) >= size or self.gone, within_s)
        data = bytes(self.received[:size])
        del self.received[:size]
        return data

    def _reply(self) -> None:
        if not self.mute:
            self.flush()

    def _note(self, event: Event) -> None:
        if isinstance(event, Data):
            self.received += event.payload
            if self.stalled:
                self.owed += len(event.payload)
            else:
                event.stream.consumed(len(event.payload))
        elif isinstance(event, Ready):
            self.readies.append(dict(event.message))
        elif isinstance(event, Notice):
            self.notices.append(event.text)
        elif isinstance(event, GoAway):
            self.goaway = event
        elif isinstance(event, Ended):
            self.ended = True
        elif isinstance(event, Reset):
            self.reset = event


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@dataclass
class TcpServer:
    """An upstream on 127.0.0.1; `script` has each connection, and echoes by default."""

    script: Script | None = None
    port: int = 0
    open: int = 0
    total: int = 0
    received: bytearray = field(default_factory=bytearray)
    # How the latest connection's input ended: "eof", "reset".
    ended: str = ""
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, *, path: str | None = None) -> TcpServer:
        """Listen on a free port, or on a unix socket."""
        if path is not None:
            self._server = await asyncio.start_unix_server(self._serve, path)
            return self
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open += 1
        self.total += 1
        try:
            await (self.script or self._echo)(reader, writer)
        except ConnectionError:
            self.ended = "reset"
        except asyncio.CancelledError:
            return
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            self.received += data
            writer.write(data)
            await writer.drain()
        self.ended = "eof"


def rst(writer: asyncio.StreamWriter) -> None:
    """Close a TCP connection with a reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass
class TunnelSite(Site):
    """A proxy with `web1` in front of `upstream`, which alice may use, and her login."""

    upstream: TcpServer
    login: Login
    clients: list[TunnelClient] = field(default_factory=list)

    async def connect(self, **keys: Any) -> TunnelClient:
        token = keys.pop("token", None) or self.login.token()
        client = await TunnelClient.connect(self.heim, token, **keys)
        self.clients.append(client)
        return client


@asynccontextmanager
async def tunnel_site(
    directory: Path, *, backend: dict[str, Any] | None = None, **more: Any
) -> AsyncIterator[TunnelSite]:
    """A running site. `backend` are further keys of web1's, `more` of the configuration."""
    upstream = await TcpServer().start()
    clock = ManualClock(time.time())
    backends = more.pop("backends", [])
    roles = more.pop("roles", [tunnel_role("ops", "web1")])
    heim = await Heim.start(
        directory,
        backends=[tcp_backend("web1", upstream.address, **(backend or {})), *backends],
        roles=roles,
        clock=clock,
        **more,
    )
    site = TunnelSite(heim, clock, upstream, await cli_login(heim, user("alice")))
    try:
        yield site
    finally:
        for client in site.clients:
            client.abort()
        await heim.stop()
        await upstream.stop()
