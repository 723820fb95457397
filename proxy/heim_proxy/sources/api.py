"""The two questions that the proxy asks the API server: what is there, and what changes.

Nothing is ever written. Answers are bounded, redirects are not followed because our token would go
along, and every wait has an end: silence on a watch means that nobody is there any more.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from heim_proxy.sources.account import Account, AccountError, Credentials

__all__ = ["Api", "ApiError", "Event", "Listing", "Pace", "Selection"]

# 8 MiB of document, or 500 Secrets of 20 KiB. More is not ours, and would be kept in memory.
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
MAX_ERROR_BYTES: Final = 16 * 1024
PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things may take, in seconds.

    `connect` and `answer` are of one request; `silence` is how long a watch may say nothing
    (bookmarks come about every minute); `watch` is how long the server keeps one open, uniform
    between the two; `token` is how often the token is read again; `first`, `ceiling`, `healthy` and
    `denied` are of the delays after failures.
    """

    connect: float = 5.0
    answer: float = 30.0
    silence: float = 180.0
    watch: tuple[float, float] = (240.0, 480.0)
    token: float = 60.0
    first: float = 0.2
    ceiling: float = 30.0
    healthy: float = 5.0
    denied: float = 30.0


@dataclass(frozen=True, slots=True)
class Selection:
    """Some objects of one kind in one namespace: one by its name, or all that have a label."""

    plural: str
    namespace: str
    name: str | None = None
    label: str | None = None

    @property
    def path(self) -> str:
        """Where they are on the server."""
        return f"/api/v1/namespaces/{quote(self.namespace)}/{self.plural}"

    def query(self) -> dict[str, str]:
        """What selects them."""
        found: dict[str, str] = {}
        if self.name is not None:
            # RBAC that names an object allows exactly this.
            found["fieldSelector"] = f"metadata.name={self.name}"
        if self.label is not None:
            found["labelSelector"] = self.label
        return found

    def __str__(self) -> str:
        return self.plural if self.name is None else f"{self.plural} {self.namespace}/{self.name}"


class ApiError(Exception):
    """No usable answer; the text says why in one line.

    `status` is the answer's, None when there was none; `retry_after_s` is what the server asked
    for; `stale` says that our version of things may be what it complains of.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        stale: bool = False,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after_s = retry_after_s
        self.stale = stale or status == 410


@dataclass(frozen=True, slots=True)
class Listing:
    """Every object that was selected, and the version from which a watch goes on."""

    items: list[dict[str, Any]]
    version: str


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a watch; a BOOKMARK only carries a version."""

    type: str
    object: dict[str, Any]


