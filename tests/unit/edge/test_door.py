from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heim_proxy.edge.door import AGENT_PATH, TUNNEL_PATH, Doors
from heim_proxy.live import EndReason
from heim_wire import agents
from heim_wire.handshake import CONNECT_PATH
from tests.fakes.sessions import Exchange
from tests.unit.edge.heads import HOST, head_bytes
from tests.unit.edge.wires import OK, Theatre, theatre, turns

PATH = "/.heim/tunnel/connect"
LOGIN_HOST = "auth.example.test"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Theatre]:
    async with theatre(tmp_path) as built:
        yield built


def test_it_is_where_clients_ask_for_it() -> None:
    assert CONNECT_PATH.encode() == TUNNEL_PATH == PATH.encode()
    assert agents.AGENT_PATH.encode() == AGENT_PATH


class TestWhatComesToTheDoor:
    @pytest.mark.parametrize("host", [HOST, LOGIN_HOST])
    async def test_a_request_on_any_of_our_hosts(self, stage: Theatre, host: str) -> None:
        await stage.client().send(head_bytes(PATH, host=host))
        (guest,) = stage.door.guests
        assert guest.host == host
        assert guest.told == [("begin", b"")]
        assert not stage.portal.made

    @pytest.mark.parametrize(("host", "comes"), [(LOGIN_HOST, True), (HOST, False)])
    async def test_an_agent_on_the_login_host_alone(
        self, stage: Theatre, host: str, comes: bool
    ) -> None:
        await stage.client().send(head_bytes(agents.AGENT_PATH, host=host))
        assert [guest.host for guest in stage.door.guests] == [host] * comes

    @pytest.mark.parametrize(
        "target",
        [
            PATH,
            PATH + "?token=x",
            "/x/../.heim/tunnel/connect",
            "/.heim//tunnel/connect",
            "/%2eheim/tunnel/%63onnect",
        ],
    )
    async def test_every_spelling_of_the_canonical_path(self, stage: Theatre, target: str) -> None:
        await stage.client().send(head_bytes(target))
        assert len(stage.door.guests) == 1

    @pytest.mark.parametrize(
        "target",
        [
            "/.heim/tunnel/connect/",
            "/.heim/tunnel/connect/x",
            "/.heim/tunnel/connec",
            "/.heim/tunnel",
            "/.heim/tunnel/Connect",
            "/.heim%2ftunnel/connect",
            "/.heim/tunnel;x/connect",
            "/tunnel/connect",
        ],
    )
    async def test_and_nothing_else(self, stage: Theatre, target: str) -> None:
        await stage.client().send(head_bytes(target))
        assert not stage.door.guests

    async def test_no_session_is_looked_for(self, stage: Theatre) -> None:
        client = stage.client()
        await client.send(stage.request(PATH))
        (guest,) = stage.door.guests
        assert guest.told == [("begin", b"")]
        assert not stage.alice.live

    async def test_not_on_plain_http(self, stage: Theatre) -> None:
        answer = await stage.client(secure=False).send(head_bytes(PATH))
        assert answer.startswith(b"HTTP/1.1 308 ")
        assert not stage.door.guests

    @pytest.mark.parametrize(
        "data",
        [
            head_bytes(PATH, host="other.example.org"),
            head_bytes(PATH, headers=("Host: second.example.test",)),
            b"GET " + PATH.encode() + b" HTTP/1.1\r\n\r\n",
            head_bytes(PATH, version="HTTP/2.0"),
            head_bytes(PATH, headers=("X: " + "x" * 40_000,)),
        ],
        ids=["unknown host", "two hosts", "no host", "version", "too long"],
    )
    async def test_nor_past_the_ordinary_checks(self, stage: Theatre, data: bytes) -> None:
        assert (await stage.client().send(data)).startswith(b"HTTP/1.1 4")
        assert not stage.door.guests


