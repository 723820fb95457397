from __future__ import annotations

from typing import Any

import pytest

from heim_agent.differences import Differences, of_status


def lines(asked: list[str], served: list[str], *, whole: bool = True) -> list[str]:
    return list(Differences.between(asked, served, whole=whole).lines())


def test_the_same_names_do_not_differ() -> None:
    assert not Differences.between(["ssh", "web"], ["web", "ssh"])
    assert lines(["ssh"], ["ssh"]) == []


def test_a_name_that_is_misspelt_is_shown_with_the_other_one() -> None:
    assert lines(["shh", "web"], ["ssh", "web"]) == [
        "the proxy asks for shh, agent.toml has ssh: spell them the same, here or under agents: in "
        "the proxy's configuration"
    ]


def test_names_that_only_one_side_has_are_shown_with_what_to_do() -> None:
    assert lines(["printer", "web"], ["nas", "web"]) == [
        "the proxy asks for printer, which agent.toml does not have: add [targets.printer] to it, "
        "or take the name out of agents: in the proxy's configuration",
        "nobody asks for nas: the proxy's configuration does not list that for this agent, under "
        "agents:",
    ]


def test_of_a_list_that_is_cut_nothing_is_said_about_what_nobody_asks_for() -> None:
    assert lines(["a1"], ["zz"], whole=False) == [
        "the proxy asks for a1, which agent.toml does not have: add [targets.a1] to it, or take "
        "the name out of agents: in the proxy's configuration"
    ]


def test_very_many_names_are_not_all_shown() -> None:
    (line,) = lines([f"{number:02d}" for number in range(30)], [])
    assert "08, 09 and 20 more" in line
    assert "10, 11" not in line


@pytest.mark.parametrize(
    ("found", "differences"),
    [
        (
            {"serves": ["ssh"], "lanes": [{"targets": ["shh"], "targets_whole": True}]},
            Differences(("shh",), ("ssh",)),
        ),
        (
            # The configurations of two replicas, of which one is older.
            {
                "serves": ["ssh", "web"],
                "lanes": [
                    {"targets": ["ssh"], "targets_whole": True},
                    {"targets": ["ssh", "web"], "targets_whole": True},
                ],
            },
            Differences(),
        ),
        ({"serves": ["ssh"], "lanes": [{"targets": ["shh"]}]}, Differences(("shh",), ())),
        ({"serves": ["ssh"], "lanes": [{"error": "busy"}]}, None),
        ({"serves": None, "lanes": [{"targets": ["shh"]}]}, None),
        ({"lanes": [{"targets": ["shh"]}]}, None),
        ({"serves": [7], "lanes": [7, {"targets": 7}]}, None),
        ({"serves": [], "lanes": 7}, None),
    ],
    ids=[
        "differs", "replicas", "cut", "not connected", "not said", "older", "damaged", "no lanes",
    ],
)  # fmt: skip
def test_what_a_status_file_shows(found: dict[str, Any], differences: Differences | None) -> None:
    assert of_status(found) == differences


def test_a_status_file_is_compared_with_another_list_too() -> None:
    found = {"serves": ["ssh"], "lanes": [{"targets": ["shh"], "targets_whole": True}]}
    assert of_status(found, ["shh"]) == Differences()
