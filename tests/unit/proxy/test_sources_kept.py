from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from heim_proxy.sources.document import Sheet
from heim_proxy.sources.kept import KeptCopy

CONTENT = b'{"backends":[]}\n\xff not even text'
SHEET = Sheet(CONTENT, hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture
def kept(tmp_path: Path) -> KeptCopy:
    return KeptCopy(tmp_path / "state", "ConfigMap a/b")


def test_what_was_written_is_read(kept: KeptCopy) -> None:
    assert kept.read() is None
    kept.write(SHEET)
    assert kept.read() == SHEET
    assert kept.path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in kept.path.parent.iterdir()] == [kept.path.name]


def test_a_copy_of_another_source_is_not_taken(kept: KeptCopy) -> None:
    kept.write(SHEET)
    assert KeptCopy(kept.path.parent, "ConfigMap a/c").read() is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: content.replace(b"not", b"nto"),
        lambda content: content.replace(b'"version": 1', b'"version": 2'),
        lambda content: b"",
        lambda content: b"x" * 100_000,
    ],
    ids=["cut", "longer", "changed", "newer", "empty", "something else"],
)
def test_a_copy_that_is_not_whole_is_not_taken(kept: KeptCopy, damage: object) -> None:
    kept.write(SHEET)
    assert callable(damage)
    kept.path.write_bytes(damage(kept.path.read_bytes()))
    assert kept.read() is None


def test_a_copy_that_cannot_be_written_leaves_the_one_before(kept: KeptCopy) -> None:
    kept.write(SHEET)
    kept.path.with_name(kept.path.name + ".new").mkdir()
    with pytest.raises(OSError, match="directory"):
        kept.write(Sheet(b"{}", hashlib.sha256(b"{}").hexdigest()))
    assert kept.read() == SHEET
