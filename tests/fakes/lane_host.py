"""A scripted login host that agents open lanes to: it plays the proxy's side, and lies if told to.

Every connection runs the host's present script on the test's own event loop: `honest` lets the
agent in and keeps the lane until it ends; the factories below make others. A script that raises
fails the test when the host stops.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from heim_agent.identity import Identity
from heim_agent.key import AgentKey
from heim_agent.places import Places
from heim_runtime.tasks import cancel, spawn
from heim_wire.agents import AGENT_PATH, PROOF_KIND, RENEW_KIND, STATEMENT_TYPE, proof_bytes
from heim_wire.events import Auth, Data, Event
from heim_wire.handshake import SUBPROTOCOL, answer_upgrade
from heim_wire.session import Session
from heim_wire.settings import Settings
from heim_wire.stream import Stream
from heim_wire.websocket import WebSocket
from tests.fakes.certificates import CA_PEM, Pair, make_pair

__all__ = [
    "AGENT",
    "LOGIN_HOST",
    "LaneHost",
    "Peer",
    "Root",
    "Script",
    "Streams",
    "answering",
    "honest",
    "lane_host",
    "refusing",
    "silent",
    "stating",
]

LOGIN_HOST = "auth.example.test"
AGENT = "desktop"
LIFE_S = 24 * 3600.0
PATIENCE_S = 5.0


def b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class Root:
    """The agents' authority: signs certificates and statements."""

    def __init__(self, curve: ec.EllipticCurve | None = None) -> None:
        self.key = ec.generate_private_key(curve or ec.SECP256R1())
        self.algorithm = "ES384" if self.key.curve.name == "secp384r1" else "ES256"
        jwk = json.loads(jwt.get_algorithm_by_name(self.algorithm).to_jwk(self.key.public_key()))
        members = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
        canonical = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
        self.kid = b64url(hashlib.sha256(canonical).digest())
        self.jwk: dict[str, str] = {**members, "kid": self.kid, "alg": self.algorithm}

    def certificate(
        self, key: ec.EllipticCurvePublicKey, *, begins: float = -300.0, life_s: float = LIFE_S
    ) -> bytes:
        """A certificate for an agent's key, DER; `begins` is in seconds from now."""
        start = datetime.now(UTC) + timedelta(seconds=begins)
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "agents")])
        uri = x509.UniformResourceIdentifier(f"spiffe://{LOGIN_HOST}/agent/{AGENT}")
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(seconds=life_s))
            .add_extension(x509.SubjectAlternativeName([uri]), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self.key, hashes.SHA256())
            .public_bytes(Encoding.DER)
        )

    def sign(self, claims: Mapping[str, object], **header: object) -> str:
        """A statement with these claims."""
        return jwt.encode(
            dict(claims),
            self.key,
            self.algorithm,
            headers={"typ": STATEMENT_TYPE, "kid": self.kid, **header},
        )


class Streams:
    """What a `Link` serves streams with: each gets its bytes back.

    Attributes:
        opened_messages: Of the OPENs so far, with the proxy's time.
        finished: How long `finish` was told to wait.
        hold: Whether `finish` waits for streams.
    """

    def __init__(self) -> None:
        self.opened_messages: list[tuple[dict[str, object], float]] = []
        self.live: list[Echo] = []
        self.finished: float | None = None

    def opened(
        self, channel: Any, stream: Stream, message: dict[str, object], *, now: float
    ) -> None:
        self.opened_messages.append((message, now))
        self.live.append(Echo(self, channel, stream))

    async def finish(self, timeout_s: float) -> None:
        self.finished = timeout_s
        deadline = time.monotonic() + timeout_s
        while self.live and time.monotonic() < deadline:
            await asyncio.sleep(0.01)


