"""Agents: the permission to exist, and the targets."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.kube_objects import agent, namespace, proxy, reasons, translated


def test_an_agent_is_named_after_its_namespace() -> None:
    found = translated(agent("shop/desktop", "web", "ssh", "ssh"), agent("lab/pi", "ssh"))
    assert found.document["agents"] == [
        {"name": "lab.pi", "targets": ["ssh"]},
        {"name": "shop.desktop", "targets": ["ssh", "web"]},
    ]
    assert reasons(found) == []


def test_several_machines_may_be_one() -> None:
    [found] = translated(agent("shop/pool", "web", group=True)).document["agents"]
    assert found["group"] is True


@pytest.mark.parametrize("targets", [[], ["SSH"], ["a.b"], [7], [""], ["ok", "not ok"]])
def test_an_agent_without_usable_targets_does_not_exist(targets: list[Any]) -> None:
    made = agent("shop/desktop", *targets)
    found = translated(made)
    assert found.document["agents"] == []
    assert reasons(found) == ["InvalidSpec"]


def test_names_hold_no_dots() -> None:
    assert reasons(translated(agent("shop/a.b", "ssh"))) == ["InvalidObject"]


def test_agents_belong_to_the_backends_beside_them() -> None:
    chosen = proxy(backendSelector={"namespaceSelector": {"matchLabels": {"team": "a"}}})
    found = translated(chosen, namespace("shop", team="a"), agent("shop/x", "ssh"),
                       agent("bank/x", "ssh"))  # fmt: skip
    assert [one["name"] for one in found.document["agents"]] == ["shop.x"]


def test_the_shape_does_not_matter() -> None:
    made = agent("shop/x", "ssh")
    made["spec"] = []
    assert reasons(translated(made)) == ["InvalidSpec"]


def test_what_the_configuration_refuses_is_refused_here() -> None:
    assert reasons(translated(agent(f"{'a' * 40}/{'b' * 22}", "ssh"))) == []
    too_long = translated(agent(f"{'a' * 40}/{'b' * 23}", "ssh"))
    assert (reasons(too_long), too_long.document["agents"]) == (["InvalidSpec"], [])
    too_many = translated(agent("shop/x", *(f"target-{i:050}" for i in range(40))))
    assert (reasons(too_many), too_many.document["agents"]) == (["InvalidSpec"], [])
