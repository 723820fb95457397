from __future__ import annotations

import logging

import pytest

from heim_proxy.sources.loss import GRACE_S, MAX_REASONS, Loss


@pytest.fixture(autouse=True)
def _log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, object]]:
    return [
        (record.getMessage(), vars(record).get("reason", vars(record).get("lost_s")))
        for record in caplog.records
    ]


def test_a_reason_is_said_once_and_the_end_with_how_long_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loss = Loss("ConfigMap a/b")
    loss.note("refused", now=10.0)
    loss.note("refused", now=11.0)
    assert loss.reason == "refused"
    loss.note("", now=13.5)
    loss.note("", now=14.0)
    assert loss.reason == ""
    assert told(caplog) == [("config.source_lost", "refused"), ("config.source_recovered", 3.5)]
    assert vars(caplog.records[0])["source"] == "ConfigMap a/b"


def test_another_reason_is_said_too_and_the_latest_is_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loss = Loss("x")
    for reason in ("refused", "503", "refused", "503"):
        loss.note(reason, now=1.0)
    assert loss.reason == "503"
    assert told(caplog) == [("config.source_lost", "refused"), ("config.source_lost", "503")]


def test_ever_new_reasons_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    loss = Loss("x")
    for number in range(100):
        loss.note(f"reason {number}", now=1.0)
    assert len(told(caplog)) == MAX_REASONS
    assert loss.reason == "reason 99"


def test_what_passes_by_itself_is_said_only_when_it_lasts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loss = Loss("x")
    loss.note("half written", now=1.0, passing=True)
    assert loss.reason == ""
    loss.note("", now=1.5)
    assert told(caplog) == []
    loss.note("half written", now=2.0, passing=True)
    loss.note("half written", now=2.0 + GRACE_S, passing=True)
    assert told(caplog) == [("config.source_lost", "half written")]
