from __future__ import annotations

import re

import pytest

from heim_config.access import Member, Role
from heim_config.backends import Backend, Timeouts, UpstreamTls
from heim_controller.crds.schema import Rule, configured, flag, listing, section, selector, text
from tests.fakes.kube_schema import structural_mistakes


def test_a_field_of_the_configuration_brings_its_pattern_and_its_words() -> None:
    made = configured(Timeouts, "connect")
    assert made["description"].startswith("To connect, over http TLS included.")
    assert re.search(made["pattern"], "250ms")
    assert not re.search(made["pattern"], "5")
    assert made["maxLength"] == 24


def test_a_host_of_the_configuration_is_a_host() -> None:
    made = configured(UpstreamTls, "server_name")
    assert re.search(made["pattern"], "app.internal")
    assert not re.search(made["pattern"], "App.internal")


def test_a_flag_stays_a_flag_and_may_say_more() -> None:
    made = configured(Role, "break_glass", means="Only here.")
    assert made["type"] == "boolean"
    assert made["description"].endswith("Only here.")


def test_text_without_a_pattern_has_the_limit_of_the_model() -> None:
    assert configured(Member, "group")["maxLength"] == 1024
    assert configured(Member, "user", most=254)["maxLength"] == 254


def test_what_has_no_counterpart_is_refused() -> None:
    with pytest.raises(ValueError, match="identity_headers is of type array"):
        configured(Backend, "identity_headers")


def test_patterns_are_those_of_go() -> None:
    assert "(?" not in configured(Backend, "max_session_age")["pattern"]


def test_rules_stand_where_they_are_about() -> None:
    rule = Rule("has(self.a)", "needs a", field=".a")
    made = section("Something.", {"a": flag("A.")}, rules=[rule])
    assert made["x-kubernetes-validations"] == [
        {
            "rule": "has(self.a)",
            "message": "needs a",
            "reason": "FieldValueInvalid",
            "fieldPath": ".a",
        }
    ]


def test_lists_say_what_tells_items_apart() -> None:
    item = section("One.", {"name": text("A.", most=9)}, required=["name"])
    assert listing("L.", item, most=2)["x-kubernetes-list-type"] == "atomic"
    assert listing("L.", item, most=2, keys=("name",))["x-kubernetes-list-map-keys"] == ["name"]
    word = text("A.", most=9)
    assert listing("L.", word, most=2, unique=True)["x-kubernetes-list-type"] == "set"


def test_a_selector_is_structural() -> None:
    assert list(structural_mistakes(selector("Labels."))) == []


@pytest.mark.parametrize(
    "part",
    [
        {"type": "string", "description": "No limit."},
        {"type": "array", "description": "No items.", "maxItems": 1},
        {"type": "object", "description": "A default.", "default": {}},
        {"description": "No type."},
        {"type": "object", "properties": {}, "description": "Asks.", "required": ["a"]},
    ],
    ids=lambda part: part["description"],
)
def test_what_is_not_structural_would_be_noticed(part: dict[str, object]) -> None:
    assert list(structural_mistakes(part))
