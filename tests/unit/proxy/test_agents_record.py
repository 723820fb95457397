from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from heim_proxy.agents import record
from heim_proxy.agents.refused import LaneRefused
from heim_proxy.observe.audit import Audit
from heim_wire.errors import FAILURES, Code


def lane(**more: Any) -> Any:
    facts = {
        "name": "desktop", "device": "box", "address": "192.0.2.1", "boot": "0" * 32, "number": 1,
        "version": "1.0", "valid_until": 99.5, "claimed": "desktop", "thumbprint": "thumb",
        "started": 0.0, "end_reason": "revoked", "live_session": SimpleNamespace(sid="abcdefghij"),
        "certificate": b"one",
    }  # fmt: skip
    return SimpleNamespace(**(facts | more))


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def events(told: pytest.LogCaptureFixture, logger: str = "heim.audit") -> list[dict[str, Any]]:
    return [vars(one) for one in told.records if one.name == logger]


def test_who_came(told: pytest.LogCaptureFixture) -> None:
    record.connected(Audit(), lane())
    (event,) = events(told)
    assert (event["agent"], event["device"], event["client"]) == ("desktop", "box", "192.0.2.1")
    assert (event["enrolment"], event["expires"]) == ("abcdef", 99)


def test_who_went_and_why(told: pytest.LogCaptureFixture) -> None:
    record.disconnected(Audit(), lane(), bytes_out=5)
    (event,) = events(told)
    assert (event["reason"], event["bytes_out"], event["lane"]) == ("revoked", 5, 1)


@pytest.mark.parametrize("code", FAILURES)
def test_refusals_are_logged_and_those_of_known_keys_recorded(
    told: pytest.LogCaptureFixture, code: int
) -> None:
    record.Told(Audit()).refused(lane(), LaneRefused(code, "why"))
    (line,) = events(told, record.__name__)
    assert (line["claimed"], line["reason"], line["detail"]) == (
        "desktop", FAILURES[code].slug, "why",
    )  # fmt: skip
    quiet = code in (Code.BUSY, Code.GOING_AWAY)
    assert line["levelno"] == (logging.INFO if quiet else logging.WARNING)
    known = (Code.REVOKED, Code.EXPIRED, Code.FORBIDDEN, Code.SUPERSEDED)
    assert len(events(told)) == (code in known)


def test_both_machines_of_one_key_are_named(told: pytest.LogCaptureFixture) -> None:
    record.Told(Audit()).duplicate(lane(device="copy", address="192.0.2.2"), lane())
    (event,) = events(told)
    assert (event["device"], event["other_device"]) == ("copy", "box")
    assert (event["client"], event["other_client"]) == ("192.0.2.2", "192.0.2.1")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(record, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("code", [Code.REVOKED, Code.UNAUTHENTICATED], ids=["key", "address"])
def test_whoever_comes_again_and_again_is_counted(
    told: pytest.LogCaptureFixture, clock: list[float], code: int
) -> None:
    """A machine that was revoked has its key still, and a handshake costs it nothing."""
    said = record.Told(Audit())
    for _ in range(200):
        clock[0] += 0.5
        said.refused(lane(), LaneRefused(code, "why"))
    lines = events(told, record.__name__)
    assert [line.get("others") for line in lines] == [None, 119]
    assert len(events(told)) == (2 if code == Code.REVOKED else 0)


def test_others_are_told_of_all_the_same(
    told: pytest.LogCaptureFixture, clock: list[float]
) -> None:
    said = record.Told(Audit())
    for number in range(3):
        said.refused(lane(certificate=bytes([number])), LaneRefused(Code.REVOKED, "why"))
        said.refused(lane(address=f"192.0.2.{number}"), LaneRefused(Code.PROTOCOL, "why"))
    said.refused(lane(certificate=b"\0"), LaneRefused(Code.EXPIRED, "why"))
    assert len(events(told)) == 4
    assert len(events(told, record.__name__)) == 7


def test_strangers_do_not_use_up_what_is_kept_of_machines(
    told: pytest.LogCaptureFixture, clock: list[float]
) -> None:
    said = record.Told(Audit())
    for number in range(5_000):
        address = f"10.0.{number // 250}.{number % 250}"
        said.refused(lane(address=address), LaneRefused(Code.PROTOCOL, "why"))
    said.refused(lane(), LaneRefused(Code.REVOKED, "why"))
    assert len(events(told)) == 1
    assert len(events(told, record.__name__)) < 4_100


def test_a_cloned_disk_is_told_of_once_a_minute(
    told: pytest.LogCaptureFixture, clock: list[float]
) -> None:
    said = record.Told(Audit())
    for _ in range(70):
        said.duplicate(lane(device="copy"), lane())
        clock[0] += 1
    assert [event.get("others") for event in events(told)] == [None, 59]
