"""`heim-tunnel proxy` as a process, against a scripted server: the data path and its ends.

Numbers in names are those of tunnel.md, section 6.
"""

from __future__ import annotations

import hashlib
import os
import pty
import select
import signal
import socket
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from heim_wire import events
from heim_wire.errors import FAILURES, Code
from heim_wire.frames import HEAD, Type, plain_frame
from tests.fakes.tunnel_cli import Cli, write_login
from tests.fakes.tunnel_server import Peer, TunnelServer

MIB = 1024 * 1024


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory of logins with a good one in it."""
    write_login(tmp_path)
    return tmp_path


def echo(peer: Peer) -> None:
    """Upgrade, read to the EOF, send it all back."""
    peer.request()
    peer.upgrade()
    peer.until(lambda: peer.saw(events.Ended))
    peer.stream.send(bytes(peer.received))
    peer.goodbye()


def block(size: int) -> bytes:
    """Bytes that show any swap, loss or repetition."""
    seed = b"".join(i.to_bytes(4, "big") for i in range(4096))
    return (seed * (size // len(seed) + 1))[:size]


# Both directions.


def test_1_half_close_from_the_client_gets_the_whole_reply(home: Path) -> None:
    with TunnelServer(echo) as server, Cli.to(server, home) as cli:
        assert cli.finish(b"x" * 1000) == (0, b"x" * 1000, "")
    assert server.peers[0].fields["authorization"] == "Bearer token-one"
    assert server.peers[0].fields["host"] == "ssh.example.test"


def test_2_half_close_from_the_server_leaves_the_other_direction(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.stream.send(b"that is all")
        peer.stream.end()
        peer.until(lambda: peer.saw(events.Ended))
        peer.until(lambda: peer.websocket.closed is not None or peer.ended)

    with TunnelServer(script) as server, Cli.to(server, home) as cli:
        assert cli.process.stdout is not None
        # Standard output is closed at once, long before we end.
        assert cli.process.stdout.read() == b"that is all"
        assert cli.process.poll() is None
        cli.write(b"and more")
        assert cli.finish() == (0, b"", "")
        assert server.peers[0].received == b"and more"


def test_by_way_of_argparse_it_is_the_same(home: Path) -> None:
    program = ("-c", "import sys; from heim_tunnel.cli import main; sys.exit(main())")
    with TunnelServer(echo) as server, Cli.to(server, home, "-v", program=program) as cli:
        status, out, err = cli.finish(b"hello")
    assert (status, out) == (0, b"hello")
    assert "the tunnel is open" in err


def test_3_both_ends_at_once(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.goodbye()

    with TunnelServer(script) as server, Cli.to(server, home, stdin=subprocess.DEVNULL) as cli:
        assert cli.finish() == (0, b"", "")
        close = server.peers[0].websocket.closed
    assert close is not None
    assert close.code == 1000


@pytest.mark.parametrize(
    "size", [0, 1, 16_367, 16_368, 16_369, 65_535, 65_536, 65_537, 5 * MIB + 3], ids=str
)
def test_5_sizes_at_the_borders_of_frames_and_records(home: Path, size: int) -> None:
    data = block(size)
    with TunnelServer(echo) as server, Cli.to(server, home) as cli:
        status, out, err = cli.finish(data)
    assert (status, err) == (0, "")
    assert out == data


def test_single_bytes_are_passed_on_at_once(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        seen = 0
        while not peer.saw(events.Ended):
            peer.step()
            if len(peer.received) > seen:
                peer.stream.send(bytes(peer.received[seen:]))
                seen = len(peer.received)
        peer.goodbye()

    with TunnelServer(script) as server, Cli.to(server, home) as cli:
        for letter in b"ping-pong":
            cli.write(bytes([letter]))
            assert cli.read(1) == bytes([letter])
        assert cli.finish() == (0, b"", "")


def test_64_mib_up_arrive_byte_for_byte(home: Path) -> None:
    digest = hashlib.sha256()

    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        while not peer.saw(events.Ended):
            peer.step()
            digest.update(peer.received)
            peer.received.clear()
        peer.goodbye()

    data = os.urandom(64 * MIB)
    with TunnelServer(script) as server, Cli.to(server, home) as cli:
        assert cli.finish(data) == (0, b"", "")
    assert digest.digest() == hashlib.sha256(data).digest()


def test_64_mib_down_arrive_byte_for_byte(home: Path) -> None:
    data = os.urandom(64 * MIB)

    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        for begin in range(0, len(data), 65_536):
            peer.until(lambda: not peer.stream.full)
            peer.stream.send(data[begin : begin + 65_536])
            peer.flush()
        peer.goodbye()

    with TunnelServer(script) as server, Cli.to(server, home, stdin=subprocess.DEVNULL) as cli:
        status, out, err = cli.finish()
    assert (status, err) == (0, "")
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


def test_7_a_reader_that_stalls_bounds_what_is_sent_and_kept(home: Path) -> None:
    """The window is all that leaves the server, and all that stays in memory."""
    stalled: list[int] = []
    measured = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.stream.send(bytes(64 * MIB))
        # Until the client stops allowing more.
        queued = -1
        while queued != peer.stream.queued:
            queued = peer.stream.queued
            peer.step(1.0)
        stalled.append(64 * MIB - queued)
        measured.wait(10)

    with TunnelServer(script) as server, Cli.to(server, home) as cli:
        server.until(lambda: stalled)
        rss = memory_kib(cli.process.pid)
        measured.set()
        # Its pipe (1 MiB) and its window; far from 64 MiB.
        assert 64 * 1024 <= stalled[0] <= 3 * MIB
        assert rss < 48 * 1024


def memory_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


# Hostile middleboxes.


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 100])
def test_12_refragmented_and_dribbled_frames_are_read(home: Path, size: int) -> None:
    """Frames in pieces of `size` bytes, each in a WebSocket frame and a TLS record of its own."""
    data = block(300 * size)

    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.stream.send(data)
        peer.stream.end()
        parts, total = peer.session.take(65_543)
        while total:
            stream = b"".join(parts)
            for begin in range(0, len(stream), size):
                piece = stream[begin : begin + size]
                peer.sock.sendall(peer.websocket.frame([piece], len(piece)))
            parts, total = peer.session.take(65_543)
        peer.until(lambda: peer.websocket.closed is not None or peer.ended)

    with TunnelServer(script) as server, Cli.to(server, home, stdin=subprocess.DEVNULL) as cli:
        assert cli.finish() == (0, data, "")


def test_frames_in_one_piece_with_the_101_are_not_lost(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade(coalesced=b"early bird")
        peer.goodbye()

    with TunnelServer(script) as server, Cli.to(server, home, stdin=subprocess.DEVNULL) as cli:
        assert cli.finish() == (0, b"early bird", "")


def framed(peer: Peer, data: bytes) -> bytes:
    return peer.websocket.frame([data], len(data))


HOSTILE: dict[str, Callable[[Peer], bytes]] = {
    "text frame": lambda _: b"\x81\x02hi",
    "masked frame": lambda _: b"\x82\x82\0\0\0\0hi",
    "reserved bit": lambda _: b"\xc2\x01x",
    "long ping": lambda _: b"\x89\x7e\x00\x80" + bytes(128),
    "no HELLO": lambda peer: peer.websocket.frame([b"\5\0\0\1\0\0\0\1x"], 9),
    "critical unknown frame": lambda peer: peer.websocket.frame([b"\x3f\1\0\0\0\0\0\0"], 8),
    "stream of our parity": lambda peer: framed(peer, plain_frame(Type.OPEN, 1, b"{}")),
    "storm of pings (26)": lambda peer: framed(peer, plain_frame(Type.PING, 0, bytes(8)) * 4000),
    "control frame too long": lambda peer: peer.websocket.frame([b"\2\0\xff\xff\0\0\0\0"], 8),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_18_a_server_that_breaks_the_protocol_is_left_with_76(home: Path, name: str) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade(silent=name == "no HELLO")
        peer.sock.sendall(HOSTILE[name](peer))
        peer.wait_closed()

    with TunnelServer(script) as server, Cli.to(server, home) as cli:
        status, out, err = cli.finish()
    assert (status, out) == (76, b"")
    assert err.startswith("heim-tunnel: ssh.example.test: protocol error: ")
    assert err.count("\n") == 1


# What the server does with the stream once it is open: its frames, its exit status.
WRONG_STREAMS = {
    "more than the window allows (16)": (
        b"".join(HEAD.pack(Type.DATA, 0, 65_535, 1) + bytes(65_535) for _ in range(64)),
        70,
    ),
    "data after eof (17)": (
        plain_frame(Type.EOF, 1, b"") + HEAD.pack(Type.DATA, 0, 1, 1) + b"x",
        76,
    ),
    "eof twice (17)": (plain_frame(Type.EOF, 1, b"") * 2, 76),
}


@pytest.mark.parametrize("name", WRONG_STREAMS)
def test_a_servers_mistake_about_the_stream_is_no_quiet_end(home: Path, name: str) -> None:
    frames, expected = WRONG_STREAMS[name]

    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        with suppress(OSError):
            peer.sock.sendall(framed(peer, frames))
        peer.wait_closed()

    with TunnelServer(script) as server, Cli.to(server, home) as cli:
        # Nobody reads what comes: beyond a pipe of 1 MiB no credit is given.
        assert cli.process.wait(10) == expected
        assert cli.process.stderr is not None
        err = cli.process.stderr.read().decode()
    assert err.startswith("heim-tunnel: ssh.example.test: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "frames",
    [
        HEAD.pack(Type.DATA, 0, 0, 1) * 20,
        HEAD.pack(Type.DATA, 0, 4, 3) + b"evil",
        plain_frame(Type.RESET, 9, b"\0\1") + plain_frame(Type.EOF, 7, b""),
        HEAD.pack(99, 0, 4, 0) + b"evil",
    ],
    ids=["empty data (17)", "data of no stream (15)", "end of no stream (15)", "unknown"],
)
def test_what_means_nothing_changes_nothing(home: Path, frames: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.sock.sendall(framed(peer, frames))
        peer.stream.send(b"hello")
        peer.goodbye()

    with TunnelServer(script) as server, Cli.to(server, home, stdin=subprocess.DEVNULL) as cli:
        assert cli.finish() == (0, b"hello", "")


# How it ends.


CODES = [code for code in FAILURES if code != Code.PROTOCOL]


@pytest.mark.parametrize("code", CODES, ids=[FAILURES[code].slug for code in CODES])
def test_4_a_reset_is_told_with_its_exit_status(home: Path, code: int) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.stream.send(b"before")
        peer.flush()
        peer.stream.reset(code, "closed by \x1b[31mpolicy\n at 17:00")
        peer.flush()
        peer.wait_closed()

    with TunnelServer(script) as server, Cli.to(server, home) as cli:
        status, out, err = cli.finish()
    assert status == FAILURES[code].exit_status
    assert out == b"before"
    assert err == (
        "heim-tunnel: ssh.example.test: closed by [31mpolicy at 17:00 (request 01JTEST)\n"
    )


def test_a_reset_without_a_reason_has_one_of_ours(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.stream.reset(Code.IDLE)
        peer.flush()
        peer.wait_closed()

    with TunnelServer(script) as server, Cli.to(server, home) as cli:
        status, _, err = cli.finish()
    assert status == 75
    assert "nothing was sent for as long as policy allows" in err


@pytest.mark.parametrize(
    ("how", "status", "text"),
    [
        ("fin", 69, "the connection to the proxy was lost (request 01JTEST)"),
        ("rst", 69, "the connection to the proxy was lost: connection reset by peer"),
        ("close", 69, "it was closed with status 1011 (oops)"),
        ("goaway", 75, "the proxy is restarting; connect again"),
        ("away", 75, "the proxy is going away; connect again"),
    ],
)
def test_a_lost_connection_is_never_taken_for_the_end(
    home: Path, how: str, status: int, text: str
) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.stream.send(b"half a repl")
        peer.flush()
        if how == "goaway":
            peer.session.goaway(Code.GOING_AWAY, "the proxy is restarting", drain=300)
            peer.flush()
        if how in ("fin", "goaway"):
            peer.hang_up()
        if how in ("close", "away"):
            peer.sock.sendall(peer.websocket.close(1011 if how == "close" else 1001, "oops"))
        if how == "rst":
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with TunnelServer(script) as server, Cli.to(server, home) as cli:
        assert cli.read(11) == b"half a repl"
        found, out, err = cli.finish()
    assert (found, out) == (status, b"")
    assert text in err


def test_notices_and_a_going_proxy_are_told_in_a_line_each(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.session.notice("your session ends at 17:00\x07\x1b]0;x\x07")
        peer.session.goaway(Code.GOING_AWAY, "", drain=300)
        peer.goodbye()

    with TunnelServer(script) as server, Cli.to(server, home, stdin=subprocess.DEVNULL) as cli:
        status, _, err = cli.finish()
    assert status == 0
    lines = err.splitlines()
    assert lines[0] == "heim-tunnel: ssh.example.test: your session ends at 17:00 ]0;x"
    assert lines[1] == (
        "heim-tunnel: ssh.example.test: the proxy is restarting; "
        "this connection may go on for 300 s"
    )
    assert len(lines) == 2


# What standard input and output are.


def regular_file(tmp_path: Path) -> IO[bytes]:
    path = tmp_path / "input"
    path.write_bytes(b"from a file")
    return path.open("rb")


def test_9_input_is_a_file(home: Path) -> None:
    with (
        regular_file(home) as file,
        TunnelServer(echo) as server,
        Cli.to(server, home, stdin=file) as cli,
    ):
        assert cli.finish() == (0, b"from a file", "")


def test_9_output_is_a_file_that_is_appended_to(home: Path) -> None:
    path = home / "output"
    path.write_bytes(b"old, ")
    with (
        path.open("ab") as file,
        TunnelServer(echo) as server,
        Cli.to(server, home, stdout=file) as cli,
    ):
        assert cli.finish(b"new")[0] == 0
    assert path.read_bytes() == b"old, new"


def test_9_a_full_disk_is_no_quiet_end(home: Path) -> None:
    with TunnelServer(greeter) as server, Cli.to(server, home, redirect=">/dev/full") as cli:
        status, _, err = cli.finish(b"")
    assert status == 1
    assert err == (
        "heim-tunnel: ssh.example.test: cannot write standard output: No space left on device\n"
    )


@pytest.mark.parametrize("redirect", ["<&-", "</dev/null", "</dev/null 2>&-", ">/dev/null"])
def test_9_input_and_output_may_be_nothing(home: Path, redirect: str) -> None:
    with TunnelServer(echo) as server, Cli.to(server, home, redirect=redirect) as cli:
        assert cli.finish(b"") == (0, b"", "")


def test_9_output_that_is_closed_from_the_beginning_ends_quietly(home: Path) -> None:
    with TunnelServer(greeter) as server, Cli.to(server, home, redirect=">&-") as cli:
        assert cli.finish(b"x") == (0, b"", "")


def greeter(peer: Peer) -> None:
    """Talk first, and until nobody listens."""
    try:
        if not peer.request():
            # It was ended before it had asked for anything.
            return
        peer.upgrade()
    except OSError:
        return
    while not peer.ended and not peer.saw(events.Reset):
        if not peer.stream.full:
            peer.stream.send(bytes(65_536))
        try:
            peer.step(0.05)
        except OSError:
            return


def test_9_both_are_one_socket(home: Path) -> None:
    ours, theirs = socket.socketpair()
    with (
        ours,
        TunnelServer(echo) as server,
        Cli.to(server, home, stdin=theirs, stdout=theirs) as cli,
    ):
        theirs.close()
        ours.sendall(b"hello")
        ours.shutdown(socket.SHUT_WR)
        ours.settimeout(10)
        assert b"".join(iter(lambda: ours.recv(4096), b"")) == b"hello"
        assert cli.process.wait(10) == 0


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A pseudo terminal: the person's side and the program's."""
    person, program = pty.openpty()
    yield person, program
    os.close(person)
    os.close(program)


