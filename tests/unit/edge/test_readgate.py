from __future__ import annotations

import asyncio

import pytest

from heim_proxy.edge.limits import TURN_BYTES
from heim_proxy.edge.readgate import Hold, ReadGate
from tests.unit.edge.wires import Wire, turns

REASONS = [Hold.PEER_SLOW, Hold.DECIDING, Hold.PIPELINE, Hold.OUTPUT]


@pytest.fixture
async def wire() -> Wire:
    return Wire(asyncio.Protocol())


@pytest.fixture
async def gate(wire: Wire) -> ReadGate:
    return ReadGate(wire, asyncio.get_running_loop())


async def test_reading_stops_for_a_reason_and_resumes_without(gate: ReadGate, wire: Wire) -> None:
    for reason in REASONS:
        gate.hold(reason)
        assert not wire.reading
        assert gate.held(reason)
        gate.release(reason)
        assert wire.reading
        assert not gate.held(reason)


async def test_it_resumes_when_the_last_reason_is_gone(gate: ReadGate, wire: Wire) -> None:
    for reason in REASONS:
        gate.hold(reason)
    for reason in REASONS:
        assert not wire.reading
        gate.release(reason)
    assert wire.reading


async def test_several_reasons_can_be_dropped_at_once(gate: ReadGate, wire: Wire) -> None:
    gate.hold(Hold.PEER_SLOW)
    gate.hold(Hold.PIPELINE)
    gate.release(Hold.PEER_SLOW | Hold.DECIDING | Hold.PIPELINE)
    assert wire.reading


async def test_holding_twice_is_holding_once(gate: ReadGate, wire: Wire) -> None:
    gate.hold(Hold.DECIDING)
    gate.hold(Hold.DECIDING)
    gate.release(Hold.DECIDING)
    assert wire.reading


async def test_dropping_a_reason_that_is_none_changes_nothing(gate: ReadGate, wire: Wire) -> None:
    gate.release(Hold.PEER_SLOW)
    assert wire.reading
    gate.hold(Hold.DECIDING)
    gate.release(Hold.PEER_SLOW)
    assert not wire.reading


async def test_a_turn_has_a_budget_and_the_next_a_new_one(gate: ReadGate, wire: Wire) -> None:
    gate.spend(TURN_BYTES)
    assert wire.reading
    gate.spend(1)
    assert not wire.reading
    gate.spend(TURN_BYTES)
    await turns()
    assert wire.reading
    gate.spend(TURN_BYTES)
    assert wire.reading


async def test_the_next_turn_does_not_undo_another_reason(gate: ReadGate, wire: Wire) -> None:
    gate.spend(TURN_BYTES + 1)
    gate.hold(Hold.PEER_SLOW)
    await turns()
    assert not wire.reading
    gate.release(Hold.PEER_SLOW)
    assert wire.reading


async def test_a_closing_transport_is_left_alone(gate: ReadGate, wire: Wire) -> None:
    wire.close()
    gate.hold(Hold.PEER_SLOW)
    assert wire.reading
    gate.spend(TURN_BYTES + 1)
    await turns()
    wire.reading = False
    gate.release(Hold.PEER_SLOW)
    assert not wire.reading
