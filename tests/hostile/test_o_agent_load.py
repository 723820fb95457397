"""Cases 22, 29, 32, 33 and 65 of tunnel.md, 6: many streams, and many lanes, at once or in a row.

A whole proxy and the whole link of an agent (`Link`, `Serving`) on one loop, so that what either of
them keeps can be counted.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from heim_agent.config import Settings
from heim_agent.identity import Identity
from heim_agent.key import AgentKey
from heim_agent.link import Link
from heim_agent.places import Places
from heim_agent.serving import Serving
from heim_proxy.agents.dialer import AgentDialers
from heim_proxy.agents.lane import Lane
from heim_proxy.agents.wiring import Agents
from heim_proxy.demo.loopback import free_port
from heim_runtime.tasks import cancel, spawn
from heim_wire.aio.channel import Channel
from tests.fakes.agent import ScriptedAgent, enrolled
from tests.fakes.agent_streams import Asked, served, tcp
from tests.fakes.heim import DOMAIN, LOGIN_HOST, Heim, Wire, authority, user
from tests.fakes.thorough import THOROUGH
from tests.fakes.tunnel import TcpServer
from tests.fakes.upstream import Received, Upstream, answer
from tests.fakes.waiting import until

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]

AGENT: Final = "desktop"
WEB: Final = f"web.{DOMAIN}"
DEAD: Final = f"dead.{DOMAIN}"
EVERYBODY: Final = {
    "name": "readers",
    "members": [{"domain": "example.com"}],
    "bindings": [{"backend": "web", "permission": "all"}],
}


def through(name: str, target: str, agent: str = AGENT, **more: Any) -> dict[str, Any]:
    return {"name": name, "http": [{"path": "/", "agent": agent, "target": target}], **more}


BACKENDS: Final = [
    through("web", "web", permissions=[{"name": "all", "locations": [{"any": "/"}]}]),
    through("open", "web", public=True),
    through("dead", "dead", public=True),
]


@dataclass
class Pair:
    """A proxy, an agent of its own, and the web server behind it."""

    heim: Heim
    link: Link
    serving: Serving
    upstream: Upstream

    @property
    def agents(self) -> Agents:
        agents = self.heim.proxy._agents
        assert agents is not None
        return agents

    @property
    def agents_end(self) -> Channel:
        """The agent's end of its lane."""
        lane = self.link._keepers[0].lane
        assert lane is not None
        assert lane._channel is not None
        return lane._channel

    @property
    def lane(self) -> Lane:
        lane = self.agents.registry.pick(AGENT)
        assert isinstance(lane, Lane)
        return lane


@asynccontextmanager
async def pair(directory: Path) -> AsyncIterator[Pair]:
    upstream = await Upstream().start()
    heim = await Heim.start(
        directory,
        backends=BACKENDS,
        roles=[EVERYBODY],
        agents=[{"name": AGENT, "targets": ["web", "dead"]}],
    )
    machine = await enrolled(heim, AGENT)
    agents = heim.proxy._agents
    assert agents is not None
    places = Places(config=str(directory / "agent.toml"), state=str(directory / "agent"))
    key = AgentKey(machine.key)
    ca_file = directory / "ca.pem"
    authority().cert_pem.write_to_path(ca_file)
    identity = Identity(
        agent=AGENT, login_url=heim.proxy._snapshot.login_url, key=key,
        certificate=machine.certificate, roots=[dict(one) for one in agents.authority.roots()],
        keys=[], places=places, ca_file=str(ca_file),
    )  # fmt: skip
    identity.save_joined(None)
    targets = {
        "web": tcp("web", upstream.port),
        "dead": tcp("dead", free_port(18800)),
    }
    serving = Serving(identity, Settings(targets=targets))
    link = Link(identity, serving, connect_to=("127.0.0.1", heim.https_port), environ={})
    task = spawn("link", link.run())
    try:
        await until(lambda: link.connected)
        yield Pair(heim, link, serving, upstream)
    finally:
        link.stop()
        link.stop()
        await asyncio.wait((task,), timeout=5)
        await cancel((task,))
        await heim.stop()
        await upstream.stop()


# -- 22 -------------------------------------------------------------------------------------------


async def test_22_both_kernels_give_up_on_a_lane_that_acknowledges_nothing(tmp_path: Path) -> None:
    """In earnest, for 20 s: tests/integration/test_agent_faults.py."""
    async with pair(tmp_path) as site:
        for channel in (site.lane.channel, site.agents_end):
            sock = channel._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000


# -- 33 -------------------------------------------------------------------------------------------