def test_9_and_62_a_terminal_keeps_its_modes(home: Path, terminal: tuple[int, int]) -> None:
    person, program = terminal
    before = termios.tcgetattr(program)
    with (
        TunnelServer(echo) as server,
        Cli.to(server, home, stdin=program, stdout=program) as cli,
    ):
        os.write(person, b"typed\n\x04")
        assert cli.process.wait(10) == 0
        seen = read_terminal(person, b"typed\r\ntyped\r\n")
    assert seen.replace(b"^D\b\b", b"") == b"typed\r\ntyped\r\n"
    assert termios.tcgetattr(program) == before


def read_terminal(person: int, until: bytes) -> bytes:
    seen = b""
    while until[-8:] not in seen or len(seen) < len(until):
        assert select.select([person], [], [], 5)[0], seen
        seen += os.read(person, 4096)
    return seen


@pytest.mark.parametrize("end", ["stdin", "stdout"])
def test_descriptions_that_others_share_keep_their_flags(home: Path, end: str) -> None:
    reading, writing = os.pipe()
    ours = reading if end == "stdin" else writing
    before = os.get_blocking(ours)
    with TunnelServer(echo) as server, Cli.to(server, home, **{end: ours}) as cli:
        if end == "stdin":
            os.write(writing, b"x")
            during = os.get_blocking(ours)
            os.close(writing)
            cli.finish()
        else:
            cli.finish(b"x")
            during = os.get_blocking(ours)
            os.close(writing)
    os.close(reading)
    assert before is during is True


