from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from heim_config.layers import digest_of, read_boot
from heim_proxy.sources.base import Loaded, Rejected, Update
from heim_proxy.sources.document import Sheet
from heim_proxy.sources.kept import KeptCopy
from heim_proxy.sources.layered import LayeredSource
from tests.fakes.waiting import until

INTERVAL = 0.02
QUIET = 0.2

BOOT = """\
version: 1
domain: x.example.com
source: {kubernetes: {config_map: heim-configuration}}
"""


def sheet(*names: str, **more: Any) -> Sheet:
    """A document with public backends of these names."""
    backends = [
        {"name": name, "public": True, "http": [{"path": "/", "upstream": "http://127.0.0.1:1"}]}
        for name in names
    ]
    content = json.dumps({"backends": backends, **more}).encode()
    return Sheet(content, hashlib.sha256(content).hexdigest())


WITH_SECRET = sheet("a", tls={"certificates": [{"secret": "wiki-tls"}]})
BAD = sheet("a", rolls=[])


class GivenFeed:
    """A feed that has what it is given."""

    name = "ConfigMap heim/heim-configuration"

    def __init__(self, secrets: Path) -> None:
        self.secrets = secrets
        self.sheet: Sheet | None = None
        self.trouble = ""
        self.provided: list[frozenset[str]] = []
        self.kept: list[frozenset[str]] = []
        self.failures = 0
        self.running = 0
        self._waiting: asyncio.Queue[Sheet] = asyncio.Queue()

    def give(self, found: Sheet) -> None:
        self._waiting.put_nowait(found)

    async def run(self, changed: Callable[[], None]) -> None:
        self.running += 1
        if self.failures:
            self.failures -= 1
            raise RuntimeError("a bug")
        try:
            while True:
                self.sheet = await self._waiting.get()
                changed()
        finally:
            self.running -= 1

    async def provide(self, names: frozenset[str]) -> None:
        self.provided.append(names)

    async def drop_others(self, names: frozenset[str]) -> None:
        self.kept.append(names)


class Bench:
    """A boot file, a feed, and what the source makes of both."""

    def __init__(self, directory: Path, *, patience_s: float = 0.1) -> None:
        self.file = directory / "heim.yaml"
        self.file.write_text(BOOT)
        self.feed = GivenFeed(directory / "secrets")
        self.kept = KeptCopy(directory / "state", "test")
        self.source = LayeredSource(
            read_boot(self.file),
            self.feed,
            self.kept,
            interval_s=INTERVAL,
            patience_s=patience_s,
        )
        self.updates: AsyncIterator[Update] = self.source.updates()
        self._pending: asyncio.Future[Update] | None = None

    def _next(self) -> asyncio.Future[Update]:
        if self._pending is None:
            self._pending = asyncio.ensure_future(anext(self.updates))
        return self._pending

    async def next(self) -> Update:
        async with asyncio.timeout(4):
            update = await asyncio.shield(self._next())
        self._pending = None
        return update

    async def loaded(self) -> Loaded:
        update = await self.next()
        assert isinstance(update, Loaded), update
        return update

    async def rejected(self) -> list[str]:
        update = await self.next()
        assert isinstance(update, Rejected), update
        return [str(problem) for problem in update.problems]

    async def quiet(self) -> None:
        """Nothing is reported for longer than several looks take."""
        done, _ = await asyncio.wait([self._next()], timeout=QUIET)
        assert not done

    async def close(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.gather(self._pending, return_exceptions=True)
        await self.source.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    found = Bench(tmp_path)
    yield found
    await found.close()


def names(update: Loaded) -> list[str]:
    return [backend.name for backend in update.config.backends]


async def test_it_waits_for_a_document_and_says_for_which(bench: Bench) -> None:
    await bench.quiet()
    assert bench.source.trouble == f"waiting for {bench.feed.name}"
    bench.feed.give(sheet("a"))
    update = await bench.loaded()
    assert names(update) == ["a"]
    assert bench.source.trouble == ""


async def test_digests_name_both_layers_and_the_document(bench: Bench) -> None:
    found = sheet("a")
    bench.feed.give(found)
    update = await bench.loaded()
    assert update.document_hash == found.sha256
    assert update.digest == digest_of(read_boot(bench.file), found.sha256)


async def test_a_change_of_either_layer_is_reported(bench: Bench) -> None:
    bench.feed.give(sheet("a"))
    await bench.loaded()
    bench.feed.give(sheet("a", "b"))
    assert names(await bench.loaded()) == ["a", "b"]
    bench.file.write_text(BOOT + "drain: 5s\n")
    update = await bench.loaded()
    assert update.config.drain == 5.0
    assert names(update) == ["a", "b"]
    await bench.quiet()


async def test_mistakes_of_either_layer_are_rejected_and_the_next_good_one_is_taken(
    bench: Bench,
) -> None:
    bench.feed.give(sheet("a"))
    await bench.loaded()
    bench.feed.give(BAD)
    assert await bench.rejected() == [f"{bench.feed.name}: rolls: unknown key; did you mean roles?"]
    bench.feed.give(sheet("b"))
    assert names(await bench.loaded()) == ["b"]
    bench.file.write_text(BOOT + "drane: 5s\n")
    [problem] = await bench.rejected()
    assert problem == f"{bench.file}:4: drane: unknown key; did you mean drain?"
    bench.file.write_text(BOOT)
    await bench.loaded()


@pytest.mark.parametrize(
    "text",
    [
        BOOT.replace("heim-configuration", "another"),
        "version: 1\ndomain: x.example.com\ntls: {certificates: [{directory: x}]}\n",
    ],
    ids=["another", "none"],
)
async def test_another_source_needs_a_restart(bench: Bench, text: str) -> None:
    bench.feed.give(sheet("a"))
    await bench.loaded()
    (bench.file.parent / "x").mkdir()
    for name in ("tls.crt", "tls.key"):
        (bench.file.parent / "x" / name).write_text("x")
    bench.file.write_text(text)
    assert await bench.rejected() == [f"{bench.file}: source: was changed: needs a restart"]


async def test_content_that_is_no_document_is_rejected(bench: Bench) -> None:
    bench.feed.give(Sheet(b"[]", hashlib.sha256(b"[]").hexdigest()))
    assert await bench.rejected() == [f"{bench.feed.name}: is not a JSON object"]


async def test_secrets_are_there_before_the_configuration_is_reported(bench: Bench) -> None:
    bench.feed.give(WITH_SECRET)
    await bench.loaded()
    assert bench.feed.provided == [frozenset(("wiki-tls",))]
    assert bench.feed.kept == []
    # What is not named any more goes only once the next one is in force.
    bench.feed.give(sheet("a"))
    await bench.loaded()
    assert bench.feed.kept == [frozenset(("wiki-tls",))]
    await bench.quiet()
    assert bench.feed.kept == [frozenset(("wiki-tls",)), frozenset()]


async def test_after_a_refusal_a_secret_that_appears_makes_another_update(bench: Bench) -> None:
    bench.feed.give(WITH_SECRET)
    await bench.loaded()
    bench.source.refused()
    await bench.quiet()
    folder = bench.feed.secrets / "wiki-tls"
    folder.mkdir(parents=True)
    (folder / "tls.crt").write_text("certificate")
    assert names(await bench.loaded()) == ["a"]


async def test_what_is_in_force_is_kept_and_what_was_refused_is_not(bench: Bench) -> None:
    bench.feed.give(sheet("a"))
    await bench.loaded()
    assert bench.kept.read() is None
    bench.feed.give(sheet("b"))
    await bench.loaded()
    assert bench.kept.read() == sheet("a")
    bench.source.refused()
    bench.feed.give(BAD)
    await bench.rejected()
    await bench.quiet()
    assert bench.kept.read() == sheet("a")


async def test_without_an_answer_the_kept_copy_is_taken_until_there_is_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path)
    bench.kept.write(sheet("kept"))
    bench.feed.trouble = "the API server cannot be reached"
    assert names(await bench.loaded()) == ["kept"]
    [record] = [one for one in caplog.records if one.getMessage() == "config.kept_copy"]
    assert "the API server cannot be reached" in vars(record)["reason"]
    await bench.quiet()
    bench.feed.give(sheet("new"))
    assert names(await bench.loaded()) == ["new"]
    await bench.quiet()
    assert bench.kept.read() == sheet("new")
    await bench.close()


