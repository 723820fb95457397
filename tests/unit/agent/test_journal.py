from __future__ import annotations

import logging
from typing import Any

import pytest

from heim_agent.assertions import Caller
from heim_agent.journal import Journal
from heim_wire.errors import Code

ALICE = Caller(
    user="alice@example.com",
    kind="person",
    subject="1001",
    email="alice@example.com",
    groups=frozenset(),
    roles=frozenset(),
    backend="desktop-ssh",
    target="ssh",
    session="0011",
    generation=7,
    source="203.0.113.9",
)


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def written(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "heim_agent.journal"]


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def facts(record: logging.LogRecord) -> dict[str, Any]:
    return vars(record)


def test_who_used_what_is_in_every_line(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal("desktop", Time())
    journal.opened(ALICE, "01J", address="127.0.0.1:22", seconds=0.0123)
    journal.ended(ALICE, "01J", received=5, sent=7, seconds=1.23456, code=0, reason="both ended")
    journal.failed(ALICE, "01J", address="127.0.0.1:22", code=Code.DIAL_REFUSED, reason="no")
    journal.refused("ssh", "01J", code=Code.FORBIDDEN, reason="no role", caller=ALICE)
    assert [record.getMessage() for record in written(caplog)] == [
        "stream.opened", "stream.ended", "stream.failed", "stream.refused",
    ]  # fmt: skip
    for record in written(caplog):
        found = facts(record)
        assert found["agent"] == "desktop"
        assert found["target"] == "ssh"
        assert found["user"] == "alice@example.com"
        assert found["session"] == "0011"
        assert found["backend"] == "desktop-ssh"
        assert found["request_id"] == "01J"
    opened, ended, failed, refused = map(facts, written(caplog))
    assert (opened["source"], opened["address"]) == ("203.0.113.9", "127.0.0.1:22")
    assert (ended["bytes_in"], ended["bytes_out"], ended["seconds"]) == (5, 7, 1.235)
    assert (ended["end"], failed["end"], refused["end"]) == ("done", "dial_refused", "forbidden")


def test_who_is_not_known_is_not_named(caplog: pytest.LogCaptureFixture) -> None:
    Journal("desktop", Time()).refused("ssh", "01J", code=Code.FORBIDDEN, reason="no")
    assert "user" not in facts(written(caplog)[0])


def test_refusals_are_told_20_times_a_second_and_the_rest_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    time = Time()
    journal = Journal("desktop", time)
    for _ in range(100):
        journal.refused("ssh", "01J", code=Code.FORBIDDEN, reason="no")
    assert len(written(caplog)) == 20
    time.now = 1.0
    for _ in range(3):
        journal.refused("ssh", "01J", code=Code.FORBIDDEN, reason="no")
    assert len(written(caplog)) == 23
    assert facts(written(caplog)[20])["others_unwritten"] == "80"
    assert "others_unwritten" not in facts(written(caplog)[21])
