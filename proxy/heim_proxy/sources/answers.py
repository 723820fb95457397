"""What the API server answers, read: bounded, and no Secret in an error.

Everything here that goes wrong is an `ApiError`, which says what to do next.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import aiohttp

__all__ = [
    "MAX_ANSWER_BYTES",
    "MAX_ERROR_BYTES",
    "MAX_LIST_BYTES",
    "ApiError",
    "Event",
    "Selection",
    "content_of",
    "event_of",
    "lines_of",
    "object_of",
    "refusal",
    "unreachable",
]

# A line of a watch: more than any object that the API server keeps.
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
# A list; the first one comes from the server's cache and is one answer: 5,000 Secrets of 12 KiB.
# More is not ours, and would be kept in memory.
MAX_LIST_BYTES: Final = 64 * 1024 * 1024
MAX_ERROR_BYTES: Final = 16 * 1024


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
class Event:
    """One line of a watch; a BOOKMARK only carries a version."""

    type: str
    object: dict[str, Any]


async def content_of(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body of an answer.

    Raises:
        ApiError: It is longer than `limit` bytes, or breaks off.
    """
    content = bytearray()
    try:
        async for data in response.content.iter_any():
            content += data
            if len(content) > limit:
                raise ApiError(f"an answer is larger than {limit} bytes")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise unreachable(error) from error
    return bytes(content)


async def lines_of(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """The lines of a watch, however they were cut on the way; empty ones are left out.

    Raises:
        ApiError: One is too long. What is wrong with the connection is raised as it is.
    """
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


def event_of(line: bytes, wanted: Selection) -> Event:
    """The event that a line of a watch is.

    Raises:
        ApiError: It is none, or an error.
    """
    told = object_of(line, wanted)
    kind, manifest = told.get("type"), told.get("object")
    if not isinstance(kind, str) or not isinstance(manifest, dict):
        raise ApiError(f"watch of {wanted}: a line is no event", stale=True)
    if kind == "ERROR":
        code = manifest.get("code")
        status = code if isinstance(code, int) else 500
        raise ApiError(f"watch of {wanted}: {_words(manifest, status)}", status=status)
    return Event(kind, manifest)


def object_of(content: bytes, wanted: Selection) -> dict[str, Any]:
    """The JSON object that `content` is.

    Raises:
        ApiError: It is none. The text never quotes it: it may be a Secret.
    """
    try:
        told = json.loads(content)
    except (ValueError, RecursionError):
        raise ApiError(f"{wanted}: the answer is not JSON", stale=True) from None
    if not isinstance(told, dict):
        raise ApiError(f"{wanted}: the answer is no object", stale=True)
    return told


def refusal(response: aiohttp.ClientResponse, content: bytes, wanted: Selection) -> ApiError:
    """The error for an answer that is not 200."""
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


def unreachable(error: BaseException) -> ApiError:
    """The error for a connection that could not be made, or broke off."""
    if isinstance(error, TimeoutError):
        return ApiError("the API server does not answer")
    return ApiError(f"the API server cannot be reached: {error or type(error).__name__}"[:300])