class Echo:
    """The owner of an echoing stream."""

    def __init__(self, streams: Streams, channel: Any, stream: Stream) -> None:
        self.streams, self.channel, self.stream = streams, channel, stream
        stream.context = self
        stream.accept({"peer": "echo"})
        channel.wake()

    def data(self, payload: bytes | memoryview) -> None:
        self.stream.send(bytes(payload))
        self.stream.consumed(len(payload))
        self.channel.wake()

    def accepted(self, message: dict[str, object]) -> None:
        raise AssertionError("an agent opens no streams")

    def drained(self) -> None:
        pass

    def ended(self) -> None:
        self.stream.end()
        self.channel.wake()

    def finished(self) -> None:
        self.streams.live.remove(self)

    def reset(self, code: int, reason: str) -> None:
        self.streams.live.remove(self)


class Peer:
    """One connection, as the script sees it.

    Attributes:
        head: The request's head; `fields` of it with names in lower case.
        events: What the session told, but for payload.
        received: Payload by stream.
        hello: The agent's HELLO, once it came.
    """

    def __init__(
        self, host: LaneHost, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.host, self.reader, self.writer = host, reader, writer
        self.head = ""
        self.fields: dict[str, str] = {}
        self.events: list[Event] = []
        self.received: dict[int, bytearray] = {}
        self.nonce = b64url(secrets.token_bytes(32))
        self.replica = "replica-1"
        self.session: Session
        self.websocket: WebSocket
        self.ended = False

    # HTTP.

    async def request(self) -> str:
        """Read the request; its first line. Raises ConnectionError when the agent has gone."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            raise ConnectionError("the agent has gone") from None
        self.head = head.decode()
        lines = [line.partition(": ") for line in self.head.split("\r\n")[1:]]
        self.fields = {name.lower(): value for name, _, value in lines}
        return self.head.split("\r\n")[0]

    async def answer(self, status: str, body: bytes = b"", *fields: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        await self.writer.drain()

    # The tunnel.

    async def upgrade(self, *, hello: Mapping[str, object] | None = None) -> None:
        """Answer 101 and say HELLO; `hello` is laid over what an honest proxy says."""
        assert self.fields["sec-websocket-protocol"] == SUBPROTOCOL
        said = {"replica": self.replica, "nonce": self.nonce, "time": int(time.time())}
        said |= {**(hello or {})}
        said = {name: value for name, value in said.items() if value is not None}
        self.session = Session(
            initiator=False,
            now=time.monotonic(),
            settings=Settings(max_streams=0),
            hello=said,
        )
        self.websocket = WebSocket(client=False)
        self.writer.write(answer_upgrade(self.fields["sec-websocket-key"]))
        await self.flush()

    async def flush(self) -> None:
        """Send everything that the session may send now."""
        if reply := self.websocket.replies():
            self.writer.write(reply)
        while True:
            parts, total = self.session.take(65_000)
            if not total:
                break
            self.writer.write(self.websocket.frame(parts, total))
        self.take(self.session.events())
        await self.writer.drain()

    async def until(self, condition: Callable[[], Any], within_s: float = PATIENCE_S) -> None:
        """Drive the session until a condition holds."""
        deadline = time.monotonic() + within_s
        while not condition():
            if self.ended and not self.events:
                # It never began; mostly because its test is over.
                raise ConnectionError("the agent has gone")
            assert not self.ended, f"the agent has closed: {self.events}"
            assert time.monotonic() < deadline, f"it does not come true: {self.events}"
            await self.step()

    async def serve(self) -> None:
        """Drive the session until the agent closes."""
        while not self.ended:
            await self.step()

    async def step(self, timeout_s: float = 0.05) -> None:
        """Send what may be sent and take what comes."""
        try:
            await self.flush()
            async with asyncio.timeout(timeout_s):
                data = await self.reader.read(262_144)
        except TimeoutError:
            self.take(self.session.tick(time.monotonic()))
            return
        except (ConnectionError, ssl.SSLError):
            data = b""
        if not data:
            self.ended = True
            return
        for payload in self.websocket.receive(data):
            self.take(self.session.receive(payload, time.monotonic()))
        if not self.ended:
            await self.flush()
        if self.websocket.closed is not None:
            self.ended = True

    def take(self, happened: list[Event]) -> None:
        for event in happened:
            if isinstance(event, Data):
                self.received.setdefault(event.stream.id, bytearray()).extend(event.payload)
                event.stream.consumed(len(event.payload))
            else:
                self.events.append(event)

    def seen(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def hello(self) -> dict[str, Any]:
        """The agent's HELLO."""
        assert self.session.peer is not None
        return self.session.peer

    # Letting in.

    async def proof(self) -> dict[str, Any]:
        """Wait for the agent's AUTH; checked as the proxy does."""
        await self.until(lambda: self.seen(Auth))
        message = self.seen(Auth)[0].message
        assert message["kind"] == PROOF_KIND
        certificate = x509.load_der_x509_certificate(base64.b64decode(message["certificate"]))
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        signature = message["signature"]
        key.verify(
            base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)),
            proof_bytes(
                nonce=self.nonce,
                replica=self.replica,
                host=LOGIN_HOST,
                spki=self.host.spki,
                agent=self.hello["agent"],
                boot=self.hello["boot"],
                lane=self.hello["lane"],
            ),
            ec.ECDSA(hashes.SHA256()),
        )
        return dict(message)

    def statement(self, *, root: Root | None = None, **lies: object) -> str:
        """What an honest proxy states, with some claims replaced; None takes one away."""
        now = int(time.time() + self.host.ahead_s)
        claims: dict[str, object] = {
            "iss": f"https://{LOGIN_HOST}",
            "aud": self.host.key.thumbprint,
            "nonce": self.hello["nonce"],
            "iat": now,
            "exp": now + 60,
            "keys": [self.host.signer.jwk],
            "roots": [self.host.root.jwk],
            **lies,
        }
        told = {name: value for name, value in claims.items() if value is not None}
        return (root or self.host.root).sign(told)

    def ready(self, **more: object) -> None:
        """Say READY as an honest proxy does, with some keys replaced; None takes one away."""
        told: dict[str, object] = {
            "agent": AGENT,
            "targets": ["ssh", "web"],
            "expires": time.time() + self.host.ahead_s + LIFE_S,
            "lanes": 4,
            "replica": self.replica,
            "generation": 1,
            **more,
        }
        if "statement" not in told:
            told["statement"] = self.statement()
        self.session.ready({name: value for name, value in told.items() if value is not None})

    async def let_in(self, **more: object) -> None:
        """Everything up to READY."""
        assert (await self.request()).startswith(f"GET {AGENT_PATH} ")
        await self.upgrade()
        await self.proof()
        self.ready(**more)
        await self.flush()

    async def renewal(self) -> x509.CertificateSigningRequest:
        """Wait for the agent to ask for a newer certificate."""
        await self.until(lambda: len(self.seen(Auth)) > 1)
        message = self.seen(Auth)[-1].message
        assert message["kind"] == RENEW_KIND
        return x509.load_der_x509_csr(base64.b64decode(message["csr"]))

    def open(self, target: str = "ssh", **more: object) -> Stream:
        """Open a stream."""
        return self.session.open({"target": target, "proto": "tcp", "assertion": "x", **more})


