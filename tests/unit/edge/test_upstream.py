"""What a connection to an upstream does by itself; its answers are in test_exchange."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heim_proxy.edge.limits import TURN_BYTES
from tests.unit.edge.wires import OK, Theatre, theatre, turns


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Theatre]:
    async with theatre(tmp_path) as built:
        yield built


async def test_a_bulk_answer_gives_others_their_turn(stage: Theatre) -> None:
    client = stage.client()
    upstream = await stage.asked(client)
    upstream.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
    upstream.feed(bytes(TURN_BYTES))
    assert upstream.reading
    upstream.feed(bytes(TURN_BYTES))
    assert not upstream.reading
    await turns()
    assert upstream.reading


async def test_small_answers_cost_no_budget(stage: Theatre) -> None:
    client = stage.client()
    upstream = await stage.asked(client)
    upstream.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
    for _ in range(100):
        upstream.feed(bytes(8 * 1024))
    assert upstream.reading


async def test_an_answer_for_a_client_that_is_leaving_is_dropped(stage: Theatre) -> None:
    client = stage.client()
    upstream = await stage.asked(client)
    client.wire.close()
    upstream.feed(OK)
    assert client.wire.taken() == b""
    await turns()
    assert upstream.aborted
    assert len(stage.stage.live) == 0


async def test_a_body_is_not_written_to_a_connection_that_is_closing(stage: Theatre) -> None:
    client = stage.client()
    data = stage.request(method="POST", headers=("Content-Length: 10",))
    upstream = await stage.asked(client, data)
    upstream.taken()
    upstream.close()
    client.wire.feed(b"0123456789")
    assert upstream.taken() == b""


async def test_an_upstream_that_reads_slowly_when_nobody_asks_pauses_nobody(
    stage: Theatre,
) -> None:
    client = stage.client()
    upstream = await stage.asked(client)
    upstream.feed(OK)
    upstream.protocol.pause_writing()
    assert client.wire.reading
    upstream.protocol.resume_writing()
    assert client.wire.reading


async def test_a_connection_used_again_starts_afresh(stage: Theatre) -> None:
    client = stage.client()
    upstream = await stage.asked(client)
    upstream.feed(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10 + OK)
    await turns()
    assert client.wire.taken().endswith(b"ok")
    # Ten more interim answers are within the bound of this request.
    await stage.asked(client)
    upstream.feed(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10 + OK)
    assert client.wire.taken().endswith(b"ok")
    assert stage.upstream.asked == 1


async def test_pauses_of_the_client_before_end_with_it(stage: Theatre) -> None:
    first, second = stage.client(), stage.client()
    upstream = await stage.asked(first)
    first.front.pause_writing()
    assert not upstream.reading
    upstream.reading = True
    upstream.feed(OK)
    await second.send(stage.request())
    assert upstream.reading
    upstream.feed(OK)
    assert second.wire.taken().endswith(b"ok")
