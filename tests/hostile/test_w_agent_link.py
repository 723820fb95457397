"""W: an agent and those who lie to it: the network, whoever stands in it, and the proxy itself.

A whole `Link` runs against a scripted host (`tests/fakes/lane_host.py`). Whatever the host does,
the agent keeps its key to itself, serves nobody it has not verified, keeps its pins, tells the
truth about what happened, and comes back when the host is honest again.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from heim_agent.identity import Identity
from heim_agent.link import Link
from heim_runtime.logs import JsonFormatter
from heim_runtime.tasks import cancel, spawn
from heim_wire.agents import STATEMENT_TYPE
from heim_wire.errors import Code
from heim_wire.frames import HEAD, Type, plain_frame
from heim_wire.handshake import answer_upgrade
from tests.fakes.certificates import make_pair
from tests.fakes.lane_host import (
    LOGIN_HOST,
    LaneHost,
    Peer,
    Root,
    Script,
    Streams,
    answering,
    honest,
    lane_host,
    refusing,
    silent,
    stating,
)
from tests.fakes.middlebox import Way
from tests.fakes.waiting import until

pytestmark = pytest.mark.asyncio

FOREIGN = Root()


class Victim:
    """An agent that runs, and what it has."""

    def __init__(self, host: LaneHost, port: int, jitter: float) -> None:
        self.host = host
        self.identity = host.identity()
        self.before = (self.identity.roots, self.identity.keys, self.identity.certificate)
        self.streams = Streams()
        self.link = Link(
            self.identity,
            self.streams,
            connect_to=("127.0.0.1", port),
            environ={},
            fraction=lambda: jitter,
        )
        self.task = spawn("link", self.link.run())

    @property
    def error(self) -> str:
        """What `heim-agent status` would show."""
        return str(self.link.describe()["last_error"])

    async def refused(self) -> str:
        """Wait until an attempt has failed; why."""
        await until(lambda: self.error)
        return self.error

    def unharmed(self) -> None:
        """Nothing was served, and what is believed is what was, in memory and on the disk."""
        assert not self.streams.opened_messages
        assert not self.link.connected
        kept = Identity.load(self.identity.places)
        for found in (self.identity, kept):
            assert (found.roots, found.keys, found.certificate) == self.before

    async def recovers(self) -> None:
        """An honest host is let in again."""
        self.host.script = honest
        await until(lambda: self.link.connected)


@asynccontextmanager
async def victim(
    directory: Path, script: Script, *, jitter: float = 0.0, port: int | None = None
) -> AsyncIterator[Victim]:
    """An agent and a host that runs `script`. With `jitter` 0 the agent waits for nothing."""
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: raised.append(about))
    async with lane_host(directory, script) as host:
        found = Victim(host, port or host.port, jitter)
        try:
            yield found
        finally:
            found.link.stop()
            found.link.stop()
            await asyncio.wait((found.task,), timeout=5)
            await cancel((found.task,))
    assert not raised


def unsigned(peer: Peer) -> str:
    """A statement with alg none."""
    head, body, _ = peer.statement().split(".")
    fields = {"alg": "none", "typ": STATEMENT_TYPE, "kid": peer.host.root.kid}
    head = base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()
    return f"{head}.{body}."


def by_hmac(peer: Peer) -> str:
    """Signed with the public key as a secret."""
    claims = jwt.decode(peer.statement(), options={"verify_signature": False})
    header = {"typ": STATEMENT_TYPE, "kid": peer.host.root.kid}
    return jwt.encode(claims, peer.host.root.jwk["x"] * 2, "HS256", headers=header)


def lying(make: Callable[[Peer], object]) -> Script:
    """Honest but for the statement, which is made by `make`."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.upgrade()
        await peer.proof()
        peer.ready(statement=make(peer))
        await peer.flush()
        # It asks for a stream at once: it will not get one.
        peer.open()
        await peer.serve()

    return script


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(lambda peer: None, "made no statement", id="W1 none"),
        pytest.param(lambda peer: 7, "no signed statement", id="W1 a number"),
        pytest.param(lambda peer: "x" * 3000, "no signed statement", id="W1 rubbish"),
        pytest.param(
            lambda peer: peer.statement(nonce="A" * 43), "an old one", id="W2 of another lane"
        ),
        pytest.param(
            lambda peer: peer.statement(root=FOREIGN), "not pinned", id="W3 another authority"
        ),
        pytest.param(
            lambda peer: peer.statement(root=FOREIGN, roots=[FOREIGN.jwk, peer.host.root.jwk]),
            "not pinned",
            id="W3 that names ours",
        ),
        pytest.param(unsigned, "broken", id="W4 alg none"),
        pytest.param(by_hmac, "broken", id="W4 HS256 by the public key"),
        pytest.param(
            lambda peer: peer.statement(aud="someone"), "another agent", id="W5 another agent"
        ),
        pytest.param(
            lambda peer: peer.statement(iss="https://evil"), "another proxy", id="W5 another proxy"
        ),
        pytest.param(
            lambda peer: peer.statement(roots=[FOREIGN.jwk]), "would unpin", id="W6 unpins itself"
        ),
        pytest.param(
            lambda peer: peer.statement(roots=[]), "would unpin", id="W6 unpins everything"
        ),
        pytest.param(
            lambda peer: peer.statement(keys=[{"kty": "EC", "kid": str(n)} for n in range(9)]),
            "are no keys",
            id="W7 keys that are none",
        ),
        pytest.param(
            lambda peer: peer.statement(keys=[{"kty": "oct", "k": "AAAA", "kid": "x"}]),
            "are no keys",
            id="W7 a secret key",
        ),
    ],
)
async def test_a_proxy_that_cannot_prove_itself_is_refused(
    tmp_path: Path, make: Callable[[Peer], object], said: str
) -> None:
    async with victim(tmp_path, lying(make)) as found:
        why = await found.refused()
        assert f"{LOGIN_HOST} did not prove that it is the proxy that this agent joined" in why
        assert said in why
        assert "somebody on the way may answer" in why
        found.unharmed()
        await found.recovers()