Script = Callable[[Peer], Awaitable[None]]


async def honest(peer: Peer) -> None:
    """Let the agent in and serve it until it closes."""
    await peer.let_in()
    await peer.serve()


def stating(**lies: object) -> Script:
    """Honest but for the statement."""

    async def script(peer: Peer) -> None:
        assert await peer.request()
        await peer.upgrade()
        await peer.proof()
        root = lies.get("root")
        other = {name: value for name, value in lies.items() if name != "root"}
        peer.ready(statement=peer.statement(root=root, **other))  # type: ignore[arg-type]
        await peer.serve()

    return script


def refusing(code: int, reason: str = "", **timing: float) -> Script:
    """GOAWAY after the proof."""

    async def script(peer: Peer) -> None:
        assert await peer.request()
        await peer.upgrade()
        await peer.proof()
        peer.session.goaway(code, reason, **timing)
        await peer.flush()
        peer.writer.write(peer.websocket.close(1008, reason))
        await peer.serve()

    return script


def answering(status: str, body: bytes = b"", *fields: str) -> Script:
    """No 101."""

    async def script(peer: Peer) -> None:
        assert await peer.request()
        await peer.answer(status, body, *fields)

    return script


async def silent(peer: Peer) -> None:
    """TLS, and then nothing."""
    await peer.request()
    await peer.reader.read()


