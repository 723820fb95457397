"""Names that let one request be followed: its id, and the caller's own trace context.

A request id is ours and always fresh (a client's `X-Request-Id` is somebody else's name for it).
A `traceparent` is the caller's and passes on unchanged, provided it is one (W3C Trace Context);
Heim takes no part in the trace, so it adds no span of its own.
"""

from __future__ import annotations

import os
import re
from typing import Final

__all__ = ["REQUEST_ID_BYTES", "new_request_id", "trace_id", "valid_traceparent"]

# 64 random bits as hex. Not a secret, but nobody should be able to guess a neighbour's: people
# paste ids into tickets, and a guessable one could be claimed.
REQUEST_ID_BYTES: Final = 16

# One system call gives this many ids; a call for each would cost more than the rest of the id.
_IDS_PER_REFILL: Final = 512

# Version 00 is exactly four fields; a later version may append more after another dash, and
# version ff and all-zero ids are invalid (W3C Trace Context, 3.2.2).
_TRACEPARENT: Final = re.compile(
    rb"(?:00|(?!ff)[0-9a-f]{2}(?=.{53}(?:-|\Z)))"
    rb"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    rb"(?P<more>-[!-~]*)?"
)

# Ours; the standard gives no bound for the fields of versions to come.
_MAX_TRACEPARENT_BYTES: Final = 256


class _Pool:
    """Random hex digits in store. The cursor counts down so that 0 means empty."""

    __slots__ = ("cursor", "digits")

    def __init__(self) -> None:
        self.digits = b""
        self.cursor = 0

    def refill(self) -> None:
        self.digits = os.urandom(_IDS_PER_REFILL * REQUEST_ID_BYTES // 2).hex().encode("ascii")
        self.cursor = len(self.digits)

    def empty(self) -> None:
        self.cursor = 0


_POOL: Final = _Pool()
# A worker forked from us would hand out the very ids that we still have in store.
os.register_at_fork(after_in_child=_POOL.empty)


def new_request_id() -> bytes:
    """A fresh request id: `REQUEST_ID_BYTES` lower-case hex digits."""
    pool = _POOL
    end = pool.cursor
    if not end:
        pool.refill()
        end = pool.cursor
    start = pool.cursor = end - REQUEST_ID_BYTES
    return pool.digits[start:end]


def valid_traceparent(value: bytes) -> bool:
    """Whether `value` is a `traceparent` that may be passed on as it is."""
    if len(value) > _MAX_TRACEPARENT_BYTES:
        return False
    found = _TRACEPARENT.fullmatch(value)
    return found is not None and not (found["more"] and value.startswith(b"00"))


def trace_id(traceparent: bytes) -> bytes:
    """The id of the trace that a valid `traceparent` names: 32 lower-case hex digits."""
    return traceparent[3:35]
