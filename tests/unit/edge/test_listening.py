from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, cast

import pytest

from heim_config.listeners import Listeners
from heim_proxy.edge.admission import Admission
from heim_proxy.edge.listener import ListenError, Peer
from heim_proxy.edge.listening import Listening
from heim_proxy.edge.server import Edge
from heim_proxy.observe.metrics import Metrics
from tests.fakes.waiting import until

TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


class Silent(asyncio.Protocol):
    def __init__(self, edge: object, peer: Peer, *, secure: bool) -> None:
        self.peer = peer
        self.secure = secure

    def connection_lost(self, exc: Exception | None) -> None:
        self.peer.closed()


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heim_proxy.edge.listening.Front", Silent)


def opened(https: str, http: str | None) -> Listening:
    config = Listeners.model_validate(
        {"https": {"address": https}, "http": None if http is None else {"address": http}}
    )
    listening = Listening()
    try:
        listening.open(config, cast(Edge, None), Admission(), TLS)
    except ListenError:
        listening.close()
        raise
    return listening


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return f"127.0.0.1:{sock.getsockname()[1]}"


async def test_both_are_bound_https_first() -> None:
    assert not Listening()
    https, http = free_address(), free_address()
    listening = opened(https, http)
    try:
        assert listening
        assert listening.addresses == [https, http]
    finally:
        listening.close()


async def test_connections_are_counted_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    readings: dict[str, Any] = {}
    metrics = Metrics(version="0")
    monkeypatch.setattr(metrics, "expose", readings.__setitem__)
    listening = opened(free_address(), free_address())
    listening.expose(metrics)
    host, _, port = listening.addresses[1].rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    try:
        await until(lambda: readings["heim_connections"]() == {"https": 0, "http": 1})
        writer.close()
        await until(lambda: readings["heim_connections"]() == {"https": 0, "http": 0})
        assert readings["heim_connections_accepted_total"]() == {"https": 0, "http": 1}
    finally:
        listening.close()


async def test_without_plain_http_there_is_one() -> None:
    https = free_address()
    listening = opened(https, None)
    assert listening.addresses == [https]
    listening.close()


async def test_an_address_that_is_taken_leaves_none_bound() -> None:
    https = free_address()
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ListenError):
        opened(https, f"127.0.0.1:{other.getsockname()[1]}")
    listening = opened(https, None)
    listening.close()
