"""Label selectors."""

from __future__ import annotations

from typing import Any

import pytest

from heim_controller.translation.selectors import Selector, matches
from tests.fakes.kube_objects import ingress, namespace

LABELS = {"team": "a", "env": "prod"}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, True),
        ({"matchLabels": {"team": "a"}}, True),
        ({"matchLabels": {"team": "b"}}, False),
        ({"matchLabels": {"team": "a", "missing": "x"}}, False),
        ({"matchExpressions": [{"key": "env", "operator": "In", "values": ["prod"]}]}, True),
        ({"matchExpressions": [{"key": "env", "operator": "In", "values": ["dev"]}]}, False),
        ({"matchExpressions": [{"key": "no", "operator": "In", "values": [None]}]}, False),
        ({"matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["dev"]}]}, True),
        ({"matchExpressions": [{"key": "no", "operator": "NotIn", "values": ["dev"]}]}, True),
        ({"matchExpressions": [{"key": "env", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "no", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "no", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "env", "operator": "DoesNotExist"}]}, False),
        ({"matchExpressions": [{"key": "env", "operator": "Like", "values": ["p"]}]}, False),
        ({"matchExpressions": [{}]}, False),
        ({"matchExpressions": ["nonsense"]}, False),
        ({"matchLabels": {"team": "a"}, "matchExpressions": [{"key": "no"}]}, False),
    ],
)
def test_what_a_selector_selects(selector: dict[str, Any], expected: bool) -> None:
    assert matches(selector, LABELS) is expected


SPACES = {("", "shop"): namespace("shop", team="a")}


def test_objects_are_selected_by_labels_and_namespace() -> None:
    selector = Selector(
        {"namespaceSelector": {"matchLabels": {"team": "a"}}, "matchLabels": {"x": "1"}}, SPACES
    )
    assert selector.takes("shop", ingress("shop/a", labels={"x": "1"}))
    assert not selector.takes("shop", ingress("shop/a"))
    assert selector.takes_namespace("shop")


def test_a_namespace_that_is_not_known_satisfies_no_question() -> None:
    asks = Selector({"namespaceSelector": {"matchExpressions": [
        {"key": "team", "operator": "DoesNotExist"}]}}, SPACES)  # fmt: skip
    assert not asks.takes_namespace("gone")
    assert not asks.takes_namespace("shop")
    assert Selector({}, SPACES).takes_namespace("gone")
