from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from heim_tunnel.stdio import READ_BYTES, Sink, Source

Ends = tuple[int, int]


@pytest.fixture
def pipe() -> Iterator[Ends]:
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        try:
            os.close(end)
        except OSError:
            continue


def test_input_gives_what_is_there_then_its_end(pipe: Ends) -> None:
    reading, writing = pipe
    source = Source(reading)
    os.write(writing, bytes(READ_BYTES + 5))
    assert (len(source.read()), len(source.read())) == (READ_BYTES, 5)
    assert not source.ended
    os.close(writing)
    assert source.read() == b""
    assert source.ended


def test_input_that_does_not_block_and_has_nothing_is_not_over(pipe: Ends) -> None:
    reading, _ = pipe
    os.set_blocking(reading, False)
    source = Source(reading)
    assert (source.read(), source.ended) == (b"", False)


def test_input_that_breaks_is_over() -> None:
    ours, theirs = socket.socketpair()
    source = Source(ours.detach())
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    assert (source.read(), source.ended, source.problem) == (b"", True, "")
    os.close(source.fd)


def test_input_that_cannot_be_read_is_over_and_says_why(tmp_path: Path) -> None:
    source = Source(os.open(tmp_path, os.O_RDONLY))
    assert (source.read(), source.ended, source.problem) == (b"", True, "Is a directory")
    os.close(source.fd)


def test_output_takes_what_fits_and_keeps_the_rest_in_order(pipe: Ends) -> None:
    reading, writing = pipe
    sink = Sink(writing)
    data = os.urandom(3 * 1024 * 1024)
    for begin in range(0, len(data), 10_007):
        sink.push(memoryview(data)[begin : begin + 10_007])
    got = b""
    while sink.waiting:
        before = sink.waiting
        written = sink.write()
        assert sink.waiting == before - written
        assert written
        got += os.read(reading, 1 << 20)
    while len(got) < len(data):
        got += os.read(reading, 1 << 20)
    assert got == data
    assert os.get_blocking(writing) is True


def test_single_bytes_that_wait_take_no_more_than_their_size(pipe: Ends) -> None:
    reading, writing = pipe
    sink = Sink(writing)
    record = bytes(range(256)) * 64
    for at in range(16_384):
        sink.push(memoryview(record)[at : at + 1])
    assert len(sink._pieces) <= 16_384 // 1024
    assert sink.write() == 16_384
    assert os.read(reading, 20_000) == record


def test_a_piece_that_was_begun_is_not_joined_with(pipe: Ends) -> None:
    reading, writing = pipe
    sink = Sink(writing)
    filler = b"f" * (2 * 1024 * 1024)
    sink.push(filler)
    sink.push(b"a")
    while sink.write():
        continue
    sink.push(b"b")
    got = b""
    while sink.waiting:
        got += os.read(reading, 1 << 20)
        sink.write()
    while len(got) < len(filler) + 2:
        got += os.read(reading, 1 << 20)
    assert got == filler + b"ab"


def test_output_of_somebody_else_is_written_in_pieces_that_never_block(
    pipe: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where /proc does not let us open the pipe again: another user's, or not Linux."""
    reading, writing = pipe
    monkeypatch.setattr("os.open", _refuse)
    sink = Sink(writing)
    sink.push(b"x" * 10_000)
    sizes = []
    while sink.waiting:
        assert select.select([], [sink.fd], [], 5)[1]
        sizes.append(sink.write())
    assert sizes == [4096, 4096, 1808]
    assert os.read(reading, 20_000) == b"x" * 10_000


def _refuse(*_: object) -> int:
    raise PermissionError(13, "Permission denied")


def test_output_without_a_reader_is_gone(pipe: Ends) -> None:
    reading, writing = pipe
    sink = Sink(writing)
    os.close(reading)
    sink.push(b"x")
    assert (sink.write(), sink.gone, sink.waiting) == (0, True, 1)
    assert sink.write() == 0


def test_closing_tells_the_reader_and_keeps_the_descriptors_place(pipe: Ends) -> None:
    reading, writing = pipe
    sink = Sink(writing)
    sink.push(b"last")
    sink.write()
    sink.close()
    assert os.read(reading, 10) == b"last"
    assert os.read(reading, 10) == b""
    assert sink.fd == -1
    # Taken by /dev/null, or the next socket would be "standard output".
    assert os.fstat(writing).st_rdev == os.stat(os.devnull).st_rdev


def test_a_socket_is_written_without_waiting_and_without_flags() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        before = os.get_blocking(ours.fileno())
        sink = Sink(os.dup(ours.fileno()))
        sink.push(bytes(8 * 1024 * 1024))
        assert 0 < sink.write() < 8 * 1024 * 1024
        assert os.get_blocking(ours.fileno()) is before is True
        sink.close()
        # It is not standard input as well: others may have words for it.
        ours.sendall(b"x") if select.select([], [ours], [], 0)[1] else None


def test_a_file_is_written_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with path.open("wb") as file:
        file.write(b"before ")
        file.flush()
        sink = Sink(os.dup(file.fileno()))
        sink.push(b"after")
        assert sink.write() == 5
        sink.close()
    assert path.read_bytes() == b"before after"


STANDARD = """
import os
from heim_tunnel.stdio import fill_standard
fill_standard()
with open(os.environ["OUT"], "w") as out:
    for fd in (0, 1, 2):
        print(os.fstat(fd).st_rdev == os.stat(os.devnull).st_rdev, file=out)
    print(os.read(0, 1) == b"", file=out)
    print(out.fileno() > 2, file=out)
"""


def test_closed_standard_descriptors_are_filled(tmp_path: Path) -> None:
    out = tmp_path / "out"
    subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", STANDARD],
        env={**os.environ, "OUT": str(out)},
        check=True,
    )
    assert out.read_text().split() == ["True"] * 5
