from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from heim_proxy.edge.dial import DialError, EndpointDialer, InProcessDialer, dial_reason
from heim_proxy.routing import Endpoint, UpstreamTls
from heim_proxy.snapshot import upstream_context
from tests.fakes.loops import LOOPS, run_on

CA = trustme.CA()
OTHER = trustme.CA()
NAME = "inner.example.test"

pytestmark = pytest.mark.parametrize("loop_name", LOOPS)


class Hello(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if not self.told.done():
            self.told.set_result(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.told.done():
            self.told.set_result(b"")


class Greeter(asyncio.Protocol):
    """A server that says hello."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(b"hello")  # type: ignore[attr-defined]


def server_context(*names: str, ca: trustme.CA = CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return context


@asynccontextmanager
async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Greeter, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def greeted(endpoint: Endpoint, context: ssl.SSLContext | None = None) -> bytes:
    protocol = await EndpointDialer(endpoint, context).dial(Hello)
    assert isinstance(protocol, Hello)
    try:
        return await protocol.told
    finally:
        assert protocol.transport is not None
        protocol.transport.abort()


def trusting(directory: Path, **keys: str | bool) -> UpstreamTls:
    path = directory / "ca.pem"
    CA.cert_pem.write_to_path(path)
    return UpstreamTls(ca_file=None if keys.get("insecure") else str(path), **keys)  # type: ignore[arg-type]


def broken_tls(reason: str | None) -> ssl.SSLError:
    """An error as OpenSSL's module makes it."""
    error = ssl.SSLError(1, "[SSL] 10.1.2.3")
    error.reason = reason  # type: ignore[assignment]
    return error


def failing(loop_name: str, endpoint: Endpoint, context: ssl.SSLContext | None = None) -> str:
    """Why a dial fails."""

    async def scenario() -> str:
        with pytest.raises(DialError) as caught:
            await greeted(endpoint, context)
        return str(caught.value)

    return run_on(loop_name, scenario())


def test_a_tcp_endpoint_is_reached(loop_name: str) -> None:
    async def scenario() -> bytes:
        async with serving() as port:
            return await greeted(Endpoint("http", "127.0.0.1", port))

    assert run_on(loop_name, scenario()) == b"hello"


def test_a_unix_endpoint_is_reached(loop_name: str, tmp_path: Path) -> None:
    async def scenario() -> bytes:
        path = str(tmp_path / "app.sock")
        server = await asyncio.get_running_loop().create_unix_server(Greeter, path)
        try:
            return await greeted(Endpoint("unix", path, 0))
        finally:
            server.close()

    assert run_on(loop_name, scenario()) == b"hello"


@pytest.mark.parametrize(
    ("names", "asked"),
    [((NAME,), NAME), (("127.0.0.1",), None)],
    ids=["by server_name", "by its address"],
)
def test_a_tls_endpoint_is_reached_when_its_certificate_fits(
    loop_name: str, tmp_path: Path, names: tuple[str, ...], asked: str | None
) -> None:
    async def scenario() -> bytes:
        async with serving(server_context(*names)) as port:
            tls = trusting(tmp_path, **({"server_name": asked} if asked else {}))
            endpoint = Endpoint("https", "127.0.0.1", port, tls)
            return await greeted(endpoint, upstream_context(tls))

    assert run_on(loop_name, scenario()) == b"hello"


def test_insecure_takes_any_certificate(loop_name: str, tmp_path: Path) -> None:
    async def scenario() -> bytes:
        async with serving(server_context("whatever.test", ca=OTHER)) as port:
            tls = UpstreamTls(insecure=True)
            return await greeted(Endpoint("https", "127.0.0.1", port, tls), upstream_context(tls))

    assert run_on(loop_name, scenario()) == b"hello"


@pytest.mark.parametrize(
    ("names", "ca", "reason"),
    [
        ((NAME,), OTHER, "its certificate is not trusted"),
        (("other.example.test",), CA, "its certificate is for another name"),
    ],
    ids=["other authority", "other name"],
)
def test_a_certificate_that_does_not_fit_is_said_without_inner_names(
    loop_name: str, tmp_path: Path, names: tuple[str, ...], ca: trustme.CA, reason: str
) -> None:
    async def scenario() -> str:
        async with serving(server_context(*names, ca=ca)) as port:
            tls = trusting(tmp_path, server_name=NAME)
            with pytest.raises(DialError) as caught:
                await greeted(Endpoint("https", "127.0.0.1", port, tls), upstream_context(tls))
            return str(caught.value)

    told = run_on(loop_name, scenario())
    assert told.startswith(reason)
    assert NAME not in told


def test_a_plain_server_is_no_tls_server(loop_name: str, tmp_path: Path) -> None:
    async def scenario() -> str:
        async with serving() as port:
            tls = trusting(tmp_path)
            with pytest.raises(DialError) as caught:
                await greeted(Endpoint("https", "127.0.0.1", port, tls), upstream_context(tls))
            return str(caught.value)

    assert run_on(loop_name, scenario()).startswith("TLS failed")


def test_a_port_that_nobody_listens_on_refuses(loop_name: str) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        endpoint = Endpoint("http", "127.0.0.1", held.getsockname()[1])
        assert failing(loop_name, endpoint) == "connection refused"


def test_a_name_of_several_addresses_that_all_refuse_refuses(loop_name: str) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        endpoint = Endpoint("http", "localhost", held.getsockname()[1])
        assert failing(loop_name, endpoint) in ("connection refused", "connection failed")


def test_a_name_that_does_not_exist_does_not_resolve(loop_name: str) -> None:
    assert (
        failing(loop_name, Endpoint("http", "nowhere.invalid", 80)) == "its name does not resolve"
    )


def test_a_socket_that_is_not_there_is_said(loop_name: str, tmp_path: Path) -> None:
    endpoint = Endpoint("unix", str(tmp_path / "none.sock"), 0)
    assert failing(loop_name, endpoint) == "no such file or directory"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "x"), "connection refused"),
        (
            OSError(errno.EHOSTUNREACH, "Connect call failed ('10.1.2.3', 80)"),
            os.strerror(errno.EHOSTUNREACH).lower(),
        ),
        (OSError("Multiple exceptions: [Errno 111] ('10.1.2.3', 80)"), "connection failed"),
        (socket.gaierror(-2, "Name or service not known"), "its name does not resolve"),
        (broken_tls("WRONG_VERSION_NUMBER"), "TLS failed (WRONG_VERSION_NUMBER)"),
        (broken_tls(None), "TLS failed (handshake error)"),
    ],
    ids=["refused", "unreachable", "several", "no name", "tls", "tls without a reason"],
)
def test_a_reason_never_holds_an_address(loop_name: str, error: OSError, reason: str) -> None:
    assert dial_reason(error) == reason