class LaneHost:
    """The host.

    Attributes:
        script: What the next connections do.
        root: The agents' authority.
        signer: Signs assertions.
        ahead_s: How far the proxy's clock is before ours.
        peers: The connections so far, that came through TLS.
        arrivals: When, in seconds of time.monotonic.
        closing: For scripts that wait for their test.
    """

    def __init__(self, directory: Path, script: Script) -> None:
        self.directory = directory
        self.script = script
        self.root = Root()
        self.signer = Root()
        self.key = AgentKey.generate()
        self.ahead_s = 0.0
        self.peers: list[Peer] = []
        self.arrivals: list[float] = []
        self.closing = asyncio.Event()
        self.port = 0
        self.spki = b""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca_file = directory / "authority.pem"
        self.ca_file.write_text(CA_PEM)
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.use(make_pair(LOGIN_HOST))

    def use(self, pair: Pair) -> None:
        """Show another certificate from now on."""
        where = self.directory / "tls"
        where.mkdir(exist_ok=True)
        pair.write(where)
        self.context.load_cert_chain(where / "tls.crt", where / "tls.key")
        public = x509.load_pem_x509_certificate(pair.cert).public_key()
        self.spki = hashlib.sha256(
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ).digest()

    def identity(self, *, begins: float = -300.0, life_s: float = LIFE_S) -> Identity:
        """What `join` would have left on a machine."""
        state = self.directory / "state"
        found = Identity(
            agent=AGENT,
            login_url=f"https://{LOGIN_HOST}",
            key=self.key,
            certificate=self.certificate(begins=begins, life_s=life_s),
            roots=[self.root.jwk],
            places=Places(config=str(self.directory / "agent.toml"), state=str(state)),
            ca_file=str(self.ca_file),
        )
        found.save_joined(None)
        return found

    def certificate(self, *, begins: float = -300.0, life_s: float = LIFE_S) -> bytes:
        """A certificate for the agent's key, DER."""
        public = x509.load_der_x509_csr(self.key.request()).public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        return self.root.certificate(public, begins=begins, life_s=life_s)

    async def listen(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self.context, ssl_handshake_timeout=5.0
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def vanish(self) -> None:
        """Stop as kill -9 does: every connection is reset, nobody listens."""
        assert self._server is not None
        self._server.close()
        for peer in self.peers:
            peer.ended = True
            peer.writer.transport.abort()
        await cancel(self._tasks)
        # uvloop hangs when it is closed over a handshake that goes on.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._server.wait_closed()
        await asyncio.sleep(0.02)

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.append(spawn("lane-host", self._run(Peer(self, reader, writer))))

    async def _run(self, peer: Peer) -> None:
        self.peers.append(peer)
        self.arrivals.append(time.monotonic())
        try:
            await self.script(peer)
        except (ConnectionError, ssl.SSLError):
            # The agent has gone, as it may.
            return
        finally:
            peer.writer.close()

    async def stop(self) -> None:
        await self.vanish()
        for task in self._tasks:
            if not task.cancelled() and (problem := task.exception()) is not None:
                raise problem


@asynccontextmanager
async def lane_host(directory: Path, script: Script = honest) -> AsyncIterator[LaneHost]:
    """A host on loopback, for the length of the block."""
    host = LaneHost(directory, script)
    await host.listen()
    try:
        yield host
    except BaseException:
        await host.vanish()
        raise
    else:
        await host.stop()
