"""The two questions that the proxy asks the API server: what is there, and what changes.

Nothing is ever written. Answers are bounded, redirects are not followed because our token would go
along, and every wait has an end: silence on a watch means that nobody is there any more.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from heim_proxy.sources.account import Account, AccountError, Credentials
from heim_proxy.sources.answers import (
    MAX_ERROR_BYTES,
    MAX_LIST_BYTES,
    ApiError,
    Event,
    Selection,
    content_of,
    event_of,
    lines_of,
    object_of,
    refusal,
    unreachable,
)

__all__ = ["PAGE", "Api", "Listing", "Pace"]

# What is parsed at once while people are served.
PAGE: Final = 100


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
class Listing:
    """Every object that was selected, and the version from which a watch goes on."""

    items: list[dict[str, Any]]
    version: str


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
                    content = await content_of(response, MAX_LIST_BYTES - held)
                finally:
                    response.release()
            held += len(content)
            told = object_of(content, wanted)
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
            async for line in lines_of(response):
                yield event_of(line, wanted)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise unreachable(error) from error
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
            raise refusal(response, await content_of(response, MAX_ERROR_BYTES), wanted)
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
            raise unreachable(error) from error

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
