from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heim_config.model import Config
from heim_config.problems import ConfigError, Problem
from heim_proxy.observe.metrics import Metrics
from heim_proxy.reload import HASH_CHARS, Failure, Reloader
from heim_proxy.sources.base import Loaded, Rejected, Update
from heim_proxy.sources.file import FileSource
from heim_runtime.tasks import cancel, spawn
from tests.fakes.static_source import StaticSource
from tests.unit.config.samples import GOOD, load

PROBLEM = Problem("heim.yaml", 3, "drane", "unknown key", "did you mean drain?")


class StoppedClock:
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        raise AssertionError("the status is for people: it is told in wall time")


class Counted(StaticSource):
    """Knows how many updates it was given."""

    pushed = 1

    def push(self, update: Update) -> None:
        self.pushed += 1
        super().push(update)


class Bench:
    """A reloader whose snapshots are the configurations themselves."""

    def __init__(self, text: str = GOOD) -> None:
        self.source = Counted(loaded(text))
        self.clock = StoppedClock()
        self.swapped: list[Config] = []
        self.failure: Exception | None = None
        self.reloader = Reloader(
            self.source, build=self.build, swap=self.swapped.append, clock=self.clock
        )

    def build(self, config: Config) -> Config:
        if self.failure is not None:
            raise self.failure
        return config

    async def settle(self) -> None:
        """Until everything that was pushed is dealt with."""
        async with asyncio.timeout(2):
            while self.taken < self.source.pushed:
                await asyncio.sleep(0.001)

    @property
    def taken(self) -> int:
        return self.reloader.status.generation + self.reloader.status.failures


def loaded(text: str, digest: str = "ab" * 32) -> Loaded:
    return Loaded(load(text), digest)


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == name]


async def test_the_first_configuration_is_applied(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    bench = Bench()
    assert bench.reloader.status.generation == 0
    await bench.reloader.start()
    assert [config.domain for config in bench.swapped] == ["x.example.com"]
    status = bench.reloader.status
    assert (status.generation, status.loaded_at, status.last_error) == (1, 1000.0, None)
    assert status.config_hash == ("ab" * 32)[:HASH_CHARS]
    [record] = events(caplog, "config.applied")
    assert vars(record)["generation"] == 1
    assert vars(record)["source"] == "static"


async def test_a_first_configuration_with_mistakes_stops_the_start() -> None:
    bench = Bench()
    source = StaticSource(Rejected((PROBLEM,)))
    reloader = Reloader(source, build=bench.build, swap=bench.swapped.append)
    with pytest.raises(ConfigError) as caught:
        await reloader.start()
    assert caught.value.problems == (PROBLEM,)
    assert bench.swapped == []


async def test_a_first_snapshot_that_cannot_be_built_stops_the_start() -> None:
    bench = Bench()
    bench.failure = RuntimeError("no such key")
    with pytest.raises(ConfigError, match="cannot be used: no such key"):
        await bench.reloader.start()


async def test_changes_are_applied_in_order() -> None:
    bench = Bench()
    await bench.reloader.start()
    task = spawn("reload", bench.reloader.run())
    bench.source.push(loaded(GOOD + "drain: 5s\n"))
    bench.source.push(loaded(GOOD + "drain: 6s\n"))
    await bench.settle()
    assert [config.drain for config in bench.swapped] == [30.0, 5.0, 6.0]
    assert bench.reloader.status.generation == 3
    await cancel([task])


async def test_a_bad_configuration_never_replaces_a_good_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    await bench.reloader.start()
    task = spawn("reload", bench.reloader.run())
    bench.clock.time = 2000.0
    bench.source.push(Rejected((PROBLEM,)))
    await bench.settle()
    assert len(bench.swapped) == 1
    status = bench.reloader.status
    assert (status.generation, status.failures) == (1, 1)
    assert status.last_error == Failure(2000.0, (PROBLEM,))
    [record] = events(caplog, "config.rejected")
    assert record.levelno == logging.ERROR
    assert vars(record)["problems"] == ["heim.yaml:3: drane: unknown key; did you mean drain?"]
    assert vars(record)["generation_kept"] == 1
    bench.source.push(loaded(GOOD))
    await bench.settle()
    assert bench.reloader.status.last_error is None
    assert bench.reloader.status.generation == 2
    assert bench.reloader.status.failures == 1
    await cancel([task])


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (ConfigError([PROBLEM]), "heim.yaml:3: drane: unknown key; did you mean drain?"),
        (ValueError("tls.crt and tls.key do not match"), "static: cannot be used: tls.crt and"),
        (KeyError(), "static: cannot be used: KeyError()"),
        (MemoryError(), "static: cannot be used: MemoryError()"),
    ],
    ids=["problems", "text", "no text", "memory"],
)
async def test_a_build_that_fails_keeps_what_is_in_use(failure: Exception, text: str) -> None:
    bench = Bench()
    await bench.reloader.start()
    task = spawn("reload", bench.reloader.run())
    bench.failure = failure
    bench.source.push(loaded(GOOD + "drain: 5s\n"))
    await bench.settle()
    assert len(bench.swapped) == 1
    assert not task.done()
    error = bench.reloader.status.last_error
    assert error is not None
    assert str(error.problems[0]).startswith(text)
    bench.failure = None
    bench.source.look()
    await bench.settle()
    assert [config.drain for config in bench.swapped] == [30.0, 5.0]
    await cancel([task])


