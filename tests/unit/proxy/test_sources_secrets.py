from __future__ import annotations

import os
from pathlib import Path

import pytest

from heim_proxy.sources.secrets import SecretFolder, folder_for

PAIR = {"tls.crt": b"certificate", "tls.key": b"key"}


def content(folder: SecretFolder, name: str) -> dict[str, bytes]:
    """What whoever opens the files sees."""
    found = {}
    for key in ("tls.crt", "tls.key"):
        path = folder.path / name / key
        if path.exists():
            found[key] = path.read_bytes()
    return found


@pytest.fixture
def folder(tmp_path: Path) -> SecretFolder:
    return SecretFolder(tmp_path / "secrets")


def test_a_secret_becomes_two_files_that_only_we_may_read(folder: SecretFolder) -> None:
    folder.put("wiki.heim-tls", PAIR)
    assert content(folder, "wiki.heim-tls") == PAIR
    assert folder.path.stat().st_mode & 0o777 == 0o700
    key = (folder.path / "wiki.heim-tls" / "tls.key").resolve()
    assert key.stat().st_mode & 0o777 == 0o600


def test_other_keys_of_a_secret_reach_no_file(folder: SecretFolder) -> None:
    folder.put("a", {**PAIR, "ca.crt": b"x", "../evil": b"x"})
    assert {path.name for path in (folder.path / "a" / "..data").iterdir()} == {*PAIR}


def test_a_change_swaps_one_link_and_leaves_no_old_version(folder: SecretFolder) -> None:
    folder.put("a", PAIR)
    before = os.readlink(folder.path / "a" / "..data")
    opened = (folder.path / "a" / "tls.key").open("rb")
    folder.put("a", {"tls.crt": b"another", "tls.key": b"fits it"})
    assert os.readlink(folder.path / "a" / "..data") != before
    assert content(folder, "a") == {"tls.crt": b"another", "tls.key": b"fits it"}
    assert sorted(path.name for path in (folder.path / "a").iterdir()) == sorted(
        ["..data", os.readlink(folder.path / "a" / "..data"), "tls.crt", "tls.key"]
    )
    with opened:
        assert opened.read() == b"key"


def test_the_same_again_touches_nothing(folder: SecretFolder) -> None:
    folder.put("a", PAIR)
    before = (folder.path / "a").stat().st_mtime_ns
    folder.put("a", dict(reversed(PAIR.items())))
    assert (folder.path / "a").stat().st_mtime_ns == before


@pytest.mark.parametrize("left", [{}, {"tls.crt": b"certificate"}], ids=["none", "one"])
def test_keys_that_are_gone_are_gone(folder: SecretFolder, left: dict[str, bytes]) -> None:
    folder.put("a", PAIR)
    folder.put("a", left)
    assert content(folder, "a") == left


def test_only_those_that_are_needed_stay(folder: SecretFolder) -> None:
    folder.keep(frozenset())
    for name in ("a", "b", "c"):
        folder.put(name, PAIR)
    folder.keep(frozenset(("b", "elsewhere")))
    assert [path.name for path in folder.path.iterdir()] == ["b"]


def test_what_a_killed_run_left_behind_is_replaced(folder: SecretFolder) -> None:
    folder.put("a", PAIR)
    version = os.readlink(folder.path / "a" / "..data")
    (folder.path / "a" / "..data").unlink()
    (folder.path / "a" / "....data_tmp").symlink_to("nowhere")
    (folder.path / "a" / version / "tls.key").write_bytes(b"half")
    folder.put("a", PAIR)
    assert content(folder, "a") == PAIR


def test_a_directory_that_others_may_enter_is_not_used(folder: SecretFolder) -> None:
    folder.path.mkdir(mode=0o755)
    with pytest.raises(PermissionError, match="is open to others"):
        folder.put("a", PAIR)
    assert list(folder.path.iterdir()) == []


def test_a_link_in_its_place_is_not_followed(folder: SecretFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="is not a directory of ours"):
        folder.put("a", PAIR)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_place_is_in_memory_and_the_same_after_a_restart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert folder_for("a").parent == tmp_path
    assert folder_for("a") == folder_for("a")
    assert folder_for("a") != folder_for("b")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert folder_for("a").name.startswith("heim-secrets-")
