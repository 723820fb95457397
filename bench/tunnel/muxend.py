"""One end of a multiplexed session of heim_wire: `python -m bench.tunnel.muxend near|far ...`.

What an agent and a proxy will do with each other, without what they are: a local listener whose
connections become streams (`near`), and an acceptor that dials one target for each (`far`), over
one TLS connection with the upgrade, the frames and the shells of the product.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import ssl
import time
from collections.abc import Sequence
from typing import Any, Final, cast

import uvloop

from bench.tunnel.ground import HOST
from heim_runtime.tasks import spawn
from heim_wire.aio.channel import Channel
from heim_wire.aio.connection import Connection, serve, upgrade
from heim_wire.aio.relay import Relay
from heim_wire.errors import Code
from heim_wire.events import Event, Opened
from heim_wire.handshake import Upgrade, answer_upgrade
from heim_wire.mask import use_fast_mask
from heim_wire.session import Session
from heim_wire.settings import Settings
from heim_wire.stream import Stream

__all__ = ["main"]

_PATH: Final = "/.heim/tunnel/agent"
_UPGRADE_S: Final = 10.0
_BACKLOG: Final = 1024
_STREAMS: Final = 4096


class _Near:
    """Opens a stream for each local connection."""

    def __init__(self) -> None:
        self.ended = asyncio.get_running_loop().create_future()

    def event(self, channel: Channel, event: Event) -> None: ...

    def closed(self, channel: Channel, code: int, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(ConnectionError(f"the session ended: {code} {reason}"))


class _Far:
    """Dials the target for each stream."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target

    def event(self, channel: Channel, event: Event) -> None:
        if type(event) is Opened:
            relay = Relay(_over)
            relay.join(channel, event.stream)
            spawn("bench.dial", self._dial(channel, event.stream, relay))

    def closed(self, channel: Channel, code: int, reason: str) -> None: ...

    async def _dial(self, channel: Channel, stream: Stream, relay: Relay) -> None:
        try:
            async with asyncio.timeout(_UPGRADE_S):
                await asyncio.get_running_loop().create_connection(lambda: relay, *self._target)
        except OSError as error:
            stream.reset(Code.DIAL_REFUSED, str(error))
            channel.wake()


class _Accept(asyncio.Protocol):
    """Reads the upgrade's head, answers, and gives the transport away."""

    def __init__(self, handler: _Far) -> None:
        self._handler = handler
        self._head = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        key = {name.lower(): value for name, value in fields.items()}[b"sec-websocket-key"]
        self._transport.write(answer_upgrade(key.decode("ascii")))
        session = Session(
            initiator=False, now=time.monotonic(), settings=Settings(max_streams=_STREAMS)
        )
        serve(self._transport, session, self._handler, early=rest)


async def _near(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context(cafile=args.authority)
    _, connection = await loop.create_connection(
        Connection,
        args.server,
        args.server_port,
        ssl=context,
        server_hostname=HOST,
    )
    session = Session(initiator=True, now=time.monotonic())
    handler = _Near()
    channel = await upgrade(
        connection,
        Upgrade(HOST, token="bench", path=_PATH),
        session,
        handler,
        timeout_s=_UPGRADE_S,
    )

    def accept() -> Relay:
        relay = Relay(_over)
        relay.join(channel, session.open({"service": "target"}))
        channel.wake()
        return relay

    server = await loop.create_server(accept, "127.0.0.1", args.port, backlog=_BACKLOG)
    async with server:
        await handler.ended


async def _far(args: argparse.Namespace) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(args.certificate, args.key)
    handler = _Far(("127.0.0.1", args.target_port))
    server = await asyncio.get_running_loop().create_server(
        lambda: _Accept(handler), args.server, args.server_port, ssl=context, backlog=_BACKLOG
    )
    async with server:
        await server.serve_forever()


def _over(relay: Relay, code: int, reason: str) -> None: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one end until killed, or until the session is over."""
    args = _arguments(argv)
    use_fast_mask()
    gc.collect()
    gc.freeze()
    work: Any = _near(args) if args.side == "near" else _far(args)
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with contextlib.suppress(KeyboardInterrupt), runner:
        runner.run(work)
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.tunnel.muxend")
    sides = parser.add_subparsers(dest="side", required=True)
    near = sides.add_parser("near")
    near.add_argument("--port", type=int, required=True, help="of the local listener")
    near.add_argument("--authority", required=True)
    far = sides.add_parser("far")
    far.add_argument("--certificate", required=True)
    far.add_argument("--key", required=True)
    far.add_argument("--target-port", type=int, required=True)
    for side in (near, far):
        side.add_argument("--server", required=True)
        side.add_argument("--server-port", type=int, required=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