async def test_33_five_hundred_streams_that_open_at_once_are_all_served(tmp_path: Path) -> None:
    """None is answered before all are open: they are five hundred streams, not fifty in turns."""
    count = 500
    async with pair(tmp_path) as site:
        everybody = asyncio.Event()

        async def script(received: Received, reader: Any, writer: Any) -> bytes:
            if site.upstream.open == count:
                everybody.set()
            await everybody.wait()
            return answer(received.path.encode())

        site.upstream.script = script
        lane = site.lane
        wires = [await site.heim.connect(f"open.{DOMAIN}") for _ in range(count)]
        for number, wire in enumerate(wires):
            wire.send(f"GET /{number} HTTP/1.1\r\nHost: open.{DOMAIN}\r\n\r\n".encode())
        async with asyncio.timeout(30):
            answers = await asyncio.gather(*(wire.answer() for wire in wires))
        assert Counter(one.status for one in answers) == {200: count}
        assert [one.body for one in answers] == [b"/%d" % number for number in range(count)]
        assert site.lane is lane
        assert not lane.over


async def test_33_what_is_too_many_for_strangers_is_refused_in_words_and_the_lane_lives(
    tmp_path: Path,
) -> None:
    """The share of strangers is 512 streams of a lane (O18)."""
    count, share = 560, 512
    async with pair(tmp_path) as site:
        go = asyncio.Event()

        async def script(received: Received, reader: Any, writer: Any) -> bytes:
            await go.wait()
            return answer()

        site.upstream.script = script
        lane = site.lane
        wires = [await site.heim.connect(f"open.{DOMAIN}") for _ in range(count)]
        for wire in wires:
            wire.send(f"GET / HTTP/1.1\r\nHost: open.{DOMAIN}\r\n\r\n".encode())
        answers = [asyncio.ensure_future(wire.answer()) for wire in wires]
        await until(lambda: sum(one.done() for one in answers) == count - share, 20.0)
        refused = [one.result() for one in answers if one.done()]
        assert {one.status for one in refused} == {503}
        # A person has a share of their own.
        cookie = await site.heim.signed_in(user("alice"), WEB)
        alice = asyncio.ensure_future(site.heim.request("/", host=WEB, cookie=cookie))
        await until(lambda: site.upstream.open == share + 1)
        go.set()
        assert (await alice).status == 200
        async with asyncio.timeout(20):
            found = await asyncio.gather(*answers)
        assert Counter(one.status for one in found) == {200: share, 503: count - share}
        assert site.lane is lane


# -- 32 -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Census:
    """What the process has that could grow with every stream."""

    blocks: int
    descriptors: int
    tasks: int
    kinds: Counter[str]

    @classmethod
    def take(cls) -> Census:
        gc.collect()
        kinds = Counter(
            kind.__qualname__
            for one in gc.get_objects()
            if (kind := type(one)).__module__.startswith("heim_")
        )
        return cls(
            sys.getallocatedblocks(),
            len(os.listdir("/proc/self/fd")),
            len(asyncio.all_tasks()),
            kinds,
        )