async def test_W8_a_valid_public_certificate_is_not_enough(tmp_path: Path) -> None:
    """Whoever got a certificate for the name, or whose authority the machine trusts."""
    async with victim(tmp_path, stating(root=FOREIGN, keys=[FOREIGN.jwk])) as found:
        found.host.use(make_pair(LOGIN_HOST))
        assert "not pinned" in await found.refused()
        found.unharmed()


async def test_W9_what_is_in_between_and_passes_everything_on_fails_at_the_proxy(
    tmp_path: Path,
) -> None:
    """It has a valid certificate; the proof is over that one's key, and so no good elsewhere."""
    failed: list[BaseException] = []

    async def checking(peer: Peer) -> None:
        await peer.request()
        await peer.upgrade()
        try:
            await peer.proof()
        except InvalidSignature as e:
            failed.append(e)
            peer.session.goaway(Code.UNAUTHENTICATED, "something terminates TLS")
            await peer.flush()

    (tmp_path / "box").mkdir()
    pair = make_pair(LOGIN_HOST)
    pair.write(tmp_path / "box")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "box" / "tls.crt", tmp_path / "box" / "tls.key")
    behind = 0
    carriers: list[asyncio.Task[Any]] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        carriers.append(task)
        trusting = ssl.create_default_context(cafile=str(tmp_path / "authority.pem"))
        far_reader, far_writer = await asyncio.open_connection(
            "127.0.0.1", behind, ssl=trusting, server_hostname=LOGIN_HOST
        )
        way = Way()
        try:
            await asyncio.gather(way.carry(reader, far_writer), way.carry(far_reader, writer))
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
            return
        finally:
            far_writer.transport.abort()
            writer.transport.abort()

    box = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)
    port = box.sockets[0].getsockname()[1]
    async with victim(tmp_path, checking, port=port) as found:
        behind = found.host.port
        why = await found.refused()
        assert failed
        assert "something terminates TLS" in why
        assert "tunnel.agent_tls_keys" in why
        found.unharmed()
    box.close()
    # By themselves: uvloop does not bear that a handshake is cancelled.
    await asyncio.wait(carriers, timeout=5)
    async with asyncio.timeout(5):
        await box.wait_closed()


async def test_W10_pins_of_a_live_lane_are_not_replaced_by_an_unsigned_statement(
    tmp_path: Path,
) -> None:
    async def turning(peer: Peer) -> None:
        await peer.let_in()
        lie = peer.statement(root=FOREIGN, roots=[FOREIGN.jwk], keys=[FOREIGN.jwk])
        peer.session.ready({"statement": lie, "targets": ["everything"]})
        await peer.serve()

    async with victim(tmp_path, turning) as found:
        assert "not pinned" in await found.refused()
        roots, keys = found.identity.roots, found.identity.keys
        assert [key["kid"] for key in roots] == [found.host.root.kid]
        assert [key["kid"] for key in keys] == [found.host.signer.kid]
        assert Identity.load(found.identity.places).roots == roots
        await found.recovers()


