"""Boxes on the way: one opens TLS and cuts what passes anew, one stops carrying anything.

The first parses frames with code of its own, so that a mistake of `heim_wire` is not made twice.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

from tests.fakes.heim import DOMAIN, authority, trusting_context

__all__ = ["CUTS", "Cut", "Way", "middlebox", "stuck"]

BINARY: Final = 2
CONTINUATION: Final = 0
PING: Final = 9


class Cut:
    """How one direction is cut; the base class changes nothing.

    Attributes:
        record: The largest write, which is a TLS record of its own.
    """

    record = 16_384

    def __init__(self, source: random.Random) -> None:
        self.source = source

    def frames(self, payloads: list[bytes]) -> Iterator[tuple[bool, int, bytes]]:
        """(fin, opcode, payload) of what is sent for the payloads of whole binary frames."""
        for payload in payloads:
            yield True, BINARY, payload


class Fragments(Cut):
    """Every frame in many, some empty, with pings of the box in between."""

    record = 5000

    def frames(self, payloads: list[bytes]) -> Iterator[tuple[bool, int, bytes]]:
        for payload in payloads:
            opcode, at = BINARY, 0
            while at < len(payload):
                size = self.source.choice((0, 1, 7, 8, 9, self.source.randint(1, 9000)))
                yield False, opcode, payload[at : at + size]
                opcode = CONTINUATION
                at += size
                if not self.source.randrange(20):
                    yield True, PING, self.source.randbytes(self.source.randrange(126))
            yield True, opcode, b""


class Endless(Cut):
    """All that is ever sent is one message: its last frame never comes."""

    def __init__(self, source: random.Random) -> None:
        super().__init__(source)
        self._opcode = BINARY

    def frames(self, payloads: list[bytes]) -> Iterator[tuple[bool, int, bytes]]:
        for payload in payloads:
            yield False, self._opcode, payload
            self._opcode = CONTINUATION


class Coalesced(Cut):
    """As many frames as have come become one, however large."""

    def frames(self, payloads: list[bytes]) -> Iterator[tuple[bool, int, bytes]]:
        yield True, BINARY, b"".join(payloads)


class Dribble(Cut):
    """Each byte of everything, heads of frames included, in a TLS record of its own."""

    record = 1


CUTS: dict[str, type[Cut]] = {
    "fragments": Fragments,
    "endless": Endless,
    "coalesced": Coalesced,
    "dribble": Dribble,
}


@asynccontextmanager
async def middlebox(behind: int, cut: type[Cut], *, seed: int = 7) -> AsyncIterator[int]:
    """A box in front of a proxy on loopback; gives its port. The tests' authority signs for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(f"*.{DOMAIN}").configure_cert(context)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        source = random.Random(seed)
        far_reader, far_writer = await asyncio.open_connection(
            "127.0.0.1", behind, ssl=trusting_context(), server_hostname=f"box.{DOMAIN}"
        )
        try:
            # The request, and whatever the answer is, pass as they are.
            far_writer.write(await reader.readuntil(b"\r\n\r\n"))
            writer.write(await far_reader.readuntil(b"\r\n\r\n"))
            await asyncio.gather(
                _pass(reader, far_writer, cut(source), masked=True),
                _pass(far_reader, writer, cut(source), masked=False),
            )
        except (ConnectionError, ssl.SSLError, EOFError, asyncio.CancelledError):
            return
        finally:
            far_writer.transport.abort()
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: Cut, *, masked: bool
) -> None:
    buffer = bytearray()
    while data := await reader.read(65_536):
        buffer += data
        await _write(writer, _recut(buffer, cut, masked=masked), cut)
    writer.close()


def _recut(buffer: bytearray, cut: Cut, *, masked: bool) -> bytes:
    """Take every whole frame off the buffer; what is sent instead."""
    out = bytearray()
    payloads: list[bytes] = []
    for opcode, payload in [*_take(buffer), (None, b"")]:
        if opcode in (BINARY, CONTINUATION):
            payloads.append(payload)
            continue
        # A close must not overtake what was said before it.
        for fin, kind, piece in cut.frames(payloads) if payloads else ():
            out += _frame(fin, kind, piece, masked=masked)
        payloads = []
        if opcode is not None:
            out += _frame(True, opcode, payload, masked=masked)
    return bytes(out)


async def _write(writer: asyncio.StreamWriter, data: bytes, cut: Cut) -> None:
    at = 0
    while at < len(data):
        size = cut.source.randint(1, cut.record)
        writer.write(data[at : at + size])
        at += size
        await writer.drain()


def _take(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """Take every whole frame off the buffer: its opcode and unmasked payload."""
    while len(buffer) >= 2:
        first, length, at = buffer[0], buffer[1] & 0x7F, 2
        assert not first & 0x70, "a reserved bit"
        if length >= 126:
            size, form = (2, ">H") if length == 126 else (8, ">Q")
            if len(buffer) < at + size:
                return
            (length,) = struct.unpack_from(form, buffer, at)
            at += size
        key = b""
        if buffer[1] & 0x80:
            key = bytes(buffer[at : at + 4])
            at += 4
        if len(buffer) < at + length:
            return
        payload = bytes(buffer[at : at + length])
        del buffer[: at + length]
        yield first & 0x0F, _masked(payload, key) if key else payload


def _frame(fin: bool, opcode: int, payload: bytes, *, masked: bool) -> bytes:
    size, mask = len(payload), 0x80 if masked else 0
    head = bytes((opcode | (0x80 if fin else 0),))
    if size < 126:
        head += bytes((mask | size,))
    elif size < 65_536:
        head += struct.pack(">BH", mask | 126, size)
    else:
        head += struct.pack(">BQ", mask | 127, size)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + _masked(payload, key)


def _masked(data: bytes, key: bytes) -> bytes:
    size = len(data)
    wide = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(wide, "big")).to_bytes(size, "big")


class Way:
    """A TCP relay that can stop reading, both ways, without telling anybody."""

    def __init__(self) -> None:
        self.port = 0
        self._going = asyncio.Event()
        self._going.set()

    def freeze(self) -> None:
        """From now on nothing passes; the connections stay."""
        self._going.clear()

    def thaw(self) -> None:
        """From now on everything passes again, what was held up first."""
        self._going.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._going.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def stuck(behind: int) -> AsyncIterator[Way]:
    """A way to a port on loopback, for the length of the block."""
    way = Way()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", behind)
        try:
            await asyncio.gather(way.carry(reader, far_writer), way.carry(far_reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            far_writer.transport.abort()
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    way.port = server.sockets[0].getsockname()[1]
    try:
        yield way
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
