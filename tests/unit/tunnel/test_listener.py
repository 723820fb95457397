"""Where `forward` listens, and what is said when it cannot."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from heim_runtime.complaints import FAILED, Complaint
from heim_tunnel.listener import _explain, listen
from heim_tunnel.local import Local


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to be in: paths of unix sockets have 107 bytes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_free_port_is_found_and_told() -> None:
    sock, local = listen(Local())
    with sock:
        assert local == Local(port=sock.getsockname()[1])
        assert local.port > 0
        socket.create_connection(("127.0.0.1", local.port), timeout=2).close()


def test_a_port_that_is_taken_says_what_to_do() -> None:
    sock, local = listen(Local())
    with (
        sock,
        pytest.raises(
            Complaint, match="another program listens there; choose another port"
        ) as caught,
    ):
        listen(local)
    assert caught.value.status == FAILED


@pytest.mark.parametrize(
    ("number", "port", "text"),
    [
        (errno.EACCES, 22, "ports below 1024 are for root; choose a higher one, such as 10022"),
        (errno.EADDRINUSE, 22, "another program listens there; choose another port, or none"),
        (errno.EACCES, 5432, "cannot listen on 127.0.0.1:5432: Permission denied"),
    ],
    ids=["for root", "taken", "forbidden otherwise"],
)
def test_why_a_port_cannot_be_had(number: int, port: int, text: str) -> None:
    assert text in _explain(OSError(number, os.strerror(number)), Local(port=port))


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(Complaint, match="no address of this machine"):
        listen(Local("192.0.2.1"))


def test_ipv6_is_listened_on() -> None:
    try:
        sock, local = listen(Local("::1"))
    except Complaint:
        pytest.skip("no IPv6 here")
    with sock:
        assert str(local) == f"[::1]:{local.port}"


def test_a_unix_socket_is_its_owners(short: Path) -> None:
    before = os.umask(0)
    os.umask(before)
    sock, local = listen(Local(path="s.sock"))
    with sock:
        assert str(local) == "unix:s.sock"
        assert stat.S_IMODE(os.stat("s.sock").st_mode) == 0o600
    after = os.umask(before)
    assert after == before


def test_a_unix_socket_that_was_left_behind_is_replaced(short: Path) -> None:
    listen(Local(path="s.sock"))[0].close()
    assert Path("s.sock").exists()
    listen(Local(path="s.sock"))[0].close()


def test_a_unix_socket_in_use_stays(short: Path) -> None:
    with (
        listen(Local(path="s.sock"))[0],
        pytest.raises(Complaint, match="another program listens there"),
    ):
        listen(Local(path="s.sock"))


def test_a_file_is_never_removed(short: Path) -> None:
    Path("s.sock").write_text("precious")
    with pytest.raises(Complaint, match="or the path exists"):
        listen(Local(path="s.sock"))
    assert Path("s.sock").read_text() == "precious"


@pytest.mark.parametrize("path", ["missing/s.sock", "x" * 200])
def test_a_path_that_cannot_be_is_one_line(path: str, short: Path) -> None:
    with pytest.raises(Complaint, match="cannot listen on unix:"):
        listen(Local(path=path))
