from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest

from heim_controller.conditions import Programming, Standing, conditions_of, proxy_conditions
from heim_controller.crds.definition import Column, Kind
from heim_controller.crds.manifests import KINDS
from heim_controller.kube.apply import conditions
from heim_controller.translation.diagnostics import Diagnostic
from heim_controller.translation.objects import Ref
from heim_controller.translation.translate import Served
from tests.fakes.cel import CelError, evaluate, parse, unknown
from tests.fakes.kube_schema import complaints, parts, structural_mistakes

RULES = [
    (kind, at, part, rule)
    for kind in KINDS
    for at, part in parts(kind.schema)
    for rule in part.get("x-kubernetes-validations", ())
]
# What the API server lets one rule cost (k8s.io/apiserver, PerCallLimit times ten).
MOST_COST = 10_000_000


def named(kind: Kind) -> str:
    return kind.resource.kind


def ruled(value: Any) -> str:
    return value["message"][:40] if isinstance(value, dict) and "message" in value else ""


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_kubernetes_takes_the_definition(kind: Kind) -> None:
    kubernetes_validate.validate(kind.definition, "1.37", strict=True)


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_oldest_kubernetes_takes_it_without_selectable_fields(kind: Kind) -> None:
    made = kind.definition
    made["spec"]["versions"][0].pop("selectableFields", None)
    kubernetes_validate.validate(made, "1.28", strict=True)


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_schemas_are_structural_and_bounded(kind: Kind) -> None:
    assert list(structural_mistakes(kind.schema)) == []


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_nothing_of_ours_is_called_in_by_the_api_server(kind: Kind) -> None:
    made = kind.definition
    assert "conversion" not in made["spec"]
    assert made["spec"]["versions"][0]["subresources"] == {"status": {}}
    assert "finalizers" not in made["metadata"]


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_names_are_those_that_the_controller_asks_for(kind: Kind) -> None:
    made = kind.definition
    assert made["metadata"]["name"] == f"{kind.resource.plural}.heim.dev"
    assert made["spec"]["names"]["categories"] == ["heim"]
    assert made["spec"]["versions"][0]["name"] == kind.resource.version


def test_short_names_are_nobody_elses() -> None:
    shorts = [kind.short for kind in KINDS]
    assert len(set(shorts)) == len(shorts)
    assert all(short.startswith("h") for short in shorts)


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_columns_show_fields_that_there_are(kind: Kind) -> None:
    for column in kind.columns:
        steps = re.findall(r"\.(\w+)", re.sub(r"\[.*?\]", "", column.path))
        part = kind.schema
        for step in steps:
            part = part.get("items", part)["properties"][step]
    made = kind.definition["spec"]["versions"][0]["additionalPrinterColumns"]
    assert made[-1]["name"] == "Age"


@pytest.mark.parametrize("kind", KINDS, ids=named)
def test_columns_ask_for_conditions_that_there_are(kind: Kind) -> None:
    asked = {found for one in kind.columns for found in re.findall(r'=="(\w+)"', one.path)}
    assert asked <= set(kind.conditions)


@pytest.mark.parametrize("kind", KINDS, ids=named)
@pytest.mark.parametrize("well", [True, False], ids=["accepted", "not accepted"])
def test_what_the_controller_writes_fits(kind: Kind, well: bool) -> None:
    one = Served(Ref(kind.resource.kind, "shop", "a"), 3, (), well, well)
    current: Any = {"kind": kind.resource.kind, "metadata": {"name": "a", "generation": 3}}
    told = [
        Diagnostic(*one.ref, "InvalidSpec", "is wrong", "error", "spec.host"),
        Diagnostic(*one.ref, "BackendNotFound", "is not there", "warning", ""),
    ]
    made = (
        proxy_conditions(one, [] if well else told, Standing(), current)
        if kind.resource.kind == "Proxy"
        else conditions_of(one, [] if well else told, Programming(), current)
    )
    status = {"conditions": conditions(made, current, now=0.0)}
    spec = {"roleRef": {"name": "a"}, "targets": ["a"], "tcp": {"upstream": {"url": "tcp://a:1"}}}
    known = kind.spec["properties"].keys()
    current["spec"] = {key: value for key, value in spec.items() if key in known}
    assert complaints({**current, "status": status}) == []
    assert {entry["type"] for entry in made} == set(kind.conditions)


