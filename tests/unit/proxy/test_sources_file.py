from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from heim_proxy.sources.base import Loaded, Rejected, Source, Update
from heim_proxy.sources.file import INTERVAL_S, SETTLE_S, FileSource, _look
from tests.unit.config.samples import GOOD

INTERVAL = 0.02
SOON = 3.0
# Longer than several looks: what has not been reported by then is not reported.
QUIET = 0.25


class Watched:
    """A directory with a configuration, and the updates that a source makes of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.write("tls/tls.crt", "certificate")
        self.write("tls/tls.key", "key")
        self.write("secrets/google", "hunter2\n")
        self.config = self.write("heim.yaml", GOOD)
        self.source = FileSource(self.config, interval_s=INTERVAL)
        self.updates: AsyncIterator[Update] = self.source.updates()
        self._pending: asyncio.Future[Update] | None = None

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text, encoding="utf-8")
        return path

    def replace(self, name: str, text: str) -> None:
        """As editors and careful programs do: a new file over the old one."""
        self.write(f"{name}.new", text)
        os.replace(self.directory / f"{name}.new", self.directory / name)

    def _next(self) -> asyncio.Future[Update]:
        if self._pending is None:
            self._pending = asyncio.ensure_future(anext(self.updates))
        return self._pending

    async def next(self) -> Update:
        async with asyncio.timeout(SOON):
            update = await asyncio.shield(self._next())
        self._pending = None
        return update

    async def loaded(self) -> Loaded:
        update = await self.next()
        assert isinstance(update, Loaded), update
        return update

    async def rejected(self) -> Rejected:
        update = await self.next()
        assert isinstance(update, Rejected)
        return update

    async def nothing(self) -> None:
        done, _ = await asyncio.wait([self._next()], timeout=QUIET)
        assert not done, done

    async def close(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.wait([self._pending])


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    found = Watched(tmp_path)
    yield found
    await found.close()


CHANGED = GOOD + "drain: 5s\n"


async def test_the_first_update_is_what_is_there(watched: Watched) -> None:
    source: Source = watched.source
    assert source.name == str(watched.config)
    first = await watched.loaded()
    assert first.config.domain == "x.example.com"
    assert len(first.digest) == 64
    await watched.nothing()


async def test_the_digest_is_that_of_the_text_and_not_of_secrets(watched: Watched) -> None:
    first = await watched.loaded()
    watched.write("secrets/google", "hunter3\n")
    assert (await watched.loaded()).digest == first.digest
    watched.write("heim.yaml", CHANGED)
    assert (await watched.loaded()).digest != first.digest


@pytest.mark.parametrize("how", ["write", "replace"])
async def test_a_change_is_reported_once(watched: Watched, how: str) -> None:
    await watched.loaded()
    getattr(watched, how)("heim.yaml", CHANGED)
    assert (await watched.loaded()).config.drain == 5.0
    await watched.nothing()


async def test_a_change_of_the_same_size_and_time_is_seen(watched: Watched) -> None:
    watched.write("heim.yaml", CHANGED)
    await watched.loaded()
    before = watched.config.stat()
    watched.write("heim.yaml", CHANGED.replace("5s", "6s"))
    os.utime(watched.config, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (await watched.loaded()).config.drain == 6.0


async def test_the_same_content_written_again_is_no_change(watched: Watched) -> None:
    await watched.loaded()
    watched.replace("heim.yaml", GOOD)
    watched.write("secrets/google", "hunter2\n")
    await watched.nothing()


async def test_a_changed_secret_is_reported(watched: Watched) -> None:
    await watched.loaded()
    watched.replace("secrets/google", "hunter3\n")
    await watched.loaded()


async def test_a_renewed_certificate_is_not(watched: Watched) -> None:
    """It has a watcher of its own."""
    await watched.loaded()
    watched.write("tls/tls.crt", "renewed")
    await watched.nothing()


async def test_a_renewed_certificate_is_after_the_update_was_refused(watched: Watched) -> None:
    await watched.loaded()
    watched.source.refused()
    await watched.nothing()
    watched.write("tls/tls.crt", "renewed")
    await watched.loaded()
    watched.write("tls/tls.crt", "renewed again")
    await watched.nothing()


async def test_a_mistake_is_reported_once_and_then_its_correction(watched: Watched) -> None:
    await watched.loaded()
    watched.write("heim.yaml", GOOD + "drane: 5s\n")
    [problem] = (await watched.rejected()).problems
    assert problem.message == "unknown key"
    await watched.nothing()
    watched.write("heim.yaml", CHANGED)
    assert (await watched.loaded()).config.drain == 5.0


async def test_going_back_to_what_was_there_before_is_reported(watched: Watched) -> None:
    await watched.loaded()
    watched.write("heim.yaml", "nonsense")
    await watched.rejected()
    watched.write("heim.yaml", GOOD)
    await watched.loaded()


async def test_a_secret_that_disappears_and_returns_is_reported(watched: Watched) -> None:
    await watched.loaded()
    (watched.directory / "secrets/google").unlink()
    [problem] = (await watched.rejected()).problems
    assert "secrets/google cannot be read" in problem.message
    await watched.nothing()
    watched.write("secrets/google", "hunter2\n")
    await watched.loaded()


async def test_a_new_file_that_is_missing_is_waited_for(watched: Watched) -> None:
    await watched.loaded()
    watched.write("heim.yaml", GOOD + "session: {key_file: keys}\n")
    await watched.rejected()
    watched.write("keys", "k1:AAAA\n")
    update = await watched.loaded()
    assert update.config.session.key_file == watched.directory / "keys"
    watched.write("keys", "k2:AAAA\n")
    await watched.loaded()


async def test_a_missing_certificate_is_waited_for(watched: Watched) -> None:
    (watched.directory / "tls/tls.key").unlink()
    await watched.rejected()
    await watched.nothing()
    watched.write("tls/tls.key", "key")
    await watched.loaded()


@pytest.mark.parametrize("kind", ["missing", "directory", "circle"])
async def test_a_configuration_that_cannot_be_read_is_reported(watched: Watched, kind: str) -> None:
    await watched.loaded()
    watched.config.unlink()
    if kind == "directory":
        watched.config.mkdir()
    elif kind == "circle":
        watched.config.symlink_to("heim.yaml")
    await watched.rejected()
    await watched.nothing()
    if kind == "directory":
        watched.config.rmdir()
    watched.config.unlink(missing_ok=True)
    watched.write("heim.yaml", CHANGED)
    await watched.loaded()


async def test_the_links_of_a_mounted_secret_are_followed(tmp_path: Path) -> None:
    """Kubelet swaps ..data; neither the path nor what it links to by name changes."""
    watched = Watched(tmp_path / "work")
    mount = tmp_path / "mount"
    for version, text in (("..1", GOOD), ("..2", CHANGED)):
        (mount / version).mkdir(parents=True)
        (mount / version / "heim.yaml").write_text(
            text.replace("tls/", f"{watched.directory}/tls/").replace(
                "secrets/", f"{watched.directory}/secrets/"
            ),
            encoding="utf-8",
        )
    (mount / "..data").symlink_to("..1")
    (mount / "heim.yaml").symlink_to("..data/heim.yaml")
    watched.source = FileSource(mount / "heim.yaml", interval_s=INTERVAL)
    watched.updates = watched.source.updates()
    assert (await watched.loaded()).config.drain == 30.0
    (mount / "..data_tmp").symlink_to("..2")
    os.replace(mount / "..data_tmp", mount / "..data")
    assert (await watched.loaded()).config.drain == 5.0
    await watched.close()


async def test_a_look_on_demand_reports_even_what_has_not_changed(watched: Watched) -> None:
    first = await watched.loaded()
    await watched.nothing()
    watched.source.look()
    assert (await watched.loaded()).digest == first.digest
    watched.write("heim.yaml", "nonsense")
    await watched.rejected()
    watched.source.look()
    await watched.rejected()


async def test_half_a_file_is_not_taken_for_a_configuration(tmp_path: Path) -> None:
    """A program that writes in place shows for a moment a configuration without its last lines."""
    watched = Watched(tmp_path)
    watched.write("heim.yaml", CHANGED)
    # Looks often and waits for quiet as long as the real one does.
    watched.source = FileSource(watched.config, interval_s=SETTLE_S)
    watched.updates = watched.source.updates()
    await watched.loaded()
    deadline = time.monotonic() + SETTLE_S * 4
    pending = watched._next()
    while time.monotonic() < deadline:
        for cut in (len(GOOD), len(CHANGED) - 1):
            watched.write("heim.yaml", CHANGED[:cut] + f"# {time.monotonic()}")
            await asyncio.sleep(SETTLE_S / 5)
    assert not pending.done()
    watched.write("heim.yaml", CHANGED.replace("5s", "7s"))
    assert (await watched.loaded()).config.drain == 7.0
    await watched.close()


async def test_a_file_that_never_rests_is_loaded_all_the_same(watched: Watched) -> None:
    await watched.loaded()
    pending = watched._next()
    async with asyncio.timeout(SOON):
        while not pending.done():
            watched.write("heim.yaml", f"{CHANGED}# {time.monotonic_ns()}\n")
            await asyncio.sleep(0.005)
    await watched.next()


def test_a_change_is_reported_within_a_second() -> None:
    assert INTERVAL_S + 2 * SETTLE_S < 1.0


def test_a_look_at_a_file_that_rests_is_a_stat_and_no_read(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("x", encoding="utf-8")
    fresh = _look(path, None)
    # Written a moment ago: the next write may not change its times, so it is read each time.
    assert not fresh.settled
    assert _look(path, replace(fresh, digest="kept")).digest == fresh.digest
    resting = replace(fresh, digest="kept", settled=True)
    assert _look(path, resting) is resting
    path.write_text("longer", encoding="utf-8")
    assert _look(path, resting).digest not in ("kept", fresh.digest)


async def test_a_source_that_is_new_in_the_file_needs_a_restart(watched: Watched) -> None:
    await watched.loaded()
    text = "version: 1\ndomain: x.example.com\nsource: {file: {path: document}}\n"
    watched.replace("heim.yaml", text)
    update = await watched.next()
    assert isinstance(update, Rejected)
    assert [problem.path for problem in update.problems] == ["source"]
    assert "needs a restart" in update.problems[0].message
