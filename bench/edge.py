"""Python's share alone: `python -m bench.edge [public|identity] [--profile]`.

Drives the edge of a whole proxy with transports that only count, so that what remains is the code
we can change: no kernel, no TLS, no event loop. One number, steady to a few percent even on a busy
machine; it tells whether a change helped, never how Heim compares.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

import uvloop

from bench.head import FIRST, Head
from bench.peers import heim
from bench.process import Cores
from bench.site import IDENTITY_HOST, PUBLIC_HOST, Site, body
from heim_proxy.app import Proxy
from heim_proxy.edge.connection import Front
from heim_proxy.edge.listener import Peer
from heim_proxy.edge.server import Edge
from heim_proxy.edge.upstream import Upstream
from heim_proxy.sources.file import FileSource

__all__ = ["main"]

_BATCH: Final = 1000
_BATCHES: Final = 15
_REPEATS: Final = 5

_ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\n"
    b"Server: nginx/1.22.1\r\n"
    b"Date: Fri, 20 Nov 2026 09:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\n"
    b"Content-Length: 1024\r\n"
    b"Last-Modified: Fri, 20 Nov 2026 08:00:00 GMT\r\n"
    b"Connection: keep-alive\r\n"
    b'ETag: "6740f0a0-400"\r\n'
    b"Accept-Ranges: bytes\r\n\r\n"
)


class _Tls:
    """What the edge asks of a TLS connection."""

    def __init__(self, name: str) -> None:
        self.heim_sni = name

    def version(self) -> str:
        return "TLSv1.3"


class _Sink:
    """A transport that swallows what is written and remembers the first and the last of it."""

    def __init__(self, tls: _Tls) -> None:
        self._tls = tls
        self.first = self.last = b""

    def write(self, data: bytes) -> None:
        self.first = self.first or data
        self.last = data

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...

    def get_extra_info(self, name: str) -> object:
        return self._tls if name == "ssl_object" else None


def main(argv: Sequence[str] | None = None) -> int:
    """Measure one kind of request; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.edge")
    parser.add_argument("kind", nargs="?", choices=("public", "identity"), default="identity")
    parser.add_argument("--profile", action="store_true", help="cProfile's table as well")
    args = parser.parse_args(argv)
    cores = Cores()
    os.sched_setaffinity(0, {cores.server})
    with tempfile.TemporaryDirectory(prefix="heim-bench-") as directory:
        site = Site.open(Path(directory), cores)
        try:
            prepared = heim.prepare(site)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_measure(prepared, args.kind, profile=args.profile))
        finally:
            site.upstream.stop()
    return 0


async def _measure(prepared: heim.Prepared, kind: str, *, profile: bool) -> None:
    proxy = Proxy(FileSource(prepared.config), access_log=prepared.access_log)
    try:
        await proxy.start()
        edge = proxy._edge
        assert edge is not None
        drive = _Drive(edge, prepared.cookie, IDENTITY_HOST if kind == "identity" else PUBLIC_HOST)
        # The session is in the store, not in memory: the first request has to load it.
        await drive.until_served()
        await drive.run()
        times = [await drive.run() for _ in range(_REPEATS)]
        print(f"edge, {kind}: {min(times):.1f} µs per request (runs: {_spread(times)})")
        if profile:
            profiler = cProfile.Profile()
            profiler.enable()
            await drive.run()
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(40)
    finally:
        await proxy.close()


class _Drive:
    """Requests of one connection, answered by one upstream connection."""

    def __init__(self, edge: Edge, cookie: str, host: str) -> None:
        self._edge = edge
        sink = self._client = _Sink(_Tls(host))
        self._front = Front(edge, Peer("127.0.0.1", 1, "127.0.0.1"), secure=True)
        self._front.connection_made(cast("asyncio.Transport", sink))
        self._upstream: Upstream | None = None
        self._head = Head.build("1k", host=host, scheme="https", cookie=cookie)
        self._number = FIRST
        self._answer = _ANSWER + body("1k")

    async def until_served(self) -> None:
        """Send the first request and give it an upstream as soon as it asks for one."""
        self._front.data_received(self._head.numbered(self._number))
        async with asyncio.timeout(5):
            # Until the connection is back in its pool, the answer complete.
            while not self._client.first or self._front.exchange is not None:
                await asyncio.sleep(0.01)
        assert self._client.first.startswith(b"HTTP/1.1 200 "), self._client.first
        pool = next(iter(self._edge._pools.values()))
        real = pool.take(self._edge.loop.time(), repeatable=True)
        assert real is not None
        real.close()
        upstream = self._upstream = Upstream(pool, self._edge.loop)
        upstream.connection_made(cast("asyncio.Transport", _Sink(_Tls(""))))
        pool.give(upstream, self._edge.loop.time())

    async def run(self) -> float:
        """CPU microseconds per request."""
        upstream, front, answer = self._upstream, self._front, self._answer
        assert upstream is not None
        spent = 0
        for _ in range(_BATCHES):
            heads = [self._head.numbered(self._number + index) for index in range(_BATCH)]
            self._number += _BATCH
            before = time.thread_time_ns()
            for head in heads:
                front.data_received(head)
                upstream.data_received(answer)
            spent += time.thread_time_ns() - before
            assert self._client.last.endswith(answer[-1024:])
            # The access log and the sweep get their turn, unmeasured.
            await asyncio.sleep(0)
        return spent / 1000 / _BATCH / _BATCHES


def _spread(times: Sequence[float]) -> str:
    return " ".join(f"{one:.1f}" for one in times)


if __name__ == "__main__":
    raise SystemExit(main())
