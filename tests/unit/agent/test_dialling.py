from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from heim_agent.dialling import Connected, Way, connect, open_tcp
from heim_agent.endings import Ending, Kind, NotConnected
from heim_runtime import race
from heim_runtime.complaints import Complaint
from tests.fakes.certificates import make_pair
from tests.fakes.lane_host import LOGIN_HOST, LaneHost, lane_host, silent
from tests.fakes.loops import LOOPS, run_on
from tests.fakes.web_proxy import WebProxy

loops = pytest.mark.parametrize("loop", LOOPS)


def way(host: LaneHost, **other: object) -> Way:
    fields: dict[str, object] = {
        "host": LOGIN_HOST,
        "ca_file": str(host.ca_file),
        "connect_to": ("127.0.0.1", host.port),
        **other,
    }
    return Way(**fields)  # type: ignore[arg-type]


def close(connected: Connected) -> None:
    assert connected.connection.transport is not None
    connected.connection.transport.abort()


async def failure(way: Way, environ: dict[str, str] | None = None) -> Ending:
    with pytest.raises(NotConnected) as caught:
        close(await connect(way, environ or {}))
    return caught.value.ending


@pytest.mark.parametrize(
    ("url", "host", "port", "authority"),
    [
        ("https://auth.example.com", "auth.example.com", 443, "auth.example.com"),
        ("https://auth.example.com:8443", "auth.example.com", 8443, "auth.example.com:8443"),
        ("https://[::1]:8443", "::1", 8443, "[::1]:8443"),
    ],
)
def test_the_way_is_read_from_the_login_url(url: str, host: str, port: int, authority: str) -> None:
    found = Way.to(url)
    assert (found.host, found.port, found.authority) == (host, port, authority)


@loops
def test_it_gives_the_key_that_was_seen(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with lane_host(tmp_path, silent) as host:
            connected = await connect(way(host), {})
            assert connected.spki == host.spki
            assert connected.via == ""
            close(connected)

    run_on(loop, scenario())


@loops
@pytest.mark.parametrize(
    ("pair", "other", "said"),
    [
        ({"names": ["elsewhere.test"]}, {}, "is for another name; is this the proxy's login host?"),
        ({"end_days": -0.5}, {}, "has expired (or this machine's clock is wrong)"),
        ({"start_days": 1}, {}, "is not valid yet (or this machine's clock is wrong)"),
        ({}, {"ca_file": None}, "not known; name its authority with: heim-agent join"),
    ],
    ids=["other name", "expired", "not yet valid", "unknown authority"],
)  # fmt: skip
def test_a_certificate_that_is_not_believed_is_told_with_what_to_do(
    loop: str, tmp_path: Path, pair: dict[str, object], other: dict[str, object], said: str
) -> None:
    async def scenario() -> None:
        async with lane_host(tmp_path, silent) as host:
            names = pair.get("names", [LOGIN_HOST])
            times = {name: value for name, value in pair.items() if name != "names"}
            host.use(make_pair(*names, **times))  # type: ignore[misc,arg-type]
            ending = await failure(way(host, **other))
            assert ending.kind is Kind.UNREACHABLE
            assert said in ending.line
            assert LOGIN_HOST in ending.text

    run_on(loop, scenario())


@contextmanager
def plain(answer: bytes | None) -> Iterator[int]:
    """Something that speaks no TLS: says `answer`, or (None) hangs up, or (b"") stays silent."""
    kept: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            kept.append(sock)
            if answer is None:
                sock.close()
            elif answer:
                sock.recv(4096)
                sock.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        for sock in kept:
            sock.close()


@loops
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS"),
        (None, "no TLS with auth.example.test"),
    ],
    ids=["plain HTTP", "hangs up"],
)
def test_what_speaks_no_tls_is_told(
    loop: str, tmp_path: Path, answer: bytes | None, said: str
) -> None:
    async def scenario() -> None:
        host = LaneHost(tmp_path, silent)
        with plain(answer) as port:
            ending = await failure(way(host, connect_to=("127.0.0.1", port)))
        assert said in ending.text

    run_on(loop, scenario())


