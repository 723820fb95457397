from __future__ import annotations

import pytest

from tests.fakes.kube_objects import agent
from tests.fakes.kube_schema import complaints


def test_targets_and_groups_are_taken() -> None:
    assert complaints(agent("shop/nas", "ssh", "web")) == []
    assert complaints(agent("shop/nas", "web", group=True)) == []


@pytest.mark.parametrize(
    ("targets", "place"),
    [
        ([], "too few"),
        (["ssh", "ssh"], "twice"),
        (["10.0.0.5:22"], "targets[0]"),
        ([f"{'a' * 60}{n:02}" for n in range(16)], "more than 1000 characters"),
    ],
    ids=["none", "one twice", "an address", "more than an agent can be told"],
)
def test_targets_that_make_no_sense_are_refused(targets: list[str], place: str) -> None:
    assert place in "; ".join(complaints(agent("shop/nas", *targets)))


def test_as_many_characters_as_an_agent_can_be_told_are_taken() -> None:
    targets = [f"{'a' * 60}{n:02}" for n in range(15)]
    assert complaints(agent("shop/nas", *targets, "b" * 54)) == []
    assert complaints(agent("shop/nas", *targets, "b" * 55)) != []
