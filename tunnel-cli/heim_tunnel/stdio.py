"""Standard input and output as the two ends of a stream, whatever they are.

ssh gives pipes, other programs sockets, people files, /dev/null, a terminal or nothing at all. The
descriptions behind descriptors 0 and 1 are shared with other processes, so their flags are never
changed: a pipe or terminal is opened once more through /proc for a description of our own that does
not block, a socket is written with MSG_DONTWAIT, and where neither works writes are as small as
`poll` promises that they do not block. Nothing here touches descriptor 2 or a terminal's modes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    Piece = bytes | memoryview

__all__ = ["READ_BYTES", "Sink", "Source", "fill_standard"]

READ_BYTES: Final = 128_000
"""Read from standard input at once: two frames, which costs 12 % less than one. A little more, and
malloc would map fresh pages for every read."""

PIPE_BYTES: Final = 1024 * 1024
"""Asked for the pipes to and from ssh: fewer switches between the two processes."""

_PIPE_BUF: Final = 4096
"""What a pipe that is ready takes without blocking (POSIX PIPE_BUF)."""

_BUFFERS: Final = 64
"""Pieces written at once; the system's limit is 1024."""

_JOINED: Final = 2048
"""Smaller pieces are joined: single bytes that wait would take two hundred times their size."""

# The other end hung up or was never there, as opposed to a disk that is full.
_HUNG_UP: Final = (
    errno.EPIPE,
    errno.EIO,
    errno.EBADF,
    errno.ECONNRESET,
    errno.ENOTCONN,
    errno.ESHUTDOWN,
)


def fill_standard() -> None:
    """Put /dev/null where standard descriptors are closed, or our first socket would be one.

    Standard output gets it read-only: writing then fails as it does to a closed pipe.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor is taken, which is this one.
            os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY)


def _problem(error: OSError) -> str:
    """What to complain about; "" when the other end hung up, which is ssh's way to end us."""
    return "" if error.errno in _HUNG_UP else str(error.strerror)


def _widen(descriptor: int) -> None:
    """Ask for a larger pipe; refused ones (another kind, a limit per user) stay as they are."""
    setting = getattr(fcntl, "F_SETPIPE_SZ", None)
    if setting is None:
        return
    try:
        if fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) < PIPE_BYTES:
            fcntl.fcntl(descriptor, setting, PIPE_BYTES)
    except OSError:
        return


class Source:
    """Standard input.

    Attributes:
        fd: For `poll`.
        ended: It has given everything.
        problem: Why, if it was not at its end; else "".
    """

    __slots__ = ("ended", "fd", "problem")

    def __init__(self, fd: int = 0) -> None:
        self.fd = fd
        self.ended = False
        self.problem = ""
        _widen(fd)

    def read(self) -> bytes:
        """What is there, READ_BYTES at most; call it when `poll` says so.

        b"" is the end, if `ended` is set; otherwise there was nothing after all.
        """
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as e:
            data = b""
            self.problem = _problem(e)
        if not data:
            self.ended = True
        return data


class Sink:
    """Standard output. Pieces wait in it until the reader takes them; the windows bound them.

    Attributes:
        fd: For `poll`; -1 once closed.
        waiting: Bytes that the reader has not taken.
        gone: There is no reader any more.
        problem: Why, if it did not just leave; else "".
    """

    __slots__ = (
        "_begin",
        "_most",
        "_own",
        "_pieces",
        "_pipe",
        "_sock",
        "fd",
        "gone",
        "problem",
        "waiting",
    )

    def __init__(self, fd: int = 1) -> None:
        self.fd = fd
        self.waiting = 0
        self.gone = False
        self.problem = ""
        self._pieces: list[Piece] = []
        self._begin = 0
        self._own = -1
        self._pipe = fd
        self._sock: socket.socket | None = None
        self._most = 1 << 30
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._sock = socket.socket(fileno=os.dup(fd))
        elif stat.S_ISFIFO(mode) or os.isatty(fd):
            _widen(fd)
            self._open_again()

    def _open_again(self) -> None:
        try:
            self._own = os.open(
                f"/proc/self/fd/{self._pipe}",
                os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC,
            )
        except OSError:
            # Somebody else's pipe, or a system without /proc.
            self._most = _PIPE_BUF
        else:
            self.fd = self._own

    def push(self, piece: Piece) -> None:
        """Queue a piece."""
        size = len(piece)
        self.waiting += size
        pieces = self._pieces
        if size < _JOINED:
            # A copy even when there is nothing to join: a view would keep its whole buffer.
            last = pieces[-1] if pieces else b""
            if pieces and type(last) is bytes and len(last) < _JOINED:
                pieces[-1] = b"".join((last, piece))
                return
            piece = bytes(piece)
        pieces.append(piece)

    def write(self) -> int:
        """Write what the reader takes; how many bytes that were. Sets `gone` when there is none."""
        written = 0
        while self.waiting and not self.gone:
            batch = self._batch()
            try:
                if self._sock is not None:
                    count = self._sock.sendmsg(batch, (), socket.MSG_DONTWAIT)
                else:
                    count = os.writev(self.fd, batch)
            except BlockingIOError:
                break
            except OSError as e:
                self.gone = True
                self.problem = _problem(e)
                break
            self._advance(count)
            written += count
            if self._most == _PIPE_BUF or count < sum(map(len, batch)):
                break
        return written

    def _batch(self) -> list[Piece]:
        pieces = self._pieces[self._begin : self._begin + _BUFFERS]
        if self._most == _PIPE_BUF:
            pieces = [memoryview(pieces[0])[:_PIPE_BUF]]
        return pieces

    def _advance(self, count: int) -> None:
        self.waiting -= count
        pieces, index = self._pieces, self._begin
        while count and count >= len(pieces[index]):
            count -= len(pieces[index])
            pieces[index] = b""
            index += 1
        if count:
            pieces[index] = memoryview(pieces[index])[count:]
        # Taking from the front of a list costs its length; do it once in a while.
        if index >= _BUFFERS or not self.waiting:
            del pieces[:index]
            index = 0
        self._begin = index

    def close(self) -> None:
        """Let the reader see the end; the descriptor's place stays taken (by /dev/null)."""
        self._pieces.clear()
        self._begin = self.waiting = 0
        if self._sock is not None:
            self._end_socket(self._sock)
            self._sock = None
        if self._own >= 0:
            os.close(self._own)
            self._own = -1
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, self._pipe)
        os.close(null)
        self.fd = -1

    def _end_socket(self, sock: socket.socket) -> None:
        # Where input and output are one socket our closing one descriptor says nothing to the
        # peer. Otherwise other processes may still have words to write to it.
        try:
            if os.path.sameopenfile(0, self._pipe):
                sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        finally:
            sock.close()
