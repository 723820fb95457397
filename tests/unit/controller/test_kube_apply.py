from __future__ import annotations

from typing import Any

import pytest

from heim_controller.kube.apply import condition, conditions, owner_reference, same_status

EARLIER = "2023-01-01T00:00:00Z"
NOW = 1_700_000_000.0
STAMP = "2023-11-14T22:13:20Z"


def current(**statuses: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "generation": 3},
        "status": {
            "conditions": [
                {"type": kind, "status": status, "reason": "Old", "lastTransitionTime": EARLIER}
                for kind, status in statuses.items()
            ]
        },
    }


@pytest.mark.parametrize(
    ("before", "moment"),
    [
        (current(), STAMP), (current(Accepted="True"), EARLIER), (current(Accepted="False"), STAMP),
        (current(Other="True"), STAMP), ({"metadata": {}}, STAMP),
        ({"metadata": {}, "status": {"conditions": "garbage"}}, STAMP),
        ({"metadata": {}, "status": {"conditions": [7]}}, STAMP),
    ],
    ids=["new", "same", "flipped", "another", "no status", "garbage", "no object"],
)  # fmt: skip
def test_a_transition_is_a_flip_of_the_status(before: dict[str, Any], moment: str) -> None:
    (made,) = conditions([condition("Accepted", "True", reason="New")], before, now=NOW)
    assert made["lastTransitionTime"] == moment
    assert made["reason"] == "New"


def test_conditions_say_of_which_generation_they_are() -> None:
    made = conditions([condition("Accepted", "True", reason="Fine")], current(), now=NOW)
    assert made[0]["observedGeneration"] == 3


def test_conditions_have_one_order() -> None:
    kinds = ["Ready", "Accepted", "Programmed"]
    made = conditions([condition(kind, "True", reason="Fine") for kind in kinds], {}, now=NOW)
    assert [entry["type"] for entry in made] == sorted(kinds)


def test_an_owner_controls_what_it_owns() -> None:
    owner = {
        "apiVersion": "heim.dev/v1alpha1", "kind": "Proxy",
        "metadata": {"name": "main", "uid": "1-2", "namespace": "heim"}, "spec": {},
    }  # fmt: skip
    assert owner_reference(owner) == {
        "apiVersion": "heim.dev/v1alpha1", "kind": "Proxy", "name": "main", "uid": "1-2",
        "controller": True, "blockOwnerDeletion": False,
    }  # fmt: skip


def balancer(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"loadBalancer": {"ingress": list(entries)}}


@pytest.mark.parametrize(
    ("wanted", "status", "same"),
    [
        (balancer({"ip": "a"}, {"ip": "b"}), balancer({"ip": "b"}, {"ip": "a"}), True),
        (balancer({"ip": "a", "hostname": ""}), balancer({"ip": "a"}), True),
        (balancer({"ip": "a"}), {**balancer({"ip": "a"}), "other": 1}, True),
        (balancer({"ip": "a"}), balancer({"ip": "b"}), False),
        (balancer({"ip": "a"}), balancer(), False),
        (balancer({"ip": "a"}), None, False),
    ],
    ids=["order", "empty", "of others", "changed", "lost", "none"],
)
def test_a_status_is_written_only_when_it_differs(
    wanted: dict[str, Any], status: dict[str, Any] | None, same: bool
) -> None:
    assert same_status(wanted, {"status": status}) is same
