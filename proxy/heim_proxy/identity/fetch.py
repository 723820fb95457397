"""Our requests to identity providers: bounded in time and size, and never led elsewhere."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from heim_proxy.identity.login_errors import ProviderDown, ProviderFault

__all__ = ["MAX_BODY_BYTES", "TIMEOUT_S", "Answer", "Fetcher", "place"]

# From the first connection attempt to the last byte of the body: a person is waiting.
TIMEOUT_S: Final = 5.0
# Google's metadata is 2 KiB and its keys 2 KiB; a tenant with many keys has been seen at 60 KiB.
MAX_BODY_BYTES: Final = 1 << 20
# Of a place in a message; the paths of real providers are shorter.
MAX_PLACE_CHARS: Final = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's complete answer; `body` is at most `MAX_BODY_BYTES` long."""

    status: int
    body: bytes


class Fetcher:
    """One HTTP client for all providers. It keeps no cookies and follows no redirects."""

    __slots__ = ("_contexts", "_session", "_timeout_s")

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[Path, tuple[int, ssl.SSLContext]] = {}

    async def close(self) -> None:
        """Release connections; idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(
        self,
        url: str,
        *,
        step: str,
        ca_file: Path | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """GET `url`.

        Args:
            url: An absolute URL that the caller has checked.
            step: What this is for, in words for people; errors carry it.
            ca_file: The only CA that is believed; the system's when None.
            headers: Added to ours.

        Raises:
            ProviderDown: Unreachable, TLS failure, slow, or a 5xx or 429 answer.
            ProviderFault: A redirect, or a body over the limit.
        """
        return await self._exchange("GET", url, step, ca_file=ca_file, headers=headers)

    async def post_form(
        self,
        url: str,
        body: str,
        *,
        step: str,
        ca_file: Path | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """POST a form that is already encoded; everything else as `get`."""
        sent = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        return await self._exchange(
            "POST", url, step, ca_file=ca_file, headers=sent, body=body.encode("ascii")
        )

    async def _exchange(
        self,
        method: str,
        url: str,
        step: str,
        *,
        ca_file: Path | None,
        headers: Mapping[str, str] | None,
        body: bytes | None = None,
    ) -> Answer:
        # A compressed body could be small on the wire and huge in memory, so none is asked for.
        sent = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
        try:
            context = self._context(ca_file)
        except OSError as error:  # ssl.SSLError is one: a file without a certificate
            raise ProviderDown(step, f"ca_file {ca_file} cannot be read") from error
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client().request(
                    method,
                    url,
                    data=body,
                    headers=sent,
                    allow_redirects=False,
                    ssl=context,
                ) as response,
            ):
                answer = Answer(response.status, await _read(response, step))
        except TimeoutError as error:
            reason = f"timed out after {self._timeout_s:g}s"
            raise ProviderDown(step, f"{place(url)}: {reason}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ProviderDown(step, f"{place(url)}: {_reason(error)}") from error
        if 300 <= answer.status < 400:
            raise ProviderFault(step, f"{place(url)}: HTTP {answer.status}, a redirect")
        if answer.status >= 500 or answer.status == 429:
            raise ProviderDown(step, f"{place(url)}: HTTP {answer.status}")
        return answer

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                # The deadline is ours, in _exchange; aiohttp's own would be a second one.
                timeout=aiohttp.ClientTimeout(total=None),
                # Logins are rare, and a kept connection that the provider closes just then would
                # fail a token request that must not be repeated.
                connector=aiohttp.TCPConnector(limit=32, limit_per_host=16, force_close=True),
            )
        return self._session

    def _context(self, ca_file: Path | None) -> ssl.SSLContext | bool:
        if ca_file is None:
            return True
        # Read again when the file changed, so that a renewed CA needs no restart.
        changed = ca_file.stat().st_mtime_ns
        known = self._contexts.get(ca_file)
        if known is None or known[0] != changed:
            known = (changed, ssl.create_default_context(cafile=str(ca_file)))
            self._contexts[ca_file] = known
        return known[1]


def place(url: str) -> str:
    """The host and path of a URL, for messages: a query or user part may hold a secret."""
    parts = urlsplit(url)
    found = f"{parts.netloc.rpartition('@')[2]}{parts.path}"
    return found if len(found) <= MAX_PLACE_CHARS else f"{found[:MAX_PLACE_CHARS]}..."


def _reason(error: Exception) -> str:
    """Why a request failed, in an operator's words.

    Never an exception's own text: it may quote the URL, and a URL may hold a code.
    """
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        why = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else ""
        return f"certificate not trusted: {why}" if why else "certificate not trusted"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return "TLS handshake failed"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "closed the connection without an answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the answer broke off"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is not valid HTTP"
    if isinstance(error, OSError):
        # Several addresses may have failed in several ways, and then there is no one number.
        return os.strerror(error.errno).lower() if error.errno else "cannot be connected to"
    return f"request failed: {type(error).__name__}"


async def _read(response: aiohttp.ClientResponse, step: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    while chunk := await response.content.readany():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise ProviderFault(step, f"answered more than {MAX_BODY_BYTES} bytes")
        parts.append(chunk)
    return b"".join(parts)