async def cycles(site: Pair, count: int, cookies: list[str]) -> None:
    """Open and close `count` streams over eight connections, a tenth to a target that is dead."""
    upstream = site.upstream

    async def visit(number: int) -> None:
        wire = await site.heim.connect(WEB)
        dead = await site.heim.connect(DEAD)
        cookie = cookies[number % len(cookies)]
        request = f"GET /a HTTP/1.1\r\nHost: {WEB}\r\nCookie: {cookie}\r\n\r\n".encode()
        hopeless = f"GET /a HTTP/1.1\r\nHost: {DEAD}\r\n\r\n".encode()
        for turn in range(count // 8):
            refused = turn % 10 == 9
            at: Wire = dead if refused else wire
            at.send(hopeless if refused else request)
            found = await at.answer()
            assert found.status == (502 if refused else 200), found.raw
            upstream.requests.clear()
        for one in (wire, dead):
            one.close()
            site.heim._wires.remove(one)

    await asyncio.gather(*(visit(number) for number in range(8)))
    await until(lambda: not site.serving.streams and not upstream.open)
    await until(lambda: not site.lane.channel.session.streams)


@pytest.fixture
def unrecorded() -> Iterator[None]:
    """pytest keeps every record of the log, which would be a leak of the test's own."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("unrecorded")
async def test_32_thousands_of_streams_leave_nothing_behind(tmp_path: Path) -> None:
    async with pair(tmp_path) as site:

        async def script(received: Received, reader: Any, writer: asyncio.StreamWriter) -> None:
            # Not kept for the next request, which so needs a stream of its own.
            writer.write(answer(headers="Connection: close\r\n"))

        site.upstream.script = script
        cookies = [await site.heim.signed_in(user(name), WEB) for name in ("alice", "bob", "eve")]

        async def left() -> Census:
            # Bounded, by time or number: what was used already, whose streams were whose, and what
            # may still come for streams that were reset.
            site.serving._assertions._new.clear()
            site.lane.shares._forget(())
            for channel in (site.lane.channel, site.agents_end):
                channel.session._streams._past.clear()
            await asyncio.sleep(0.3)
            return Census.take()

        lane, count = site.lane, 5_000 if THOROUGH else 2_000
        await cycles(site, 800, cookies)
        before, dialled = await left(), site.upstream.connections
        await cycles(site, count, cookies)
        after = await left()
        refused = 8 * (count // 8 // 10)
        assert site.upstream.connections - dialled == count - refused
        assert site.lane is lane
        edge = site.heim.proxy._edge
        assert edge is not None
        assert isinstance(edge.personal_pools.agents, AgentDialers)
        assert not edge.personal_pools.agents._gates
        # One for each of three people, and one for everybody.
        assert len(edge.personal_pools) <= 4
        assert not site.serving._dials.unanswered
        assert not site.serving._dials._targets
        assert after.descriptors <= before.descriptors + 4
        assert after.tasks <= before.tasks + 4
        grown = after.kinds - before.kinds
        assert sum(grown.values()) < count / 100, grown.most_common(10)
        # Something of every stream would be thousands of them.
        assert after.blocks - before.blocks < count / 5, (before.blocks, after.blocks)


# -- 29 -------------------------------------------------------------------------------------------


async def test_29_a_thousand_idle_streams_cost_little_memory_and_no_time(tmp_path: Path) -> None:
    """Both ends of the lane, and the target's side of every stream, are in what is measured."""
    count = 1_000
    target = await TcpServer().start()
    try:
        async with served(tmp_path, tcp("ssh", target.port)) as site:
            first = site.open()
            await first.opened()
            tracemalloc.start()
            try:
                gc.collect()
                before, _ = tracemalloc.get_traced_memory()
                asked: list[Asked] = []
                while len(asked) < count:
                    some = [site.open() for _ in range(50)]
                    for one in some:
                        await one.opened()
                    asked += some
                    # Or they fill its backlog, and the kernel lets SYNs wait for a second.
                    await until(lambda: target.open == site.serving.streams)
                gc.collect()
                each = (tracemalloc.get_traced_memory()[0] - before) / count
            finally:
                tracemalloc.stop()
            assert site.serving.streams == count + 1
            assert each < 24_000, each
            began = time.process_time()
            await asyncio.sleep(1.0)
            assert time.process_time() - began < 0.1
            # And it carries bytes beside all of them.
            asked[500].send(b"awake")
            await asked[500].got(b"awake")
            for one in (first, *asked):
                one.end()
            await until(lambda: not site.serving.streams and not target.open, 10.0)
    finally:
        await target.stop()


# -- 65 -------------------------------------------------------------------------------------------


async def test_65_a_hundred_lanes_outlive_the_certificate_they_came_in_under(
    tmp_path: Path,
) -> None:
    heim = await Heim.start(
        tmp_path,
        backends=[through("open", "web", agent="pool", public=True)],
        agents=[{"name": "pool", "targets": ["web"], "group": True}],
    )
    agents: list[ScriptedAgent] = []
    try:
        agents = [
            await ScriptedAgent.connect(heim, await enrolled(heim, "pool")) for _ in range(100)
        ]
        registry = heim.proxy._agents
        assert registry is not None
        lane = registry.registry.pick("pool")
        assert isinstance(lane, Lane)
        stream = lane.open({"target": "web"})
        lane.channel.wake()
        before = await shown(heim)
        issued = authority().issue_cert(f"*.{DOMAIN}", DOMAIN)
        pem = b"".join(part.bytes() for part in issued.cert_chain_pems)
        for name, content in (("tls.crt", pem), ("tls.key", issued.private_key_pem.bytes())):
            fresh = tmp_path / f"{name}.new"
            fresh.write_bytes(content)
            os.replace(fresh, tmp_path / name)
        heim.proxy._hang_up()
        async with asyncio.timeout(10):
            while await shown(heim) == before:
                await asyncio.sleep(0.05)
        late = await ScriptedAgent.connect(heim, await enrolled(heim, "pool"))
        agents.append(late)
        lanes = [one for presence in registry.registry.agents() for one in presence.lanes]
        assert len(lanes) == 101
        assert not any(one.gone or one.goaway for one in agents)
        assert stream.id in lane.channel.session.streams
        # A certificate that is another one says nothing about who the agents are.
        assert [len(one.readies) for one in agents] == [1] * 101
    finally:
        for one in agents:
            one.abort()
        await heim.stop()


async def shown(heim: Heim) -> bytes:
    """The certificate that the login host shows, DER."""
    wire = await heim.connect(LOGIN_HOST)
    found = wire.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    wire.close()
    assert isinstance(found, bytes)
    return found
