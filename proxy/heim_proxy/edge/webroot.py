"""Challenges that an ACME client has put into a directory, answered over a socket pair.

Files are read in a thread, since the directory may be on another machine, and only what an
authority asks for leaves it: a key authorization for the very token (RFC 8555, 8.1). So whatever
else somebody puts or links there stays there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
from pathlib import Path
from typing import Final, cast

from heim_proxy.routing import CHALLENGE_PREFIX
from heim_runtime.tasks import spawn

__all__ = ["Webroot", "key_authorization"]

log = logging.getLogger(__name__)

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,128}", re.ASCII)
# A token, a dot and a thumbprint in base64url, which is SHA-256.
_THUMBPRINT: Final = re.compile(rb"\.[A-Za-z0-9_-]{43}\s*")
_MAX_FILE_BYTES: Final = 512
# As `challenge_head` writes them, a few hundred bytes; what passes of a client's may be longer.
_MAX_HEAD_BYTES: Final = 64 * 1024
# Threads that may hang in a directory that does not answer; the others are for everything else.
_READERS: Final = 2


class Webroot:
    """Makes the server's side of connections to one directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._readers = asyncio.Semaphore(_READERS)

    def __call__(self) -> asyncio.Protocol:
        """One connection."""
        return _Connection(self)

    async def read(self, token: str) -> bytes | None:
        """What answers for a token; None when nothing does."""
        async with self._readers:
            return await asyncio.to_thread(key_authorization, self._root, token)


class _Connection(asyncio.Protocol):
    """One request from the edge, never with a body."""

    def __init__(self, webroot: Webroot) -> None:
        self._webroot = webroot
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_HEAD_BYTES:
                self._transport.abort()
            return
        method, _, rest = self._buffer[:end].partition(b" ")
        self._buffer = b""
        path = rest.partition(b" ")[0].removeprefix(CHALLENGE_PREFIX).decode("latin-1")
        spawn("edge.webroot", self._answer(path, head_only=method == b"HEAD"))

    async def _answer(self, token: str, *, head_only: bool) -> None:
        content = await self._webroot.read(token)
        status = b"404 Not Found" if content is None else b"200 OK"
        body = content or b""
        fields = b"Content-Type: text/plain\r\nConnection: close\r\nContent-Length: %d" % len(body)
        if not self._transport.is_closing():
            head = b"HTTP/1.1 %b\r\n%b\r\n\r\n" % (status, fields)
            self._transport.write(head + (b"" if head_only else body))
            # An authority asks five times in a month: nothing is kept for it.
            self._transport.close()


def key_authorization(root: Path, token: str) -> bytes | None:
    """The key authorization of a token in a webroot; None when there is none. Blocks."""
    if not _TOKEN.fullmatch(token):
        return None
    path = root / CHALLENGE_PREFIX.decode("ascii").strip("/") / token
    try:
        # No links, which could lead anywhere; without O_NONBLOCK a FIFO would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            regular = stat.S_ISREG(os.fstat(fd).st_mode)
            content = file.read(_MAX_FILE_BYTES + 1) if regular else b""
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("acme.unreadable", extra={"file": str(path), "reason": error.strerror})
        return None
    start = token.encode("ascii")
    whole = len(content) <= _MAX_FILE_BYTES and content.startswith(start)
    if not whole or not _THUMBPRINT.fullmatch(content[len(start) :]):
        reason = "not a key authorization of its token"
        log.warning("acme.unreadable", extra={"file": str(path), "reason": reason})
        return None
    return content
