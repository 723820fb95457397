from __future__ import annotations

import select
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from heim_runtime import trust
from heim_runtime.link import Link, Lost, ready
from tests.fakes.certificates import CA_PEM, make_pair
from tests.fakes.real import require
from tests.fakes.tunnel_server import TARGET, Peer, TunnelServer


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


@contextmanager
def linked(script: Callable[[Peer], None]) -> Iterator[Link]:
    """A link to a server that does what the script says."""
    with TunnelServer(script) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        link = Link(sock, trust.context(str(server.ca_file)), TARGET)
        try:
            link.handshake(soon())
            yield link
        finally:
            link.close()


def echo(peer: Peer) -> None:
    while data := peer.sock.recv(65536):
        peer.sock.sendall(data)


def everything(link: Link, size: int) -> bytes:
    data = b""
    while len(data) < size:
        assert ready(link.fileno(), select.POLLIN, soon())
        data += b"".join(link.read())
    return data


def test_bytes_go_and_come() -> None:
    with linked(echo) as link:
        assert link.protocol == "TLSv1.3"
        link.send(b"hello", soon())
        assert link.receive(soon()) == b"hello"


def test_all_that_arrived_is_read_at_once() -> None:
    """What OpenSSL holds back, `poll` would not tell of."""
    records = [bytes([number]) * 1000 for number in range(50)]

    def script(peer: Peer) -> None:
        peer.sock.recv(2)
        for record in records:
            peer.sock.sendall(record)
        peer.sock.recv(1)

    with linked(script) as link:
        link.send(b"go", soon())
        assert everything(link, 50_000) == b"".join(records)
        assert link.read() == []
        assert not link.ended


def test_what_the_socket_does_not_take_waits_for_flush() -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(1)
        time.sleep(0.05)
        size = 1
        while size < 8 * 1024 * 1024:
            size += len(peer.sock.recv(65536))
        peer.sock.sendall(b"all")

    with linked(script) as link:
        link.write(bytes(8 * 1024 * 1024))
        assert not link.flush()
        assert link.unsent
        while not link.flush():
            assert ready(link.fileno(), select.POLLOUT, soon())
        assert not link.unsent
        assert link.receive(soon()) == b"all"


@pytest.mark.parametrize("polite", [True, False], ids=["close_notify", "FIN alone"])
def test_an_end_is_an_end_after_what_came_before(polite: bool) -> None:
    def script(peer: Peer) -> None:
        peer.sock.sendall(b"last")
        if polite and isinstance(peer.sock, ssl.SSLSocket):
            peer.sock.settimeout(0.1)
            with suppress(OSError, ValueError):
                peer.sock.unwrap()

    with linked(script) as link:
        assert link.receive(soon()) == b"last"
        assert link.receive(soon()) == b""
        assert link.ended


def test_a_reset_is_lost() -> None:
    def script(peer: Peer) -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with linked(script) as link, pytest.raises(Lost, match="connection reset by peer"):
        link.receive(soon())


def test_bytes_that_are_no_tls_are_lost_after_what_came_before() -> None:
    def script(peer: Peer) -> None:
        peer.sock.sendall(b"good")
        # Past TLS, onto the wire.
        with socket.socket(fileno=peer.sock.detach()) as plain:
            plain.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            ready(plain.fileno(), select.POLLIN, soon())

    with linked(script) as link:
        assert link.receive(soon()) == b"good"
        with pytest.raises(Lost, match="TLS failed"):
            link.receive(soon())


def test_waiting_ends_at_the_deadline() -> None:
    def script(peer: Peer) -> None:
        peer.wait_closed()

    with linked(script) as link:
        with pytest.raises(TimeoutError):
            link.receive(soon(0.05))
        with pytest.raises(TimeoutError):
            link.send(bytes(64 * 1024 * 1024), soon(0.05))


def test_a_handshake_that_nobody_answers_ends_at_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        Link(ours, trust.context(None), TARGET).handshake(soon(0.05))


def test_a_handshake_that_is_cut_off_is_lost() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(Lost):
        Link(ours, trust.context(None), TARGET).handshake(soon())


def test_finish_tells_the_peer_and_leaves_reading_open() -> None:
    def script(peer: Peer) -> None:
        while peer.sock.recv(65536):
            pass
        assert peer.ended is False

    with linked(script) as link:
        link.send(b"x", soon())
        link.finish()
        assert ready(link.fileno(), select.POLLIN, soon())
        link.finish()


@pytest.mark.real
def test_a_key_update_on_the_way_changes_nothing(tmp_path: Path) -> None:
    """RFC 8446, 4.6.3: reading must write an answer. Python cannot ask for one; openssl can."""
    make_pair(TARGET).write(tmp_path)
    (tmp_path / "ca.pem").write_text(CA_PEM)
    # Its output is a pipe here; without stdbuf it would come when openssl ends.
    command = [require("stdbuf"), "-o0", require("openssl"), "s_server", "-tls1_3"]
    command += ["-accept", "127.0.0.1:0", "-naccept", "1"]
    command += ["-cert", str(tmp_path / "tls.crt"), "-key", str(tmp_path / "tls.key")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        line = b""
        while not line.startswith(b"ACCEPT"):
            line = server.stdout.readline()
            assert line
        port = int(line.rpartition(b":")[2])
        sock = socket.create_connection(("127.0.0.1", port))
        link = Link(sock, trust.context(str(tmp_path / "ca.pem")), TARGET)
        link.handshake(soon())
        for round_ in (b"one\n", b"two\n"):
            # A line of K makes it change its key and ask for a change of ours.
            server.stdin.write(b"K\n")
            server.stdin.flush()
            while not line.startswith(b"SSL_do_handshake -> 1"):
                line = server.stdout.readline()
                assert line
            server.stdin.write(round_)
            server.stdin.flush()
            assert link.receive(soon()) == round_
            link.send(b"back " + round_, soon())
            while not line.endswith(b"back " + round_):
                line = server.stdout.readline()
                assert line
        link.close()
        server.stdin.close()
