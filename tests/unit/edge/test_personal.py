"""Whose connection through an agent serves whom, and for how long it is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from heim_proxy.edge.limits import (
    AGENT_IDLE,
    AGENT_POOL_IDLE_S,
    AGENT_POOL_SIZE,
    AGENT_POOLS,
    POOL_SIZE,
)
from heim_proxy.edge.upstream import Upstream
from heim_proxy.live import EndReason
from tests.fakes.sessions import ALICE
from tests.fakes.snapshots import app, configured, role, snapshot
from tests.unit.edge.wires import OK, Client, Theatre, Wire, answer, theatre, turns

BOB = replace(ALICE, subject="bob", email="bob@example.test")
BOTH = [role("everything", "app/all", members=[{"domain": "example.test"}])]
EMERGENCY = {**role("glass", "app/all"), "break_glass": True}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Theatre]:
    async with theatre(tmp_path, through=True, roles=BOTH) as built:
        yield built


async def served(stage: Theatre, client: Client, data: bytes | None = None) -> Wire:
    """Ask, answer; the connection it went over."""
    before = len(stage.agents.dialled.made)
    waiting = {wire: len(wire.written) for wire in stage.agents.dialled.made}
    await client.send(stage.request() if data is None else data)
    made = stage.agents.dialled.made
    asked = (
        made[-1]
        if len(made) > before
        else next(w for w, n in waiting.items() if len(w.written) > n)
    )
    asked.feed(OK)
    await turns()
    assert client.wire.taken().endswith(b"\r\n\r\nok")
    return asked


async def bobs(stage: Theatre) -> bytes:
    session = await stage.stage.sign_in(BOB)
    cookie = stage.stage.cookie(session, "app.example.test").decode()
    return stage.request(who=False, headers=(f"Cookie: __Host-heim={cookie}",))


async def test_a_persons_next_request_takes_the_connection_of_the_one_before(
    stage: Theatre,
) -> None:
    client = stage.client()
    assert await served(stage, client) is await served(stage, client)
    assert await served(stage, stage.client()) is stage.agents.dialled.made[0]
    assert len(stage.agents.errands) == 1


async def test_one_users_connection_never_serves_another(stage: Theatre) -> None:
    alices = await served(stage, stage.client())
    other = await served(stage, stage.client(), await bobs(stage))
    assert other is not alices
    assert not alices.is_closing()
    assert b"bob" not in alices.written
    subjects = [one.session.subject.name for one in stage.agents.errands if one.session]
    assert subjects == ["alice@example.test", "bob@example.test"]


async def test_another_login_of_the_same_person_has_connections_of_its_own(stage: Theatre) -> None:
    first = await served(stage, stage.client())
    stage.alice = await stage.stage.sign_in()
    assert await served(stage, stage.client()) is not first


async def test_the_same_login_from_another_address_has_another_connection(stage: Theatre) -> None:
    first = await served(stage, stage.client(ip="203.0.113.9"))
    assert await served(stage, stage.client(ip="203.0.113.10")) is not first
    assert [one.client for one in stage.agents.errands] == ["203.0.113.9", "203.0.113.10"]


async def test_on_a_public_backend_connections_are_everybodys(tmp_path: Path) -> None:
    async with theatre(tmp_path, through=True, public=True) as stage:
        request = stage.request(who=False)
        first = await served(stage, stage.client(ip="203.0.113.9"), request)
        assert await served(stage, stage.client(ip="203.0.113.10"), request) is first
        (errand,) = stage.agents.errands
        assert (errand.session, errand.client, errand.roles) == (None, "", ())


async def test_the_agent_is_told_whom_and_what_for(stage: Theatre) -> None:
    client = stage.client()
    await client.send(stage.request())
    (errand,) = stage.agents.errands
    assert errand.session is stage.alice
    assert (errand.backend, errand.roles, errand.proto) == ("app", ("everything",), "http")
    assert (errand.client, errand.patience_s) == ("203.0.113.9", 5.0)
    stage.agents.dialled.last.feed(OK)
    await turns()
    assert f"X-Request-Id: {errand.request_id}".encode() in client.wire.taken()


async def test_other_roles_are_another_connection(tmp_path: Path) -> None:
    """The agent was told of these, and may have decided by them."""
    ordinary = role("everyone", "app/all")
    async with theatre(tmp_path, through=True, roles=[EMERGENCY]) as stage:
        first = await served(stage, stage.client())
        config = configured(
            [app(http=[{"path": "/", "agent": "desktop", "target": "web"}])],
            [EMERGENCY, ordinary],
            agents=[{"name": "desktop", "targets": ["web", "wiki"]}],
        )
        # Not `swap`, which closes everything.
        built = snapshot(config, generation=2)
        stage.edge.judge = type(stage.edge.judge)(built, stage.edge.sessions)
        assert await served(stage, stage.client()) is not first
        assert [one.roles for one in stage.agents.errands] == [("glass",), ("everyone", "glass")]


async def test_a_new_configuration_closes_what_was_opened_under_the_old_one(
    stage: Theatre,
) -> None:
    idle = await served(stage, stage.client())
    working = stage.client()
    await working.send(stage.request())
    # Busy on the idle one.
    assert len(stage.agents.errands) == 1
    other = stage.client()
    await other.send(stage.request())
    busy = stage.agents.dialled.last
    idle.feed(OK)
    await turns()
    stage.edge.swap(replace(stage.edge.snapshot, generation=2))
    await turns()
    assert idle.lost
    # What is under way finishes on its old connection, which is not kept.
    busy.feed(OK)
    await turns()
    assert other.wire.taken().endswith(b"ok")
    assert busy.lost


@pytest.mark.parametrize("target", ["wiki", "web"])
async def test_a_request_ends_when_its_target_is_not_its_paths_any_more(
    stage: Theatre, target: str
) -> None:
    client = stage.client()
    await client.send(stage.request())
    config = configured(
        [app(http=[{"path": "/", "agent": "desktop", "target": target}])],
        BOTH,
        agents=[{"name": "desktop", "targets": ["web", "wiki"]}],
    )
    stage.edge.swap(snapshot(config, generation=2))
    await turns()
    told = client.wire.taken()
    assert (b"backend_moved" in told) is (target == "wiki")
    assert stage.agents.dialled.last.aborted is (target == "wiki")


async def test_an_ended_sessions_connections_close_with_the_next_sweep(stage: Theatre) -> None:
    idle = await served(stage, stage.client())
    other = await served(stage, stage.client(), await bobs(stage))
    await stage.stage.sessions.end(stage.alice.sid, EndReason.LOGOUT, stage.stage.now)
    stage.edge.personal_pools.sweep(monotonic())
    await turns()
    assert idle.lost
    assert not other.lost
    assert len(stage.edge.personal_pools) == 1


async def test_what_comes_back_after_the_sessions_end_is_not_kept(stage: Theatre) -> None:
    client = stage.client()
    await client.send(stage.request())
    await turns()
    (pool,) = stage.edge.personal_pools._pools.values()
    stage.alice.usable = False
    stage.agents.dialled.last.feed(OK)
    await turns()
    assert len(pool) == 0
    assert stage.agents.dialled.last.lost
    stage.alice.usable = True


async def test_a_session_that_was_loaded_again_gets_new_connections(stage: Theatre) -> None:
    first = await served(stage, stage.client())
    (pool,) = stage.edge.personal_pools._pools.values()
    pool._session = None
    assert await served(stage, stage.client()) is not first
    await turns()
    assert first.lost


async def test_they_are_kept_for_a_short_while_and_forgotten_with_their_pool(
    stage: Theatre,
) -> None:
    pools = stage.edge.personal_pools
    idle = await served(stage, stage.client())
    now = monotonic()
    pools.sweep(now + AGENT_POOL_IDLE_S - 1)
    await turns()
    assert not idle.lost
    assert len(pools) == 1
    pools.sweep(now + AGENT_POOL_IDLE_S + 1)
    await turns()
    assert idle.lost
    assert len(pools) == 0


async def kept(stage: Theatre, pool: object, count: int) -> int:
    """How many of `count` connections a pool keeps."""
    for _ in range(count):
        upstream = Upstream(pool, stage.edge.loop)  # type: ignore[arg-type]
        Wire(upstream)
        pool.give(upstream, monotonic())  # type: ignore[attr-defined]
    await turns()
    return len(pool)  # type: ignore[arg-type]


@pytest.mark.parametrize(("public", "most"), [(False, AGENT_POOL_SIZE), (True, POOL_SIZE)])
async def test_a_persons_pool_is_small_and_everybodys_is_not(
    tmp_path: Path, public: bool, most: int
) -> None:
    async with theatre(tmp_path, through=True, public=public) as stage:
        await served(stage, stage.client(), stage.request(who=not public))
        (pool,) = stage.edge.personal_pools._pools.values()
        assert await kept(stage, pool, 2 * most) == most


async def test_an_agents_machine_keeps_a_bounded_number_of_idle_connections(
    stage: Theatre,
) -> None:
    total = 0
    for number in range(AGENT_IDLE // AGENT_POOL_SIZE + 4):
        await served(stage, stage.client(ip=f"203.0.113.{number}"))
        pool = list(stage.edge.personal_pools._pools.values())[-1]
        total += await kept(stage, pool, AGENT_POOL_SIZE)
    assert total == AGENT_IDLE


async def test_the_longest_unused_pool_makes_room_for_a_new_one(stage: Theatre) -> None:
    pools = stage.edge.personal_pools
    first = await served(stage, stage.client(ip="192.0.2.1"))
    second = await served(stage, stage.client(ip="192.0.2.2"))
    assert await served(stage, stage.client(ip="192.0.2.1")) is first
    for number in range(AGENT_POOLS - 1):
        pools._pools[number] = pools._pools[next(iter(pools._pools))]
    before = len(pools)
    assert before > AGENT_POOLS
    pools._pools.pop(0)
    await served(stage, stage.client(ip="192.0.2.3"))
    await turns()
    assert second.lost
    assert not first.lost


async def test_a_connection_that_went_stale_is_replaced_for_a_request_that_can_be_repeated(
    stage: Theatre,
) -> None:
    client = stage.client()
    stale = await served(stage, client)
    await client.send(stage.request())
    stale.hang_up()
    await turns()
    fresh = stage.agents.dialled.last
    assert fresh is not stale
    fresh.feed(answer(b"again"))
    await turns()
    assert client.wire.taken().endswith(b"again")
    assert [one.session for one in stage.agents.errands] == [stage.alice] * 2
