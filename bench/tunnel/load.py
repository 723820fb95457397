"""The load, a process of its own: `python -m bench.tunnel.load JOB` with the job as JSON.

It opens its streams, prints "ready", waits for a line, works, prints what it saw as JSON, and keeps
its streams open until the next line: the harness reads the tunnel's CPU time just before and just
after, so that handshakes and the ends of forked children are not in it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.tunnel import errand
from bench.tunnel.stream import DEADLINE_S, Stream, Way

__all__ = ["Job", "main", "percentile"]

_PING: Final = bytes(64)
_OPENERS: Final = 8
# A person's key strokes, fast.
_KEYS_S: Final = 0.02
_PROBE_S: Final = 0.5
_CHECKED: Final = 300_000
# What a reader takes before it stops.
_MOVING: Final = 50_000_000


@dataclass(frozen=True, slots=True)
class Job:
    """What to do, over which way, with how many streams and bytes, or for how long."""

    mode: str
    way: Way
    streams: int = 1
    size: int = 0
    count: int = 0
    seconds: float = 0.0

    def dump(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def read(cls, text: str) -> Job:
        fields = json.loads(text)
        return cls(**{**fields, "way": Way(**fields["way"])})


def main(argv: Sequence[str] | None = None) -> int:
    """Do one job; see the module."""
    job = Job.read((argv or sys.argv[1:])[0])
    streams = [Stream(job.way) for _ in range(job.streams)]
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(_MODES[job.mode](job, streams)), flush=True)
    sys.stdin.readline()
    for stream in streams:
        stream.close()
    return 0


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least `part` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * part) - 1)]


def _check(job: Job, streams: list[Stream]) -> dict[str, Any]:
    """Random bytes come back as they went: the tunnel carries what it is said to carry."""
    stream = streams[0]
    stream.send(errand.pack(errand.ECHO))
    stream.codec.kept = bytearray()
    sent = os.urandom(_CHECKED)
    for at in range(0, len(sent), 8192):
        piece = sent[at : at + 8192]
        stream.send(piece)
        stream.wait(len(piece))
    return {"intact": bytes(stream.codec.kept) == sent}


def _upload(job: Job, streams: list[Stream]) -> dict[str, Any]:
    for stream in streams:
        stream.begin_upload(job.size // len(streams))
    return _drive(streams)


def _download(job: Job, streams: list[Stream]) -> dict[str, Any]:
    for stream in streams:
        stream.begin_download(job.size // len(streams))
    return _drive(streams)


def _stall(job: Job, streams: list[Stream]) -> dict[str, Any]:
    """Upload, then push on at a reader that has stopped, for as long as is said."""
    stream = streams[0]
    # A window that has grown is kept when the reader stops: this is about the rest.
    stream.codec.answers = False
    stream.begin_upload(_MOVING, errand.STALL)
    _drive(streams)
    print("moved", flush=True)
    sys.stdin.readline()
    stream.go_on()
    _drive(streams, until=time.monotonic() + job.seconds, limit=job.size)
    return {"sent": stream.sent, "window": stream.codec.most}


def _ignore(job: Job, streams: list[Stream]) -> dict[str, Any]:
    """Ask for more than anybody holds and read none of it, for as long as is said."""
    streams[0].send(errand.pack(errand.DOWN, job.size))
    print("moved", flush=True)
    sys.stdin.readline()
    time.sleep(job.seconds)
    return {}


def _drive(
    streams: Sequence[Stream], *, until: float = 0.0, limit: int = 1 << 62
) -> dict[str, Any]:
    started = time.monotonic()
    deadline = until or started + DEADLINE_S
    epoll = select.epoll()
    by_descriptor = {stream.sock.fileno(): stream for stream in streams}
    watched = dict.fromkeys(by_descriptor, select.EPOLLIN | select.EPOLLOUT)
    for descriptor, events in watched.items():
        epoll.register(descriptor, events)
    while by_descriptor:
        if time.monotonic() > deadline:
            if until:
                break
            raise TimeoutError("the transfer did not end in time")
        for descriptor, _ in epoll.poll(0.5):
            stream = by_descriptor[descriptor]
            stream.pump()
            if stream.done or (until and stream.sent >= limit):
                epoll.unregister(descriptor)
                del by_descriptor[descriptor]
                continue
            events = select.EPOLLIN | (select.EPOLLOUT if stream.writes else 0)
            if events != watched[descriptor]:
                watched[descriptor] = events
                epoll.modify(descriptor, events)
    return {"seconds": time.monotonic() - started}


def _ping(job: Job, streams: list[Stream]) -> dict[str, Any]:
    stream = streams[0]
    stream.send(errand.pack(errand.ECHO))
    _echoes(stream, min(500, job.count))
    print("warm", flush=True)
    sys.stdin.readline()
    times = _echoes(stream, job.count)
    return {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}


def _echoes(stream: Stream, count: int) -> list[float]:
    times = []
    for _ in range(count):
        before = time.perf_counter()
        stream.send(_PING)
        stream.wait(len(_PING))
        times.append(time.perf_counter() - before)
    return times


def _open(job: Job, streams: list[Stream]) -> dict[str, Any]:
    """Streams opened, used for one echo and closed, eight at a time."""
    left = list(range(job.count))
    times: list[float] = []

    def opener() -> None:
        while left:
            left.pop()
            times.append(_first_byte(job.way))

    threads = [threading.Thread(target=opener) for _ in range(_OPENERS)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    seconds = time.monotonic() - started
    return {"seconds": seconds, "opened": len(times), "p50": percentile(times, 0.5)}


def _first_byte(way: Way) -> float:
    before = time.perf_counter()
    stream = Stream(way)
    stream.send(errand.pack(errand.ECHO) + _PING)
    stream.wait(len(_PING))
    stream.close()
    return time.perf_counter() - before


def _flood(job: Job, streams: list[Stream]) -> dict[str, Any]:
    """Uploads as fast as they go, for as long as is said; the target notes what arrives when."""
    for tag, stream in enumerate(streams):
        stream.begin_flood(tag)
    _drive(streams, until=time.monotonic() + job.seconds)
    return {}


def _type(job: Job, streams: list[Stream]) -> dict[str, Any]:
    """Echoes at a typist's pace, and now and then a new stream, for as long as is said."""
    stream = streams[0]
    stream.send(errand.pack(errand.ECHO))
    times, opened = [], []
    end = time.monotonic() + job.seconds
    probe = time.monotonic() + _PROBE_S
    while (now := time.monotonic()) < end:
        times += _echoes(stream, 1)
        if job.count and now >= probe:
            opened.append(_first_byte(job.way))
            probe = time.monotonic() + _PROBE_S
        time.sleep(_KEYS_S)
    return {"echoes": times, "opened": opened}


_MODES: Final[dict[str, Callable[[Job, list[Stream]], dict[str, Any]]]] = {
    "check": _check,
    "up": _upload,
    "down": _download,
    "stall": _stall,
    "ignore": _ignore,
    "ping": _ping,
    "open": _open,
    "flood": _flood,
    "type": _type,
}


if __name__ == "__main__":
    raise SystemExit(main())
