from __future__ import annotations

from pathlib import Path

import pytest

from heim_config.document import parse
from heim_config.problems import Loc
from heim_config.validation import STAND_IN_DOMAIN, scope, validate
from tests.unit.config.samples import GOOD


def data(text: str) -> dict[str, object]:
    found = parse(text).data
    assert isinstance(found, dict)
    return found


def test_what_is_good_is_whole() -> None:
    outcome = validate(data(GOOD), Path("/etc/heim"))
    assert outcome.config is not None
    assert outcome.findings == []
    assert outcome.damaged == set()


def test_a_broken_part_is_taken_out_and_the_rest_becomes_a_model() -> None:
    text = GOOD.replace('upstream: "http://127.0.0.1:3000"', "upstream: 7")
    outcome = validate(data(text), Path("/etc/heim"))
    assert outcome.config is not None
    assert [found.name for found in outcome.config.backends] == ["status"]
    assert [finding.loc for finding in outcome.findings] == [("backends", 0, "http", 0, "upstream")]
    assert outcome.damaged >= {("backends", 0)}
    assert outcome.original(("backends", 0, "name")) == ("backends", 1, "name")


def test_an_unknown_key_damages_nothing() -> None:
    outcome = validate(data(GOOD + "extra: 1\n"), Path("/etc/heim"))
    assert outcome.damaged == set()
    assert outcome.config is not None


def test_a_broken_domain_is_stood_in_for() -> None:
    outcome = validate(data(GOOD.replace("domain: x.example.com", "domain: 7")), Path("/"))
    assert outcome.config is not None
    assert outcome.config.domain == STAND_IN_DOMAIN


@pytest.mark.parametrize(
    "value", [None, 7, "x", [], {}, [[]], [{}], [None], {"a": {"b": []}}], ids=repr
)
@pytest.mark.parametrize("key", ["tls", "identity", "roles", "backends", "listeners", "domain"])
def test_a_model_is_left_whatever_stands_in_a_section(key: str, value: object) -> None:
    outcome = validate({**data(GOOD), key: value}, Path("/"))
    assert outcome.config is not None


@pytest.mark.parametrize(
    ("loc", "expected"),
    [
        (("drain",), ("drain",)),
        (("session", "idle"), ("session",)),
        (("identity", "providers", 0, "name"), ("identity",)),
        (("backends", 2, "http", 0, "path"), ("backends", 2)),
        (("backends", 2, "permissions", 1, "name"), ("backends", 2, "permissions", 1)),
        (("roles", 1, "members", 3, "user"), ("roles", 1, "members", 3)),
        (("roles", 1, "name"), ("roles", 1)),
        ((), ()),
    ],
)
def test_the_scope_of_a_mistake_is_what_is_judged_as_one(loc: Loc, expected: Loc) -> None:
    assert scope(loc) == expected
