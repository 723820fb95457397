from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from heim_proxy.edge.dial import InProcessDialer
from heim_proxy.edge.webroot import Webroot, key_authorization

TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
THUMBPRINT = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
GOOD = f"{TOKEN}.{THUMBPRINT}".encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / ".well-known" / "acme-challenge"
    made.mkdir(parents=True)
    return made


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_key_authorization_is_answered(tmp_path: Path, folder: Path, end: bytes) -> None:
    (folder / TOKEN).write_bytes(GOOD + end)
    assert key_authorization(tmp_path, TOKEN) == GOOD + end


def _write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _link(path: Path) -> None:
    target = path.parent / "elsewhere"
    target.write_bytes(GOOD)
    path.symlink_to(target)


OTHERS: dict[str, Callable[[Path], object]] = {
    "another-token": _write(b"x" + GOOD[1:]),
    "short-thumbprint": _write(GOOD[:-1]),
    "long-thumbprint": _write(GOOD + b"x"),
    "more-after-it": _write(GOOD + b"\nroot:x:0:0"),
    "more-before-it": _write(b"\n" + GOOD),
    "secret": _write(b"-----BEGIN PRIVATE KEY-----"),
    "padding": _write(GOOD + b"\n" * 500),
    "empty": _write(b""),
    "link": _link,
    "directory": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "socketless-link": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_nothing_else_leaves_the_directory(
    tmp_path: Path, folder: Path, make: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    make(folder / TOKEN)
    assert key_authorization(tmp_path, TOKEN) is None
    (warning,) = caplog.records
    assert warning.msg == "acme.unreadable"
    assert vars(warning)["file"] == str(folder / TOKEN)


@pytest.mark.parametrize(
    "token",
    ["", "..", "../../../etc/passwd", "short", "a" * 129, f"{TOKEN}/", f"{TOKEN}\n", "é" * 20],
)
def test_what_is_no_token_is_not_looked_for(tmp_path: Path, folder: Path, token: str) -> None:
    assert key_authorization(tmp_path, token) is None


def test_what_is_not_there_is_nothing_to_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert key_authorization(tmp_path / "absent", TOKEN) is None
    assert not caplog.records


class Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    async def ask(self, head: str, end: bytes) -> bytes:
        self.data = b""
        self.transport.write(head.encode())  # type: ignore[attr-defined]
        async with asyncio.timeout(3):
            while not self.data.endswith(end):
                await asyncio.sleep(0.005)
        return self.data


async def connected(root: Path) -> Client:
    client = await InProcessDialer(Webroot(root)).dial(Client)
    assert isinstance(client, Client)
    return client


async def test_a_connection_answers_one_request(tmp_path: Path, folder: Path) -> None:
    (folder / TOKEN).write_bytes(GOOD)
    path = f"/.well-known/acme-challenge/{TOKEN}"
    client = await connected(tmp_path)
    found = await client.ask(f"GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n", GOOD)
    assert found.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 87\r\n" in found
    async with asyncio.timeout(3):
        await client.lost.wait()
    client = await connected(tmp_path)
    found = await client.ask(f"HEAD {path} HTTP/1.1\r\nHost: a.test\r\n\r\n", b"\r\n\r\n")
    assert b"Content-Length: 87\r\n" in found
    client = await connected(tmp_path)
    found = await client.ask(f"GET {path}x HTTP/1.1\r\nHost: a.test\r\n\r\n", b"\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 404 ")


async def test_a_head_without_end_is_not_kept(tmp_path: Path) -> None:
    client = await connected(tmp_path)
    client.transport.write(b"GET " + b"x" * 70_000)  # type: ignore[attr-defined]
    async with asyncio.timeout(3):
        await client.lost.wait()


async def test_a_client_that_left_is_not_answered(tmp_path: Path, folder: Path) -> None:
    (folder / TOKEN).write_bytes(GOOD)
    client = await connected(tmp_path)
    path = f"/.well-known/acme-challenge/{TOKEN}"
    client.transport.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())  # type: ignore[attr-defined]
    client.transport.abort()  # type: ignore[attr-defined]
    async with asyncio.timeout(3):
        await client.lost.wait()
