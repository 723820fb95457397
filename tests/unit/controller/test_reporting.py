"""Diagnostics to Events."""

from __future__ import annotations

from typing import Any

import pytest

from heim_controller.reporting import REMIND_S, Reporter
from heim_controller.translation.diagnostics import Diagnostic
from heim_controller.translation.objects import Ref


class Clock:
    def __init__(self) -> None:
        self.time = 1_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class Told:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def record(self, regarding: Any, **event: Any) -> None:
        self.events.append({"name": regarding["metadata"]["name"], **event})


def said(name: str = "web", message: str = "so", severity: str = "error", field: str = "") -> Any:
    return Diagnostic("Ingress", "shop", name, "HostNotOwned", message, severity, field)


def find(ref: Ref) -> Any:
    return None if ref.name == "gone" else {"metadata": {"name": ref.name}}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_thing_is_told_once(clock: Clock, told: Told) -> None:
    reporter = Reporter(told, find=find, clock=clock)
    for _ in range(3):
        reporter.report([said(), said("wiki")])
    assert [one["name"] for one in told.events] == ["web", "wiki"]
    reporter.report([said(), said("wiki"), said("new")])
    assert [one["name"] for one in told.events] == ["web", "wiki", "new"]


def test_what_went_and_comes_back_is_told_again(clock: Clock, told: Told) -> None:
    reporter = Reporter(told, find=find, clock=clock)
    for diagnostics in ([said()], [], [said()]):
        reporter.report(diagnostics)
    assert len(told.events) == 2


def test_what_lasts_is_told_again_when_its_event_is_gone(clock: Clock, told: Told) -> None:
    reporter = Reporter(told, find=find, clock=clock)
    reporter.report([said()])
    clock.time += REMIND_S - 1
    reporter.report([said()])
    assert len(told.events) == 1
    clock.time += 1
    reporter.report([said()])
    assert len(told.events) == 2


def test_whoever_leads_next_does_not_say_everything_again(clock: Clock, told: Told) -> None:
    first = Reporter(told, find=find, clock=clock)
    first.report([said()])
    for diagnostics, more in (([said()], 0), ([said(), said("new")], 2)):
        following, heard = Told(), 0
        reporter = Reporter(following, find=find, clock=clock)
        reporter.inherit(first.mark)
        reporter.report(diagnostics)
        heard = len(following.events)
        assert heard == more
    clock.time += REMIND_S
    reporter = Reporter(following, find=find, clock=clock)
    reporter.inherit(first.mark)
    before = len(following.events)
    reporter.report([said()])
    assert len(following.events) == before + 1


@pytest.mark.parametrize("mark", ["", "x", "x.", ".1", "x.y", "x.99999999999999999"])
def test_a_mark_that_makes_no_sense_is_none(mark: str, clock: Clock, told: Told) -> None:
    reporter = Reporter(told, find=find, clock=clock)
    reporter.inherit(mark)
    reporter.report([said()])
    assert len(told.events) == 1


def test_nothing_to_say_is_no_mark(clock: Clock, told: Told) -> None:
    reporter = Reporter(told, find=find, clock=clock)
    reporter.report([])
    assert reporter.mark == ""


def test_events_say_where_and_how_bad(
    clock: Clock, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    reporter = Reporter(told, find=find, clock=clock)
    reporter.report([said(field="spec.x"), said(severity="info"), said("gone")])
    assert [one.message for one in caplog.records] == ["controller.object_missing"]
    [first, second] = told.events
    assert (first["type"], first["note"], first["reason"]) == (
        "Warning", "spec.x: so", "HostNotOwned",
    )  # fmt: skip
    assert (second["type"], second["note"]) == ("Normal", "so")
