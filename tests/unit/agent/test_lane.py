from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from heim_agent.clock import ProxyClock
from heim_agent.dialling import Way, connect
from heim_agent.endings import Ending, Kind, NotConnected
from heim_agent.identity import Identity
from heim_agent.lane import Grant, Lane, Terms
from heim_agent.proof import Program
from heim_wire.errors import Code
from heim_wire.events import Accepted, Ended, GoAway, Reset
from heim_wire.window import WindowBudget
from tests.fakes.lane_host import (
    AGENT,
    LOGIN_HOST,
    LaneHost,
    Peer,
    Script,
    Streams,
    answering,
    honest,
    lane_host,
    refusing,
    silent,
)
from tests.fakes.loops import LOOPS, run_on
from tests.fakes.waiting import until

loops = pytest.mark.parametrize("loop", LOOPS)


class Agent:
    """One lane's worth of an agent."""

    def __init__(self, host: LaneHost) -> None:
        self.host = host
        self.identity: Identity = host.identity()
        self.streams = Streams()
        self.clock = ProxyClock()
        self.changes = 0
        way = Way(LOGIN_HOST, 443, str(host.ca_file), ("127.0.0.1", host.port))
        self.terms = Terms(
            self.identity, self.streams, Program("1.2", "den"), self.clock, way, WindowBudget()
        )
        self.lane = Lane(self.terms, 0, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    async def open(self) -> Grant:
        return await self.lane.open(await connect(self.terms.way, {}))


@asynccontextmanager
async def opened(tmp_path: Path, script: Script = honest) -> AsyncIterator[Agent]:
    """An agent with a lane that is ready."""
    async with lane_host(tmp_path, script) as host:
        agent = Agent(host)
        await agent.open()
        yield agent
        agent.lane.abort()


async def refusal(tmp_path: Path, script: Script) -> Ending:
    async with lane_host(tmp_path, script) as host:
        agent = Agent(host)
        with pytest.raises(NotConnected) as caught:
            await agent.open()
        assert agent.lane.grant is None
        return caught.value.ending


@loops
def test_a_lane_is_let_in_with_what_the_proxy_grants(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as agent:
            grant = agent.lane.grant
            assert grant is not None
            assert (grant.replica, grant.targets, grant.lanes) == ("replica-1", ("ssh", "web"), 4)
            assert agent.lane.since == pytest.approx(time.time(), abs=5)
            [peer] = agent.host.peers
            assert "authorization" not in peer.fields
            assert peer.hello["agent"] == AGENT
            assert repr(agent.lane) == "<Lane 0 ready>"

    run_on(loop, scenario())


def test_what_was_stated_is_pinned_and_saved(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as agent:
            assert [key["kid"] for key in agent.identity.keys] == [agent.host.signer.kid]
            again = Identity.load(agent.identity.places)
            assert again.keys == agent.identity.keys

    run_on("asyncio", scenario())


@pytest.mark.parametrize("ahead_s", [-600.0, 600.0])
def test_46_the_proxys_time_counts(tmp_path: Path, ahead_s: float) -> None:
    async def scenario() -> None:
        async with lane_host(tmp_path) as host:
            host.ahead_s = ahead_s
            agent = Agent(host)
            await agent.open()
            assert agent.clock.now() == pytest.approx(time.time() + ahead_s, abs=5)
            peer = host.peers[0]
            peer.open()
            await until(lambda: agent.streams.opened_messages)
            _, now = agent.streams.opened_messages[0]
            assert now == pytest.approx(time.time() + ahead_s, abs=5)
            agent.lane.abort()

    run_on("asyncio", scenario())


@loops
def test_streams_are_for_the_server(loop: str, tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.let_in()
        stream = peer.open("ssh")
        stream.send(b"ping")
        await peer.until(lambda: peer.seen(Accepted))
        await peer.until(lambda: peer.received.get(stream.id) == b"ping")
        stream.end()
        await peer.until(lambda: peer.seen(Ended))

    async def scenario() -> None:
        async with opened(tmp_path, script) as agent:
            await agent.lane.ended
            message, _ = agent.streams.opened_messages[0]
            assert message["target"] == "ssh"

    run_on(loop, scenario())


@pytest.mark.parametrize(
    ("ready", "grant"),
    [
        ({"targets": None}, Grant("replica-1", (), 5.0, 4)),
        ({"targets": ["a\x1b[31m", 7, "b"]}, Grant("replica-1", ("a [31m", "b"), 5.0, 4)),
        ({"targets": "all", "lanes": 99}, Grant("replica-1", (), 5.0, 4)),
        ({"targets": [], "lanes": 0}, Grant("replica-1", (), 5.0, 1)),
        ({"targets": [], "lanes": "many"}, Grant("replica-1", (), 5.0, 1)),
    ],
    ids=str,
)
def test_what_ready_says_is_bounded(tmp_path: Path, ready: dict[str, object], grant: Grant) -> None:
    async def script(peer: Peer) -> None:
        await peer.let_in(expires=5.0, **ready)
        await peer.serve()

    async def scenario() -> None:
        async with opened(tmp_path, script) as agent:
            assert agent.lane.grant == grant

    run_on("asyncio", scenario())


@pytest.mark.parametrize(
    ("script", "kind", "said"),
    [
        (answering("503 Busy", b"", "Retry-After: 7"), Kind.BUSY, "answered 503"),
        (answering("302 Found", b"", "Location: http://portal/"), Kind.UNREACHABLE, "redirect"),
        (
            answering("200 OK", b"<html>", "Content-Type: text/html"),
            Kind.UNREACHABLE,
            "a web page instead of a tunnel",
        ),
        (answering("404 Not Found"), Kind.UNREACHABLE, "no tunnel at this address"),
        (refusing(Code.REVOKED), Kind.REFUSED, "this agent was revoked"),
        (refusing(Code.FORBIDDEN, "no agent desktop"), Kind.REFUSED, "no agent desktop"),
        (refusing(Code.BUSY, "full", reconnect_in=9.0), Kind.BUSY, "full"),
        (refusing(Code.SUPERSEDED), Kind.SUPERSEDED, "took the place"),
    ],
    ids=["503", "302", "web page", "404", "revoked", "forbidden", "busy", "superseded"],
)
def test_not_being_let_in_says_why(tmp_path: Path, script: Script, kind: Kind, said: str) -> None:
    ending = run_on("asyncio", refusal(tmp_path, script))
    assert ending.kind is kind
    assert said in ending.text


@loops
@pytest.mark.parametrize("step", ["101", "HELLO", "READY"])
def test_a_proxy_that_stalls_is_left_at_the_deadline(
    loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr("heim_agent.lane.ANSWER_S", 0.2)
    monkeypatch.setattr("heim_agent.lane.READY_S", 0.2)

    async def stalling(peer: Peer) -> None:
        await peer.request()
        if step == "HELLO":
            from heim_wire.handshake import answer_upgrade

            peer.writer.write(answer_upgrade(peer.fields["sec-websocket-key"]))
        elif step == "READY":
            await peer.upgrade()
            await peer.proof()
        await peer.reader.read()

    ending = run_on(loop, refusal(tmp_path, stalling if step != "101" else silent))
    assert LOGIN_HOST in ending.text
    assert "does not" in ending.text


def test_a_proxy_that_hangs_up_is_told(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.upgrade()

    ending = run_on("asyncio", refusal(tmp_path, script))
    assert ending.kind is Kind.LOST


@loops
def test_an_end_says_how_long_it_had_been(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as agent:
            await asyncio.sleep(0.05)
            await agent.host.vanish()
            ending = await agent.lane.ended
            assert ending.kind is Kind.LOST
            assert 0.04 < ending.lived_s < 5

    run_on(loop, scenario())


def test_a_restart_asks_for_another_connection_and_streams_go_on(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.let_in()
        stream = peer.open()
        await peer.until(lambda: peer.seen(Accepted))
        peer.session.goaway(Code.GOING_AWAY, "restart", reconnect_in=3.0, try_for=30.0, drain=60.0)
        stream.send(b"still here")
        await peer.until(lambda: peer.received.get(stream.id) == b"still here")
        await peer.serve()

    async def scenario() -> None:
        async with opened(tmp_path, script) as agent:
            ending = await agent.lane.leaving
            assert (ending.kind, ending.wait_s, ending.try_for_s) == (Kind.AWAY, 3.0, 30.0)
            assert agent.lane.drain_s == 60.0
            assert not agent.lane.ended.done()
            peer = agent.host.peers[0]
            await until(lambda: peer.received)

    run_on("asyncio", scenario())


def test_a_revocation_asks_for_nothing_but_the_end(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.let_in()
        peer.session.goaway(Code.REVOKED, "revoked by admin")
        await peer.flush()

    async def scenario() -> None:
        async with opened(tmp_path, script) as agent:
            ending = await agent.lane.ended
            assert not agent.lane.leaving.done()
            assert (ending.kind, ending.text) == (Kind.REFUSED, "revoked by admin")

    run_on("asyncio", scenario())


@loops
def test_45_a_renewal_takes_a_newer_certificate_and_no_stream_notices(
    loop: str, tmp_path: Path
) -> None:
    async def script(peer: Peer) -> None:
        await peer.let_in()
        stream = peer.open()
        request = await peer.renewal()
        public = request.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        fresh = peer.host.root.certificate(public, begins=3600.0)
        import base64

        peer.session.ready({"certificate": base64.b64encode(fresh).decode(), "expires": 77.0})
        stream.send(b"still here")
        await peer.until(lambda: peer.received.get(stream.id) == b"still here")
        assert not peer.seen(Reset)
        await peer.serve()

    async def scenario() -> None:
        async with opened(tmp_path, script) as agent:
            before = agent.identity.expires
            assert await agent.lane.renew() == ""
            assert agent.identity.expires > before
            assert agent.lane.span.ends == agent.identity.expires
            assert agent.lane.grant is not None
            assert agent.lane.grant.expires == 77.0
            assert agent.lane.grant.targets == ("ssh", "web")
            assert Identity.load(agent.identity.places).expires == agent.identity.expires
            await until(lambda: agent.host.peers[0].received)

    run_on(loop, scenario())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("notice", "the authority is away"),
        ("rubbish", "of no use"),
        ("foreign", "of no use: the certificate is for another key"),
        ("older", "ends no later than the one before"),
        ("nothing", "does not answer"),
        ("end", "the connection ended"),
    ],
)
def test_a_renewal_that_fails_says_why_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, said: str
) -> None:
    import base64

    if answer == "nothing":
        monkeypatch.setattr("heim_agent.lane.RENEW_S", 0.1)

    async def script(peer: Peer) -> None:
        await peer.let_in()
        await peer.renewal()
        if answer == "notice":
            peer.session.notice("the authority is away")
        elif answer == "end":
            return
        elif answer != "nothing":
            foreign = peer.host.root.certificate(peer.host.root.key.public_key(), begins=3600.0)
            sent = {
                "rubbish": b"x",
                "foreign": foreign,
                "older": peer.host.certificate(begins=-900),
            }
            peer.session.ready({"certificate": base64.b64encode(sent[answer]).decode()})
        await peer.serve()

    async def scenario() -> None:
        async with opened(tmp_path, script) as agent:
            before = agent.identity.certificate
            assert said in await agent.lane.renew()
            assert agent.identity.certificate == before

    run_on("asyncio", scenario())


@pytest.mark.parametrize("said", [True, False, None, 1], ids=repr)
def test_a_list_of_targets_is_whole_only_when_the_proxy_says_so(
    tmp_path: Path, said: object
) -> None:
    async def script(peer: Peer) -> None:
        await peer.let_in(targets_whole=said)
        # One without a list changes nothing about it.
        peer.ready(targets=None, targets_whole=None, lanes=3)
        await peer.serve()

    async def scenario() -> None:
        async with opened(tmp_path, script) as agent:
            await until(lambda: agent.lane.grant and agent.lane.grant.lanes == 3)
            assert agent.lane.grant is not None
            assert agent.lane.grant.whole is (said is True)
            assert agent.lane.grant.targets == ("ssh", "web")

    run_on("asyncio", scenario())


def test_keys_that_change_are_pinned_while_the_lane_lives(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.let_in()
        peer.host.signer = type(peer.host.signer)()
        peer.session.ready({"targets": ["ssh"], "statement": peer.statement()})
        await peer.serve()

    async def scenario() -> None:
        async with opened(tmp_path, script) as agent:
            await until(lambda: agent.lane.grant and agent.lane.grant.targets == ("ssh",))
            assert [key["kid"] for key in agent.identity.keys] == [agent.host.signer.kid]

    run_on("asyncio", scenario())


def test_notices_are_logged_as_one_line_and_not_without_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(peer: Peer) -> None:
        await peer.let_in()
        for number in range(30):
            peer.session.notice(f"look\n{number}")
        await peer.serve()

    async def scenario() -> None:
        async with opened(tmp_path, script):
            await until(lambda: len(caplog.records) >= 10)
            await asyncio.sleep(0.05)

    with caplog.at_level(logging.WARNING):
        run_on("asyncio", scenario())
    texts = [getattr(record, "text", "") for record in caplog.records]
    assert texts == [f"look {number}" for number in range(10)]


def test_leaving_says_goodbye_and_takes_no_new_streams(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.let_in()
        await peer.until(lambda: peer.seen(GoAway))
        [goaway] = peer.seen(GoAway)
        assert (goaway.code, goaway.drain) == (Code.GOING_AWAY, 10.0)
        await peer.serve()

    async def scenario() -> None:
        async with opened(tmp_path, script) as agent:
            agent.lane.leave(10.0)
            await until(lambda: agent.host.peers[0].session.going_away)
            agent.lane.finish()
            await agent.lane.ended

    run_on("asyncio", scenario())
