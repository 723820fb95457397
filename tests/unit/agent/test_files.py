from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from heim_agent import files
from heim_runtime.complaints import Complaint

AS_ROOT = os.geteuid() == 0


def put(path: Path, mode: int = 0o600, data: bytes = b"data") -> str:
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    files.write((path, b"one", 0o600))
    files.write((path, b"two", 0o644))
    assert files.read(path) == b"two"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
    assert os.listdir(tmp_path) == ["a"]


def test_no_file_is_nothing(tmp_path: Path) -> None:
    assert files.read(str(tmp_path / "a")) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666], ids=oct)
def test_a_secret_that_others_may_read_is_refused_with_what_to_do(
    tmp_path: Path, mode: int
) -> None:
    path = put(tmp_path / "key.pem", mode)
    with pytest.raises(Complaint, match=f"mode {mode:o}.*chmod 600 {path}"):
        files.read(path, secret=True)


def test_a_secret_that_was_mounted_may_be_the_groups_to_read(tmp_path: Path) -> None:
    path = put(tmp_path / "key.pem", 0o440)
    assert files.read(path, secret=True, mounted=True) == b"data"
    with pytest.raises(Complaint, match="others may read"):
        files.read(put(tmp_path / "other.pem", 0o444), secret=True, mounted=True)


def test_a_file_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "agent.toml", 0o646)
    with pytest.raises(Complaint, match="everybody may write"):
        files.read(path, mounted=True, anybodys=True)


@pytest.mark.skipif(not AS_ROOT, reason="only root can give files away")
def test_a_file_of_somebody_elses_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = put(tmp_path / "key.pem")
    os.chown(path, 12345, 12345)
    with pytest.raises(Complaint, match=r"belongs to uid 12345, not to us \(uid 0\).*chown 0"):
        files.read(path, secret=True)
    assert files.read(path, anybodys=True) == b"data"


def make_link(path: Path) -> None:
    put(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (make_link, "is a symbolic link"),
        (lambda path: path.mkdir(), "is no file"),
        (lambda path: os.mkfifo(path), "is no file"),
        (lambda path: put(path, data=b"x" * (files.FILE_BYTES + 1)), "longer than 256 KiB"),
    ],
    ids=["a link", "a directory", "a pipe that nobody writes to", "something huge"],
)
def test_what_is_no_file_of_ours_is_refused(
    tmp_path: Path, make: Callable[[Path], object], told: str
) -> None:
    path = tmp_path / "key.pem"
    make(path)
    with pytest.raises(Complaint, match=told):
        files.read(str(path))


def test_a_mounted_file_may_be_a_link(tmp_path: Path) -> None:
    make_link(tmp_path / "key.pem")
    assert files.read(str(tmp_path / "key.pem"), mounted=True) == b"data"


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    make_link(tmp_path / "key.pem")
    files.write((str(tmp_path / "key.pem"), b"secret", 0o600))
    assert (tmp_path / "elsewhere").read_bytes() == b"data"
    assert not (tmp_path / "key.pem").is_symlink()


def test_a_file_that_waits_in_the_way_is_not_written_to(tmp_path: Path) -> None:
    """Somebody who has it open would read along."""
    path = tmp_path / "key.pem"
    waiting = tmp_path / f"key.pem.{os.getpid()}.new"
    waiting.write_bytes(b"")
    with waiting.open("rb") as spy:
        files.write((str(path), b"secret", 0o600))
        assert spy.read() == b""


FULL = """
import os, resource, signal, sys
from heim_agent import files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
one, two = sys.argv[1:]
try:
    files.write((one, b"new", 0o600), (two, b"n" * 8192, 0o600))
except OSError as error:
    print(type(error).__name__)
"""


def test_a_disk_that_takes_no_more_replaces_nothing(tmp_path: Path) -> None:
    """RLIMIT_FSIZE is what a full disk is to one process; the second file is what does not fit."""
    assert resource.RLIMIT_FSIZE
    assert signal.SIGXFSZ
    one, two = put(tmp_path / "one"), put(tmp_path / "two")
    told = subprocess.run(
        [sys.executable, "-c", FULL, one, two], capture_output=True, text=True, check=True
    )
    assert told.stdout == "OSError\n"
    assert (files.read(one), files.read(two)) == (b"data", b"data")
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_a_directory_is_made_for_us_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files.make_directory(str(tmp_path / "a" / "b"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "a" / "b").st_mode) == 0o700
    files.make_directory(str(tmp_path / "a" / "b"))


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777], ids=oct)
def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "state"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(Complaint, match=f"others may write to {path} .*chmod 700"):
        files.make_directory(str(path))


@pytest.mark.skipif(not AS_ROOT, reason="only root can give directories away")
def test_a_services_directory_is_left_to_the_service(tmp_path: Path) -> None:
    """systemd's dynamic user owns it; to chown it back would break the service."""
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    os.chown(path, 64000, 64000)
    with pytest.raises(Complaint, match=r"systemctl start heim-agent.*--state"):
        files.make_directory(str(path))


def test_a_directory_may_be_a_link_as_systemd_makes_it(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    (tmp_path / "state").symlink_to("private")
    files.make_directory(str(tmp_path / "state"))


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    put(tmp_path / "file")
    with pytest.raises(Complaint, match="cannot make the directory"):
        files.make_directory(str(tmp_path / "file" / "below"))


HOLDER = """
import sys
from heim_agent.files import Lock
with Lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_program_in_a_directory_is_told_who_is_first(tmp_path: Path) -> None:
    directory = str(tmp_path / "state")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        told = rf"another heim-agent \(process {holder.pid}\) uses {directory}.*--state"
        with pytest.raises(Complaint, match=told), files.Lock(directory):
            pass
        holder.kill()
    # However it ended, its lock ended with it.
    with files.Lock(directory):
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    make_link(tmp_path / files.LOCK)
    with pytest.raises(Complaint, match="cannot lock"), files.Lock(str(tmp_path)):
        pass
    assert (tmp_path / "elsewhere").read_bytes() == b"data"
