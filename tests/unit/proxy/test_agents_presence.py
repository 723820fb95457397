from __future__ import annotations

import json
from dataclasses import asdict

from heim_proxy.agents.presence import LanePresence, Offline, Presence

LANE = LanePresence(0, "192.0.2.1", 10.0, 3, 0, 0.02, heavy=False, going_away=False)


def test_a_machine_has_the_streams_of_its_lanes() -> None:
    machine = Presence("desktop", "key", "box", "1", "0" * 32, 10.0, 20.0, (LANE, LANE))
    assert machine.streams == 6
    assert json.loads(json.dumps(asdict(machine)))["lanes"][1]["streams"] == 3


def test_nothing_is_known_of_an_agent_that_nobody_is() -> None:
    assert Offline() == Offline(since=None, joined=False, revoked=False)
