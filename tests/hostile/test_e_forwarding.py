"""E: who a request came from is what the connection proves, unless a trusted proxy says it."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.heim import Wire, authority
from tests.hostile.world import ALICE, LOGIN_HOST, World, host, within

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRUSTED = "127.0.0.1"
STRANGER = "127.0.0.9"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_behind(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A proxy that believes 127.0.0.1 and 10/8 about X-Forwarded-For."""
    directory: Path = tmp_path_factory.mktemp("behind")
    world = await World.start(directory, trusted_proxies=[f"{TRUSTED}/32", "10.0.0.0/8"])
    yield world
    await world.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def behind(shared_behind: World) -> AsyncIterator[World]:
    await shared_behind.fresh()
    yield shared_behind
    await shared_behind.alive()


async def ask(
    world: World, *lines: str, source: str = TRUSTED, at: str = "open", port: int | None = None
) -> Wire:
    """A request on the plain listener from an address of ours."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port or world.heim.http_port, local_addr=(source, 0)
    )
    wire = Wire(reader, writer)
    world.heim._wires.append(wire)
    head = "".join(f"{line}\r\n" for line in lines)
    wire.send(f"GET / HTTP/1.1\r\nHost: {host(at)}\r\n{head}\r\n".encode("latin-1"))
    return wire


DROPPED = (
    "Forwarded: for=10.0.0.1",
    "X-Real-IP: 10.0.0.1",
    "CF-Connecting-IP: 10.0.0.1",
    "CF-Connecting-IPv6: ::1",
    "True-Client-IP: 10.0.0.1",
    "X-Client-IP: 10.0.0.1",
    "X-Cluster-Client-IP: 10.0.0.1",
    "Client-IP: 10.0.0.1",
    "X-Forwarded: for=10.0.0.1",
    "Forwarded-For: 10.0.0.1",
    "X-Originating-IP: 10.0.0.1",
    "WL-Proxy-Client-IP: 10.0.0.1",
    "X-Envoy-External-Address: 10.0.0.1",
    "X-Original-URL: /10.0.0.1",
    "X-Original-URI: /10.0.0.1",
    "X-Rewrite-URL: /10.0.0.1",
    "X-Forwarded-Uri: /10.0.0.1",
    "X-Forwarded-Path: /10.0.0.1",
    "X-Forwarded-Prefix: /10.0.0.1",
    "X-Forwarded-Port: 1000",
    "X-Forwarded-Host: evil.test",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Scheme: https",
    "X-Forwarded-Method: DELETE",
    "X-Forwarded-Ssl: on",
    "X-Forwarded-Server: evil.test",
    "X-Forwarded-Anything: 10.0.0.1",
    "X-Forwarded_For: 10.0.0.1",
    "X_Forwarded_For: 10.0.0.1",
    "X.Forwarded.For: 10.0.0.1",
    "Front-End-Https: on",
    "X-Url-Scheme: https",
    "X-Host: evil.test",
)


async def test_E1_E2_the_upstream_hears_the_peer_and_nobody_else(world: World) -> None:
    for value in ("10.0.0.1", "a", "", "10.0.0.1, 127.0.0.1", "::1"):
        world.reset()
        for source in (TRUSTED, STRANGER):
            wire = await ask(world, f"X-Forwarded-For: {value}", source=source)
            assert (await within(wire.answer())).status == 200
            assert world.sent[-1].all("x-forwarded-for") == [source]
            wire.close()


async def test_E3_no_other_header_that_tells_of_an_origin_passes(world: World) -> None:
    wire = await ask(world, *DROPPED)
    await within(wire.answer())
    seen = world.only()
    assert {name.lower() for name, _ in seen.fields} == {
        "host",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-request-id",
    }
    assert b"10.0.0.1" not in seen.head
    assert b"evil" not in seen.head


async def test_E3_nor_from_a_trusted_proxy(behind: World) -> None:
    wire = await ask(behind, *DROPPED, "X-Forwarded-For: 192.0.2.1")
    await within(wire.answer())
    seen = behind.only()
    assert b"10.0.0.1" not in seen.head
    assert b"evil" not in seen.head
    assert seen.all("x-forwarded-for") == ["192.0.2.1"]


async def test_E4_a_claim_of_https_does_not_make_it_https(world: World, behind: World) -> None:
    for one in (world, behind):
        wire = await ask(one, "X-Forwarded-Proto: https", "X-Forwarded-Ssl: on", at="app")
        found = await within(wire.answer())
        assert found.status == 308
        assert found.get("location") == f"https://{host('app')}/"
        assert found.all("set-cookie") == []
        assert not one.sent
        wire = await ask(one, "X-Forwarded-Proto: https")
        await within(wire.answer())
        assert one.only().all("x-forwarded-proto") == ["http"]


async def test_E5_a_forwarded_host_is_believed_nowhere(world: World, behind: World) -> None:
    for one in (world, behind):
        cookie = await one.cookie(ALICE)
        await one.get(
            "/", cookie=cookie, headers=(("X-Forwarded-Host", "evil.test"), ("X-Host", "evil"))
        )
        seen = one.only()
        assert seen.all("x-forwarded-host") == [host("app")]
        assert b"evil" not in seen.head
        found = await one.heim.request(
            "/.heim/me", host=LOGIN_HOST, headers=(("X-Forwarded-Host", "evil.test"),)
        )
        assert b"evil" not in found.raw + found.body
        log = one.heim.log
        await one.heim.until(lambda log=log: log.exists() and log.read_bytes().count(b"\n") >= 2)
        assert b"evil" not in log.read_bytes()


@pytest.mark.parametrize(
    ("value", "client"),
    [
        pytest.param("192.0.2.1", "192.0.2.1", id="E6"),
        pytest.param("198.51.100.1, 192.0.2.1", "192.0.2.1", id="E6-rightmost"),
        pytest.param("192.0.2.1, 10.1.2.3", "192.0.2.1", id="E6-through-trusted"),
        pytest.param("192.0.2.1, 10.1.2.3, 10.9.9.9", "192.0.2.1", id="E6-two-trusted"),
        pytest.param("10.1.2.3", "10.1.2.3", id="E6-only-trusted"),
        pytest.param("10.0.0.1, evil, 10.0.0.2", "10.0.0.2", id="E2-garbage-in-the-middle"),
        pytest.param("evil", TRUSTED, id="E2-garbage"),
        pytest.param("192.0.2.1,", TRUSTED, id="E2-empty-last"),
        pytest.param("", TRUSTED, id="E2-empty"),
        pytest.param("192.0.2.1:1234", "192.0.2.1", id="E6-port"),
        pytest.param("[2001:db8::1]:80", "2001:db8::1", id="E6-v6-port"),
        pytest.param("2001:db8::1", "2001:db8::1", id="E6-v6"),
        pytest.param("::ffff:192.0.2.1", "192.0.2.1", id="E11-mapped"),
        pytest.param("192.0.2.1, ::ffff:10.0.0.1", "192.0.2.1", id="E11-mapped-trusted"),
        pytest.param("fe80::1%eth0", "fe80::1", id="E6-zone"),
        pytest.param("127.0.0.1, 192.0.2.1", "192.0.2.1", id="E6-claims-trusted"),
        pytest.param(", ".join(["198.51.100.1"] * 1000), "198.51.100.1", id="E6-1000"),
        pytest.param(", ".join(["1.1.1.1"] + ["10.0.0.1"] * 1000), "10.0.0.1", id="E6-bounded"),
        pytest.param("unknown, _hidden", TRUSTED, id="E2-obfuscated"),
        pytest.param("192.0.2.1\t", "192.0.2.1", id="E6-tab"),
        pytest.param("0192.0.2.1", TRUSTED, id="E2-octal"),
        pytest.param("3221225985", TRUSTED, id="E2-integer"),
    ],
)
async def test_a_trusted_proxy_names_the_client(behind: World, value: str, client: str) -> None:
    wire = await ask(behind, f"X-Forwarded-For: {value}")
    found = await within(wire.answer())
    assert found.status == 200
    assert behind.only().all("x-forwarded-for") == [client]


async def test_E1_a_stranger_is_not_believed_by_a_proxy_that_trusts_others(behind: World) -> None:
    wire = await ask(
        behind, "X-Forwarded-For: 192.0.2.1", "X-Request-Id: theirs12", source=STRANGER
    )
    await within(wire.answer())
    assert behind.only().all("x-forwarded-for") == [STRANGER]
    assert behind.only().all("x-request-id") != ["theirs12"]


async def test_E6_each_request_of_a_connection_has_its_own_client(behind: World) -> None:
    wire = await ask(behind, "X-Forwarded-For: 192.0.2.1")
    await within(wire.answer())
    for lines in ("X-Forwarded-For: 192.0.2.2\r\n", "", "X-Forwarded-For: x\r\n"):
        wire.send(f"GET / HTTP/1.1\r\nHost: {host('open')}\r\n{lines}\r\n".encode())
        await within(wire.answer())
    clients = [received.get("x-forwarded-for") for received in behind.sent]
    assert clients == ["192.0.2.1", "192.0.2.2", TRUSTED, TRUSTED]


async def test_E6_several_lines_are_one_list(behind: World) -> None:
    wire = await ask(behind, "X-Forwarded-For: 192.0.2.1", "x-forwarded-for: 10.0.0.1")
    await within(wire.answer())
    assert behind.only().all("x-forwarded-for") == ["192.0.2.1"]


async def test_a_trusted_request_id_is_taken_only_when_it_can_be_logged(behind: World) -> None:
    for value, taken in (
        ("abcdef12-3", True),
        ("a", False),
        ('x"}\\n{"a":1', False),
        ("é" * 9, False),
    ):
        behind.reset()
        wire = await ask(behind, f"X-Request-Id: {value}")
        await within(wire.answer())
        assert (behind.only().get("x-request-id") == value) is taken


# -- PROXY protocol -------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_balanced(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A proxy whose https listener expects a PROXY header from 127.0.0.1 and from nobody else."""
    directory: Path = tmp_path_factory.mktemp("balanced")
    world = await World.start(
        directory,
        listeners={
            "https": {
                "address": "127.0.0.1:0",
                "proxy_protocol": {"from": [f"{TRUSTED}/32"]},
            },
            "http": {"address": "127.0.0.1:0"},
            "admin": {"address": f"unix:{directory / 'admin.sock'}"},
        },
    )
    yield world
    await world.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def balanced(shared_balanced: World) -> AsyncIterator[World]:
    await shared_balanced.fresh()
    yield shared_balanced
    await shared_balanced.alive()


