from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path

import pytest

from heim_agent.report import PAUSE_S, Report
from tests.fakes.loops import LOOPS, run_on
from tests.fakes.waiting import until


@pytest.mark.parametrize("loop", LOOPS)
def test_changes_are_written_soon_and_together(loop: str, tmp_path: Path) -> None:
    calls: list[int] = []

    def describe() -> object:
        calls.append(1)
        return {"count": len(calls)}

    async def scenario() -> None:
        report = Report(str(tmp_path), describe)
        path = tmp_path / "status.json"
        for _ in range(50):
            report.change()
        await until(path.exists)
        assert json.loads(path.read_text()) == {"count": 1}
        began = asyncio.get_running_loop().time()
        report.change()
        await until(lambda: len(calls) == 2)
        assert asyncio.get_running_loop().time() - began > PAUSE_S * 0.9
        report.remove()
        assert not path.exists()
        assert os.listdir(tmp_path) == []

    run_on(loop, scenario())


def test_a_full_disk_is_told_once_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        report = Report(str(tmp_path / "gone"), dict)
        for _ in range(3):
            report.write()
        report.remove()

    with caplog.at_level(logging.WARNING):
        run_on("asyncio", scenario())
    assert [record.message for record in caplog.records] == ["status.unwritten"]


def test_a_link_that_somebody_put_there_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "status.json.new").symlink_to(precious)

    async def scenario() -> None:
        Report(str(tmp_path), dict).write()

    run_on("asyncio", scenario())
    assert precious.read_text() == "mine"


def test_what_is_removed_is_not_written_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        report = Report(str(tmp_path), dict)
        report.change()
        report.remove()
        await asyncio.sleep(0.01)

    run_on("asyncio", scenario())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("loop", LOOPS)
def test_what_could_not_be_written_is_written_later_though_nothing_changes(
    loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heim_agent.report.AGAIN_S", 0.05)

    async def scenario() -> None:
        directory = tmp_path / "full"
        report = Report(str(directory), lambda: {"state": "connected"})
        report.change()
        await asyncio.sleep(0.02)
        directory.mkdir()
        await until((directory / "status.json").exists)
        report.remove()

    run_on(loop, scenario())
