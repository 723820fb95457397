"""O5, O6, O8, O9, O11, O12 and Q1 of security.md, and cases 19, 31, 39, 40, 46, 47 of tunnel.md, 6.

The login host's door for agents: whoever can reach it may knock, and comes in only with a key that
is enrolled, proven on that very connection. After that an agent is as untrusted as before.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec

from heim_agent import statement
from heim_proxy.agents.authority import Authority
from heim_proxy.agents.knock import HANDSHAKE_S
from heim_proxy.agents.lane import Lane
from heim_proxy.agents.presence import Offline
from heim_proxy.agents.waiting import MOST, WaitingRoom
from heim_proxy.agents.wiring import Agents
from heim_proxy.live import EndReason
from heim_wire.errors import Code
from heim_wire.frames import CRITICAL, HEAD, Type, plain_frame
from tests.fakes.agent import (
    Machine,
    ScriptedAgent,
    agent_head,
    b64url,
    certificate_request,
    enrolled,
    silent,
)
from tests.fakes.heim import LOGIN_HOST, Wire, trusting_context
from tests.hostile.world import ALICE, World, host, reset, within

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY_S: Final = 86_400.0
# Seconds from a frame that breaks the protocol to the end of its connection.
SOON_S: Final = 2.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory: Path = tmp_path_factory.mktemp("agents")
    agents = [
        {"name": "desktop", "targets": ["ssh", "web"]},
        {"name": "db", "targets": ["psql"]},
        {"name": "pool", "targets": ["web"], "group": True},
    ]
    # Made long ago, so that certificates can be, too.
    made = time.time() - 90 * DAY_S
    certificate, key = Authority.generate_pem(now=made)
    (directory / "ca.pem").write_bytes(certificate)
    (directory / "ca.key").write_bytes(key)
    (directory / "ca.key").chmod(0o600)
    authority = {"cert_file": "ca.pem", "key_file": "ca.key"}
    world = await World.start(directory, agents=agents, agents_ca=authority)
    yield world
    await world.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def desktop(world: World) -> Machine:
    return await enrolled(world.heim, "desktop")


def agents_of(world: World) -> Agents:
    agents = world.heim.proxy._agents
    assert agents is not None
    return agents


def lane_of(world: World, name: str = "desktop") -> Lane:
    lane = agents_of(world).registry.pick(name)
    assert isinstance(lane, Lane)
    return lane


async def connected(world: World, machine: Machine, **more: Any) -> ScriptedAgent:
    return await ScriptedAgent.connect(world.heim, machine, **more)


async def greeted(world: World, machine: Machine, **more: Any) -> ScriptedAgent:
    """A lane that has the proxy's HELLO and sends no AUTH by itself."""
    wire = await world.heim.connect(LOGIN_HOST)
    agent = await ScriptedAgent.greet(wire, machine, mute=True, **more)
    await agent.until(lambda: agent.hello or agent.gone)
    return agent


async def sent_away(agent: ScriptedAgent, within_s: float = SOON_S) -> tuple[int, str]:
    """The code and the reason with which the proxy ended it."""
    await agent.over(within_s)
    assert agent.goaway is not None
    assert not agent.readies
    return agent.goaway.code, agent.goaway.reason


def nobody(world: World) -> None:
    assert len(agents_of(world).registry) == 0
    assert world.live == 0


class Owner:
    """Who uses a stream through an agent: notes what it is told."""

    def __init__(self) -> None:
        self.data = self.told("data")
        self.accepted = self.told("accepted")
        self.drained = self.told("drained")
        self.ended = self.told("ended")
        self.finished = self.told("finished")
        self.events: list[tuple[str, tuple[Any, ...]]] = []

    def told(self, name: str) -> Any:
        return lambda *more: self.events.append((name, more))

    def reset(self, code: int, reason: str) -> None:
        self.events.append(("reset", (code, reason)))

    @property
    def lost(self) -> list[int]:
        return [more[0] for name, more in self.events if name == "reset"]


def opened(lane: Lane, target: str = "ssh") -> tuple[Any, Owner]:
    owner = Owner()
    stream = lane.open({"target": target, "proto": "tcp"})
    stream.context = owner
    return stream, owner


# -- where the door is, and what it answers ----------------------------------------------------


