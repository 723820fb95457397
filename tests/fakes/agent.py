"""A scripted agent: it opens a lane through `heim_wire`, proves its key, and lies where told to.

`Machine` is what a joined agent has: a key, a certificate, a name. `enrolled` makes one of a `Heim`
without the way through join; `ScriptedAgent.connect` opens a lane for it. What comes is noted;
`until` waits for it. Streams go to `targets`, by name: `echo` (the default), `refusing`, `silent`
and `bridging` are scripts.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from heim_proxy.agents.authority import Authority
from heim_proxy.agents.lane import Lane
from heim_proxy.agents.wiring import Agents
from heim_proxy.store.base import SessionKind, SessionRow, Store
from heim_wire.agents import AGENT_PATH, PROOF_KIND, RENEW_KIND, proof_bytes
from heim_wire.events import (
    Closed,
    Data,
    Ended,
    Event,
    GoAway,
    Hello,
    Notice,
    Opened,
    Ready,
    Reset,
)
from heim_wire.handshake import SUBPROTOCOL
from heim_wire.session import Session
from heim_wire.settings import Settings
from heim_wire.stream import Stream
from heim_wire.websocket import Close, WebSocket
from tests.fakes.heim import LOGIN_HOST, Answer, Heim, Wire, trusting_context
from tests.fakes.sessions import ManualClock
from tests.fakes.site import Site
from tests.fakes.wire_peer import WirePeer

__all__ = [
    "AgentSite",
    "Machine",
    "ScriptedAgent",
    "Served",
    "agent_head",
    "agent_site",
    "b64url",
    "bridging",
    "certificate_request",
    "echo",
    "enrol",
    "enrolled",
    "refusing",
    "silent",
    "spki_digest",
    "thumbprint",
]

WS_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def thumbprint(key: ec.EllipticCurvePublicKey) -> bytes:
    """RFC 7638."""
    point = key.public_numbers()
    members = {
        "crv": "P-256",
        "kty": "EC",
        "x": b64url(point.x.to_bytes(32)),
        "y": b64url(point.y.to_bytes(32)),
    }
    return hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest()


def certificate_request(key: ec.EllipticCurvePrivateKey, name: str = "anything") -> bytes:
    """PKCS #10 in DER."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def spki_digest(certificate: bytes) -> bytes:
    """SHA-256 of the public key of a certificate in DER, as an agent takes it from its TLS."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    return hashlib.sha256(
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).digest()


@dataclass
class Machine:
    """What a machine that joined has. `boot` is of the program's present run."""

    name: str
    certificate: bytes
    key: ec.EllipticCurvePrivateKey
    row: SessionRow | None = None
    device: str = "box"
    boot: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def thumbprint(self) -> str:
        return b64url(thumbprint(self.key.public_key()))

    def rebooted(self) -> Machine:
        """The same machine, another run of the program."""
        return Machine(self.name, self.certificate, self.key, self.row, self.device)


async def enrol(
    store: Store,
    authority: Authority,
    name: str,
    *,
    device: str = "box",
    now: float | None = None,
    certified_at: float | None = None,
) -> Machine:
    """A machine that is `name` from now on, as joining leaves it.

    `certified_at` is when its certificate was issued.
    """
    now = time.time() if now is None else now
    key = ec.generate_private_key(ec.SECP256R1())
    row = SessionRow(
        sid=secrets.token_urlsafe(18),
        issuer="heim",
        subject=name,
        email=None,
        domain=None,
        groups=(),
        provider="",
        auth_time=now,
        created=now,
        expires=float("inf"),
        last_seen=now,
        kind=SessionKind.AGENT,
        label=device,
        secret_hash=thumbprint(key.public_key()),
    )
    await store.create_session(row)
    issued = authority.issue(
        key.public_key(), name=name, now=now if certified_at is None else certified_at
    )
    return Machine(name, issued, key, row, device)


async def enrolled(heim: Heim, name: str, **more: Any) -> Machine:
    """A machine of a proxy in this process; `more` as `enrol`."""
    agents = heim.proxy._agents
    assert agents is not None
    return await enrol(agents.store, agents.authority, name, **more)


def agent_head(
    *, host: str = LOGIN_HOST, drop: tuple[str, ...] = (), extra: tuple[str, ...] = (),
    path: str = AGENT_PATH, method: str = "GET",
) -> bytes:  # fmt: skip
    """A correct request for a lane, without the headers named in `drop`, with `extra` lines."""
    fields = {
        "Host": host,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": WS_KEY,
        "Sec-WebSocket-Protocol": SUBPROTOCOL,
    }
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields.items() if name not in drop]
    return "\r\n".join((*lines, *extra, "", "")).encode("latin-1")


