"""Python's share alone: `python -m bench.edge [public|identity] [--profile]`.

Drives the edge of a whole proxy with transports that only count, so that what remains is the code
we can change: no kernel, no TLS, no event loop. It tells whether a change helped, never how Heim
compares. Work on the core's sibling moves it by 15 %: compare the lowest of several runs.
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
from bench.wrk import CONNECTIONS
from heim_proxy.app import Proxy
from heim_proxy.edge.connection import Front
from heim_proxy.edge.listener import Peer
from heim_proxy.edge.server import Edge
from heim_proxy.edge.upstream import Upstream
from heim_proxy.sources.file import FileSource

__all__ = ["main"]

# Requests of a run: this many from each connection.
_BATCHES: Final = 250
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
    """Requests of many connections, each answered by an upstream connection of its own.

    As many as wrk opens: one alone would find all of its objects in the processor's cache.
    """

    def __init__(self, edge: Edge, cookie: str, host: str) -> None:
        self._edge = edge
        self._sinks = [_Sink(_Tls(host)) for _ in range(CONNECTIONS)]
        self._fronts = [
            Front(edge, Peer("127.0.0.1", 1, "127.0.0.1"), secure=True) for _ in self._sinks
        ]
        for front, sink in zip(self._fronts, self._sinks, strict=True):
            front.connection_made(cast("asyncio.Transport", sink))
        self._upstreams: list[Upstream] = []
        self._head = Head.build("1k", host=host, scheme="https", cookie=cookie)
        self._number = FIRST
        self._answer = _ANSWER + body("1k")

    async def until_served(self) -> None:
        """Send the first request through the real upstream, then put ours in its place."""
        front, sink = self._fronts[0], self._sinks[0]
        front.data_received(self._head.numbered(self._number))
        async with asyncio.timeout(5):
            # Until the connection is back in its pool, the answer complete.
            while not sink.first or front.exchange is not None:
                await asyncio.sleep(0.01)
        assert sink.first.startswith(b"HTTP/1.1 200 "), sink.first
        pool = next(iter(self._edge._pools.values()))
        real = pool.take(self._edge.loop.time(), repeatable=True)
        assert real is not None
        real.close()
        for _ in self._fronts:
            upstream = Upstream(pool, self._edge.loop)
            upstream.connection_made(cast("asyncio.Transport", _Sink(_Tls(""))))
            pool.give(upstream, self._edge.loop.time())
            self._upstreams.append(upstream)

    async def run(self) -> float:
        """CPU microseconds per request."""
        fronts, upstreams, answer = self._fronts, self._upstreams, self._answer
        spent = 0
        for _ in range(_BATCHES):
            heads = [self._head.numbered(self._number + index) for index in range(len(fronts))]
            self._number += len(heads)
            before = time.thread_time_ns()
            for front, head in zip(fronts, heads, strict=True):
                front.data_received(head)
            for upstream in upstreams:
                # A copy, as the kernel would make: nobody's cached hash or memory.
                upstream.data_received(bytes(bytearray(answer)))
            spent += time.thread_time_ns() - before
            assert all(sink.last.endswith(answer[-1024:]) for sink in self._sinks)
            # The access log and the sweep get their turn, unmeasured.
            await asyncio.sleep(0)
        return spent / 1000 / len(fronts) / _BATCHES


def _spread(times: Sequence[float]) -> str:
    return " ".join(f"{one:.1f}" for one in times)


if __name__ == "__main__":
    raise SystemExit(main())