@pytest.mark.parametrize("at", ["app", "open", "plain"])
async def test_O11_an_application_s_host_has_no_door_for_agents(world: World, at: str) -> None:
    answer = await world.heim.raw(agent_head(host=host(at)), sni=host(at))
    assert answer.status == 404
    world.untouched()
    nobody(world)


async def test_O11_plain_http_has_no_door_either(world: World) -> None:
    answer = await world.heim.raw(agent_head(), plain=True)
    assert answer.status == 308


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (agent_head(drop=("Upgrade", "Connection")), 426),
        (agent_head(drop=("Sec-WebSocket-Version",)), 426),
        (agent_head(drop=("Sec-WebSocket-Key",)), 400),
        (agent_head(drop=("Sec-WebSocket-Protocol",)), 400),
        (agent_head(method="POST", extra=("Content-Length: 0",)), 400),
        (agent_head(path="/.heim/tunnel/agent?agent=desktop"), 400),
        (agent_head(path="/.heim/tunnel/agent/"), 404),
        (agent_head(path="/.heim/tunnel/Agent"), 404),
    ],
    ids=["no upgrade", "version", "key", "protocol", "method", "query", "slash", "case"],
)
async def test_what_is_no_handshake_is_told_so(world: World, request_: bytes, status: int) -> None:
    answer = await world.heim.raw(request_, sni=LOGIN_HOST)
    assert answer.status == status
    nobody(world)


async def test_a_credential_in_the_request_counts_for_nothing(
    world: World, desktop: Machine
) -> None:
    wire = await world.heim.connect(LOGIN_HOST)
    cookie = f"Cookie: {await world.heim.signed_in(ALICE, LOGIN_HOST)}"
    wire.send(agent_head(extra=("Authorization: Bearer anything", cookie)))
    assert (await within(wire.answer())).status == 101
    await asyncio.sleep(0.05)
    nobody(world)


# -- who it is ---------------------------------------------------------------------------------


async def test_a_machine_that_proves_its_key_comes_in(world: World, desktop: Machine) -> None:
    agent = await connected(world, desktop)
    ready = agent.readies[0]
    assert (ready["agent"], ready["targets"], ready["lanes"]) == ("desktop", ["ssh", "web"], 4)
    assert lane_of(world).thumbprint == desktop.thumbprint
    assert lane_of(world).valid_until == ready["expires"]


@pytest.mark.parametrize(
    "lie",
    [
        {"nonce": "A" * 43}, {"replica": "another"}, {"host": "auth.evil.test"},
        {"spki": b"\x07" * 32}, {"agent": "db"}, {"boot": "0" * 32}, {"lane": 1},
        {"key": ec.generate_private_key(ec.SECP256R1())},
    ],
    ids=lambda lie: next(iter(lie)),
)  # fmt: skip
async def test_47_a_proof_of_anything_else_is_refused(
    world: World, desktop: Machine, lie: dict[str, Any]
) -> None:
    agent = await greeted(world, desktop)
    agent.auth(agent.proof(**lie))
    code, reason = await sent_away(agent)
    assert code == Code.UNAUTHENTICATED
    assert "terminates TLS" in reason
    nobody(world)


async def test_47_a_proof_that_was_used_is_worth_nothing_elsewhere(
    world: World, desktop: Machine
) -> None:
    first = await greeted(world, desktop)
    proof = first.proof()
    first.auth(proof)
    await first.until(lambda: first.readies)
    second = await greeted(world, desktop)
    second.auth(proof)
    assert (await sent_away(second))[0] == Code.UNAUTHENTICATED
    assert not first.gone


async def test_a_proof_through_a_load_balancer_counts_when_its_key_is_listed(
    world: World, desktop: Machine
) -> None:
    key = b"\x09" * 32
    refused = await greeted(world, desktop)
    refused.auth(refused.proof(spki=key))
    assert (await sent_away(refused))[0] == Code.UNAUTHENTICATED
    await world.change(tunnel={"agent_tls_keys": [key.hex()]})
    await connected(world, desktop, spki=key)
    await world.change(tunnel={})


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """An authority that is not ours."""
    return Authority.load_or_create(tmp_path, login_host=LOGIN_HOST)


async def test_Q1_a_certificate_of_another_authority_is_refused(
    world: World, desktop: Machine, stranger: Authority
) -> None:
    desktop.certificate = stranger.issue(desktop.key.public_key(), name="desktop", now=time.time())
    agent = await connected(world, desktop, ready=False)
    assert (await sent_away(agent))[0] == Code.UNAUTHENTICATED


