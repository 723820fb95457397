"""Many live streams: `python -m bench.agents.live JOB`; each echoes 64 bytes at a calm pace.

An echo's time counts from when it was due. On standard input each line asks for a JSON line of the
times since the last, in seconds.
"""

from __future__ import annotations

import dataclasses
import heapq
import json
import select
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.tunnel import errand
from bench.tunnel.stream import Stream, Way

__all__ = ["Job", "main"]

_ECHO: Final = bytes(64)


@dataclass(frozen=True, slots=True)
class Job:
    """How many streams over which way (without framing of its own), and echoes a second on each."""

    way: Way
    streams: int
    pace: float

    def dump(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def read(cls, text: str) -> Job:
        fields = json.loads(text)
        return cls(**{**fields, "way": Way(**fields["way"])})


class _Live:
    """The streams. An echo that is under way puts off the stream's next one."""

    def __init__(self, job: Job) -> None:
        self.times: list[float] = []
        self._every = 1 / job.pace
        self._epoll = select.epoll()
        self._streams: dict[int, Stream] = {}
        for _ in range(job.streams):
            stream = Stream(job.way)
            stream.send(errand.pack(errand.ECHO))
            stream.sock.setblocking(False)
            self._streams[stream.sock.fileno()] = stream
            self._epoll.register(stream.sock.fileno(), select.EPOLLIN)
        self._epoll.register(sys.stdin.fileno(), select.EPOLLIN)
        now = time.monotonic()
        self._due = [
            (now + self._every * index / job.streams, descriptor)
            for index, descriptor in enumerate(self._streams)
        ]
        # When the echo under way was due, and what of it is missing.
        self._waiting: dict[int, tuple[float, int]] = {}

    def run(self) -> None:
        """Echo until standard input ends."""
        while True:
            left = self._due[0][0] - time.monotonic() if self._due else 1.0
            for descriptor, _ in self._epoll.poll(max(0.0, left)):
                if descriptor != sys.stdin.fileno():
                    self._take(descriptor)
                elif not sys.stdin.readline():
                    return
                else:
                    print(json.dumps(self.times), flush=True)
                    self.times = []
            self._send_due()

    def _send_due(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            due, descriptor = heapq.heappop(self._due)
            self._waiting[descriptor] = (due, len(_ECHO))
            # 64 bytes with nothing before them fit into any socket.
            self._streams[descriptor].sock.send(_ECHO)

    def _take(self, descriptor: int) -> None:
        count = len(self._streams[descriptor].sock.recv(4096))
        due, missing = self._waiting[descriptor]
        if not count:
            raise ConnectionError("the tunnel closed a stream")
        if missing > count:
            self._waiting[descriptor] = (due, missing - count)
            return
        del self._waiting[descriptor]
        now = time.monotonic()
        self.times.append(now - due)
        heapq.heappush(self._due, (max(due + self._every, now), descriptor))


def main(argv: Sequence[str] | None = None) -> int:
    """Be alive until told to end."""
    live = _Live(Job.read((argv or sys.argv[1:])[0]))
    print("made", flush=True)
    live.run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