class TestWhoOwnsTheConnection:
    async def test_hears_all_that_happens_to_it(self, stage: Theatre) -> None:
        client = stage.client()
        await client.send(head_bytes(PATH) + b"early")
        (guest,) = stage.door.guests
        await client.send(b"more")
        client.front.pause_writing()
        client.front.resume_writing()
        client.front.expect(10.0, "whatever")
        client.late(11.0)
        client.wire.hang_up()
        await turns()
        assert guest.told == [("begin", b"early"), b"more", "hold", "release", "whatever", "gone"]

    async def test_gives_it_back_for_the_next_request(self, stage: Theatre) -> None:
        client = stage.client()
        await client.send(head_bytes(PATH))
        (guest,) = stage.door.guests
        client.front.exchange_done(guest)
        await stage.asked(client)
        stage.upstream.last.feed(OK)
        await turns()
        assert client.wire.taken().startswith(b"HTTP/1.1 200 ")

    async def test_may_end_it(self, stage: Theatre) -> None:
        client = stage.client()
        await client.send(head_bytes(PATH))
        (guest,) = stage.door.guests
        client.front.keep_alive = False
        client.front.exchange_done(guest)
        await turns()
        assert client.over

    async def test_is_told_of_a_client_that_never_reads(self, stage: Theatre) -> None:
        client = stage.client()
        await client.send(head_bytes(PATH))
        (guest,) = stage.door.guests
        client.front.pause_writing()
        client.late(1000.0)
        await turns()
        assert guest.end_reason == "client_stalled"
        assert guest.told[-1] == "gone"


class TestWhatTheDoorIsAsked:
    async def test_deadlines_are_kept_by_the_sweep(self, stage: Theatre) -> None:
        sweep = asyncio.ensure_future(stage.edge.sweep())
        async with asyncio.timeout(3):
            while not stage.door.ticks:
                await asyncio.sleep(0.05)
        sweep.cancel()
        assert stage.door.ticks[0] == stage.stage.now

    async def test_its_streams_are_reviewed_by_it(self, stage: Theatre) -> None:
        stays, goes = Exchange(stage.alice), Exchange(stage.alice)
        for one in (stays, goes):
            stage.edge.live.add(one)
        stage.door.verdicts = {goes: EndReason.POLICY_CHANGED}
        stage.edge.swap(stage.edge.snapshot)
        assert goes.ended is EndReason.POLICY_CHANGED
        assert stays.ended is None

    async def test_it_is_told_of_a_shutdown_and_how_long_there_is(self, stage: Theatre) -> None:
        await stage.edge.drain(0.01)
        assert stage.door.drained == [0.01]


class Hinge:
    """A door that notes what it is asked."""

    def __init__(self, reason: EndReason | None = None) -> None:
        self.reason = reason
        self.asked: list[object] = []

    def enter(self, front: object, host: str) -> str:
        return f"{host} at {self.reason}"

    def review(self, exchange: object) -> EndReason | None:
        return self.reason

    def tick(self, now: float) -> None:
        self.asked.append(now)

    def drain(self, patience_s: float) -> None:
        self.asked.append(patience_s)


class TestSeveralDoors:
    async def test_the_path_says_which(self, stage: Theatre) -> None:
        client = stage.client()
        await client.send(head_bytes(PATH))
        hinges = {TUNNEL_PATH: Hinge(EndReason.IDLE), AGENT_PATH: Hinge(EndReason.REVOKED)}
        doors = Doors(hinges)  # type: ignore[arg-type]
        assert doors.enter(client.front, HOST) == f"{HOST} at {EndReason.IDLE}"
        assert doors.at(AGENT_PATH) is hinges[AGENT_PATH]

    @pytest.mark.parametrize(
        ("first", "second", "said"),
        [
            (None, None, None),
            (EndReason.IDLE, None, EndReason.IDLE),
            (None, EndReason.REVOKED, EndReason.REVOKED),
        ],
    )
    async def test_an_exchange_is_somebody_s(
        self, stage: Theatre, first: EndReason, second: EndReason, said: EndReason
    ) -> None:
        doors = Doors({b"/a": Hinge(first), b"/b": Hinge(second)})  # type: ignore[dict-item]
        assert doors.review(Exchange(stage.alice)) is said

    async def test_all_of_them_keep_time_and_drain(self) -> None:
        hinges = [Hinge(), Hinge()]
        doors = Doors({b"/a": hinges[0], b"/b": hinges[1]})  # type: ignore[dict-item]
        doors.tick(5.0)
        doors.drain(7.0)
        assert [one.asked for one in hinges] == [[5.0, 7.0]] * 2