# Its reader goes, it is told to go.


def test_10_output_closed_early_ends_quietly(home: Path) -> None:
    with TunnelServer(greeter) as server, Cli.to(server, home) as cli:
        assert cli.process.stdout is not None
        assert cli.read(1000) == bytes(1000)
        cli.process.stdout.close()
        assert cli.process.wait(10) == 0
        assert cli.process.stderr is not None
        assert cli.process.stderr.read() == b""


def test_10_an_upload_is_finished_although_nobody_reads_the_answer(home: Path) -> None:
    got = bytearray()

    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.until(lambda: peer.saw(events.Ended))
        got.extend(peer.received)
        peer.goodbye()

    with TunnelServer(script) as server, Cli.to(server, home) as cli:
        assert cli.process.stdout is not None
        cli.process.stdout.close()
        assert cli.process.stdin is not None
        cli.process.stdin.write(block(3 * MIB))
        cli.process.stdin.close()
        assert cli.process.wait(10) == 0
    assert got == block(3 * MIB)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM], ids=lambda n: n.name)
def test_what_ssh_wrote_before_it_hung_up_is_delivered(home: Path, number: signal.Signals) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.stream.send(b"go")
        peer.until(lambda: peer.saw(events.Ended))
        peer.goodbye()

    with TunnelServer(script) as server, Cli.to(server, home) as cli:
        assert cli.read(2) == b"go"
        cli.process.send_signal(signal.SIGSTOP)
        cli.write(b"last words")
        cli.process.send_signal(number)
        cli.process.send_signal(signal.SIGCONT)
        assert cli.process.wait(10) == 0
        assert cli.process.stderr is not None
        assert cli.process.stderr.read() == b""
    assert server.peers[0].received == b"last words"


