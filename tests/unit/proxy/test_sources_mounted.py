from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heim_proxy.sources.document import INDEX, IncompleteError
from heim_proxy.sources.mounted import MountedFeed, read_mounted
from heim_runtime.tasks import cancel, spawn
from tests.fakes.kube_document import index
from tests.fakes.waiting import until

SOON = 0.01


def pieces(content: bytes, shards: int = 1) -> dict[str, bytes]:
    size = -(-len(content) // shards)
    parts = [content[start : start + size] for start in range(0, len(content), size)]
    names = [f"document-{number}" for number in range(len(parts))]
    return {INDEX: index(content, names).encode(), **dict(zip(names, parts, strict=True))}


def mount(folder: Path, version: str, found: dict[str, bytes]) -> None:
    """Files as kubelet mounts and replaces them."""
    fresh = folder / f"..{version}"
    fresh.mkdir(parents=True)
    for name, content in found.items():
        (fresh / name).write_bytes(content)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data_tmp").symlink_to(fresh.name)
    os.replace(folder / "..data_tmp", folder / "..data")


@pytest.mark.parametrize("shards", [1, 3])
def test_a_mounted_document_is_read(tmp_path: Path, shards: int) -> None:
    mount(tmp_path, "1", pieces(b'{"backends":[]}', shards))
    assert read_mounted(tmp_path).content == b'{"backends":[]}'


def test_plain_files_will_do(tmp_path: Path) -> None:
    for name, content in pieces(b"{}").items():
        (tmp_path / name).write_bytes(content)
    assert read_mounted(tmp_path).content == b"{}"


def test_what_is_known_already_is_not_read_again(tmp_path: Path) -> None:
    mount(tmp_path, "1", pieces(b"{}"))
    known = read_mounted(tmp_path)
    (tmp_path / "..1" / "document-0").unlink()
    assert read_mounted(tmp_path, known) is known


def test_files_come_from_one_version_although_the_mount_is_swapped(tmp_path: Path) -> None:
    """The link is opened once; a swap between two files would mix them."""
    mount(tmp_path, "1", pieces(b'{"backends":[]}', 2))
    mount(tmp_path, "2", pieces(b'{"roles":[]}', 2))
    # Whoever follows the links of single files would now read these.
    for name in ("document-0", "document-1"):
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to(f"..1/{name}")
    assert read_mounted(tmp_path).content == b'{"roles":[]}'


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / INDEX).unlink(), "index.json cannot be read"),
        (lambda folder: (folder / "document-0").unlink(), "document-0 cannot be read"),
        (lambda folder: (folder / "document-0").write_bytes(b"half"), "half of a change"),
        (
            lambda folder: ((folder / "document-0").unlink(), os.mkfifo(folder / "document-0")),
            "is not a regular file",
        ),
    ],
    ids=["no index", "no shard", "half", "a pipe"],
)
def test_what_is_not_whole_is_not_taken(tmp_path: Path, break_it: object, message: str) -> None:
    for name, content in pieces(b"{}").items():
        (tmp_path / name).write_bytes(content)
    assert callable(break_it)
    break_it(tmp_path)
    with pytest.raises(IncompleteError, match=message):
        read_mounted(tmp_path)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match="nowhere cannot be read: No such file"):
        read_mounted(tmp_path / "nowhere")


class Following:
    """A feed that runs, and how often it told of a change."""

    def __init__(self, feed: MountedFeed) -> None:
        self.feed = feed
        self.changes = 0
        self.task = spawn("feed", feed.run(self.changed))

    def changed(self) -> None:
        self.changes += 1


@pytest.fixture
async def following(tmp_path: Path) -> AsyncIterator[Following]:
    feed = MountedFeed(tmp_path / "document", tmp_path / "secrets", interval_s=SOON)
    found = Following(feed)
    yield found
    await cancel([found.task])


async def test_each_change_is_told_once(tmp_path: Path, following: Following) -> None:
    feed = following.feed
    assert feed.sheet is None
    await until(lambda: feed.trouble)
    assert "cannot be read: No such file" in feed.trouble
    mount(tmp_path / "document", "1", pieces(b"{}"))
    await until(lambda: following.changes == 1)
    assert feed.trouble == ""
    # The same content again is no change.
    mount(tmp_path / "document", "2", pieces(b"{}"))
    mount(tmp_path / "document", "3", pieces(b'{"roles":[]}'))
    await until(lambda: feed.sheet is not None and feed.sheet.content == b'{"roles":[]}')
    assert following.changes == 2


async def test_a_document_that_vanishes_stays_as_it_was(
    tmp_path: Path, following: Following
) -> None:
    mount(tmp_path / "document", "1", pieces(b"{}"))
    await until(lambda: following.changes == 1)
    (tmp_path / "document" / "..1" / INDEX).unlink()
    await asyncio.sleep(5 * SOON)
    assert following.feed.sheet is not None
    assert following.changes == 1


async def test_secrets_are_where_they_are_mounted(tmp_path: Path, following: Following) -> None:
    assert following.feed.secrets == tmp_path / "secrets"
    await following.feed.provide(frozenset(("a",)))
    await following.feed.drop_others(frozenset())
    assert not (tmp_path / "secrets").exists()