@pytest.mark.parametrize(
    "certificate", [b"\x30\x03\x02\x01\x00", b"x" * 1000, os.urandom(300)], ids=len
)
async def test_Q1_what_is_no_certificate_is_refused(
    world: World, desktop: Machine, certificate: bytes
) -> None:
    desktop.certificate = certificate
    agent = await connected(world, desktop, ready=False)
    assert (await sent_away(agent))[0] == Code.UNAUTHENTICATED


async def test_O12_no_certificate_at_all_is_said_in_words(world: World, desktop: Machine) -> None:
    agent = await greeted(world, desktop)
    agent.auth({"kind": "agent-proof", "signature": b64url(b"s" * 70)})
    code, reason = await sent_away(agent)
    assert code == Code.PROTOCOL
    assert "certificate" in reason


async def test_O5_the_certificate_of_one_agent_is_not_another(world: World) -> None:
    machine = await enrolled(world.heim, "db")
    agent = await connected(world, machine, hello={"agent": "desktop"}, ready=False)
    code, reason = await sent_away(agent)
    assert code == Code.UNAUTHENTICATED
    assert "agent db" in reason
    nobody(world)


@pytest.mark.parametrize("name", ["../db", "a/b", "Desktop", "desktop ", "", "x" * 64, "*"])
async def test_O5_a_name_that_cannot_be_one_is_refused(
    world: World, desktop: Machine, name: str
) -> None:
    agent = await connected(world, desktop, hello={"agent": name}, ready=False)
    assert (await sent_away(agent))[0] == Code.PROTOCOL
    nobody(world)


async def test_a_key_that_is_not_enrolled_is_refused(world: World, desktop: Machine) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    authority = agents_of(world).authority
    certificate = authority.issue(key.public_key(), name="desktop", now=time.time())
    agent = await connected(world, Machine("desktop", certificate, key), ready=False)
    assert (await sent_away(agent))[0] == Code.REVOKED


async def test_an_agent_that_is_not_configured_is_refused(world: World) -> None:
    machine = await enrolled(world.heim, "ghost")
    agent = await connected(world, machine, ready=False)
    code, reason = await sent_away(agent)
    assert code == Code.FORBIDDEN
    assert "ghost" in reason


async def test_O6_a_revoked_machine_is_refused(world: World, desktop: Machine) -> None:
    assert desktop.row is not None
    await agents_of(world).store.end_session(
        desktop.row.sid, reason=EndReason.REVOKED.value, now=time.time()
    )
    agent = await connected(world, desktop, ready=False)
    code, reason = await sent_away(agent)
    assert code == Code.REVOKED
    assert "join again" in reason


async def test_O6_a_revoked_machine_is_cut_off_within_two_seconds(
    world: World, desktop: Machine
) -> None:
    agent = await connected(world, desktop)
    _, owner = opened(lane_of(world))
    await agent.until(lambda: agent.served)
    began = time.monotonic()
    assert desktop.row is not None
    await agents_of(world).store.end_session(
        desktop.row.sid, reason=EndReason.REVOKED.value, now=time.time()
    )
    await agent.over()
    assert time.monotonic() - began < 2.0
    assert agent.goaway is not None
    assert agent.goaway.code == Code.REVOKED
    assert owner.lost == [Code.AGENT_LOST]
    nobody(world)


async def test_O6_a_certificate_that_ends_ends_the_lane(world: World) -> None:
    machine = await enrolled(world.heim, "desktop", certified_at=time.time() - DAY_S + 1.5)
    agent = await connected(world, machine)
    await agent.over(4.0)
    assert agent.goaway is not None
    assert agent.goaway.code == Code.EXPIRED
    nobody(world)


async def test_a_machine_that_was_off_for_a_week_comes_back_and_renews(world: World) -> None:
    machine = await enrolled(world.heim, "desktop", certified_at=time.time() - 7 * DAY_S)
    agent = await connected(world, machine)
    assert lane_of(world).valid_until < time.time() + 120
    agent.renew()
    await agent.until(lambda: len(agent.readies) > 1)
    assert agent.readies[1]["certificate"]
    assert lane_of(world).valid_until > time.time() + DAY_S - 600