def test_a_server_of_this_process_is_reached_without_a_port(loop_name: str) -> None:
    async def scenario() -> bytes:
        protocol = await InProcessDialer(Greeter).dial(Hello)
        assert isinstance(protocol, Hello)
        try:
            return await protocol.told
        finally:
            assert protocol.transport is not None
            protocol.transport.abort()
            await asyncio.sleep(0)

    assert run_on(loop_name, scenario()) == b"hello"


def test_an_in_process_connection_ends_at_both_ends(loop_name: str) -> None:
    async def scenario() -> bytes:
        server = Hello()
        client = await InProcessDialer(lambda: server).dial(Hello)
        assert isinstance(client, Hello)
        assert client.transport is not None
        client.transport.close()
        return await server.told

    assert run_on(loop_name, scenario()) == b""


class TestGuarded:
    """Names that somebody else than the operator chose, wherever they lead at the moment."""

    @staticmethod
    def leading_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
        async def resolved(host: str, port: int) -> list[tuple[object, ...]]:
            assert host == "rebound.example.test"
            families = [socket.AF_INET6 if ":" in one else socket.AF_INET for one in addresses]
            return [
                (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
                for family, address in zip(families, addresses, strict=True)
            ]

        monkeypatch.setattr("heim_proxy.edge.dial._resolved", resolved)

    @pytest.mark.parametrize(
        "address",
        ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "::1", "fe80::1", "::", "ff02::1",
         "fd00:ec2::254"],
    )  # fmt: skip
    def test_a_name_that_leads_inside_is_not_dialled(
        self, loop_name: str, monkeypatch: pytest.MonkeyPatch, address: str
    ) -> None:
        self.leading_to(monkeypatch, address)
        endpoint = Endpoint("http", "rebound.example.test", 80, guarded=True)
        why = failing(loop_name, endpoint)
        assert why.startswith("its name leads to this machine")
        assert address not in why

    def test_the_resolver_is_asked(self, loop_name: str) -> None:
        why = failing(loop_name, Endpoint("http", "localhost", 80, guarded=True))
        assert why.startswith("its name leads to this machine")

    def test_an_address_of_our_own_is_not_spoken_to(
        self, loop_name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("heim_proxy.edge.dial.usable_address", lambda text: True)
        self.leading_to(monkeypatch, "127.0.0.1")

        async def scenario() -> str:
            async with serving() as port:
                endpoint = Endpoint("http", "rebound.example.test", port, guarded=True)
                with pytest.raises(DialError) as caught:
                    await greeted(endpoint)
            return str(caught.value)

        assert run_on(loop_name, scenario()).startswith("its name leads to this machine")

    @pytest.mark.parametrize("secure", [False, True])
    def test_what_is_allowed_of_several_is_reached(
        self, loop_name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secure: bool
    ) -> None:
        """127.0.0.2 stands for another machine: what we connect from is 127.0.0.1."""
        monkeypatch.setattr("heim_proxy.edge.dial.usable_address", lambda text: text[0] == "1")
        # Of the first nobody answers.
        self.leading_to(monkeypatch, "::1", "127.0.0.3", "127.0.0.2")
        tls = trusting(tmp_path) if secure else None
        context = server_context("rebound.example.test") if secure else None

        async def scenario() -> bytes:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(Greeter, "127.0.0.2", 0, ssl=context)
            port = server.sockets[0].getsockname()[1]
            endpoint = Endpoint("https", "rebound.example.test", port, tls, guarded=True)
            try:
                return await greeted(endpoint, upstream_context(tls) if secure else None)
            finally:
                server.close()

        assert run_on(loop_name, scenario()) == b"hello"

    def test_nobody_there_is_said_as_ever(
        self, loop_name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("heim_proxy.edge.dial.usable_address", lambda text: True)
        self.leading_to(monkeypatch, "127.0.0.9")
        endpoint = Endpoint("http", "rebound.example.test", 9, guarded=True)
        assert failing(loop_name, endpoint) == "connection refused"

    def test_addresses_were_judged_where_they_were_written(self, loop_name: str) -> None:
        async def scenario() -> bytes:
            async with serving() as port:
                return await greeted(Endpoint("http", "127.0.0.1", port, guarded=True))

        assert run_on(loop_name, scenario()) == b"hello"

    def test_the_operators_own_names_lead_where_they_like(self, loop_name: str) -> None:
        async def scenario() -> bytes:
            async with serving() as port:
                return await greeted(Endpoint("http", "localhost", port))

        assert run_on(loop_name, scenario()) == b"hello"
