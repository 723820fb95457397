"""The loopback listener takes one answer, and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from heim_tunnel.loopback import MAX_CONNECTIONS, Arrival, Loopback, page

STATE = "right-state"
RIGHT = f"/callback?code=c0de&state={STATE}"


class Waiting:
    """A listener that waits in a thread, as the command does in its only one."""

    def __init__(self, loopback: Loopback) -> None:
        self.loopback = loopback
        self.authority = loopback.redirect_uri.split("/")[2]
        self.arrival: Arrival | None = None
        self.thread = threading.Thread(target=self._wait)
        self.thread.start()

    def _wait(self) -> None:
        self.arrival = self.loopback.wait(time.monotonic() + 4)
        if self.arrival is not None:
            self.arrival.show("Signed in", "as <alice>")

    def connect(self) -> socket.socket:
        host, _, port = self.authority.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=3)

    def ask(self, target: str, *, host: str | None = None, method: str = "GET") -> str:
        return self.raw(f"{method} {target} HTTP/1.1\r\nHost: {host or self.authority}\r\n\r\n")

    def raw(self, request: str) -> str:
        with self.connect() as sock:
            sock.sendall(request.encode("latin-1"))
            return everything(sock)

    def arrived(self) -> Arrival:
        self.thread.join(timeout=4)
        assert self.arrival is not None
        return self.arrival


def everything(sock: socket.socket) -> str:
    received = b""
    try:
        while data := sock.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received.decode()


@contextmanager
def waiting() -> Iterator[Waiting]:
    with Loopback(STATE) as loopback:
        one = Waiting(loopback)
        try:
            yield one
        finally:
            if one.thread.is_alive():
                one.ask(RIGHT)
            one.thread.join()


def status(answer: str) -> int:
    return int(answer.split(" ")[1])


def test_the_right_answer_ends_the_wait_and_gets_the_last_page() -> None:
    with waiting() as one:
        answer = one.ask(RIGHT)
        arrival = one.arrived()
    assert arrival.code == "c0de"
    assert status(answer) == 200
    assert "as &lt;alice&gt;" in answer
    assert "c0de" not in repr(arrival)


def test_a_refusal_is_an_answer_too() -> None:
    with waiting() as one:
        one.ask(f"/callback?error=access_denied&error_description=No&state={STATE}")
        arrival = one.arrived()
    assert (arrival.code, arrival.error, arrival.description) == (None, "access_denied", "No")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/callback?code=x&state=wrong", 400),
        ("/callback?code=x", 400),
        ("/callback", 400),
        (f"/callback?code=x&state={STATE}x", 400),
        (f"/callback?code=x&state={STATE}&state={STATE}", 400),
        (f"/callback?code=x&code=y&state={STATE}", 400),
        (f"/callback?code=x&error=y&state={STATE}", 400),
        (f"/callback?code=&state={STATE}", 400),
        (f"/callback?state={STATE}", 400),
        (f"/callback?code=x&state=%ff%00&state={STATE}", 400),
        ("/callback?" + "&".join(f"a{n}=1" for n in range(50)), 400),
        ("/", 404),
        ("/favicon.ico", 404),
        (f"/callback/?code=x&state={STATE}", 404),
        (f"/Callback?code=x&state={STATE}", 404),
        (f"http://127.0.0.1/callback?code=x&state={STATE}", 404),
    ],
)
def test_other_requests_do_not_end_the_wait(target: str, expected: int) -> None:
    with waiting() as one:
        assert status(one.ask(target)) == expected
        assert one.arrival is None
        one.ask(RIGHT)
        assert one.arrived().code == "c0de"


@pytest.mark.parametrize(
    "host", ["localhost:{port}", "evil.test:{port}", "127.0.0.1", "127.0.0.1:1", "127.1:{port}"]
)
def test_only_the_literal_address_is_a_host(host: str) -> None:
    with waiting() as one:
        port = one.authority.rpartition(":")[2]
        assert status(one.ask(RIGHT, host=host.format(port=port))) == 421
        assert one.arrival is None


@pytest.mark.parametrize(
    ("request_text", "expected"),
    [
        ("POST {right} HTTP/1.1\r\nHost: {authority}\r\n\r\n", 405),
        ("GET {right} HTTP/1.1\r\n\r\n", 421),
        ("GET {right} HTTP/1.1\r\nHost: {authority}\r\nHost: {authority}\r\n\r\n", 421),
        ("GET {right}\r\n\r\n", 400),
        ("\r\n\r\n", 400),
        ("\x16\x03\x01\x02\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nX: " + "x" * 20_000, 431),
    ],
    ids=["POST", "no host", "two hosts", "HTTP/0.9", "nothing", "TLS", "endless"],
)
def test_junk_does_not_end_the_wait(request_text: str, expected: int) -> None:
    with waiting() as one:
        text = request_text.replace("{right}", RIGHT).replace("{authority}", one.authority)
        assert status(one.raw(text)) == expected
        assert one.arrival is None


def test_silent_connections_of_browsers_do_not_hold_up_the_answer() -> None:
    with waiting() as one:
        silent = [one.connect() for _ in range(MAX_CONNECTIONS + 8)]
        try:
            one.ask(RIGHT)
            assert one.arrived().code == "c0de"
        finally:
            for sock in silent:
                sock.close()


def test_a_request_may_come_byte_by_byte() -> None:
    with waiting() as one, one.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in f"GET {RIGHT} HTTP/1.1\r\nHost: {one.authority}\r\n\r\n".encode():
            sock.sendall(bytes([byte]))
        assert status(everything(sock)) == 200


def test_a_second_answer_finds_nobody() -> None:
    with waiting() as one:
        one.ask(RIGHT)
        one.arrived()
    with pytest.raises(ConnectionRefusedError):
        one.connect()


def test_the_wait_ends_in_time() -> None:
    with Loopback(STATE) as loopback:
        assert loopback.wait(time.monotonic() + 0.05) is None


def test_a_silent_connection_is_dropped_after_a_while() -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 12
        return now[0]

    with Loopback(STATE) as loopback:
        host, _, port = loopback.redirect_uri.split("/")[2].rpartition(":")
        with closing(socket.create_connection((host, int(port)), timeout=3)) as sock:
            assert loopback.wait(60, clock) is None
            assert everything(sock) == ""


def test_a_browser_that_went_away_does_not_hurt() -> None:
    with Loopback(STATE) as loopback:
        sock = socket.create_connection(
            ("127.0.0.1", int(loopback.redirect_uri.split(":")[2][:-9]))
        )
        authority = loopback.redirect_uri.split("/")[2]
        sock.sendall(f"GET {RIGHT} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        arrival = loopback.wait(time.monotonic() + 3)
        assert arrival is not None
        sock.close()
        arrival.show("Signed in", "x" * 100_000)


def test_the_page_is_kept_by_nobody_and_runs_nothing() -> None:
    head, _, body = page(200, "<b>", "&").decode().partition("\r\n\r\n")
    assert "\r\nCache-Control: no-store\r\n" in head
    assert "\r\nContent-Security-Policy: default-src 'none'" in head
    assert f"\r\nContent-Length: {len(body)}" in head
    assert "<h1>&lt;b&gt;</h1><p>&amp;</p>" in body
