"""One marked block in ~/.ssh/config, and every other byte as it was."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from heim_tunnel import sshfile
from heim_tunnel.sshfile import SshConfigError, effective, merged, write_block

MARK = "auth.example.test"
BLOCK = "Host *.ssh.example.test\n    ProxyCommand /opt/heim-tunnel proxy %h\n"
OURS = f"# heim-tunnel begin {MARK}\n{BLOCK}# heim-tunnel end {MARK}\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", OURS),
        ("Host a\n", f"Host a\n\n{OURS}"),
        ("Host a", f"Host a\n\n{OURS}"),
        ("Host a\r\n", "Host a\r\n\r\n" + OURS.replace("\n", "\r\n")),
        (f"Host a\n\n{OURS}\nHost b\n", f"Host a\n\n{OURS}\nHost b\n"),
        (OURS.replace("/opt/", "/old/"), OURS),
        (OURS.replace("\n", "\r\n").replace("/opt/", "/old/"), OURS.replace("\n", "\r\n")),
        (OURS.replace(MARK, "other.test"), f"{OURS.replace(MARK, 'other.test')}\n{OURS}"),
        (f"  # heim-tunnel begin {MARK}  \nx\n\t# heim-tunnel end {MARK}\n", OURS),
    ],
    ids=[
        "empty", "appended", "no last newline", "windows line ends", "unchanged between others",
        "replaced", "replaced with windows line ends", "another login host's block", "indented",
    ],
)  # fmt: skip
def test_the_block_stands_once_and_the_rest_is_kept(before: str, after: str) -> None:
    fresh = merged(before.encode(), BLOCK, MARK)
    assert fresh == after.encode()
    assert merged(fresh, BLOCK, MARK) == fresh


def test_whether_a_block_is_there_is_known_without_writing(tmp_path: Path) -> None:
    path = tmp_path / "config"
    assert not sshfile.holds_block(path, BLOCK, MARK)
    path.write_text(f"Host a\n\n{OURS}")
    assert sshfile.holds_block(path, BLOCK, MARK)
    assert not sshfile.holds_block(path, BLOCK.replace("/opt/", "/new/"), MARK)
    path.write_text(OURS + OURS)
    assert not sshfile.holds_block(path, BLOCK, MARK)
    assert not sshfile.holds_block(tmp_path, BLOCK, MARK)


def test_bytes_that_are_no_text_are_kept() -> None:
    assert merged(b"# \xff\xfe\nHost a\n", BLOCK, MARK).startswith(b"# \xff\xfe\nHost a\n")


@pytest.mark.parametrize(
    "config",
    [
        f"# heim-tunnel begin {MARK}\nHost precious\n",
        f"Host precious\n# heim-tunnel end {MARK}\n",
        f"# heim-tunnel end {MARK}\nHost precious\n# heim-tunnel begin {MARK}\n",
        OURS + OURS,
    ],
    ids=["no end", "no begin", "the wrong way round", "twice"],
)
def test_marks_that_do_not_pair_up_are_left_to_the_person(config: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(config)
    with pytest.raises(SshConfigError, match=r"config: line \d+ begins or ends"):
        write_block(path, BLOCK, MARK)
    assert path.read_text() == config


def test_a_new_config_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".ssh" / "config"
    assert write_block(path, BLOCK, MARK)
    assert path.read_text() == OURS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_no_directory_but_sshs_own_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is mistyped would be a file that ssh never reads."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (tmp_path / "x" / "config", tmp_path / ".ssh" / "y" / "config"):
        with pytest.raises(SshConfigError, match="No such file or directory"):
            write_block(path, BLOCK, MARK)
        assert not path.parent.exists()


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config"
    assert write_block(path, BLOCK, MARK)
    before = path.stat()
    assert not write_block(path, BLOCK, MARK)
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644], ids=oct)
def test_the_mode_stays(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("Host a\n")
    path.chmod(mode)
    write_block(path, BLOCK, MARK)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert sorted(one.name for one in tmp_path.iterdir()) == ["config"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    kept = tmp_path / "dotfiles" / "config"
    kept.parent.mkdir()
    kept.write_text("Host a\n")
    path = tmp_path / "config"
    path.symlink_to("dotfiles/config")
    assert write_block(path, BLOCK, MARK)
    assert path.is_symlink()
    assert kept.read_text() == f"Host a\n\n{OURS}"


def test_a_link_to_nothing_gets_its_file(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.symlink_to("dotfiles/config")
    (tmp_path / "dotfiles").mkdir()
    assert write_block(path, BLOCK, MARK)
    assert (tmp_path / "dotfiles" / "config").read_text() == OURS


def test_what_others_write_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config"
    path.write_text("Host a\n")
    writes = iter(["Host a\nHost theirs\n"])
    real = os.fsync

    def meanwhile(descriptor: int) -> None:
        real(descriptor)
        for text in writes:
            path.write_text(text)

    monkeypatch.setattr(os, "fsync", meanwhile)
    assert write_block(path, BLOCK, MARK)
    assert path.read_text() == f"Host a\nHost theirs\n\n{OURS}"


@pytest.mark.parametrize("what", ["directory", "fifo", "too large", "below a file"])
def test_what_cannot_be_written_says_so(what: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    if what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "too large":
        path.write_text("Host a\n")
        os.truncate(path, sshfile.MAX_CONFIG + 1)
    else:
        path.write_text("")
        path = path / "config"
    with pytest.raises(SshConfigError) as caught:
        write_block(path, BLOCK, MARK)
    assert "config" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs OpenSSH")
def test_ssh_says_which_proxy_command_it_would_use(tmp_path: Path) -> None:
    path = tmp_path / "config"
    write_block(path, BLOCK, MARK)
    assert effective(path, "web.ssh.example.test") == "/opt/heim-tunnel proxy %h"
    assert effective(path, "elsewhere.test") == ""


def test_without_ssh_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert effective(tmp_path / "config", "web.ssh.example.test") is None