@dataclass
class Served:
    """A stream that the proxy opened."""

    stream: Stream
    message: dict[str, Any]
    received: bytearray = field(default_factory=bytearray)
    ended: bool = False
    closed: bool = False
    reset: Reset | None = None
    # What its script does with bytes and with the end of them, after they were noted.
    on_data: Callable[[bytes], None] = lambda _: None
    on_end: Callable[[], None] = lambda: None
    on_reset: Callable[[], None] = lambda: None
    # While set, nothing that comes is credited.
    stalled: bool = False


Script = Callable[["ScriptedAgent", Served], None]


def echo(agent: ScriptedAgent, served: Served) -> None:
    """Accept, and send everything back."""
    served.stream.accept({"peer": "echo"})
    served.on_data = served.stream.send
    served.on_end = served.stream.end


def silent(agent: ScriptedAgent, served: Served) -> None:
    """Never answer."""


def refusing(code: int, reason: str = "") -> Script:
    """Answer with RESET."""
    return lambda agent, served: served.stream.reset(code, reason)


def bridging(host: str, port: int) -> Script:
    """Connect to a service on this machine, as a real agent does."""

    def script(agent: ScriptedAgent, served: Served) -> None:
        agent.run(_bridge(agent, served, host, port))

    return script


async def _bridge(agent: ScriptedAgent, served: Served, host: str, port: int) -> None:
    stream = served.stream
    early = bytearray()
    served.on_data = early.extend
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        stream.reset(6, str(error))
        agent.flush()
        return
    writer.write(early)
    served.on_data = writer.write
    served.on_end = writer.write_eof
    served.on_reset = writer.transport.abort
    if served.ended:
        writer.write_eof()
    stream.accept({"peer": f"{host}:{port}"})
    agent.flush()
    try:
        while data := await reader.read(65_536):
            stream.send(data)
            agent.flush()
            while stream.full and served.reset is None and not agent.gone:
                await agent.change()
        stream.end()
        agent.flush()
        while not served.closed and served.reset is None and not agent.gone:
            await agent.change()
    except ConnectionError:
        stream.reset(19, "the service reset the connection")
        agent.flush()
    finally:
        writer.close()


