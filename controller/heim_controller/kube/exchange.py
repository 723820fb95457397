"""One request to the API server and its answer: deadlines, credentials read again, errors told."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp

from heim_controller.kube.credentials import Connection, Credentials
from heim_controller.kube.errors import Garbled, Unauthorized, Unconfigured, Unreachable, error_for
from heim_controller.kube.resources import Manifest
from heim_runtime.version import version

__all__ = ["Deadlines", "Exchange", "Request", "drop"]

log = logging.getLogger(__name__)

JSON: Final = "application/json"

# 5,000 Ingresses are 10 MB; a list from the watch cache comes in one page whatever was asked for.
MAX_ANSWER: Final = 256 * 2**20

# Of an error we read the sentence, not the page that a proxy in between may have made of it.
MAX_COMPLAINT: Final = 64 * 2**10

# aiohttp writes larger bodies in one go, which it warns of itself; a file it writes in pieces.
LARGE: Final = 2**20

# A plugin of a kubeconfig may take seconds, and a token that is refused stays refused for a while.
RENEW_EVERY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long we wait, in seconds.

    Attributes:
        connect: For TCP; the rest of the handshake counts as part of `answer`.
        answer: For one object, read or written, from request to last byte.
        listing: For one page of a list.
        silence: Between two reads of a watch. Bookmarks come about every minute, so a longer
            silence means that nobody is there any more.
    """

    connect: float = 5.0
    answer: float = 15.0
    listing: float = 60.0
    silence: float = 180.0


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask.

    Attributes:
        method: GET, POST, PUT, PATCH, DELETE.
        path: From `Resource.path`.
        query: Parameters, unescaped.
        body: An object, or None.
        kind: Content type of the body.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: Manifest | None = None
    kind: str = JSON

    @property
    def url(self) -> str:
        """Path and query."""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Exchange:
    """Sends requests over one `Connection`, which it makes, renews and closes.

    Attributes:
        requests: How many were sent.
        failures: How many of them had no answer, or one of 400 and above.
        reloads: How often credentials were read again.
    """

    def __init__(self, credentials: Credentials, deadlines: Deadlines) -> None:
        """Send nothing yet."""
        self._credentials = credentials
        self._deadlines = deadlines
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._epoch = 0
        self._renewed_at = float("-inf")
        self._headers = {"User-Agent": f"heim-controller/{version()}", "Accept": JSON}
        self.requests = 0
        self.failures = 0
        self.reloads = 0

    async def connected(self) -> Connection:
        """The connection, made with credentials read now if there is none.

        Raises:
            Unconfigured: They cannot be read.
        """
        if self._connection is None:
            async with self._lock:
                if self._connection is None:
                    self._connection = await self._made()
        return self._connection

    async def close(self) -> None:
        """Close every connection; answers that are being read end with `Unreachable`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def ask(self, request: Request, *, deadline_s: float | None = None) -> Manifest:
        """Send a request, and read its whole answer within `deadline_s` (`deadlines.answer`).

        Raises:
            KubeError: Any of them.
        """
        try:
            async with asyncio.timeout(deadline_s or self._deadlines.answer):
                response = await self.send(request)
                try:
                    content = await _content(response, MAX_ANSWER)
                finally:
                    # Gives the connection back if everything was read, and closes it if not.
                    response.release()
        except (aiohttp.ClientError, TimeoutError, OSError) as e:
            self.failures += 1
            raise Unreachable(f"{request}: {e or type(e).__name__}") from e
        try:
            told: Any = json.loads(content)
        except ValueError as e:
            raise Garbled(f"{request}: the answer is not JSON") from e
        if not isinstance(told, dict):
            raise Garbled(f"{request}: the answer is not an object")
        return told

    async def follow(self, request: Request) -> aiohttp.ClientResponse:
        """Send the request of a watch; its answer is unread, and the caller closes it.

        Raises:
            KubeError: Any of them.
        """
        try:
            async with asyncio.timeout(self._deadlines.answer):
                return await self.send(request)
        except TimeoutError as e:
            self.failures += 1
            raise Unreachable(f"{request}: no answer in {self._deadlines.answer:g} s") from e

    async def send(self, request: Request) -> aiohttp.ClientResponse:
        """Send a request; its answer is one of success, and unread.

        A 401 is asked once more after the credentials were read again, and so is a server whose
        certificate we do not trust: its CA may have been replaced on disk.
        """
        connection = await self.connected()
        epoch = self._epoch
        try:
            return await self._send(connection, request)
        except (Unauthorized, _Distrusted) as e:
            if not await self._renew(epoch, afresh=isinstance(e, _Distrusted)):
                raise
        return await self._send(await self.connected(), request)

    async def _send(self, connection: Connection, request: Request) -> aiohttp.ClientResponse:
        self.requests += 1
        headers = self._headers
        data: bytes | io.BytesIO | None = None
        if request.body is not None:
            headers = {**headers, "Content-Type": request.kind}
            data = json.dumps(request.body, separators=(",", ":")).encode()
            if len(data) > LARGE:
                data = io.BytesIO(data)
        try:
            response = await connection.request(
                request.method,
                request.url,
                headers=headers,
                data=data,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    sock_connect=self._deadlines.connect,
                    sock_read=self._deadlines.silence,
                ),
            )
            if 200 <= response.status < 300:
                return response
            complaint = await _complaint(response)
        except (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError) as e:
            self.failures += 1
            raise _Distrusted(f"{request}: {e}") from e
        except (aiohttp.ClientError, TimeoutError, OSError, RuntimeError) as e:
            # RuntimeError is what aiohttp says of a session that was closed meanwhile.
            self.failures += 1
            raise Unreachable(f"{request}: {e or type(e).__name__}") from e
        self.failures += 1
        raise error_for(response.status, complaint, response.headers.get("Retry-After"))

    async def _renew(self, epoch: int, *, afresh: bool) -> bool:
        """Read the credentials again; False if that was done a moment ago and did not help.

        Many requests are refused at the same time: the first one reads, the others find it done.
        """
        async with self._lock:
            used = self._connection
            if self._epoch != epoch or used is None:
                return True
            now = time.monotonic()
            if now - self._renewed_at < RENEW_EVERY_S:
                return False
            self._renewed_at = now
            self.reloads += 1
            log.info("kube.credentials_reloaded", extra={"host": used.host})
            if not afresh and not used.has_certificate:
                used.adopt(await self._credentials.load())
                self._epoch += 1
                return True
            self._connection = await self._made()
            self._epoch += 1
        # Watches on it end, and begin again on the new one.
        await used.close()
        return True

    async def _made(self) -> Connection:
        configuration = await self._credentials.load()
        if not configuration.host:
            raise Unconfigured(f"{self._credentials!r} does not name a server")
        return Connection(configuration, proxied=self._credentials.proxied)


def drop(response: aiohttp.ClientResponse) -> None:
    """Be done with an answer that has no end.

    Neither read on nor closed politely: TLS would wait for the farewell of a server that is busy
    sending, or that is not there any more.
    """
    transport = response.connection.transport if response.connection is not None else None
    response.close()
    if transport is not None:
        transport.abort()


class _Distrusted(Unreachable):
    """The server's certificate is not one that we trust."""


async def _content(response: aiohttp.ClientResponse, limit: int) -> bytes:
    content = bytearray()
    async for data in response.content.iter_any():
        content += data
        if len(content) > limit:
            drop(response)
            raise Garbled(f"the answer is longer than {limit} bytes")
    return bytes(content)


async def _complaint(response: aiohttp.ClientResponse) -> bytes:
    """The body of an error, or its beginning."""
    content = bytearray()
    try:
        async for data in response.content.iter_any():
            content += data
            if len(content) > MAX_COMPLAINT:
                drop(response)
                break
    finally:
        response.release()
    return bytes(content[:MAX_COMPLAINT])