def test_a_server_that_does_not_react_does_not_keep_ssh_waiting(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.stream.send(b"go")
        peer.flush()
        peer.wait_closed()

    with TunnelServer(script) as server, Cli.to(server, home) as cli:
        assert cli.read(2) == b"go"
        cli.process.send_signal(signal.SIGTERM)
        assert cli.process.wait(4) == 0


def never(_: Peer) -> None:
    """Say nothing at all."""


STAGES: dict[str, Callable[[Peer], None]] = {
    "before the answer": lambda peer: (peer.request(), peer.wait_closed(), None)[-1],
    "established": greeter,
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 0), (signal.SIGHUP, 0)],
    ids=["INT", "TERM", "HUP"],
)
def test_signals_end_it_without_a_trace(
    home: Path, stage: str, number: signal.Signals, status: int
) -> None:
    with TunnelServer(STAGES[stage]) as server, Cli.to(server, home) as cli:
        if stage == "established":
            cli.read(1)
        else:
            server.until(lambda: bool(server.peers) and server.peers[0].head)
        cli.process.send_signal(number)
        if number != signal.SIGINT:
            drain(cli)
        assert cli.process.wait(5) == status
        assert cli.process.stderr is not None
        assert cli.process.stderr.read() == b""


def drain(cli: Cli) -> None:
    assert cli.process.stdout is not None
    while cli.process.stdout.read(65536):
        pass


