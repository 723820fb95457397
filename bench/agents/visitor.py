"""People on the web beside it all: `python -m bench.agents.visitor JOB` with the job as JSON.

Some keep-alive connections over TLS ask at a steady pace, whatever the answers do: a request's time
counts from when it was due, so that nothing is forgotten while the proxy is slow. On standard input
each line asks for a JSON line of everything since the last: [when it was due, seconds it took or
null when it failed].
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import uvloop

from heim_runtime.tasks import spawn

__all__ = ["Job", "main"]

_PATIENCE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Job:
    """Where to, how many connections, and how many requests a second on each."""

    port: int
    host: str
    path: str
    authority: str
    connections: int
    pace: float

    def dump(self) -> str:
        return json.dumps(dataclasses.asdict(self))


class _Visitors:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._context = ssl.create_default_context(cafile=job.authority)
        self._request = f"GET {job.path} HTTP/1.1\r\nHost: {job.host}\r\n\r\n".encode()
        self.seen: list[tuple[float, float | None]] = []

    async def visit(self, number: int) -> None:
        """One connection after the other, forever."""
        every = 1 / self._job.pace
        due = time.monotonic() + every * number / self._job.connections
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    streams = streams or await self._connect()
                    await self._ask(*streams)
                self.seen.append((due, time.monotonic() - due))
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                self.seen.append((due, None))
                if streams is not None:
                    streams[1].transport.abort()
                streams = None
            # Those that fell due meanwhile were not made: a browser does not either.
            due += every * max(1, -(-(time.monotonic() - due) // every))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self._job.port, ssl=self._context, server_hostname=self._job.host
        )

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise OSError(head[:100])
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        await reader.readexactly(int(fields[b"content-length"]))


async def _run(job: Job) -> None:
    visitors = _Visitors(job)
    tasks = [spawn("visit", visitors.visit(number)) for number in range(job.connections)]
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print("made", flush=True)
    while await orders.readline():
        seen, visitors.seen = visitors.seen, []
        print(json.dumps(seen), flush=True)
    for task in tasks:
        task.cancel()


def main(argv: Sequence[str] | None = None) -> int:
    """Visit until standard input ends."""
    job = Job(**json.loads((argv or sys.argv[1:])[0]))
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    with runner:
        runner.run(_run(job))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