async def test_an_answer_that_is_the_kept_copy_changes_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.kept.write(sheet("kept"))
    await bench.loaded()
    bench.feed.give(sheet("kept"))
    await bench.quiet()
    await bench.close()


async def test_a_document_that_is_there_in_time_goes_before_the_kept_copy(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, patience_s=4.0)
    bench.kept.write(sheet("kept"))
    bench.feed.give(sheet("new"))
    assert names(await bench.loaded()) == ["new"]
    await bench.close()


async def test_when_the_first_document_cannot_be_used_the_kept_one_serves_and_the_mistake_is_told(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, patience_s=4.0)
    bench.kept.write(sheet("kept"))
    bench.feed.give(BAD)
    assert "rolls" in (await bench.rejected())[0]
    assert names(await bench.loaded()) == ["kept"]
    assert "rolls" in (await bench.rejected())[0]
    await bench.quiet()
    bench.feed.give(sheet("mended"))
    assert names(await bench.loaded()) == ["mended"]
    await bench.close()


async def test_a_copy_that_cannot_be_written_is_told_and_does_no_harm(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.kept.path.parent.write_text("a file where the directory should be")
    bench.feed.give(sheet("a"))
    await bench.loaded()
    bench.feed.give(sheet("b"))
    await bench.loaded()
    assert "config.copy_failed" in caplog.messages


async def test_a_feed_with_a_bug_is_run_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.feed.failures = 1
    bench.feed.give(sheet("a"))
    assert names(await bench.loaded()) == ["a"]
    await bench.close()


async def test_closing_ends_the_feed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.feed.give(sheet("a"))
    await bench.loaded()
    assert bench.feed.running == 1
    await bench.close()
    await until(lambda: bench.feed.running == 0)
    await bench.close()


async def test_troubles_of_the_feed_are_told_with_its_name(bench: Bench) -> None:
    bench.feed.trouble = "the API server does not answer"
    assert bench.source.trouble == f"{bench.feed.name}: the API server does not answer"


async def test_sighup_loads_again(bench: Bench) -> None:
    bench.feed.give(sheet("a"))
    await bench.loaded()
    bench.source.look()
    assert names(await bench.loaded()) == ["a"]