async def test_Q1_a_machine_that_was_off_for_two_months_must_join_again(world: World) -> None:
    machine = await enrolled(world.heim, "desktop", certified_at=time.time() - 60 * DAY_S)
    agent = await connected(world, machine, ready=False)
    code, reason = await sent_away(agent)
    assert code == Code.EXPIRED
    assert "join again" in reason


async def test_Q1_a_certificate_of_tomorrow_is_refused(world: World) -> None:
    machine = await enrolled(world.heim, "desktop", certified_at=time.time() + DAY_S)
    agent = await connected(world, machine, ready=False)
    assert (await sent_away(agent))[0] == Code.UNAUTHENTICATED


@pytest.mark.parametrize("off_s", [-600, 600])
async def test_46_the_clock_of_an_agent_does_not_matter(
    world: World, desktop: Machine, off_s: int
) -> None:
    agent = await connected(world, desktop, hello={"time": int(time.time()) + off_s})
    assert abs(agent.hello["time"] - time.time()) < 5


async def test_nothing_is_told_before_possession_is_proven(world: World) -> None:
    """Refusals that depend on the store or on configuration come after the proof."""
    ghost = await enrolled(world.heim, "ghost")
    agent = await greeted(world, ghost)
    agent.auth(agent.proof(key=ec.generate_private_key(ec.SECP256R1())))
    assert (await sent_away(agent))[0] == Code.UNAUTHENTICATED


# -- one that says nothing, or too much --------------------------------------------------------


@pytest.mark.parametrize("words", ["nothing", "hello only"])
async def test_O9_who_does_not_prove_in_time_is_sent_away(
    world: World, desktop: Machine, words: str
) -> None:
    wire = await world.heim.connect(LOGIN_HOST)
    agent = await ScriptedAgent.greet(wire, desktop, mute=True, silent=words == "nothing")
    door = agents_of(world).door
    await world.heim.until(lambda: door.connecting == 1)
    world.sweep(HANDSHAKE_S - 0.1)
    assert door.connecting == 1
    world.sweep(HANDSHAKE_S + 0.1)
    assert door.connecting == 0
    assert (await sent_away(agent))[0] == Code.UNAUTHENTICATED