def version2(address: str) -> bytes:
    payload = socket.inet_aton(address) + socket.inet_aton("127.0.0.1") + struct.pack("!HH", 1, 2)
    return b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack("!H", len(payload)) + payload


async def introduced(world: World, header: bytes, *, source: str = TRUSTED) -> bytes | None:
    """The X-Forwarded-For that an upstream was told, or None when the connection was closed."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind((source, 0))
    context = _client_context()
    try:
        await loop.sock_connect(sock, ("127.0.0.1", world.heim.https_port))
        if header:
            await loop.sock_sendall(sock, header)
        async with asyncio.timeout(4):
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=context, server_hostname=host("open")
            )
            writer.write(f"GET / HTTP/1.1\r\nHost: {host('open')}\r\n\r\n".encode())
            line = await reader.readline()
            writer.transport.abort()
    except OSError:
        sock.close()
        return None
    if not line:
        return None
    assert line.startswith(b"HTTP/1.1 200 ")
    return (world.sent[-1].get("x-forwarded-for") or "").encode()


def _client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


@pytest.mark.parametrize(
    ("header", "client"),
    [
        pytest.param(b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n", b"192.0.2.7", id="E8-v1"),
        pytest.param(version2("192.0.2.8"), b"192.0.2.8", id="E8-v2"),
        pytest.param(b"PROXY TCP6 ::ffff:192.0.2.9 ::1 1 2\r\n", b"192.0.2.9", id="E11-v1-mapped"),
    ],
)
async def test_a_balancer_that_must_introduce_clients_is_believed(
    balanced: World, header: bytes, client: bytes
) -> None:
    assert await introduced(balanced, header) == client


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"", id="E8-missing"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="E8-http"),
        pytest.param(b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\n", id="E8-garbage"),
        pytest.param(b"PROXY TCP4 192.0.2.777 127.0.0.1 1 2\r\n", id="E8-address"),
        pytest.param(b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\n", id="E8-bare-lf"),
        pytest.param(b"proxy tcp4 192.0.2.7 127.0.0.1 1 2\r\n", id="E8-case"),
        pytest.param(version2("192.0.2.7")[:12] + b"\x31" + version2("1.2.3.4")[13:], id="E8-v3"),
        pytest.param(version2("192.0.2.7") * 2, id="E8-twice"),
        pytest.param(b"PROXY TCP4 " + b"1" * 200, id="E8-endless"),
    ],
)
async def test_a_bad_introduction_closes_the_connection(balanced: World, header: bytes) -> None:
    assert await introduced(balanced, header) is None
    balanced.untouched()


async def test_E8_a_stranger_who_introduces_himself_is_closed(balanced: World) -> None:
    header = b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n"
    assert await introduced(balanced, header, source=STRANGER) is None
    balanced.untouched()
    assert await introduced(balanced, b"", source=STRANGER) == STRANGER.encode()


async def test_E8_the_plain_listener_reads_no_introduction(balanced: World) -> None:
    wire = await ask(balanced, "X-Test: 1")
    await within(wire.answer())
    assert balanced.only().all("x-forwarded-for") == [TRUSTED]
    reader, writer = await asyncio.open_connection("127.0.0.1", balanced.heim.http_port)
    wire = Wire(reader, writer)
    wire.send(b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\n\r\n")
    assert (await within(wire.answer())).status == 400
    wire.close()


async def test_E1_the_log_names_the_peer(world: World) -> None:
    wire = await ask(world, "X-Forwarded-For: 10.0.0.66", source=STRANGER)
    await within(wire.answer())
    await world.heim.until(lambda: STRANGER.encode() in world.heim.log.read_bytes())
    lines = [json.loads(line) for line in world.heim.log.read_bytes().splitlines()]
    assert all(line["client"] != "10.0.0.66" for line in lines)