async def test_W25_a_statement_that_a_newer_one_replaced_is_not_believed_again(
    tmp_path: Path,
) -> None:
    """Whoever may open TLS on the way has read it: it would bring back keys that were dropped,
    and a time at which statements about people are good once more."""
    now = int(time.time())

    async def repeating(peer: Peer) -> None:
        await peer.let_in()
        old = peer.statement(iat=now, exp=now + 60)
        fresh = peer.statement(iat=now + 3600, exp=now + 3660, keys=[FOREIGN.jwk])
        peer.session.ready({"statement": fresh})
        # The proxy's clock may have been set by a second since.
        peer.session.ready({"statement": peer.statement(
            iat=now + 3599, exp=now + 3659, keys=[FOREIGN.jwk])})  # fmt: skip
        peer.session.ready({"statement": old})
        await peer.serve()

    async with victim(tmp_path, repeating) as found:
        assert "older than the one before" in await found.refused()
        assert [key["kid"] for key in found.identity.keys] == [FOREIGN.kid]
        assert found.link.clock.now() > now + 3590
        # A new connection has a nonce of its own, and what is stated there is of now.
        await found.recovers()
        async with asyncio.timeout(5):
            while found.link.clock.now() > now + 600:
                await asyncio.sleep(0.01)


async def test_W11_nothing_is_served_before_the_statement(tmp_path: Path) -> None:
    async def hasty(peer: Peer) -> None:
        await peer.request()
        await peer.upgrade()
        peer.session.open({"target": "ssh", "proto": "tcp"})
        await peer.serve()

    async with victim(tmp_path, hasty) as found:
        assert "opened a stream before" in await found.refused()
        found.unharmed()


async def test_W12_an_agent_is_not_served_as_another(tmp_path: Path) -> None:
    async def mistaken(peer: Peer) -> None:
        await peer.let_in(agent="laptop")
        await peer.serve()

    async with victim(tmp_path, mistaken) as found:
        assert "takes this agent for another" in await found.refused()
        assert not found.link.connected


@pytest.mark.parametrize(
    "hello",
    [
        {"nonce": None},
        {"nonce": ""},
        {"nonce": "x" * 1000},
        {"nonce": ["x" * 43]},
        {"replica": None},
        {"replica": "a\x1b[2Jb"},
        {"replica": "r" * 3000},
        {"v": [99]},
        {"max_streams": -1, "nonce": None},
    ],
    ids=lambda hello: f"W13 {next(iter(hello.items()))!r:.40}",
)
async def test_W13_a_hello_that_is_none_is_refused(
    tmp_path: Path, hello: dict[str, object]
) -> None:
    async def lying_hello(peer: Peer) -> None:
        await peer.request()
        await peer.upgrade(hello=hello)
        await peer.serve()

    async with victim(tmp_path, lying_hello) as found:
        why = await found.refused()
        assert "\x1b" not in why
        found.unharmed()
        await found.recovers()