@loops
def test_who_does_not_shake_hands_is_left_at_the_deadline(
    loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heim_agent.dialling.TLS_S", 0.1)

    async def scenario() -> None:
        host = LaneHost(tmp_path, silent)
        with plain(b"") as port:
            ending = await failure(way(host, connect_to=("127.0.0.1", port)))
        assert ending.text == "no TLS with auth.example.test: it does not answer"

    run_on(loop, scenario())


@loops
def test_nobody_there_is_told(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        host = LaneHost(tmp_path, silent)
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        ending = await failure(way(host, connect_to=("127.0.0.1", port)))
        assert "connection refused); is the proxy running" in ending.text

    run_on(loop, scenario())


def test_a_name_that_does_not_exist_is_told() -> None:
    async def scenario() -> None:
        ending = await failure(Way("auth.heim.invalid"))
        assert "cannot resolve auth.heim.invalid" in ending.text

    run_on("asyncio", scenario())


@loops
def test_56_a_dead_address_holds_up_by_the_stagger_only(
    loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race is heim_runtime's and tested there; here: it is used, whatever the loop."""

    async def scenario() -> None:
        async with lane_host(tmp_path, silent) as host:
            with socket.socket() as full:
                full.bind(("127.0.0.2", host.port))
                full.listen(0)
                with socket.create_connection(("127.0.0.2", host.port)):
                    found = [
                        (socket.AF_INET, ("127.0.0.2", host.port)),
                        (socket.AF_INET, ("127.0.0.1", host.port)),
                    ]
                    monkeypatch.setattr(race, "resolve", lambda *_: found)
                    connected = await connect(way(host), {})
            transport = connected.connection.transport
            assert transport is not None
            assert transport.get_extra_info("peername")[0] == "127.0.0.1"
            close(connected)

    run_on(loop, scenario())


@loops
def test_names_are_looked_up_at_every_attempt(
    loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    honestly = race.resolve

    def resolve(host: str, port: int, deadline: float) -> list[race.Address]:
        asked.append(host)
        return honestly(host, port, deadline)

    monkeypatch.setattr(race, "resolve", resolve)

    async def scenario() -> None:
        async with lane_host(tmp_path, silent) as host:
            for _ in range(3):
                close(await connect(way(host), {}))
        assert len(asked) == 3

    run_on(loop, scenario())


@loops
@pytest.mark.parametrize("tls", [False, True], ids=["http proxy", "https proxy"])
def test_54_it_goes_through_the_web_proxy_of_the_environment(
    loop: str, tmp_path: Path, tls: bool
) -> None:
    async def scenario() -> None:
        async with lane_host(tmp_path, silent) as host:
            basic = "Basic YWxpY2U6c2VjcmV0"
            with WebProxy(host.port, credentials=basic, tls=tls) as proxy:
                url = f"http{'s' * tls}://alice:secret@localhost:{proxy.port}"
                direct = way(host, connect_to=None)
                connected = await connect(direct, {"HTTPS_PROXY": url})
                assert connected.via == url.replace("alice:secret@", "")
                assert connected.spki == host.spki
                assert proxy.heads[0].startswith(f"CONNECT {LOGIN_HOST}:443 ")
                close(connected)
                await asyncio.sleep(0.05)

    run_on(loop, scenario())


@pytest.mark.parametrize(
    ("environ", "said", "wait_s"),
    [
        ({"HTTPS_PROXY": "http://127.0.0.1:{port}"}, "answered 407", None),
        ({"HTTPS_PROXY": "socks5://127.0.0.1:{port}"}, "only http:// and https://", None),
        ({"HTTPS_PROXY": "http://proxy.heim.invalid:1"}, "cannot resolve proxy.heim", None),
    ],
    ids=["407", "socks", "no such proxy"],
)
def test_54_a_web_proxy_that_does_not_let_us_through_is_named(
    tmp_path: Path, environ: dict[str, str], said: str, wait_s: float | None
) -> None:
    async def scenario() -> None:
        host = LaneHost(tmp_path, silent)
        with WebProxy(1, credentials="Basic x") as proxy:
            filled = {name: value.format(port=proxy.port) for name, value in environ.items()}
            ending = await failure(way(host, connect_to=None), filled)
        assert said in ending.text
        assert ending.kind is Kind.UNREACHABLE
        assert "prox" in ending.text.lower()

    run_on("asyncio", scenario())


def test_54_a_web_proxy_that_is_busy_says_for_how_long(tmp_path: Path) -> None:
    async def scenario() -> None:
        host = LaneHost(tmp_path, silent)
        answer = b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n"
        with WebProxy(1, answer=answer) as proxy:
            environ = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"}
            ending = await failure(way(host, connect_to=None), environ)
        assert ending.wait_s == 9.0

    run_on("asyncio", scenario())


def test_54_no_proxy_goes_straight(tmp_path: Path) -> None:
    environ = {"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "heim.invalid"}
    with pytest.raises(Complaint, match="cannot resolve auth"):
        open_tcp(Way("auth.heim.invalid"), environ)


@loops
def test_an_attempt_that_is_given_up_leaves_no_socket(
    loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[socket.socket] = []
    begun, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> socket.socket:
        begun.set()
        go_on.wait(5)
        opened.append(socket.socket())
        return opened[0]

    monkeypatch.setattr(race, "connect", slow)

    async def scenario() -> None:
        host = LaneHost(tmp_path, silent)
        task = asyncio.ensure_future(connect(way(host, connect_to=("127.0.0.1", 1)), {}))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        while not opened or opened[0].fileno() >= 0:
            await asyncio.sleep(0.01)

    run_on(loop, scenario())