def begun(pid: int) -> bool:
    """Whether the first line of `main` was executed: Python's own SIGINT handler is gone."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))
    return not caught & 1 << signal.SIGINT - 1 or bool(caught & 1 << signal.SIGTERM - 1)


STARTED = "import os; from heim_tunnel.__main__ import main; os.write(1, b'.'); main()"


def test_61_ctrl_c_at_any_moment_of_starting_leaves_no_trace(home: Path) -> None:
    """From our first line on; a shell shows 130 for a death by SIGINT, too."""
    with TunnelServer(greeter) as server:
        for delay_ms in range(1, 80, 6):
            with Cli.to(server, home, program=("-c", STARTED)) as cli:
                assert cli.read(1) == b"."
                server.until(lambda cli=cli: begun(cli.process.pid))
                with pytest.raises(subprocess.TimeoutExpired):
                    cli.process.wait(delay_ms / 1000)
                cli.process.send_signal(signal.SIGINT)
                drain(cli)
                status = cli.process.wait(5)
                assert cli.process.stderr is not None
                assert cli.process.stderr.read() == b""
            assert status in (130, -signal.SIGINT)


# The session's own life.


def test_41_pings_are_answered_and_sent(home: Path) -> None:
    pong = b""

    def script(peer: Peer) -> None:
        nonlocal pong
        peer.request()
        peer.upgrade()
        peer.sock.sendall(peer.websocket.ping(b"are you there"))
        data = b""
        while b"\x8a\x8d" not in data:
            data += peer.sock.recv(4096)
        key, masked = data[data.index(b"\x8a\x8d") + 2 :][:4], data[data.index(b"\x8a\x8d") + 6 :]
        pong = bytes(a ^ key[i % 4] for i, a in enumerate(masked[:13]))

    with TunnelServer(script) as server, Cli.to(server, home) as cli:
        assert cli.finish()[0] == 69
    assert pong == b"are you there"
