from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest

from heim_proxy.certs.load import CertificateFiles, load
from heim_proxy.certs.store import CertStore
from heim_proxy.certs.watch import CertWatcher, NoCertificateError
from tests.fakes.certificates import Pair, make_pair


class Noon:
    """A clock that is moved by hand, from now on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


class Watched:
    """A store and a watcher on some directories."""

    def __init__(self, *directories: Path, own: Path | None = None) -> None:
        self.clock = Noon()
        self.store = CertStore()
        self.watcher = CertWatcher(self.store, clock=self.clock)
        self.files = [CertificateFiles.directory(directory) for directory in directories]
        self.own = own and load(CertificateFiles.directory(own), now=self.clock.now())
        self.selection = self.watcher.prepare(self.files, own=self.own)
        self.watcher.adopt(self.selection)

    def list(self, *pairs: Path | CertificateFiles) -> None:
        """Put another list of pairs in force."""
        files = [CertificateFiles.directory(p) if isinstance(p, Path) else p for p in pairs]
        self.watcher.adopt(self.watcher.prepare(files))

    def serving(self, name: str) -> ssl.SSLContext | None:
        found = self.store.find(name)
        return None if found is None else found.context


@pytest.fixture
def one(tmp_path: Path) -> Path:
    make_pair("one.example.test").write(tmp_path / "one")
    return tmp_path / "one"


@pytest.fixture
def two(tmp_path: Path) -> Path:
    make_pair("two.example.test").write(tmp_path / "two")
    return tmp_path / "two"


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, object]]:
    return [vars(record) for record in caplog.records if record.msg == name]


def test_a_bad_pair_among_good_ones_does_not_keep_the_process_from_starting(
    one: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(tmp_path / "absent", one)
    assert watched.serving("anything") is watched.serving("one.example.test") is not None
    (rejected,) = events(caplog, "cert.rejected")
    assert rejected["certificate"] == str(tmp_path / "absent")
    assert rejected["cert_file"] == str(tmp_path / "absent" / "tls.crt")
    assert "No such file" in str(rejected["reason"])
    assert rejected["last_good_kept"] is False
    assert "No such file" in watched.watcher.problems[0]


def test_without_any_good_pair_it_refuses_to_start_and_says_why(tmp_path: Path) -> None:
    expired = make_pair("a.test", start_days=-9, end_days=-1)
    expired.write(tmp_path / "expired")
    with pytest.raises(NoCertificateError) as caught:
        Watched(tmp_path / "absent", tmp_path / "expired")
    assert "no usable certificate" in str(caught.value)
    assert "No such file" in str(caught.value)
    assert "expired at" in str(caught.value)


def test_without_any_pair_configured_it_refuses_to_start() -> None:
    with pytest.raises(NoCertificateError, match="none is configured"):
        Watched()


async def test_a_renewed_pair_is_taken_and_the_others_keep_their_context(
    one: Path, two: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(one, two)
    before = watched.serving("one.example.test"), watched.serving("two.example.test")
    with caplog.at_level(logging.INFO):
        make_pair("one.example.test", "more.example.test").write(one)
        await watched.watcher.poll()
    assert watched.serving("one.example.test") is not before[0]
    assert watched.serving("more.example.test") is watched.serving("one.example.test")
    assert watched.serving("two.example.test") is before[1]
    (event,) = events(caplog, "cert.loaded")
    assert event["names"] == ("one.example.test", "more.example.test")
    assert event["certificate"] == str(one)


async def test_without_a_change_nothing_happens(
    one: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(one)
    before = watched.serving("one.example.test")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            await watched.watcher.poll()
        # Long after the last change only stat is asked, and a touch alone is no change either.
        watched.clock.ahead = 60
        os.utime(one / "tls.crt")
        await watched.watcher.poll()
    assert watched.serving("one.example.test") is before
    assert caplog.records == []


async def test_a_certificate_written_before_its_key_is_taken_when_the_key_is_there(
    one: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(one)
    before = watched.serving("one.example.test")
    renewed = make_pair("one.example.test")
    (one / "tls.crt").write_bytes(renewed.cert)
    for _ in range(3):
        await watched.watcher.poll()
    assert watched.serving("one.example.test") is before
    # Said once, however long it lasts.
    (rejected,) = events(caplog, "cert.rejected")
    assert "is not the key of" in str(rejected["reason"])
    assert rejected["last_good_kept"] is True
    assert watched.watcher.rejected() == {str(one): 1.0}
    (one / "tls.key").write_bytes(renewed.key)
    await watched.watcher.poll()
    assert watched.serving("one.example.test") is not before
    assert watched.watcher.rejected() == {str(one): 0.0}
    assert watched.watcher.problems == ()


async def test_a_swapped_secret_is_taken(tmp_path: Path) -> None:
    """What kubelet does: a new directory beside the old, and one rename of the ..data link."""
    mount = tmp_path / "mount"

    def publish(pair: Pair, version: str) -> None:
        pair.write(mount / version)
        (mount / "..tmp").symlink_to(version)
        (mount / "..tmp").rename(mount / "..data")

    publish(make_pair("one.example.test"), "..v1")
    (mount / "tls.crt").symlink_to("..data/tls.crt")
    (mount / "tls.key").symlink_to("..data/tls.key")
    watched = Watched(mount)
    watched.clock.ahead = 60
    before = watched.serving("one.example.test")
    await watched.watcher.poll()
    assert watched.serving("one.example.test") is before
    publish(make_pair("one.example.test"), "..v2")
    await watched.watcher.poll()
    assert watched.serving("one.example.test") is not before


def _delete(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


def _garbage(directory: Path) -> None:
    (directory / "tls.crt").write_bytes(b"\x00 rotated to garbage")


def _truncate(directory: Path) -> None:
    (directory / "tls.key").write_bytes(b"")


def _expired(directory: Path) -> None:
    make_pair("one.example.test", start_days=-9, end_days=-1).write(directory)


RUINS = {"deleted": _delete, "garbage": _garbage, "truncated": _truncate, "expired": _expired}


@pytest.mark.parametrize("ruin", RUINS)
async def test_the_last_good_pair_serves_on_whatever_happens_to_the_files(
    ruin: str, one: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """security.md T3."""
    watched = Watched(one)
    before, expires = watched.serving("one.example.test"), watched.watcher.not_after()
    good = Pair((one / "tls.crt").read_bytes(), (one / "tls.key").read_bytes())
    RUINS[ruin](one)
    await watched.watcher.poll()
    assert watched.serving("one.example.test") is before
    assert watched.watcher.not_after() == expires
    assert watched.watcher.rejected() == {str(one): 1.0}
    assert [event["last_good_kept"] for event in events(caplog, "cert.rejected")] == [True]
    # The old files come back: no new pair, no problem.
    good.write(one)
    await watched.watcher.poll()
    assert watched.serving("one.example.test") is before
    assert watched.watcher.rejected() == {str(one): 0.0}


async def test_a_pair_that_was_bad_at_the_start_joins_when_it_is_mended(
    one: Path, tmp_path: Path
) -> None:
    watched = Watched(one, tmp_path / "late")
    assert watched.serving("late.example.test") is watched.serving("one.example.test")
    make_pair("late.example.test").write(tmp_path / "late")
    await watched.watcher.poll()
    assert watched.serving("late.example.test") is not watched.serving("one.example.test")


async def test_a_pair_expires_in_service_and_serves_on(one: Path) -> None:
    watched = Watched(one)
    before = watched.serving("one.example.test")
    watched.clock.ahead = 91 * 86400.0
    await watched.watcher.poll()
    assert watched.serving("one.example.test") is before
    assert watched.watcher.not_after()[str(one)] < watched.clock.now()
    assert watched.watcher.rejected() == {str(one): 1.0}
    assert "expired at" in watched.watcher.problems[0]


async def test_a_pair_that_expired_gives_way_to_any_that_has_not(two: Path, tmp_path: Path) -> None:
    make_pair("one.example.test", end_days=1).write(tmp_path / "one")
    make_pair("*.example.test").write(tmp_path / "wild")
    watched = Watched(tmp_path / "one", two, tmp_path / "wild")
    assert watched.serving("one.example.test") is watched.serving("elsewhere.test")
    over = watched.serving("one.example.test")
    watched.clock.ahead = 2 * 86400.0
    await watched.watcher.poll()
    assert watched.serving("one.example.test") is over
    assert watched.serving("elsewhere.test") is watched.serving("two.example.test") is not over


async def test_a_pair_that_expired_is_not_shown_beside_one_of_our_own(one: Path, two: Path) -> None:
    """T3: the last good pair is kept until its end."""
    watched = Watched(one, own=two)
    good = watched.serving("one.example.test")
    (one / "tls.crt").unlink()
    watched.clock.ahead = 89 * 86400.0
    await watched.watcher.poll()
    assert watched.serving("one.example.test") is good
    watched.clock.ahead = 91 * 86400.0
    await watched.watcher.poll()
    assert watched.serving("one.example.test") is watched.serving("elsewhere.test") is not good
    assert watched.watcher.rejected() == {str(one): 1.0}


def test_with_one_of_our_own_none_of_the_others_has_to_serve(
    two: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        watched = Watched(tmp_path / "absent", own=two)
    assert watched.own is not None
    assert watched.serving("anything") is watched.own.context
    assert watched.watcher.not_after() == {}
    assert watched.watcher.rejected() == {str(tmp_path / "absent"): 1.0}
    (event,) = events(caplog, "cert.self_signed")
    assert event["fingerprint"] == watched.own.fingerprint
    with pytest.raises(NoCertificateError):
        watched.watcher.prepare(watched.files)


async def test_names_that_it_is_listed_for_change_without_reading_the_pair_again(
    two: Path, tmp_path: Path
) -> None:
    make_pair("a.test", "b.test").write(tmp_path / "both")
    watched = Watched(two)
    both = CertificateFiles.directory(tmp_path / "both")
    watched.list(two, replace(both, hosts=("a.test",)))
    first = watched.serving("a.test")
    assert watched.serving("b.test") is watched.serving("two.example.test") is not first
    # Its files may be gone by now: the last good pair is still a pair.
    _delete(tmp_path / "both")
    watched.list(two, replace(both, hosts=("b.test",)))
    assert watched.serving("b.test") is first
    assert watched.serving("a.test") is watched.serving("two.example.test")
    watched.list(two, replace(both, hosts=("c.test",)))
    assert watched.serving("b.test") is watched.serving("two.example.test")
    assert watched.watcher.rejected()[str(tmp_path / "both")] == 1.0


async def test_a_pair_for_none_of_its_listed_names_is_left_out(
    two: Path, one: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(two)
    watched.list(two, replace(CertificateFiles.directory(one), hosts=("a.test", "b.test")))
    (rejected,) = events(caplog, "cert.rejected")
    assert "is for none of the names it is listed for (a.test, b.test)" in str(rejected["reason"])
    assert watched.watcher.rejected() == {str(two): 0.0, str(one): 1.0}
    assert watched.serving("one.example.test") is watched.serving("two.example.test")


async def test_a_pair_for_some_of_its_listed_names_serves_those(
    two: Path, one: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(two)
    hosts = ("one.example.test", "b.test")
    watched.list(two, replace(CertificateFiles.directory(one), hosts=hosts))
    assert watched.serving("one.example.test") is not watched.serving("b.test")
    (missing,) = events(caplog, "cert.names_missing")
    assert missing["hosts"] == ["b.test"]


async def test_a_renewed_pair_that_lost_a_listed_name_is_not_taken(
    two: Path, tmp_path: Path
) -> None:
    """T3: a Secret that is rotated to another name."""
    make_pair("a.test", "b.test").write(tmp_path / "both")
    files = replace(CertificateFiles.directory(tmp_path / "both"), hosts=("a.test", "b.test"))
    watched = Watched(two)
    watched.list(two, files)
    good = watched.serving("a.test")
    make_pair("a.test").write(tmp_path / "both")
    await watched.watcher.poll()
    assert watched.serving("a.test") is watched.serving("b.test") is good
    assert "is no longer for b.test" in watched.watcher.problems[0]
    # Until it was to be shown for that name no more, or until the last good one is over.
    watched.list(two, replace(files, hosts=("a.test",)))
    assert watched.serving("a.test") is not good
    assert watched.watcher.problems == ()


async def test_a_pair_that_lost_a_name_is_better_than_one_that_is_over(
    two: Path, tmp_path: Path
) -> None:
    make_pair("a.test", "b.test", end_days=1).write(tmp_path / "both")
    files = replace(CertificateFiles.directory(tmp_path / "both"), hosts=("a.test", "b.test"))
    watched = Watched(two)
    watched.list(two, files)
    good = watched.serving("a.test")
    make_pair("a.test").write(tmp_path / "both")
    await watched.watcher.poll()
    assert watched.serving("a.test") is good
    watched.clock.ahead = 2 * 86400.0
    await watched.watcher.poll()
    assert watched.serving("a.test") is not good
    assert watched.serving("b.test") is watched.serving("two.example.test")


async def test_a_new_configuration_keeps_the_contexts_of_pairs_it_shares(
    one: Path, two: Path
) -> None:
    watched = Watched(one)
    before = watched.serving("one.example.test")
    selection = watched.watcher.prepare(
        [CertificateFiles.directory(two), CertificateFiles.directory(one)]
    )
    assert watched.serving("two.example.test") is before
    watched.watcher.adopt(selection)
    assert watched.serving("one.example.test") is before
    assert watched.serving("unknown.test") is watched.serving("two.example.test") is not before
    watched.watcher.adopt(watched.watcher.prepare(watched.files))
    assert watched.serving("two.example.test") is before
    assert list(watched.watcher.not_after()) == [str(one)]


async def test_a_configuration_without_a_good_pair_changes_nothing(
    one: Path, tmp_path: Path
) -> None:
    watched = Watched(one)
    before = watched.serving("one.example.test")
    with pytest.raises(NoCertificateError):
        watched.watcher.prepare([CertificateFiles.directory(tmp_path / "absent")])
    await watched.watcher.poll()
    assert watched.serving("one.example.test") is before


async def test_a_change_is_in_force_within_two_seconds(one: Path) -> None:
    watched = Watched(one)
    before = watched.serving("one.example.test")
    running = asyncio.ensure_future(watched.watcher.run())
    try:
        make_pair("one.example.test").write(one)
        async with asyncio.timeout(2):
            while watched.serving("one.example.test") is before:
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_a_pair_that_is_listed_twice_is_said_once(
    one: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For all names by the Proxy, and for some by an Ingress beside it."""
    watched = Watched(one)
    files = CertificateFiles.directory(one)
    watched.list(files, replace(files, hosts=("one.example.test",)))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            await watched.watcher.poll()
        watched.list(files, replace(files, hosts=("one.example.test",)))
    assert events(caplog, "cert.loaded") == []