@dataclass(eq=False)
class ScriptedAgent(WirePeer):
    """One lane. What came is in the fields; `until` waits for it."""

    wire: Wire
    answer: Answer
    machine: Machine
    session: Session
    websocket: WebSocket
    number: int = 0
    nonce: str = field(default_factory=lambda: b64url(os.urandom(32)))
    host: str = LOGIN_HOST
    # Digest of the TLS key that it says it saw.
    spki: bytes = b""
    targets: dict[str, Script] = field(default_factory=dict)
    # While set, it does not prove who it is when the proxy's HELLO comes.
    mute: bool = False
    hello: dict[str, Any] = field(default_factory=dict)
    readies: list[dict[str, Any]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    served: list[Served] = field(default_factory=list)
    goaway: GoAway | None = None
    # The proxy's last words, and whether the connection is gone.
    close: Close | None = None
    gone: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    # -- how it comes about -----------------------------------------------------------------

    @classmethod
    async def greet(
        cls,
        wire: Wire,
        machine: Machine,
        *,
        number: int = 0,
        hello: dict[str, Any] | None = None,
        silent: bool = False,
        **more: Any,
    ) -> ScriptedAgent:
        """Upgrade a connection and say HELLO, nothing else. `hello` overrides keys of it."""
        tls = wire.writer.get_extra_info("ssl_object")
        host = more.pop("host", LOGIN_HOST)
        wire.send(agent_head(host=host))
        async with asyncio.timeout(5):
            answer = await wire.answer()
        assert answer.status == 101, answer.raw + answer.body
        nonce = b64url(os.urandom(32))
        greeting = {
            "agent": machine.name,
            "boot": machine.boot,
            "lane": number,
            "nonce": nonce,
            "version": "0.0.0+scripted",
            "device": machine.device,
        } | (hello or {})
        session = Session(initiator=True, now=time.monotonic(), settings=Settings(), hello=greeting)
        more.setdefault("spki", spki_digest(tls.getpeercert(True)) if tls is not None else b"")
        agent = cls(
            wire, answer, machine, session, WebSocket(client=True),
            number=number, nonce=nonce, host=host, **more,
        )  # fmt: skip
        if silent:
            agent.mute = True
        else:
            agent.flush()
        agent.run(agent._read())
        return agent

    @classmethod
    async def connect(
        cls, heim: Heim | Wire, machine: Machine, *, ready: bool = True, **more: Any
    ) -> ScriptedAgent:
        """A lane that is READY, unless `ready` is false: then whatever comes of it."""
        wire = heim if isinstance(heim, Wire) else await heim.connect(LOGIN_HOST)
        agent = await cls.greet(wire, machine, **more)
        if ready:
            await agent.until(lambda: agent.readies or agent.goaway or agent.gone)
            assert agent.readies, agent.goaway or agent.close
        return agent

    @classmethod
    async def dial(cls, port: int, machine: Machine, **more: Any) -> ScriptedAgent:
        """As `connect`, to a proxy of another process."""
        context: ssl.SSLContext = more.pop("trust", None) or trusting_context()
        host = more.get("host", LOGIN_HOST)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname=host
        )
        return await cls.connect(Wire(reader, writer), machine, **more)

    def proof(self, **lies: Any) -> dict[str, Any]:
        """AUTH as it should be; `lies` are other arguments for `proof_bytes`, or `certificate`."""
        certificate = lies.pop("certificate", self.machine.certificate)
        key = lies.pop("key", self.machine.key)
        said = {
            "nonce": self.hello.get("nonce", ""),
            "replica": self.hello.get("replica", ""),
            "host": self.host,
            "spki": self.spki,
            "agent": self.machine.name,
            "boot": self.machine.boot,
            "lane": self.number,
        } | lies
        return {
            "kind": PROOF_KIND,
            "certificate": base64.b64encode(certificate).decode(),
            "signature": b64url(key.sign(proof_bytes(**said), ec.ECDSA(SHA256()))),
        }

    # -- what it says -----------------------------------------------------------------------

    def auth(self, message: dict[str, Any]) -> None:
        self.session.auth(message)
        self.flush()

    def renew(self, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        """Ask for a newer certificate."""
        request = certificate_request(key or self.machine.key)
        self.auth({"kind": RENEW_KIND, "csr": base64.b64encode(request).decode()})

    def leave(self, code: int = 12, reason: str = "stopping") -> None:
        """GOAWAY, as at the end of a program."""
        self.session.goaway(code, reason)
        self.flush()

    def abort(self) -> None:
        """Vanish."""
        for task in self._tasks:
            task.cancel()
        self.wire.close()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- what it hears ----------------------------------------------------------------------

    @property
    def statement(self) -> str:
        return str(self.readies[-1]["statement"])

    def _note(self, event: Event) -> None:
        if isinstance(event, Hello):
            self.hello = dict(event.message)
            if not self.mute:
                self.auth(self.proof())
        elif isinstance(event, Ready):
            self.readies.append(dict(event.message))
        elif isinstance(event, Notice):
            self.notices.append(event.text)
        elif isinstance(event, GoAway):
            self.goaway = event
        elif isinstance(event, Opened):
            served = Served(event.stream, dict(event.message))
            event.stream.context = served
            self.served.append(served)
            self.targets.get(str(event.message.get("target")), echo)(self, served)
        elif isinstance(event, Data | Ended | Closed | Reset):
            self._note_stream(event)

    def _note_stream(self, event: Data | Ended | Closed | Reset) -> None:
        served = event.stream.context
        assert isinstance(served, Served)
        if isinstance(event, Data):
            served.received += event.payload
            if not served.stalled:
                event.stream.consumed(len(event.payload))
            served.on_data(bytes(event.payload))
        elif isinstance(event, Ended):
            served.ended = True
            served.on_end()
        elif isinstance(event, Closed):
            served.closed = True
        else:
            served.reset = event
            served.on_reset()


class AgentSite(Site):
    """A proxy with the agents `desktop` and, a group, `pool`."""

    @property
    def agents(self) -> Agents:
        agents = self.heim.proxy._agents
        assert agents is not None
        return agents

    async def machine(self, name: str = "desktop", **more: Any) -> Machine:
        return await enrolled(self.heim, name, now=self.clock.now(), **more)

    async def connect(self, machine: Machine | None = None, **more: Any) -> ScriptedAgent:
        return await ScriptedAgent.connect(self.heim, machine or await self.machine(), **more)

    def lane(self, name: str = "desktop") -> Lane:
        lane = self.agents.registry.pick(name)
        assert isinstance(lane, Lane)
        return lane


@asynccontextmanager
async def agent_site(directory: Path, **more: Any) -> AsyncIterator[AgentSite]:
    """A running site; `more` are further keys of the configuration."""
    clock = ManualClock(time.time())
    agents = [
        {"name": "desktop", "targets": ["ssh", "web"]},
        {"name": "pool", "targets": ["web"], "group": True},
    ]
    heim = await Heim.start(directory, **{"backends": [], "agents": agents, "clock": clock, **more})
    try:
        yield AgentSite(heim, clock)
    finally:
        await heim.stop()