async def test_a_log_line_holds_a_bounded_number_of_problems(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    await bench.reloader.start()
    task = spawn("reload", bench.reloader.run())
    bench.source.push(Rejected((PROBLEM,) * 5000))
    await bench.settle()
    [record] = events(caplog, "config.rejected")
    assert len(vars(record)["problems"]) == 20
    assert vars(record)["problem_count"] == 5000
    await cancel([task])


@pytest.mark.parametrize(
    ("addition", "keys"),
    [
        ('listeners: {https: {address: "0.0.0.0:8443"}}\n', ("listeners",)),
        ("listeners: {http: null}\n", ("listeners",)),
        ('state: {url: "sqlite:///other.db"}\n', ("state.url",)),
        (
            'listeners: {admin: {address: "127.0.0.1:1"}}\nstate: {url: "sqlite:///o.db"}\n',
            ("listeners", "state.url"),
        ),
    ],
    ids=["https", "no http", "state", "both"],
)
async def test_what_needs_a_restart_waits_and_the_rest_is_applied(
    caplog: pytest.LogCaptureFixture, addition: str, keys: tuple[str, ...]
) -> None:
    bench = Bench()
    await bench.reloader.start()
    boot = bench.swapped[0]
    task = spawn("reload", bench.reloader.run())
    bench.source.push(loaded(GOOD + addition + "drain: 5s\n"))
    await bench.settle()
    applied = bench.swapped[1]
    assert applied.drain == 5.0
    assert applied.listeners == boot.listeners
    assert applied.state == boot.state
    assert bench.reloader.status.restart_needed == keys
    [record] = events(caplog, "config.restart_needed")
    assert record.levelno == logging.WARNING
    assert vars(record)["keys"] == keys
    bench.source.push(loaded(GOOD))
    await bench.settle()
    assert bench.reloader.status.restart_needed == ()
    await cancel([task])


async def test_running_before_starting_is_refused() -> None:
    with pytest.raises(RuntimeError, match="start"):
        await Bench().reloader.run()


async def test_a_file_is_followed_from_change_to_snapshot(tmp_path: Path) -> None:
    for name in ("tls/tls.crt", "tls/tls.key", "secrets/google"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n", encoding="utf-8")
    path = tmp_path / "heim.yaml"
    path.write_text(GOOD, encoding="utf-8")
    swapped: asyncio.Queue[Config] = asyncio.Queue()
    reloader = Reloader(
        FileSource(path, interval_s=0.02), build=lambda config: config, swap=swapped.put_nowait
    )
    await reloader.start()
    task = spawn("reload", reloader.run())
    async with asyncio.timeout(3):
        assert (await swapped.get()).drain == 30.0
        path.write_text(GOOD + "drain: 5s\n", encoding="utf-8")
        assert (await swapped.get()).drain == 5.0
        reloader.look()
        assert (await swapped.get()).drain == 5.0
    assert reloader.status.generation == 3
    await cancel([task])


async def test_a_source_that_broke_is_asked_anew() -> None:
    class Breaking(StaticSource):
        async def updates(self) -> AsyncIterator[Update]:
            async for update in super().updates():
                yield update
                raise RuntimeError("a bug")

    swapped: list[Config] = []
    source = Breaking(loaded(GOOD))
    reloader = Reloader(source, build=lambda config: config, swap=swapped.append)
    await reloader.start()
    with pytest.raises(RuntimeError, match="a bug"):
        await reloader.run()
    source.push(loaded(GOOD))
    with pytest.raises(RuntimeError, match="a bug"):
        await reloader.run()
    assert len(swapped) == 2


async def test_figures_say_which_configuration_is_in_force() -> None:
    bench = Bench()
    metrics = Metrics(version="1")
    bench.reloader.expose(metrics)
    assert b"heim_config_generation 0.0" in metrics.render()
    await bench.reloader.start()
    shown = metrics.render()
    assert b"heim_config_generation 1.0" in shown
    assert b"heim_config_last_reload_successful 1.0" in shown
    assert b"heim_config_last_reload_timestamp_seconds 1000.0" in shown


class WithBoot(Counted):
    """A source that may be waited for."""

    def __init__(self, first: Update) -> None:
        super().__init__(first)
        self.boot = load(GOOD)


async def test_a_source_with_a_boot_file_is_waited_for_until_it_has_something_usable() -> None:
    source = WithBoot(Rejected((PROBLEM,)))
    swapped: list[Config] = []
    reloader = Reloader(source, build=lambda config: config, swap=swapped.append)
    starting = asyncio.ensure_future(reloader.start())
    async with asyncio.timeout(2):
        while not reloader.status.failures:
            await asyncio.sleep(0.001)
    assert reloader.ready() == (False, str(PROBLEM))
    source.push(Loaded(load(GOOD), "ab" * 32, "cd" * 32))
    assert await starting
    assert len(swapped) == 1
    assert reloader.ready() == (True, "")
    assert reloader.facts()["document_hash"] == "cd" * 32


async def test_waiting_ends_when_it_is_asked_to_stop() -> None:
    source = WithBoot(Rejected((PROBLEM,)))
    reloader = Reloader(source, build=lambda config: config, swap=lambda config: None)
    stopping = asyncio.Event()
    starting = asyncio.ensure_future(reloader.start(stopping=stopping))
    await asyncio.sleep(0)
    stopping.set()
    async with asyncio.timeout(2):
        assert not await starting


async def test_it_says_what_is_missing_and_what_may_go_unnoticed() -> None:
    bench = Bench()
    assert bench.reloader.ready() == (False, "waiting for the first configuration")
    bench.source.trouble = "the API server does not answer"
    assert bench.reloader.ready() == (False, "the API server does not answer")
    await bench.reloader.start()
    assert bench.reloader.ready() == (True, "still generation 1; the API server does not answer")
    assert bench.reloader.facts()["source_trouble"] == "the API server does not answer"
    assert bench.reloader.facts()["document_hash"] is None
