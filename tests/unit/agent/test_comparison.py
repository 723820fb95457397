from __future__ import annotations

import logging

import pytest

from heim_agent.comparison import Comparison
from heim_agent.lane import Grant


def grant(*targets: str, whole: bool = True) -> Grant:
    return Grant("r", targets, 0.0, 1, whole)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[list[str], list[str]]]:
    return [
        (vars(one)["missing"], vars(one)["unasked"])
        for one in caplog.records
        if one.getMessage() == "settings.differ"
    ]


def test_the_log_is_told_once_for_each_change(caplog: pytest.LogCaptureFixture) -> None:
    names = Comparison()
    names.look([grant("shh")])
    assert names.served is None
    names.serve(["ssh"])
    assert names.served == ["ssh"]
    names.look([])
    assert told(caplog) == []
    names.look([grant("shh")])
    names.look([grant("shh"), grant("shh")])
    names.look([])
    assert told(caplog) == [(["shh"], ["ssh"])]
    assert caplog.records[0].levelno == logging.WARNING
    assert "the proxy asks for shh, agent.toml has ssh" in vars(caplog.records[0])["hint"]
    names.serve(["shh"])
    names.look([grant("shh")])
    names.serve(["ssh"])
    names.look([grant("shh")])
    assert told(caplog) == [(["shh"], ["ssh"])] * 2


def test_a_proxy_that_says_another_list_all_the_time_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = Comparison()
    names.serve(["ssh"])
    for number in range(100):
        names.look([grant(f"x{number}")])
    assert len(told(caplog)) == 10
