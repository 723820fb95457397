from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

import pytest

from heim_proxy.edge.dial import Dialer
from heim_proxy.edge.limits import POOL_COOL_S, POOL_FRESH_S, POOL_IDLE_S, POOL_SIZE
from heim_proxy.edge.pool import Pool
from heim_proxy.edge.upstream import Upstream
from tests.unit.edge.wires import Dialled, Wire


@dataclass
class Shelf:
    """A pool, and connections to put into it."""

    pool: Pool = field(default_factory=lambda: Pool("inner", Dialled("inner")))
    wires: dict[Upstream, Wire] = field(default_factory=dict)

    def connection(self) -> Upstream:
        upstream = Upstream(self.pool, asyncio.get_running_loop())
        self.wires[upstream] = Wire(upstream)
        return upstream

    def closed(self, upstream: Upstream) -> bool:
        return self.wires[upstream].is_closing()


@pytest.fixture
async def shelf() -> Shelf:
    return Shelf()


async def test_an_empty_pool_gives_nothing(shelf: Shelf) -> None:
    assert shelf.pool.take(0.0, repeatable=True) is None
    assert len(shelf.pool) == 0


async def test_the_newest_comes_first(shelf: Shelf) -> None:
    first, second = shelf.connection(), shelf.connection()
    shelf.pool.give(first, 1.0)
    shelf.pool.give(second, 2.0)
    assert [shelf.pool.take(3.0, repeatable=True) for _ in range(3)] == [second, first, None]


@pytest.mark.parametrize(
    ("age", "repeatable", "given"),
    [
        (POOL_FRESH_S, False, True),
        (POOL_FRESH_S + 0.1, False, False),
        (POOL_FRESH_S + 0.1, True, True),
        (POOL_IDLE_S, True, True),
    ],
)
async def test_what_cannot_be_repeated_gets_only_a_fresh_one(
    shelf: Shelf, age: float, repeatable: bool, given: bool
) -> None:
    shelf.pool.give(shelf.connection(), 100.0)
    assert (shelf.pool.take(100.0 + age, repeatable=repeatable) is not None) is given
    assert len(shelf.pool) == (0 if given else 1)


async def test_a_full_pool_closes_what_comes_back(shelf: Shelf) -> None:
    kept = [shelf.connection() for _ in range(POOL_SIZE)]
    for upstream in kept:
        shelf.pool.give(upstream, 1.0)
    extra = shelf.connection()
    shelf.pool.give(extra, 1.0)
    assert len(shelf.pool) == POOL_SIZE
    assert shelf.closed(extra)
    assert not any(map(shelf.closed, kept))


async def test_a_sweep_closes_the_old_and_keeps_the_rest(shelf: Shelf) -> None:
    old, young = shelf.connection(), shelf.connection()
    shelf.pool.give(old, 0.0)
    shelf.pool.give(young, 10.0)
    shelf.pool.sweep(POOL_IDLE_S)
    assert not shelf.closed(old)
    shelf.pool.sweep(POOL_IDLE_S + 0.1)
    assert (shelf.closed(old), shelf.closed(young)) == (True, False)
    assert shelf.pool.take(11.0, repeatable=True) is young


async def test_a_connection_that_the_upstream_closes_is_forgotten(shelf: Shelf) -> None:
    gone, stays = shelf.connection(), shelf.connection()
    shelf.pool.give(gone, 1.0)
    shelf.pool.give(stays, 1.0)
    shelf.wires[gone].hang_up()
    assert shelf.pool.take(1.0, repeatable=True) is stays
    assert shelf.pool.take(1.0, repeatable=True) is None


async def test_forgetting_what_is_not_there_is_harmless(shelf: Shelf) -> None:
    shelf.pool.forget(shelf.connection())
    assert len(shelf.pool) == 0


async def test_a_closed_pool_keeps_nothing(shelf: Shelf) -> None:
    idle, late = shelf.connection(), shelf.connection()
    shelf.pool.give(idle, 1.0)
    shelf.pool.close()
    assert shelf.closed(idle)
    shelf.pool.give(late, 1.0)
    assert shelf.closed(late)
    assert shelf.pool.take(1.0, repeatable=True) is None


def test_an_endpoint_that_failed_is_asked_last_for_a_while() -> None:
    pool = Pool("http://a:1", cast("Dialer", None))
    assert not pool.cooling(0.0)
    pool.cool(100.0)
    assert pool.cooling(100.0 + POOL_COOL_S - 0.1)
    assert not pool.cooling(100.0 + POOL_COOL_S)