def test_a_wide_column_is_one() -> None:
    assert Column("Reason", ".spec.a", wide=True).made["priority"] == 1
    assert "priority" not in Column("Host", ".spec.host").made


@pytest.mark.parametrize(("kind", "at", "part", "rule"), RULES, ids=ruled)
class TestRules:
    def test_is_an_expression_about_fields_that_there_are(
        self, kind: Kind, at: str, part: Any, rule: Any
    ) -> None:
        assert unknown(parse(rule["rule"]), {"self": part, "oldSelf": part}) == []

    def test_points_at_a_field_that_there_is(
        self, kind: Kind, at: str, part: Any, rule: Any
    ) -> None:
        for step in filter(None, rule.get("fieldPath", "").split(".")):
            part = part["properties"][step]

    def test_is_one_line_that_says_what_to_do(
        self, kind: Kind, at: str, part: Any, rule: Any
    ) -> None:
        assert 10 < len(rule["message"]) <= 120
        assert "\n" not in rule["message"]

    def test_costs_what_an_api_server_grants(
        self, kind: Kind, at: str, part: Any, rule: Any
    ) -> None:
        """More than the server would say: every operation on the longest text that is in reach."""
        times = 1
        for where, other in parts(kind.schema):
            if other.get("type") == "array" and at.startswith(f"{where}[]"):
                times *= other["maxItems"]
        inner = [other for _, other in parts(part)]
        # Runes take up to four bytes, and text costs a tenth of a unit for each.
        text = max([0, *(4 * one.get("maxLength", 0) // 10 for one in inner)])
        items = max([1, *(one.get("maxItems", 1) for one in inner)])
        loops = len(re.findall(r"\.(?:all|exists|filter|map)\(", rule["rule"]))
        on_text = len(re.findall(r"contains|With\(|[=!]=|size\(|duration\(", rule["rule"]))
        operations = len(re.findall(r"\w+|[^\w\s]", rule["rule"]))
        cost = times * (items if loops else 1) * (operations + on_text * text)
        assert cost < MOST_COST


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("has(self.a) && !has(self.c)", True),
        ("self.a == 'x' || self.c == 'never asked'", True),
        ("self.b.all(i, i > 0) && self.b.exists(i, i == 2)", True),
        ("self.b.map(i, i + 1).sum() == 5 && size(self.b) == 2", True),
        ("[has(self.a), has(self.c)].filter(x, x).size() == 1", True),
        ("self.a.startsWith('x') && self.a.endsWith('y')", False),
        ("duration('90s') <= duration('1m')", False),
        ("self.a in ['x', 'z'] && (true != false)", True),
    ],
)
def test_expressions_have_their_values(rule: str, value: bool) -> None:
    assert evaluate(parse(rule), {"self": {"a": "x", "b": [1, 2]}}) is value


@pytest.mark.parametrize("rule", ["self.", "self.a ==", "has(self.a", "self ? 1 : 2", "a b", "&&"])
def test_what_is_no_expression_would_be_noticed(rule: str) -> None:
    with pytest.raises(CelError):
        parse(rule)


def test_a_misspelt_field_in_a_rule_would_be_noticed() -> None:
    schema = {"properties": {"http": {"items": {"properties": {"path": {}}}}}}
    assert unknown(parse("has(self.htpp)"), {"self": schema}) == ["htpp"]
    assert unknown(parse("self.http.all(r, has(r.pth))"), {"self": schema}) == ["pth"]
