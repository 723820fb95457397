from __future__ import annotations

import time

import pytest

from heim_agent.clock import ProxyClock


class Machine:
    """A machine's clocks, in our hands."""

    wall = 1000.0
    uptime = 50.0


@pytest.fixture
def machine() -> Machine:
    return Machine()


def clock(machine: Machine) -> ProxyClock:
    return ProxyClock(wall=lambda: machine.wall, elapsed=lambda: machine.uptime)


def test_before_a_statement_it_is_the_machines_time(machine: Machine) -> None:
    found = clock(machine)
    assert (found.now(), found.known) == (1000.0, False)


@pytest.mark.parametrize("off", [-600.0, 0.0, 600.0, 1e9], ids=["slow", "right", "fast", "1970"])
def test_46_a_statement_says_what_time_it_is_whatever_the_machine_thinks(
    machine: Machine, off: float
) -> None:
    machine.wall = 5000.0 + off
    found = clock(machine)
    found.set(5000.0)
    machine.uptime += 60.0
    assert (found.now(), found.known) == (5060.0, True)


def test_setting_the_machines_clock_changes_nothing(machine: Machine) -> None:
    found = clock(machine)
    found.set(5000.0)
    machine.wall += 3600.0
    assert found.now() == 5000.0


def test_the_real_one_moves_with_the_machines() -> None:
    found = ProxyClock()
    assert abs(found.now() - time.time()) < 1.0
    assert found.monotonic() <= time.monotonic()
