"""Thousands of agents in one process: `python -m bench.agents.fleet JOB` with the job as JSON.

Each has its key, its certificate, a connection with TLS, a session of `heim_wire` and the pacing of
`heim_agent`; none has targets. It is light where nobody looks: the proxy's statement is not
verified, and nothing is written to disk. Orders come line by line on standard input:

    connect   open every lane, some at a time; says "ready" when all are
    times     a JSON line of when lanes became ready since the last `connect` or `times`,
              and what became of all other attempts
    end       close everything
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import hashlib
import json
import resource
import ssl
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bench.agents import enrolled
from bench.agents.pair import LOGIN_HOST
from heim_agent import proof
from heim_agent.endings import Ending, Kind, refused, sent_away
from heim_agent.key import AgentKey
from heim_agent.pacing import Pacer
from heim_runtime.clock import SystemClock
from heim_runtime.tasks import spawn
from heim_wire.agents import AGENT_PATH
from heim_wire.aio.channel import Channel
from heim_wire.aio.connection import Connection, upgrade
from heim_wire.events import Event, GoAway, Hello, Ready
from heim_wire.handshake import Upgrade
from heim_wire.mask import use_fast_mask
from heim_wire.problem import Refused
from heim_wire.session import Session
from heim_wire.settings import Settings
from heim_wire.window import WindowBudget

__all__ = ["Job", "address", "main"]

# As heim_agent.dialling and heim_agent.lane have them.
_CONNECT_S: Final = 20.0
_ANSWER_S: Final = 10.0
_READY_S: Final = 10.0
# At the first connect; the proxy lets 64 shake hands at a time, and there are several of us.
_AT_ONCE: Final = 14
# Attempts under way at a time later on. Real machines have a processor each; without this, all of
# ours would take longer for their own half of TLS than anybody's deadline.
_ATTEMPTS: Final = 64
# Machines behind one address, as in an office.
_BEHIND_ONE: Final = 50


@dataclass(frozen=True, slots=True)
class Job:
    """Which machines (a slice of a file of `enrolled.write`), and where the proxy is."""

    machines: str
    begin: int
    end: int
    port: int
    authority: str

    def dump(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def address(number: int) -> str:
    """Where a machine comes from: 50 behind each address of loopback."""
    network, host = divmod(number // _BEHIND_ONE, 250)
    return f"127.0.{network + 1}.{host + 1}"


class _Fleet:
    """What all machines of this process share."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.context = ssl.create_default_context(cafile=job.authority)
        self.budget = WindowBudget()
        self.places = asyncio.Semaphore(_AT_ONCE)
        self.attempting = asyncio.Semaphore(_ATTEMPTS)
        self.readies: list[float] = []
        self.attempts: Counter[str] = Counter()
        self.spki: dict[bytes, bytes] = {}
        machines = enrolled.read(Path(job.machines))[job.begin : job.end]
        self.agents = [
            _Agent(self, machine, address(job.begin + index))
            for index, machine in enumerate(machines)
        ]

    async def obey(self) -> None:
        loop = asyncio.get_running_loop()
        orders = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        while (order := (await orders.readline()).strip()) not in (b"end", b""):
            if order == b"connect":
                await asyncio.gather(*(agent.begin() for agent in self.agents))
                _say("ready")
            elif order == b"times":
                ready = sum(agent.ready for agent in self.agents)
                _say(json.dumps({"ready": ready, "at": self.readies, "other": self.attempts}))
            self.readies, self.attempts = [], Counter()

    def digest(self, certificate: bytes) -> bytes:
        """Of the key of the proxy's certificate; the same each time."""
        if certificate not in self.spki:
            key = x509.load_der_x509_certificate(certificate).public_key()
            der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            self.spki[certificate] = hashlib.sha256(der).digest()
        return self.spki[certificate]