@pytest.mark.parametrize(
    "raw",
    [
        b"\x82\x7e",
        b"\x81\x05hello",
        b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x82\x85\x00\x00\x00\x00hello",
        b"\x82\x0c" + HEAD.pack(Type.READY, 0, 4, 0) + b"[[[[",
        b"\x82\x0d" + HEAD.pack(Type.AUTH, 1, 5, 0) + b"{}   ",
        b"\x82\x7e\x10\x08" + plain_frame(Type.HELLO, 0, b"{" * 4096),
        b"\x88\x02\x03\xe8",
        b"GET / HTTP/1.1\r\n\r\n" * 99,
    ],
    ids=[
        "W14 half a frame", "W14 text", "W14 2^63", "W14 masked", "W14 READY first",
        "W14 AUTH to an agent", "W14 deep JSON", "W14 closes", "W14 HTTP",
    ],
)  # fmt: skip
async def test_W14_rubbish_behind_101_ends_the_attempt_and_nothing_else(
    tmp_path: Path, raw: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heim_agent.lane.READY_S", 0.3)

    async def rubbish(peer: Peer) -> None:
        await peer.request()
        peer.writer.write(answer_upgrade(peer.fields["sec-websocket-key"]) + raw)
        await peer.reader.read()
        await peer.reader.read()

    async with victim(tmp_path, rubbish) as found:
        await found.refused()
        found.unharmed()
        await found.recovers()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param(
            answering("302 Found", b"", "Location: https://evil.example/"),
            "a redirect to https://evil.example/",
            id="W15 redirect",
        ),
        pytest.param(
            answering("200 OK", b"<html>sign in", "Content-Type: text/html"),
            "a web page instead of a tunnel",
            id="W15 captive portal",
        ),
        pytest.param(
            answering("403 Forbidden", b"<html>", "Content-Type: text/html"),
            "answered 403",
            id="W15 web filter",
        ),
        pytest.param(
            answering("503 Busy\x1b[2J", b"", "Retry-After: 999999999"),
            "answered 503",
            id="W15 retry for ever",
        ),
        pytest.param(
            answering("502 Bad", b"", "X: " + "x" * 70_000), "64 KiB", id="W15 endless head"
        ),
    ],
)
async def test_W15_whatever_answers_instead_of_the_proxy_is_told_and_not_obeyed(
    tmp_path: Path, script: Script, said: str
) -> None:
    async with victim(tmp_path, script) as found:
        assert said in await found.refused()
        found.unharmed()
        [first, *_] = found.host.peers
        assert first.head.startswith("GET /.heim/tunnel/agent HTTP/1.1")
        # Nothing about who we are is told before the other side is asked to prove itself.
        for secret in ("desktop", "authorization", "cookie"):
            assert secret not in first.head.lower()


async def test_W16_a_proxy_that_says_never_is_asked_again_in_ten_minutes(tmp_path: Path) -> None:
    script = refusing(Code.GOING_AWAY, "for ever", reconnect_in=4_000_000.0)
    async with victim(tmp_path, script) as found:
        await found.refused()
        [lane] = found.link.describe()["lanes"]  # type: ignore[misc]
        assert lane["retry_at"] - time.time() < 605


async def test_W17_a_proxy_that_accepts_and_drops_is_not_hammered(tmp_path: Path) -> None:
    """O8."""

    async def dropping(peer: Peer) -> None:
        await peer.let_in()

    async with victim(tmp_path, dropping, jitter=0.99) as found:
        await asyncio.sleep(2.5)
        # 0.5, 1, 2 s: three attempts, perhaps a fourth just now.
        assert 2 <= len(found.host.peers) <= 4


async def test_W18_what_a_goodbye_says_reaches_no_terminal_and_no_second_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = 'so long\r\n{"event":"agent.started"}\x1b]0;owned\x07\u202e'
    with caplog.at_level(logging.DEBUG):
        async with victim(tmp_path, refusing(Code.REVOKED, text)) as found:
            why = await found.refused()
    assert why.isprintable()
    for record in caplog.records:
        assert JsonFormatter().format(record).isprintable()


@pytest.mark.parametrize("step", ["W19 TLS", "W19 101", "W19 READY"])
async def test_W19_silence_at_any_step_ends_at_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    for name, limit in (("dialling.TLS_S", 0.2), ("lane.ANSWER_S", 0.2), ("lane.READY_S", 0.2)):
        monkeypatch.setattr(f"heim_agent.{name}", limit)

    async def stalling(peer: Peer) -> None:
        await peer.request()
        await peer.upgrade()
        await peer.reader.read()
        await peer.reader.read()

    kept: list[asyncio.StreamWriter] = []
    mute = await asyncio.start_server(lambda _, writer: kept.append(writer), "127.0.0.1", 0)
    port = mute.sockets[0].getsockname()[1] if step == "W19 TLS" else None
    async with victim(tmp_path, stalling if step == "W19 READY" else silent, port=port) as found:
        assert "does not" in await found.refused()
        found.unharmed()
    mute.close()
    for writer in kept:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        pytest.param({"names": ["evil.test"]}, "for another name", id="W20 other name"),
        pytest.param({"end_days": -0.1}, "clock is wrong", id="W20 expired"),
        pytest.param({"start_days": 0.1}, "clock is wrong", id="W20 not yet valid"),
    ],
)
async def test_W20_a_certificate_that_is_not_valid_is_told_nothing(
    tmp_path: Path, pair: dict[str, Any], said: str
) -> None:
    names = pair.pop("names", [LOGIN_HOST])
    async with victim(tmp_path, honest, jitter=0.9) as found:
        found.host.use(make_pair(*names, **pair))
        assert said in await found.refused()
        assert all(not peer.head for peer in found.host.peers)
        found.unharmed()


