from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from heim_runtime import trust
from heim_runtime.complaints import Complaint
from heim_runtime.link import Link
from heim_tunnel.pump import Pump
from heim_tunnel.stdio import Sink, Source
from heim_wire import events
from heim_wire.errors import Code
from tests.fakes.tunnel_server import TARGET, Peer, Script, TunnelServer


class Clock:
    """Seconds that run as they do, and jump when told."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Running:
    """A pump between two pipes, in a thread."""

    def __init__(self, server: TunnelServer, source: int | None = None) -> None:
        self.clock = Clock()
        self.input_end, self.input = os.pipe()
        if source is not None:
            os.dup2(source, self.input_end)
        self.output, self.output_end = os.pipe()
        sock = socket.create_connection(("127.0.0.1", server.port))
        link = Link(sock, trust.context(str(server.ca_file)), TARGET)
        link.handshake(time.monotonic() + 5)
        link.send(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: AAAA\r\n\r\n", time.monotonic() + 5)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += link.receive(time.monotonic() + 5)
        self.readies: list[dict[str, Any]] = []
        self.pump = Pump(
            link, Source(self.input_end), Sink(self.output_end), target="db", clock=self.clock
        )
        self.pump.on_ready = self.readies.append
        self.failure: Complaint | None = None
        early = answer.partition(b"\r\n\r\n")[2]
        self.thread = threading.Thread(target=self._run, args=(early,), daemon=True)
        self.thread.start()

    def _run(self, early: bytes) -> None:
        try:
            self.pump.run(early)
        except Complaint as complaint:
            self.failure = complaint

    def end(self) -> Complaint | None:
        """Wait for the end of `run`; what it complained about."""
        self.thread.join(10)
        assert not self.thread.is_alive()
        return self.failure

    def close(self) -> None:
        for end in (self.input, self.input_end, self.output, self.output_end):
            try:
                os.close(end)
            except OSError:
                continue


@contextmanager
def pumping(script: Script, source: int | None = None) -> Iterator[Running]:
    with TunnelServer(script) as server:
        running = Running(server, source)
        try:
            yield running
        finally:
            running.close()


def answer_a_token(peer: Peer) -> None:
    """Greet, and say a word when a token comes."""
    peer.request()
    peer.upgrade()
    peer.until(lambda: peer.saw(events.Auth))
    peer.stream.send(b"x")
    peer.flush()


def silent(peer: Peer) -> None:
    """Say nothing any more, for ever, as a machine that lost its power."""
    answer_a_token(peer)
    peer.wait_closed()


def wait_for_a_turn(running: Running) -> None:
    """Until the pump has looked at its clocks at least once."""
    running.pump.offer("wake")
    assert os.read(running.output, 1) == b"x"


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def seconds_until_left(running: Running) -> float:
    """Let the clock run, a second at a time, until the pump gives up."""
    while running.thread.is_alive():
        assert running.clock.ahead < 120
        running.clock.ahead += 1
        running.pump.offer("wake")
        running.thread.join(0.02)
    return running.clock.ahead


def test_41_a_peer_that_falls_silent_is_left_after_25_s() -> None:
    with pumping(silent) as running:
        wait_for_a_turn(running)
        assert 15 <= seconds_until_left(running) <= 50
        failure = running.end()
    assert failure is not None
    assert failure.status == 69
    assert failure.text.startswith("the connection to the proxy was lost: ")


def test_23_after_a_suspend_the_peer_is_asked_at_once_and_left_if_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten minutes of the wall's clock in a moment of ours."""
    wall = time.time
    asleep = 0.0
    monkeypatch.setattr("time.time", lambda: wall() + asleep)
    with pumping(silent) as running:
        wait_for_a_turn(running)
        asleep = 600.0
        assert seconds_until_left(running) <= 12
        failure = running.end()
    assert failure is not None
    assert failure.status == 69


def test_23_a_peer_that_answers_after_a_suspend_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = time.time
    asleep = 0.0
    monkeypatch.setattr("time.time", lambda: wall() + asleep)

    def script(peer: Peer) -> None:
        answer_a_token(peer)
        peer.until(lambda: peer.received == b"here?")
        peer.stream.send(b"yes")
        peer.until(lambda: peer.received == b"here?still?")
        peer.goodbye()

    with pumping(script) as running:
        wait_for_a_turn(running)
        asleep = 600.0
        os.write(running.input, b"here?")
        assert os.read(running.output, 3) == b"yes"
        running.clock.ahead += 4
        os.write(running.input, b"still?")
        os.close(running.input)
        assert running.end() is None


def test_ready_is_passed_on_and_a_token_sent_in_band() -> None:
    tokens: list[object] = []

    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade(ready={"expires": 12345})
        peer.until(lambda: peer.saw(events.Auth))
        tokens.extend(e.message["token"] for e in peer.events if isinstance(e, events.Auth))
        peer.session.ready({"expires": 99999})
        peer.goodbye()

    with pumping(script) as running:
        until(lambda: running.readies)
        running.pump.offer("next")
        until(lambda: len(running.readies) == 2)
        os.close(running.input)
        assert running.end() is None
        assert [ready["expires"] for ready in running.readies] == [12345, 99999]
        assert running.pump.request_id == "01JTEST"
    assert tokens == ["next"]


def test_stop_sends_what_was_read_and_ends() -> None:
    got = bytearray()

    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.stream.send(b"x")
        peer.until(lambda: peer.saw(events.Ended))
        got.extend(peer.received)
        peer.goodbye()

    with pumping(script) as running:
        assert os.read(running.output, 1) == b"x"
        os.write(running.input, b"last words")
        running.pump.stop()
        assert running.end() is None
    assert got == b"last words"


def test_a_reset_is_raised_after_its_last_bytes() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.stream.send(b"last")
        peer.flush()
        peer.stream.reset(Code.REVOKED, "access was withdrawn")
        peer.flush()
        peer.wait_closed()

    with pumping(script) as running:
        failure = running.end()
        assert os.read(running.output, 10) == b"last"
    assert failure is not None
    assert (failure.status, failure.text) == (77, "access was withdrawn (request 01JTEST)")


def test_6_input_is_not_read_faster_than_the_peer_allows() -> None:
    """A peer that allows nothing more stops the reading, at the credit and one queue."""
    granted = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        # No WINDOW, ever: what comes is not consumed.
        granted.wait(5)

    with pumping(script) as running:
        os.set_blocking(running.input, False)
        sent = 0
        quiet = 0
        while quiet < 20:
            try:
                sent += os.write(running.input, bytes(65_536))
                quiet = 0
            except BlockingIOError:
                quiet += 1
                time.sleep(0.01)
        granted.set()
        running.end()
    # The pipe (1 MiB at most), the queue (two reads), the first credit, the kernel's.
    assert sent <= (1024 + 256 + 256 + 128) * 1024


def test_half_an_input_is_not_taken_for_all_of_it(tmp_path: Path) -> None:
    seen: list[events.Event] = []

    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        # A RESET, or what closing at once makes of it: never an EOF.
        with suppress(OSError):
            peer.until(lambda: peer.saw(events.Reset) or peer.saw(events.Ended) or peer.ended)
        seen.extend(peer.events)

    directory = os.open(tmp_path, os.O_RDONLY)
    with pumping(script, directory) as running:
        failure = running.end()
    os.close(directory)
    assert failure is not None
    assert (failure.status, failure.text) == (1, "cannot read standard input: Is a directory")
    assert seen
    assert not any(isinstance(event, events.Ended) for event in seen)