async def from_address(world: World, address: str) -> Wire:
    """A connection from another address of this machine."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1",
        world.heim.https_port,
        ssl=trusting_context(),
        server_hostname=LOGIN_HOST,
        local_addr=(address, 0),
    )
    wire = Wire(reader, writer)
    world.heim._wires.append(wire)
    return wire


async def crowd(world: World) -> list[Wire]:
    """As many silent handshakes as there may be, from one address."""
    wires = [await world.heim.connect(LOGIN_HOST) for _ in range(MOST)]
    for wire in wires:
        wire.send(agent_head())
        assert (await within(wire.answer())).status == 101
    return wires


async def test_O9_handshakes_in_flight_are_bounded(world: World) -> None:
    wires = await crowd(world)
    answer = await world.heim.raw(agent_head(), sni=LOGIN_HOST)
    assert answer.status == 503
    assert 1 <= int(answer.get("retry-after") or 0) <= 30
    assert agents_of(world).door.connecting == MOST
    reset(wires[0])
    await world.heim.until(lambda: agents_of(world).door.connecting < MOST)
    assert (await world.heim.raw(agent_head(), sni=LOGIN_HOST)).status == 101


async def test_O9_one_address_does_not_keep_the_others_out(world: World, desktop: Machine) -> None:
    await crowd(world)
    wire = await from_address(world, "127.0.0.9")
    began = time.monotonic()
    await ScriptedAgent.connect(wire, desktop)
    assert time.monotonic() - began < 1.0
    assert lane_of(world).address == "127.0.0.9"


async def test_O15_a_page_on_the_web_cannot_have_its_visitors_take_the_places(
    world: World,
) -> None:
    """Any page may open a WebSocket to us, from the address of each of its visitors."""
    page = agent_head(extra=("Origin: https://evil.test",))
    answer = await world.heim.raw(page, sni=LOGIN_HOST)
    assert answer.status == 403
    assert agents_of(world).door.connecting == 0
    own = agent_head(extra=(f"Origin: https://{LOGIN_HOST}",))
    assert (await world.heim.raw(own, sni=LOGIN_HOST)).status == 403


async def test_O16_a_site_with_many_networks_is_one_of_those_who_wait() -> None:
    """A /48 is what anybody gets; one handshake from each of its 65,536 networks is a crowd."""
    room: WaitingRoom[int] = WaitingRoom()
    for number in range(MOST):
        assert room.enter(number, f"2001:db8:7:{number:x}::1")
    assert not room.enter(MOST, "192.0.2.1")
    assert room.crowd("192.0.2.1") == 0
    assert room.crowd("2001:db8:8::1") == 0
    # What is written as IPv6 and is not: each address is somebody else.
    mapped: WaitingRoom[int] = WaitingRoom()
    for number in range(MOST):
        assert mapped.enter(number, f"::ffff:198.51.100.{number}")
    assert mapped.crowd("192.0.2.1") is None


async def test_31_when_there_is_no_place_for_a_lane_the_answer_is_503(
    world: World, desktop: Machine
) -> None:
    registry = agents_of(world).registry
    registry._lanes += 10_000
    try:
        answer = await world.heim.raw(agent_head(), sni=LOGIN_HOST)
    finally:
        registry._lanes -= 10_000
    assert answer.status == 503
    assert answer.get("retry-after")
    await connected(world, desktop)


GARBAGE: Final = {
    "length zero of nothing known": HEAD.pack(99, CRITICAL, 0, 0),
    "a length of 65535": HEAD.pack(Type.HELLO, 0, 65_535, 0) + b"{" * 65_535,
    "HELLO of 100 kB": HEAD.pack(Type.HELLO, 0, 65_535, 0) + b'{"agent":"' + b"x" * 100_000,
    "no JSON": plain_frame(Type.HELLO, 0, b"agent: desktop"),
    "JSON that is no object": plain_frame(Type.HELLO, 0, b"[1]"),
    "deep JSON": plain_frame(Type.HELLO, 0, b'{"a":' * 300 + b"1" + b"}" * 300),
    "keys twice": plain_frame(Type.HELLO, 0, b'{"v":[1],"v":[1]}'),
    "no version": plain_frame(Type.HELLO, 0, b"{}"),
    "AUTH before HELLO": plain_frame(Type.AUTH, 0, b"{}"),
    "READY from an agent": plain_frame(Type.READY, 0, b"{}"),
    "DATA before HELLO": plain_frame(Type.DATA, 2, b"x"),
    "OPEN before HELLO": plain_frame(Type.OPEN, 1, b"{}"),
    "zeros": bytes(20_000),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_O2_garbage_instead_of_hello_ends_the_connection(
    world: World, desktop: Machine, garbage: bytes
) -> None:
    wire = await world.heim.connect(LOGIN_HOST)
    agent = await ScriptedAgent.greet(wire, desktop, mute=True, silent=True)
    agent.frame(garbage)
    await agent.over(SOON_S)
    assert agent.goaway is None or agent.goaway.code == Code.PROTOCOL
    assert not agent.readies
    await world.heim.until(lambda: agents_of(world).door.connecting == 0)
    nobody(world)


@pytest.mark.parametrize("seed", range(6))
async def test_O2_noise_after_ready_ends_one_lane_and_no_other(
    world: World, desktop: Machine, seed: int
) -> None:
    db = await enrolled(world.heim, "db")
    other = await connected(world, db)
    agent = await connected(world, desktop)
    noise = random.Random(seed)
    for _ in range(200):
        if agent.gone:
            break
        agent.frame(noise.randbytes(noise.randrange(1, 3000)))
        await asyncio.sleep(0)
    await agent.over(SOON_S)
    assert isinstance(agents_of(world).registry.pick("desktop"), Offline)
    assert not other.gone
    assert lane_of(world, "db").name == "db"


async def test_O7_an_agent_that_opens_a_stream_breaks_the_protocol(
    world: World, desktop: Machine
) -> None:
    agent = await connected(world, desktop)
    assert agent.hello["max_streams"] == 0
    agent.frame(plain_frame(Type.OPEN, 1, b'{"target":"ssh"}'))
    await agent.over(SOON_S)
    assert agent.goaway is not None
    assert agent.goaway.code == Code.PROTOCOL
    world.untouched()
    nobody(world)


async def test_O7_nor_does_one_that_did_not_prove_itself(world: World, desktop: Machine) -> None:
    agent = await greeted(world, desktop)
    agent.frame(plain_frame(Type.OPEN, 1, b'{"target":"ssh"}'))
    assert (await sent_away(agent))[0] == Code.PROTOCOL


async def test_a_second_proof_breaks_the_protocol(world: World, desktop: Machine) -> None:
    agent = await connected(world, desktop)
    agent.auth(agent.proof())
    await agent.over(SOON_S)
    assert agent.goaway is not None
    assert agent.goaway.code == Code.PROTOCOL


async def test_two_proofs_at_once_break_the_protocol(world: World, desktop: Machine) -> None:
    agent = await greeted(world, desktop)
    proof = agent.proof()
    agent.session.auth(proof)
    agent.session.auth(proof)
    agent.flush()
    assert (await sent_away(agent))[0] == Code.PROTOCOL
    nobody(world)


async def test_a_renewal_for_another_key_is_refused_and_the_lane_stays(
    world: World, desktop: Machine
) -> None:
    agent = await connected(world, desktop)
    expires = lane_of(world).valid_until
    agent.renew(ec.generate_private_key(ec.SECP256R1()))
    await agent.until(lambda: agent.notices)
    assert "another key" in agent.notices[0]
    assert len(agent.readies) == 1
    assert lane_of(world).valid_until == expires


@pytest.mark.parametrize("csr", [None, "", "!!", "AAAA", "A" * 3000], ids=lambda csr: repr(csr)[:9])
async def test_a_renewal_that_is_no_request_is_refused_and_the_lane_stays(
    world: World, desktop: Machine, csr: str | None
) -> None:
    agent = await connected(world, desktop)
    agent.auth({"kind": "agent-renew", "csr": csr})
    await agent.until(lambda: agent.notices)
    assert len(agent.readies) == 1
    assert not agent.gone


async def test_renewals_have_a_pace(world: World, desktop: Machine) -> None:
    agent = await connected(world, desktop)
    agent.renew()
    agent.renew()
    await agent.until(lambda: agent.notices)
    assert len([ready for ready in agent.readies if "certificate" in ready]) == 1
    assert "a moment ago" in agent.notices[0]


async def test_G12_a_store_that_is_away_for_too_long_sends_nobody_to_join_again(
    world: World, desktop: Machine
) -> None:
    """An agent that is told that its certificate ended gives up for minutes, and asks for help."""
    agent = await connected(world, desktop)
    edge = world.heim.proxy._edge
    assert edge is not None
    edge.sessions._distrust_memory()
    await agent.over(SOON_S)
    assert agent.goaway is not None
    assert agent.goaway.code == Code.BUSY
    assert "cannot check enrolments" in agent.goaway.reason
    nobody(world)


async def test_O17_an_agent_that_asks_for_renewals_without_end_fills_no_log(
    world: World, desktop: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    agent = await connected(world, desktop)
    for _ in range(200):
        agent.auth({"kind": "agent-renew", "csr": "AAAA"})
    await agent.until(lambda: len(agent.notices) == 200)
    lines = [one for one in caplog.records if one.getMessage() == "agent.renewal_refused"]
    assert len(lines) == 1


async def test_46_a_renewal_tells_the_time_again(world: World, desktop: Machine) -> None:
    """Of a lane that lives for weeks: a cheap clock is wrong by more than assertions allow then."""
    agent = await connected(world, desktop)
    agent.renew()
    await agent.until(lambda: len(agent.readies) > 2)
    first, _, again = agent.readies
    assert again["statement"] != first["statement"]
    roots = agents_of(world).authority.roots()
    stated = statement.verify(
        again["statement"],
        roots=roots,
        issuer=f"https://{LOGIN_HOST}",
        audience=desktop.thumbprint,
        nonce=agent.nonce,
    )
    assert abs(stated.issued_at - time.time()) < 5


async def test_names_in_a_request_are_ignored(world: World, desktop: Machine) -> None:
    """Decision 30: the server sets the name."""
    agent = await connected(world, desktop)
    assert b"db" in certificate_request(desktop.key, "db")
    agent.renew()
    await agent.until(lambda: len(agent.readies) > 1)
    issued = base64.b64decode(agent.readies[1]["certificate"])
    assert agents_of(world).authority.verify(issued, now=time.time()).name == "desktop"


# -- those who come again, and those who come twice --------------------------------------------


async def test_19_an_agent_that_dies_is_noticed_at_once(world: World, desktop: Machine) -> None:
    agent = await connected(world, desktop)
    agent.targets["ssh"] = silent
    _, waiting = opened(lane_of(world))
    _, running = opened(lane_of(world), "web")
    await agent.until(lambda: len(agent.served) == 2)
    began = time.monotonic()
    reset(agent.wire)
    await world.heim.until(lambda: len(agents_of(world).registry) == 0, 1.0)
    assert time.monotonic() - began < 1.0
    assert waiting.lost == running.lost == [Code.AGENT_LOST]
    assert isinstance(agents_of(world).registry.pick("desktop"), Offline)


async def test_O8_a_newer_run_fences_the_older(world: World, desktop: Machine) -> None:
    old = await connected(world, desktop)
    _, owner = opened(lane_of(world))
    await old.until(lambda: old.served)
    new = await connected(world, desktop.rebooted())
    await old.over(SOON_S)
    assert old.goaway is not None
    assert old.goaway.code == Code.SUPERSEDED
    assert owner.lost == [Code.AGENT_LOST]
    assert lane_of(world).boot == new.machine.boot
    _, fresh = opened(lane_of(world))
    await new.until(lambda: new.served)
    assert fresh.lost == []


async def test_O8_a_lane_that_comes_again_takes_the_place_of_the_dead_one(
    world: World, desktop: Machine
) -> None:
    old = await connected(world, desktop)
    second = await connected(world, desktop, number=1)
    await connected(world, desktop)
    await old.over(SOON_S)
    assert not second.gone
    assert len(agents_of(world).registry) == 2


async def test_39_a_cloned_machine_is_found_out_and_the_first_one_stays(
    world: World, desktop: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    clone = desktop.rebooted()
    clone.device = "copy"
    here = [await connected(world, (desktop, clone)[number % 2]) for number in range(4)]
    staying = here[-1]
    refused = await connected(world, desktop, ready=False)
    code, reason = await sent_away(refused)
    assert code == Code.SUPERSEDED
    assert refused.goaway is not None
    assert refused.goaway.reconnect_in == 60
    assert not staying.gone
    await staying.until(lambda: staying.notices)
    for words in (reason, staying.notices[0], refused.notices[0]):
        assert "box" in words
        assert "copy" in words
    assert agents_of(world).registry.duplicates == 1
    audit = [one for one in caplog.records if one.getMessage() == "agent.duplicate"]
    assert audit
    assert vars(audit[0])["other_device"] == "copy"


async def test_39_another_key_does_not_take_a_name_that_is_in_use(
    world: World, desktop: Machine
) -> None:
    first = await connected(world, desktop)
    other = await enrolled(world.heim, "desktop", device="second")
    agent = await connected(world, other, ready=False)
    code, reason = await sent_away(agent)
    assert code == Code.FORBIDDEN
    assert "box" in reason
    assert not first.gone


async def test_39_but_does_once_the_first_was_revoked(world: World, desktop: Machine) -> None:
    """A join token made with --replace: the newcomer may be here before the feed was read."""
    first = await connected(world, desktop)
    other = await enrolled(world.heim, "desktop", device="second")
    assert desktop.row is not None
    await agents_of(world).store.end_session(
        desktop.row.sid, reason=EndReason.REVOKED.value, now=time.time()
    )
    await connected(world, other)
    await first.over(SOON_S)
    assert lane_of(world).device == "second"


async def test_39_the_machines_of_a_group_share_their_name(world: World) -> None:
    machines = [await enrolled(world.heim, "pool", device=f"m{n}") for n in range(3)]
    agents = [await connected(world, machine) for machine in machines]
    assert len(agents_of(world).registry.agents()) == 3
    for _ in agents:
        opened(lane_of(world, "pool"), "web")
        await asyncio.sleep(0)
    for agent in agents:
        await agent.until(lambda agent=agent: len(agent.served) == 1)


async def test_40_a_lane_that_goes_away_during_bulk_finishes_it(
    world: World, desktop: Machine
) -> None:
    leaving = await connected(world, desktop)
    lane = lane_of(world)
    stream, owner = opened(lane)
    await leaving.until(lambda: leaving.served)
    stream.send(b"x" * 65_536)
    lane.channel.wake()
    leaving.leave()
    staying = await connected(world, desktop, number=1)
    await world.heim.until(lambda: lane.channel.session.going_away)
    opened(lane_of(world))
    await staying.until(lambda: staying.served)
    stream.send(b"y" * 65_536)
    stream.end()
    lane.channel.wake()
    await leaving.until(lambda: leaving.served[0].ended)
    assert len(leaving.served[0].received) == 131_072
    assert owner.lost == []


async def test_O8_a_storm_of_one_machine_leaves_one_lane(world: World, desktop: Machine) -> None:
    for _ in range(30):
        agent = await connected(world, desktop, ready=False)
        await agent.until(lambda agent=agent: agent.readies or agent.gone)
    assert len(agents_of(world).registry) == 1
    await world.heim.until(lambda: world.live == 1)


# -- what holds while it lasts -----------------------------------------------------------------


async def test_an_agent_that_is_no_longer_configured_is_sent_away(
    world: World, desktop: Machine
) -> None:
    agent = await connected(world, desktop)
    configured = world.heim.document["agents"]
    await world.change(agents=[one for one in configured if one["name"] != "desktop"])
    await agent.over(SOON_S)
    await world.change(agents=configured)
    assert agent.goaway is not None
    assert agent.goaway.code == Code.FORBIDDEN


async def test_other_targets_are_told_at_once(world: World, desktop: Machine) -> None:
    agent = await connected(world, desktop)
    configured = world.heim.document["agents"]
    changed = [dict(one) for one in configured]
    changed[0]["targets"] = ["web"]
    await world.change(agents=changed)
    await agent.until(lambda: len(agent.readies) == 2)
    await world.change(agents=configured)
    assert agent.readies[1]["targets"] == ["web"]
    assert agent.readies[1]["statement"] != agent.readies[0]["statement"]


async def test_another_configuration_says_nothing_to_whom_it_does_not_concern(
    world: World, desktop: Machine
) -> None:
    agent = await connected(world, desktop)
    await world.change(drain="2s")
    await world.change(drain="1s")
    await asyncio.sleep(0.05)
    assert len(agent.readies) == 1


async def test_a_name_that_stops_being_a_group_is_the_first_machine(world: World) -> None:
    first = await connected(world, await enrolled(world.heim, "pool", device="first"))
    second = await connected(world, await enrolled(world.heim, "pool", device="second"))
    configured = world.heim.document["agents"]
    changed = [dict(one) for one in configured]
    changed[2]["group"] = False
    await world.change(agents=changed)
    await second.over(SOON_S)
    await world.change(agents=configured)
    assert not first.gone


async def test_a_stream_that_the_agent_resets_says_its_reason(
    world: World, desktop: Machine
) -> None:
    agent = await connected(world, desktop)
    agent.targets["ssh"] = lambda _, served: served.stream.reset(Code.DIAL_REFUSED, "no sshd")
    _, owner = opened(lane_of(world))
    await world.heim.until(lambda: owner.events)
    assert owner.events == [("reset", (Code.DIAL_REFUSED, "no sshd"))]


async def test_secrets_of_agents_are_in_no_log(
    world: World, desktop: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    agent = await greeted(world, desktop)
    proof = agent.proof()
    agent.auth(proof)
    await agent.until(lambda: agent.readies)
    reset(agent.wire)
    await world.heim.until(lambda: len(agents_of(world).registry) == 0)
    told = " ".join(str(vars(record)) for record in caplog.records)
    assert "agent.connected" in told
    assert "agent.disconnected" in told
    for secret in (proof["signature"], proof["certificate"], agent.statement, agent.nonce):
        assert secret not in told


async def test_a_thousand_who_come_and_go_leave_nothing(world: World, desktop: Machine) -> None:
    """Half of them silent, half of them with a hello, all cut off."""
    for number in range(100):
        wires = [await world.heim.connect(LOGIN_HOST) for _ in range(5)]
        for wire in wires:
            wire.send(agent_head())
        if number % 2:
            await asyncio.gather(*(within(wire.answer()) for wire in wires))
        for wire in wires:
            reset(wire)
            with contextlib.suppress(ValueError):
                world.heim._wires.remove(wire)
    door = agents_of(world).door
    await world.heim.until(lambda: door.connecting == 0)
    nobody(world)
    await connected(world, desktop)
