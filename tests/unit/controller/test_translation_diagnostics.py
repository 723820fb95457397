"""What is said about objects: one line each, once, in order."""

from __future__ import annotations

from heim_controller.translation.diagnostics import Findings, quoted
from heim_controller.translation.objects import Ref

WEB = Ref("Ingress", "shop", "web")


def test_what_is_said_twice_is_kept_once_and_in_order() -> None:
    findings = Findings()
    findings.add(WEB, "NoRoles", "b")
    findings.add(WEB, "InvalidPath", "a", field="spec")
    findings.add(WEB, "NoRoles", "b")
    found = findings.sorted()
    assert [one.reason for one in found] == ["InvalidPath", "NoRoles"]
    assert [one.severity for one in found] == ["error", "warning"]
    assert found[0].ref == WEB
    assert found[0].field == "spec"


def test_a_message_is_one_short_line() -> None:
    findings = Findings()
    findings.add(WEB, "NoRoles", "a\nb\t c\x00" + "x" * 5000)
    [found] = findings.sorted()
    assert found.message.startswith("a b c?x")
    assert len(found.message) == 800


def test_only_what_costs_something_is_a_warning() -> None:
    findings = Findings()
    findings.add(WEB, "ReplacedByHeim", "x")
    findings.add(WEB, "NoRoles", "x")
    assert [one.is_event_warning for one in findings.sorted()] == [True, False]


def test_values_are_shown_without_what_they_could_do() -> None:
    assert quoted('a"\n\u202eb') == '"a\\"\\n\\u202eb"'
    assert len(quoted("x" * 500)) < 90
    assert quoted(["a"]) == "\"['a']\""
    assert quoted(None) == '"None"'
