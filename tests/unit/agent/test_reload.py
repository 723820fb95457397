from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from heim_agent import config
from heim_agent.config import SAMPLE, Settings
from heim_agent.reload import LOOK_S, Follower
from tests.fakes.loops import run_on
from tests.fakes.waiting import until

OTHER = '[targets.web]\naddress = "127.0.0.1:80"\n'


class Agenttoml:
    """The file, and what was applied of it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "agent.toml"
        self.path.write_text(SAMPLE)
        self.applied: list[Settings] = []
        self.follower = Follower(str(self.path), config.load(str(self.path)), self.applied.append)

    def write(self, text: str) -> None:
        """As editors do: another file in its place."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        os.replace(fresh, self.path)


@pytest.fixture
def file(tmp_path: Path) -> Agenttoml:
    return Agenttoml(tmp_path)


def test_a_change_is_applied_once(file: Agenttoml, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert not file.follower.check()
    file.write(OTHER)
    assert file.follower.check()
    assert not file.follower.check()
    assert [set(one.targets) for one in file.applied] == [{"web"}]
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["targets"]) == ("settings.applied", ["web"])


@pytest.mark.parametrize(
    "text",
    ["", "[targets.web]\naddr = 7\n", "[[[", None],
    ids=["empty", "wrong", "no TOML", "gone"],
)
def test_a_bad_file_changes_nothing_and_is_told_with_every_mistake(
    file: Agenttoml, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    file.path.unlink() if text is None else file.write(text)
    assert not file.follower.check()
    assert file.applied == []
    (record,) = caplog.records
    assert (record.getMessage(), record.levelno) == ("settings.refused", logging.ERROR)
    assert all(str(file.path) in problem for problem in vars(record)["problems"])
    assert not file.follower.check()
    assert len(caplog.records) == 1, "the same mistake is not told twice"
    file.write(OTHER)
    assert file.follower.check()


def test_a_file_that_says_the_same_in_other_words_is_no_change(file: Agenttoml) -> None:
    file.write(f"# by somebody\nlanes = 1\n{SAMPLE}")
    assert not file.follower.check()


def test_a_signal_has_it_read_at_once(file: Agenttoml, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario() -> None:
        following = asyncio.ensure_future(file.follower.run())
        await asyncio.sleep(0)
        file.follower.poke()
        await until(lambda: caplog.records, LOOK_S / 2)
        following.cancel()

    run_on("asyncio", scenario())
    assert [record.getMessage() for record in caplog.records] == ["settings.unchanged"]


def test_a_change_is_seen_within_a_second(file: Agenttoml) -> None:
    async def scenario() -> None:
        following = asyncio.ensure_future(file.follower.run())
        await asyncio.sleep(0)
        file.write(OTHER)
        await until(lambda: file.applied, 1.0)
        following.cancel()

    run_on("asyncio", scenario())