class Api:
    """A connection to the API server as one service account. Whoever made it closes it."""

    def __init__(self, account: Account, *, pace: Pace | None = None) -> None:
        """Prepare; nothing is read or sent yet."""
        self._account = account
        self._pace = pace or Pace()
        self._credentials: Credentials | None = None
        self._read_at = 0.0
        self._session: aiohttp.ClientSession | None = None
        self._lock = asyncio.Lock()
        self._watches: set[aiohttp.ClientResponse] = set()

    @property
    def pace(self) -> Pace:
        """How long things may take."""
        return self._pace

    async def list(self, wanted: Selection, *, version: str | None) -> Listing:
        """Everything that is selected, page by page.

        Args:
            wanted: What.
            version: "0" for what the server has at hand; None for what is true now.

        Raises:
            ApiError: It cannot be had.
        """
        query = wanted.query() | {"limit": str(PAGE)}
        if version is not None:
            query["resourceVersion"] = version
        items: list[dict[str, Any]] = []
        held = 0
        while True:
            async with asyncio.timeout(self._pace.answer * 2):
                response = await self._get(wanted, query)
                try:
                    content = await _content(response, MAX_ANSWER_BYTES - held)
                finally:
                    response.release()
            held += len(content)
            told = _parsed(content, wanted)
            metadata, found = told.get("metadata"), told.get("items") or []
            if not isinstance(metadata, dict) or not isinstance(found, list):
                raise ApiError(f"{wanted}: the answer is no list", stale=True)
            items.extend(item for item in found if isinstance(item, dict))
            following = metadata.get("continue")
            if not following:
                return Listing(items, str(metadata.get("resourceVersion") or ""))
            query.pop("resourceVersion", None)
            query["continue"] = str(following)

    async def watch(
        self, wanted: Selection, *, version: str, duration_s: float
    ) -> AsyncGenerator[Event | None, None]:
        """What changes after `version`, until the server ends the watch; None once it is open.

        Raises:
            ApiError: It cannot be opened, is cut off, or says nothing for too long.
        """
        query = wanted.query() | {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, round(duration_s))),
        }
        response = await self._get(wanted, query)
        self._watches.add(response)
        try:
            yield None
            async for line in _lines(response):
                yield _event(line, wanted)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(error) from error
        finally:
            # The rest of a watch never comes: its connection is of no use to anybody.
            response.close()
            self._watches.discard(response)

    async def _get(self, wanted: Selection, query: Mapping[str, str]) -> aiohttp.ClientResponse:
        """An answer of status 200; the caller releases it."""
        response = await self._send(wanted, query, fresh=False)
        if response.status == 401:
            # kubelet has replaced the token, or the server its keys.
            response.release()
            response = await self._send(wanted, query, fresh=True)
        if response.status == 200:
            return response
        try:
            raise _refusal(response, await _content(response, MAX_ERROR_BYTES), wanted)
        finally:
            response.release()

    async def _send(
        self, wanted: Selection, query: Mapping[str, str], *, fresh: bool
    ) -> aiohttp.ClientResponse:
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._pace.connect, sock_read=self._silence(query)
        )
        try:
            session, credentials = await self._connection(fresh=fresh)
            return await session.get(
                credentials.url + wanted.path,
                params=query,
                headers={
                    "Authorization": f"Bearer {credentials.token.reveal()}",
                    "Accept": "application/json",
                },
                timeout=timeout,
                allow_redirects=False,
            )
        except AccountError as error:
            raise ApiError(str(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # An authority that was replaced is a reason to read everything again.
            self._read_at = 0.0
            raise _unreachable(error) from error

    def _silence(self, query: Mapping[str, str]) -> float:
        return self._pace.silence if "watch" in query else self._pace.answer

    async def _connection(self, *, fresh: bool) -> tuple[aiohttp.ClientSession, Credentials]:
        async with self._lock:
            before = self._credentials
            due = time.monotonic() - self._read_at >= self._pace.token
            if before is None or fresh or due:
                self._credentials = await self._read(before, fresh=fresh)
                self._read_at = time.monotonic()
            credentials = self._credentials
            assert credentials is not None
            same = before is not None and (before.url, before.ca) == (
                credentials.url,
                credentials.ca,
            )
            if self._session is None or not same:
                await self._reconnect(credentials)
            assert self._session is not None
            return self._session, credentials

    async def _read(self, before: Credentials | None, *, fresh: bool) -> Credentials:
        try:
            return await asyncio.to_thread(self._account.read)
        except AccountError:
            # kubelet is between two tokens: the last one may still do.
            if before is None or fresh:
                raise
            return before

    async def _reconnect(self, credentials: Credentials) -> None:
        context = await asyncio.to_thread(_context, credentials.ca)
        await self.close()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context), cookie_jar=aiohttp.DummyCookieJar()
        )

    async def close(self) -> None:
        """Close every connection, watches included; idempotent."""
        # Closing a session alone leaves whoever reads a watch waiting, without a deadline even.
        for response in tuple(self._watches):
            response.close()
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def _context(ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise AccountError("service account: ca.crt holds no usable certificate") from error


async def _content(response: aiohttp.ClientResponse, limit: int) -> bytes:
    content = bytearray()
    try:
        async for data in response.content.iter_any():
            content += data
            if len(content) > limit:
                raise ApiError(f"an answer is larger than {limit} bytes")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _unreachable(error) from error
    return bytes(content)


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    rest = bytearray()
    searched = 0
    async for data in response.content.iter_any():
        rest += data
        for line in _cut(rest, searched):
            yield line
        # A large object comes in hundreds of pieces: each byte is looked at once.
        searched = len(rest)
        if searched > MAX_ANSWER_BYTES:
            raise ApiError(f"a line of a watch is longer than {MAX_ANSWER_BYTES} bytes", stale=True)


def _cut(rest: bytearray, searched: int) -> Iterator[bytes]:
    """Take the complete lines out of `rest`."""
    while (end := rest.find(b"\n", searched)) >= 0:
        line = bytes(rest[:end]).strip()
        del rest[: end + 1]
        searched = 0
        if line:
            yield line


def _event(line: bytes, wanted: Selection) -> Event:
    told = _parsed(line, wanted)
    kind, manifest = told.get("type"), told.get("object")
    if not isinstance(kind, str) or not isinstance(manifest, dict):
        raise ApiError(f"watch of {wanted}: a line is no event", stale=True)
    if kind == "ERROR":
        code = manifest.get("code")
        status = code if isinstance(code, int) else 500
        raise ApiError(f"watch of {wanted}: {_words(manifest, status)}", status=status)
    return Event(kind, manifest)


def _parsed(content: bytes, wanted: Selection) -> dict[str, Any]:
    # Never the content itself in a message: it may be a Secret.
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        raise ApiError(f"{wanted}: the answer is not JSON", stale=True) from None
    if not isinstance(told, dict):
        raise ApiError(f"{wanted}: the answer is no object", stale=True)
    return told


def _refusal(response: aiohttp.ClientResponse, content: bytes, wanted: Selection) -> ApiError:
    status = response.status
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        told = None
    words = _words(told if isinstance(told, dict) else {}, status)
    after = response.headers.get("Retry-After", "")
    return ApiError(
        f"the API server answers {status} to {wanted}: {words}",
        status=status,
        retry_after_s=float(after) if after.isdigit() and len(after) < 6 else None,
        stale=status >= 500,
    )


def _words(told: Mapping[str, Any], status: int) -> str:
    message = told.get("message")
    text = " ".join(message.split()) if isinstance(message, str) else ""
    return "".join(filter(str.isprintable, text))[:200] or f"status {status}"


def _unreachable(error: BaseException) -> ApiError:
    if isinstance(error, TimeoutError):
        return ApiError("the API server does not answer")
    return ApiError(f"the API server cannot be reached: {error or type(error).__name__}"[:300])
