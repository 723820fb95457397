"""The edge over transports in memory: what is read and written is in the test's hands.

A `Wire` is one end of a connection: it keeps what the edge wrote, delivers bytes as a loop would
(never while reading is paused), and reports its end a turn later, as asyncio does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heim_proxy.edge.connection import Front
from heim_proxy.edge.dial import DialError, Errand
from heim_proxy.edge.listener import Peer
from heim_proxy.edge.pool import Pool
from heim_proxy.edge.server import Edge
from heim_proxy.identity.session import Session
from heim_proxy.live import EndReason, LiveExchange
from heim_proxy.observe.access_log import AccessLog
from heim_proxy.observe.audit import Audit
from heim_proxy.observe.metrics import Metrics
from heim_proxy.routing import Endpoint
from tests.fakes.sessions import ALICE, Stage
from tests.fakes.snapshots import app, configured, role, snapshot
from tests.unit.edge.heads import HOST, head_bytes

__all__ = [
    "Agents", "Client", "Dialled", "Door", "Guest", "Theatre", "Wire", "answer", "divided",
    "theatre", "turns",
]  # fmt: skip

_Protocol = asyncio.Protocol | asyncio.BufferedProtocol

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def turns(count: int = 8) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


class Wire(asyncio.Transport):
    """One connection of the edge's."""

    def __init__(self, protocol: _Protocol, *, eof: bool = False) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = b""
        self.reading = True
        self.aborted = False
        self.eof_written = False
        self.lost = False
        self._eof = eof
        self._closing = False
        self._waiting: list[bytes] = []
        protocol.connection_made(self)

    # -- asyncio.Transport ------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.eof_written
        if not self._closing:
            self.written += bytes(data)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._lose, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def can_write_eof(self) -> bool:
        return self._eof

    def write_eof(self) -> None:
        self.eof_written = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        asyncio.get_running_loop().call_soon(self._deliver)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    # -- the other side ---------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Bytes from the other side; they wait while reading is paused."""
        self._waiting.append(data)
        self._deliver()

    def hang_up(self, error: Exception | None = None) -> None:
        """The other side closes, or breaks with `error`."""
        self._closing = True
        self._lose(error)

    def taken(self) -> bytes:
        """What was written since the last look."""
        written, self.written = self.written, b""
        return written

    def _deliver(self) -> None:
        while self._waiting and self.reading and not self.lost:
            data = self._waiting.pop(0)
            if isinstance(self.protocol, asyncio.Protocol):
                self.protocol.data_received(data)
                continue
            room = memoryview(self.protocol.get_buffer(len(data)))
            size = min(len(room), len(data))
            room[:size] = data[:size]
            if size < len(data):
                self._waiting.insert(0, data[size:])
            self.protocol.buffer_updated(size)

    def _lose(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost(error)


@dataclass
class Dialled:
    """A dialer whose connections are in `made`; `refuse` fails, `hold` hangs until it is set."""

    name: str
    made: list[Wire] = field(default_factory=list)
    refuse: str = ""
    error: DialError | None = None
    hold: asyncio.Event | None = None
    asked: int = 0

    async def dial(self, factory: Callable[[], asyncio.BaseProtocol]) -> asyncio.BaseProtocol:
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        await asyncio.sleep(0)
        if self.error is not None or self.refuse:
            raise self.error or DialError(self.refuse)
        protocol = factory()
        assert isinstance(protocol, asyncio.Protocol | asyncio.BufferedProtocol)
        self.made.append(Wire(protocol))
        return protocol

    @property
    def last(self) -> Wire:
        return self.made[-1]


@dataclass
class Agents:
    """Where dialers for agents come from: every errand is noted, connections are `dialled`'s."""

    errands: list[Errand] = field(default_factory=list)
    dialled: Dialled = field(default_factory=lambda: Dialled("agent:desktop/web"))

    def dialer(self, endpoint: Endpoint, errand: Errand) -> Dialled:
        assert str(endpoint) == self.dialled.name
        self.errands.append(errand)
        return self.dialled


class Client:
    """A client connection and its end of it."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.wire = Wire(front, eof=not front.secure)

    async def send(self, data: bytes) -> bytes:
        """Send, and what the edge has written to the client a few turns later."""
        self.wire.feed(data)
        await turns()
        return self.wire.taken()

    def late(self, seconds: float) -> None:
        """Let the sweep find that `seconds` have passed."""
        now = self.front.edge.loop.time()
        self.front.check(now)
        self.front.check(now + seconds)

    @property
    def over(self) -> bool:
        return self.wire.lost


class Guest:
    """The occupant of a tunnel request: it notes what it is told, and does as the test wants."""

    def __init__(self, front: Front, host: str) -> None:
        self.front = front
        self.host = host
        self.told: list[object] = []
        self.request_done = True
        self.upgraded = False
        self.end_reason = ""

    def begin(self, rest: bytes) -> bytes:
        self.told.append(("begin", rest))
        return b""

    def client_data(self, data: bytes) -> bytes:
        self.told.append(data)
        return b""

    def hold_upstream(self) -> None:
        self.told.append("hold")

    def release_upstream(self) -> None:
        self.told.append("release")

    def client_gone(self) -> None:
        self.told.append("gone")

    def timed_out(self, kind: str) -> None:
        self.told.append(kind)


class Door:
    """A tunnel's door that lets everybody in and counts what it is asked."""

    def __init__(self) -> None:
        self.guests: list[Guest] = []
        self.ticks: list[float] = []
        self.drained: list[float] = []
        self.verdicts: dict[LiveExchange, EndReason | None] = {}

    def enter(self, front: Front, host: str) -> Guest:
        self.guests.append(Guest(front, host))
        return self.guests[-1]

    def review(self, exchange: LiveExchange) -> EndReason | None:
        return self.verdicts.get(exchange)

    def tick(self, now: float) -> None:
        self.ticks.append(now)

    def drain(self, patience_s: float) -> None:
        self.drained.append(patience_s)


@dataclass
class Theatre:
    """An edge over one backend, `app`, with alice signed in to it."""

    edge: Edge
    stage: Stage
    upstreams: list[Dialled]
    portal: Dialled
    agents: Agents
    door: Door
    alice: Session
    log: AccessLog
    log_file: Path

    @property
    def upstream(self) -> Dialled:
        return self.upstreams[0]

    def client(self, *, secure: bool = True, ip: str = "203.0.113.9") -> Client:
        return Client(Front(self.edge, Peer(ip, 50000, ip), secure=secure))

    def request(self, target: str = "/", *, who: bool = True, **keys: Any) -> bytes:
        """A request head of alice's."""
        headers = keys.pop("headers", ())
        if who:
            cookie = self.stage.cookie(self.alice, HOST).decode()
            headers = (*headers, f"Cookie: __Host-heim={cookie}")
        return head_bytes(target, headers=headers, **keys)

    async def asked(self, client: Client, data: bytes | None = None) -> Wire:
        """Send a request that is forwarded; the upstream connection that it is on."""
        client.wire.taken()
        assert await client.send(self.request() if data is None else data) == b""
        return self.agents.dialled.last if self.agents.errands else self.upstream.last

    def lines(self) -> list[str]:
        """The access log so far."""
        self.log.flush()
        return self.log_file.read_text().splitlines()


@asynccontextmanager
async def theatre(
    directory: Path, *, upstreams: int = 1, through: bool = False, **keys: Any
) -> AsyncIterator[Theatre]:
    """`through`: the backend is target `web` of agent `desktop`."""
    urls = [f"http://127.0.0.1:{3000 + index}" for index in range(upstreams)]
    top = {name: keys.pop(name) for name in ("trusted_proxies", "roles") if name in keys}
    http: dict[str, Any] = {"path": "/", "upstreams": urls}
    if through:
        http = {"path": "/", "agent": "desktop", "target": "web"}
        top["agents"] = [{"name": "desktop", "targets": ["web", "wiki"]}]
    backend = app(http=[http], **keys)
    roles = top.pop("roles", [] if keys.get("public") else [role("everything", "app/all")])
    built = snapshot(configured([backend], roles, **top))
    stage = await Stage.up(idle=36000.0)
    log_file = directory / "access.log"
    log = AccessLog(log_file)
    portal = Dialled("portal")
    door = Door()
    agents = Agents()
    edge = Edge(
        built,
        sessions=stage.sessions,
        live=stage.live,
        portal=portal,
        door=door,
        agents=agents,
        access_log=log,
        audit=Audit(),
        metrics=Metrics(version="test"),
        clock=stage.clock,
    )
    dialled = []
    for endpoint in () if through else built.endpoints:
        dialled.append(Dialled(str(endpoint)))
        edge._pools[endpoint] = Pool(str(endpoint), dialled[-1])
    try:
        alice = await stage.sign_in(ALICE)
        yield Theatre(edge, stage, dialled, portal, agents, door, alice, log, log_file)
    finally:
        for front in list(edge._fronts):
            front.abort()
        await turns()
        log.close()


def answer(body: bytes = b"ok", *lines: str, status: str = "200 OK") -> bytes:
    """An upstream's answer with a length."""
    head = "\r\n".join((f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}", "", ""))
    return head.encode("latin-1") + body


def divided(data: bytes) -> tuple[str, list[str], bytes]:
    """Status line, header lines, and the rest."""
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    return line, fields, body
