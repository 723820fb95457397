"""One JSON object for each request, cheap enough to write for every one of them.

The cost per request is a bytes format of facts that are already at hand (measured: see
tests/unit/observe/test_access_log.py); strings that repeat (hosts, users, rules) are turned into
JSON once and remembered. Lines are collected and written ten times a second. Losing a log must
never cost a request: the buffer is bounded, a destination that is full, gone or stuck is waited
for without blocking, and what does not fit is dropped and counted.

What is never in a line: headers but Host and ids, cookies, bodies, and queries under `/.heim/`,
which carry hand-off tickets and authorization codes.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import select
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["AccessEntry", "AccessLog"]

log = logging.getLogger(__name__)

FLUSH_S: Final = 0.1

# Four seconds of 5,000 requests a second of 400 bytes each: a rotation or a hiccup loses nothing.
MAX_BUFFER_BYTES: Final = 8 * 1024 * 1024

# A target may be 16 KiB on the wire; nobody reads that far, and it would be 16 KiB of disk each.
MAX_TARGET_BYTES: Final = 2048

# Users, hosts and rules are far shorter; a claim of 20 KiB is not worth its line.
MAX_FIELD_CHARS: Final = 256

# A pipe with room promises a page: more than that in one write may block (POSIX PIPE_BUF).
PIPE_CHUNK_BYTES: Final = 4096

# Distinct blocks remembered, about 600 bytes each. Hosts, rules and upstreams come from
# configuration, users and clients from the world: when they outgrow this, we start from nothing.
MAX_REMEMBERED: Final = 8192

# A stuck destination is said once a minute, not once a line.
COMPLAIN_S: Final = 60.0

# Bytes that stand for themselves within a JSON string: printable ASCII but the quote and backslash.
_UNSAFE: Final = re.compile(rb"[^ !#-\[\]-~]").search

# What differs for every request comes first; the rest is one block that is remembered whole, which
# halves the cost of a line.
_LINE: Final = (
    b'{"time":"%b","id":"%b","method":"%b","path":"%b","status":%d,"bytes_in":%d,'
    b'"bytes_out":%d,"duration_ms":%.3f,"upstream_ms":%.3f,%b'
)
_BLOCK_NAMES: Final = (
    "client",
    "host",
    "user",
    "backend",
    "decision",
    "rule",
    "upstream",
    "protocol",
    "tls",
    "end",
)

_Facts = tuple[str | None, ...]


@dataclass(slots=True)
class AccessEntry:
    """The facts of one request. `AccessLog.record` copies them out: an entry may be reused.

    Times are in seconds, None is "does not apply" and becomes null.
    """

    request_id: bytes = b""
    client: str | None = None
    host: str | None = None
    method: bytes = b""
    # As it came: path and query.
    target: bytes = b""
    # Set only where the canonical path is known and outside /.heim/: a target that failed to
    # canonicalise may be a mangled hand-off, ticket included.
    log_query: bool = False
    status: int = 0
    user: str | None = None
    backend: str | None = None
    # "allow", "deny:<reason>", "public" or "anonymous".
    decision: str | None = None
    rule: str | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    duration: float = 0.0
    upstream_duration: float = 0.0
    # Of a `traceparent` that was found valid, letters and digits; empty without one.
    trace_id: bytes = b""
    # The address that was dialled; None (and a duration of 0) when nothing was forwarded.
    upstream: str | None = None
    protocol: str | None = None
    tls: str | None = None
    # Why the exchange ended other than by finishing: "client_gone", "logout", ...
    end: str | None = None
    # What `AccessLog.block` made of the facts from `client` to `end`, when they are known to be
    # the same; empty to have it made of them.
    block: bytes = b""


class _Blocks(dict[_Facts, bytes]):
    """The values of `_BLOCK_NAMES` to the end of their line."""

    def __missing__(self, facts: _Facts) -> bytes:
        values = (None if text is None else text[:MAX_FIELD_CHARS] for text in facts)
        named = dict(zip(_BLOCK_NAMES, values, strict=True))
        block = json.dumps(named, separators=(",", ":"))[1:].encode("ascii") + b"\n"
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        self[facts] = block
        return block


class AccessLog:
    """Collects lines and writes them to one destination. Belongs to one event loop."""

    __slots__ = (
        "_blocks",
        "_complained",
        "_fd",
        "_lines",
        "_millis",
        "_path",
        "_pending",
        "_regular",
        "_time",
        "_timer",
        "_torn",
        "dropped",
    )

    def __init__(self, destination: int | Path) -> None:
        """Open the destination.

        Args:
            destination: A file descriptor that stays the caller's (1 is standard output), or a
                file to append to, created with mode 0640.

        Raises:
            OSError: When the file cannot be opened.
        """
        self._path = None if isinstance(destination, int) else destination
        self._fd = destination if isinstance(destination, int) else _open(destination)
        self._regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
        self._blocks = _Blocks()
        self._lines: list[bytes] = []
        self._pending = 0
        self._timer: asyncio.TimerHandle | None = None
        # Whether the destination ended in the middle of a line that will not be completed.
        self._torn = False
        self._millis = -1
        self._time = b""
        self._complained = float("-inf")
        # Lines lost since the start; heim_access_log_dropped_total.
        self.dropped = 0

    def record(self, entry: AccessEntry, now: float) -> None:
        """Log one request.

        Args:
            entry: Its facts.
            now: Seconds since the epoch when it ended.
        """
        millis = int(now * 1000.0)
        if millis != self._millis:
            self._tell_time(millis)
        e = entry
        target = e.target
        if not e.log_query or target.startswith(b"/.heim"):
            target = target.partition(b"?")[0]
        if len(target) > MAX_TARGET_BYTES or _UNSAFE(target):
            target = _escaped(target)
        # Both are checked elsewhere; but a refused request may be logged with what it came with,
        # and a trusted proxy's id is still somebody else's.
        method = e.method if e.method.isalpha() else _escaped(e.method)
        request_id = e.request_id if e.request_id.isalnum() else _escaped(e.request_id)
        block = e.block or self.block(e)
        if e.trace_id:
            block = b'"trace_id":"%b",%b' % (e.trace_id, block)
        line = _LINE % (
            self._time,
            request_id,
            method,
            target,
            e.status,
            e.bytes_in,
            e.bytes_out,
            e.duration * 1000.0,
            e.upstream_duration * 1000.0,
            block,
        )
        # `write`, without the call where that matters.
        if self._timer is None or self._pending > MAX_BUFFER_BYTES:
            self.write(line)
        else:
            self._pending += len(line)
            self._lines.append(line)

    def block(self, entry: AccessEntry) -> bytes:
        """The end of a line: the facts that requests of one kind on one connection share.

        Whoever knows that they are the same as last time may keep it and hand it in as
        `entry.block`, which saves a third of what a line costs.
        """
        e = entry
        return self._blocks[
            e.client, e.host, e.user, e.backend, e.decision,
            e.rule, e.upstream, e.protocol, e.tls, e.end,
        ]  # fmt: skip

    def write(self, line: bytes) -> None:
        """Take one complete line, to be written within `FLUSH_S`; dropped when the buffer is full.

        Must be called on the event loop.
        """
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        pending = self._pending + len(line)
        if pending > MAX_BUFFER_BYTES:
            self._drop(1)
            return
        self._pending = pending
        self._lines.append(line)

    def flush(self) -> None:
        """Write what the destination takes now; the rest is tried again in `FLUSH_S`."""
        self._drain()
        if self._lines:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def reopen(self) -> None:
        """Open the path anew, after a rotation; keep the old file when that fails.

        Does nothing for a descriptor.
        """
        if self._path is None:
            return
        self._drain()
        try:
            fresh = _open(self._path)
        except OSError as error:
            fields = {"path": str(self._path), "reason": os.strerror(error.errno or 0)}
            log.warning("access_log.reopen_failed", extra=fields)
            return
        os.close(self._fd)
        self._fd = fresh
        self._regular = stat.S_ISREG(os.fstat(fresh).st_mode)
        self._torn = False

    def close(self) -> None:
        """Write what can be written now and let go; a file is closed, a descriptor is not."""
        self._drain()
        if self._path is not None and self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _drain(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines = self._lines
        if not lines or self._fd < 0:
            return
        try:
            written = self._send(lines)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            # Full disk, closed pipe: the same lines would fail again while new ones arrive.
            self._drop(len(lines), error)
            written = len(lines)
        del lines[:written]
        self._pending = sum(map(len, lines))

    def _tell_time(self, millis: int) -> None:
        """Renew the remembered text of the time (RFC 3339); many requests share a millisecond."""
        second, rest = divmod(millis, 1000)
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        self._millis = millis
        self._time = b"%b.%03dZ" % (text.encode("ascii"), rest)

    def _send(self, lines: list[bytes]) -> int:
        """Write `lines` as far as that goes without blocking; how many are done with.

        Raises:
            OSError: When the destination refuses the first of them.
        """
        done = 0
        while done < len(lines) and (self._regular or _writable(self._fd)):
            count, chunk = self._chunk(lines, done)
            if self._torn:
                chunk = b"\n" + chunk
            try:
                size = os.write(self._fd, chunk)
            except OSError:
                if not done:
                    raise
                break
            if size < len(chunk):
                return done + self._torn_at(chunk, size)
            self._torn = False
            done += count
        return done

    def _torn_at(self, chunk: bytes, size: int) -> int:
        """Note that only `size` bytes of `chunk` were taken; how many lines are done with.

        Rare (a full disk, a descriptor that is non-blocking after all). A line broken in the
        middle is given up; the next write starts on a line of its own.
        """
        count = chunk.count(b"\n", 0, size) - (self._torn and size > 0)
        torn = chunk[size - 1] != 0x0A if size else self._torn
        if torn and size:
            self._drop(1)
            count += 1
        self._torn = torn
        return count

    def _chunk(self, lines: list[bytes], start: int) -> tuple[int, bytes]:
        """Lines for one write, from `start` on: all for a file, a page's worth for a pipe."""
        if self._regular:
            return len(lines) - start, b"".join(lines[start:])
        size = len(lines[start])
        end = start + 1
        while end < len(lines) and size + len(lines[end]) < PIPE_CHUNK_BYTES:
            size += len(lines[end])
            end += 1
        return end - start, b"".join(lines[start:end])

    def _drop(self, lines: int, error: OSError | None = None) -> None:
        self.dropped += lines
        now = time.monotonic()
        if now - self._complained < COMPLAIN_S:
            return
        self._complained = now
        reason = os.strerror(error.errno or 0) if error else "the destination does not keep up"
        log.warning("access_log.dropped", extra={"reason": reason, "dropped": self.dropped})


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _writable(fd: int) -> bool:
    """Whether a write of `PIPE_CHUNK_BYTES` will not block.

    We do not make the descriptor non-blocking: the flag belongs to whoever else has it open, our
    own log on standard error and the shell that started us among them.
    """
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    # A closed reader shows as an error, and the write then says which.
    return bool(poll.poll(0))


def _escaped(raw: bytes) -> bytes:
    """`raw` as the inside of a JSON string, `MAX_TARGET_BYTES` at most.

    Bytes that are not UTF-8 become replacement characters: the line stays readable, and what was
    on the wire byte for byte is for a capture to tell.
    """
    text = raw[:MAX_TARGET_BYTES].decode("utf-8", "replace")
    escaped = json.dumps(text)[1:-1]
    if len(escaped) > MAX_TARGET_BYTES:
        # An escape is at most twelve bytes for a character (a surrogate pair).
        escaped = json.dumps(text[: MAX_TARGET_BYTES // 12])[1:-1]
    return escaped.encode("ascii")