async def test_W21_a_renewal_cannot_plant_somebody_elses_certificate(tmp_path: Path) -> None:
    async def planting(peer: Peer) -> None:
        await peer.let_in()
        public = FOREIGN.key.public_key()
        for der in (FOREIGN.certificate(public, begins=3600.0), b"x", b""):
            # Unasked, and then as the answer.
            peer.session.ready({"certificate": base64.b64encode(der).decode(), "expires": 1e300})
        await peer.flush()
        await peer.renewal()
        der = FOREIGN.certificate(public, begins=3600.0)
        peer.session.ready({"certificate": base64.b64encode(der).decode()})
        await peer.serve()

    async with victim(tmp_path, planting) as found:
        await until(lambda: found.link.connected)
        [keeper] = found.link._keepers
        lane = keeper.lane
        assert lane is not None
        assert "another key" in await lane.renew()
        assert found.identity.certificate == found.before[2]
        assert found.link.connected


async def test_W22_the_time_is_the_statements_and_nobody_elses(tmp_path: Path) -> None:
    async def future(peer: Peer) -> None:
        await peer.request()
        await peer.upgrade(hello={"time": int(time.time()) + 10**9})
        await peer.proof()
        peer.ready()
        await peer.serve()

    async with victim(tmp_path, future) as found:
        await until(lambda: found.link.connected)
        assert abs(found.link.clock.now() - time.time()) < 5


def secrets_of(found: Victim) -> list[bytes]:
    """What must never be seen: the private key, in the forms that it could leak in."""
    pem = found.identity.key.to_pem()
    key = load_pem_private_key(pem, None)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    number = key.private_numbers().private_value.to_bytes(32)  # type: ignore[union-attr]
    body = b"".join(pem.splitlines()[1:-1])
    return [
        pem, der, number, body, number.hex().encode(), base64.b64encode(number),
        base64.urlsafe_b64encode(number).rstrip(b"="), str(int.from_bytes(number)).encode(),
    ]  # fmt: skip


async def test_W23_the_key_stays_and_proofs_are_in_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[bytes] = []
    told: list[str] = []

    async def noting(peer: Peer) -> None:
        await peer.let_in()
        proof = await peer.proof()
        told.extend([proof["signature"], proof["certificate"], peer.nonce, peer.hello["nonce"]])
        said.append(peer.head.encode() + json.dumps([proof, peer.hello]).encode())
        message = await peer.renewal()
        said.append(message.public_bytes(Encoding.DER))
        fresh = base64.b64encode(peer.host.certificate(begins=60.0)).decode()
        told.append(fresh)
        peer.session.ready({"certificate": fresh})
        await peer.serve()

    with caplog.at_level(logging.DEBUG):
        async with victim(tmp_path, noting) as found:
            await until(lambda: found.link.connected)
            lane = found.link._keepers[0].lane
            assert lane is not None
            assert await lane.renew() == ""
            found.link._report.write()
            status = (tmp_path / "state" / "status.json").read_bytes()
            found.host.script = refusing(Code.REVOKED)
            found.host.peers[-1].writer.transport.abort()
            await found.refused()
            key_file = tmp_path / "state" / "key.pem"
            assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    logged = "\n".join(JsonFormatter().format(record) for record in caplog.records).encode()
    assert b"lane.ready" in logged
    for secret in secrets_of(found):
        for where in (logged, status, repr(found.identity).encode(), *said):
            assert secret not in where
    for proof in told:
        assert proof.encode() not in logged
        assert proof.encode() not in status


async def test_W24_an_agent_that_was_lied_to_by_all_of_them_is_as_it_was(
    tmp_path: Path,
) -> None:
    scripts = [
        stating(root=FOREIGN), stating(nonce="x"), refusing(Code.REVOKED), refusing(999, "?"),
        answering("302 Found"), answering("503 Busy"), answering("200 OK"),
    ]  # fmt: skip
    turn = 0

    async def each(peer: Peer) -> None:
        nonlocal turn
        turn += 1
        await scripts[turn % len(scripts)](peer)

    async with victim(tmp_path, each) as found:
        await until(lambda: turn > 2 * len(scripts))
        found.unharmed()
        await found.recovers()