class _Agent:
    """One machine: one lane, kept up."""

    def __init__(self, fleet: _Fleet, machine: enrolled.Machine, source: str) -> None:
        self.ready = False
        self.agent = machine.name
        self.certificate = machine.certificate_der
        self.key = AgentKey(machine.private)
        self._fleet = fleet
        self._source = source
        self._program = proof.Program("bench", f"machine-{source}")
        self._pacer = Pacer(SystemClock())
        self._first = asyncio.Event()

    async def begin(self) -> None:
        """Connect, and stay; returns when the first lane is ready."""
        async with self._fleet.places:
            spawn("fleet.keep", self._keep())
            await self._first.wait()

    async def _keep(self) -> None:
        while True:
            ending = await self._once()
            self._fleet.attempts[f"{ending.kind.value}: {ending.text[:60]}"] += 1
            await asyncio.sleep(self._pacer.after(ending))

    async def _once(self) -> Ending:
        lane = _Lane(self)
        async with self._fleet.attempting:
            try:
                await lane.open(await self._connect(), self._fleet)
            except Refused as error:
                return refused(error)
            except (OSError, TimeoutError) as error:
                return Ending(Kind.UNREACHABLE, type(error).__name__)
        if lane.since:
            self.ready = True
            self._fleet.readies.append(lane.since)
            self._first.set()
        ending = await lane.ended
        self.ready = False
        return ending.after(time.monotonic() - lane.since) if lane.since else ending

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_CONNECT_S):
            transport, connection = await loop.create_connection(
                Connection,
                "127.0.0.1",
                self._fleet.job.port,
                ssl=self._fleet.context,
                server_hostname=LOGIN_HOST,
                local_addr=(self._source, 0),
            )
        certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        self.spki = self._fleet.digest(certificate)
        return connection


class _Lane:
    """One connection; a `heim_wire` handler."""

    def __init__(self, agent: _Agent) -> None:
        loop = asyncio.get_running_loop()
        self.since = 0.0
        self.ended: asyncio.Future[Ending] = loop.create_future()
        self._agent = agent
        self._said = proof.hello(agent.agent, agent._program, lane=0)
        self._let_in: asyncio.Future[None] = loop.create_future()
        self._goaway: GoAway | None = None

    async def open(self, connection: Connection, fleet: _Fleet) -> None:
        """Upgrade, and prove who it is; `since` is set if it was let in."""
        session = Session(
            initiator=True,
            now=time.monotonic(),
            settings=Settings(),
            budget=fleet.budget,
            hello=self._said,
        )
        request = Upgrade(LOGIN_HOST, token="", path=AGENT_PATH)
        channel = await upgrade(connection, request, session, self, timeout_s=_ANSWER_S)
        try:
            async with asyncio.timeout(_READY_S):
                await self._let_in
        except TimeoutError:
            channel.abort()

    def event(self, channel: Channel, event: Event) -> None:
        if isinstance(event, Hello):
            said = proof.Introduction.read(event.message)
            spki = self._agent.spki
            # It has what proof needs of an identity.
            identity = cast("Any", self._agent)
            channel.session.auth(
                proof.proof(identity, self._said, said, host=LOGIN_HOST, spki=spki)
            )
            channel.wake()
        elif isinstance(event, Ready) and not self._let_in.done():
            self.since = time.monotonic()
            self._let_in.set_result(None)
        elif isinstance(event, GoAway):
            self._goaway = event

    def closed(self, channel: Channel, code: int, reason: str) -> None:
        ending = sent_away(self._goaway) if self._goaway else Ending(Kind.LOST, reason)
        if not self._let_in.done():
            self._let_in.set_result(None)
        if not self.ended.done():
            self.ended.set_result(ending)


def _say(line: str) -> None:
    print(line, flush=True)


async def _run(job: Job) -> None:
    fleet = _Fleet(job)
    gc.collect()
    gc.freeze()
    _say("made")
    await fleet.obey()


def main(argv: Sequence[str] | None = None) -> int:
    """Be agents until told to end."""
    job = Job(**json.loads((argv or sys.argv[1:])[0]))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    use_fast_mask()
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with contextlib.suppress(KeyboardInterrupt):
        # Closing ten thousand connections in good order is not what is measured.
        runner.get_loop().run_until_complete(_run(job))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
