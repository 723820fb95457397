"""A watch: the answer that never ends, one JSON object on each line."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import aiohttp

from heim_controller.kube.errors import Garbled, Unreachable, error_for
from heim_controller.kube.resources import Manifest

__all__ = ["EventType", "Lines", "WatchEvent", "events_of"]

EventType: TypeAlias = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]

_TYPES: Final[dict[str, EventType]] = {word: word for word in get_args(EventType)}

# etcd refuses objects over 1.5 MiB, and an aggregated API server may hold larger ones. JSON of an
# object beyond this is no object of ours, and would be kept in memory.
MAX_LINE: Final = 16 * 2**20


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One line of a watch.

    Attributes:
        type: What happened. A BOOKMARK only carries a resource version.
        object: The object as it is now; as it was last, when it is DELETED.
    """

    type: EventType
    object: Manifest


class Lines:
    """Cuts bytes into lines, however they were cut on the way."""

    __slots__ = ("_limit", "_rest", "_searched")

    def __init__(self, limit: int = MAX_LINE) -> None:
        """Refuse lines longer than `limit` bytes."""
        self._limit = limit
        self._rest = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes and give the lines that are complete, without their ends; skip empty ones.

        Raises:
            Garbled: A line is longer than the limit.
        """
        self._rest += data
        while (end := self._rest.find(b"\n", self._searched)) >= 0:
            line = bytes(self._rest[:end]).strip()
            del self._rest[: end + 1]
            self._searched = 0
            if line:
                yield line
        # A 3 MiB object comes in hundreds of pieces: each byte is looked at once.
        self._searched = len(self._rest)
        if self._searched > self._limit:
            raise Garbled(f"a line of a watch is longer than {self._limit} bytes")


async def events_of(response: aiohttp.ClientResponse) -> AsyncGenerator[WatchEvent, None]:
    """The events of a watch, until the server ends it.

    Raises:
        ApiError: The watch ends with an error; `Gone` when the version was compacted.
        Garbled: A line is not an event.
        Unreachable: Cut off, or silent for longer than the request's deadline for reading.
    """
    lines = Lines()
    try:
        async for data in response.content.iter_any():
            for line in lines.feed(data):
                yield _event(line)
    except (aiohttp.ClientError, TimeoutError, OSError) as e:
        raise Unreachable(f"watch: {e or type(e).__name__}") from e


def _event(line: bytes) -> WatchEvent:
    try:
        told: Any = json.loads(line)
    except ValueError as e:
        raise Garbled(f"a line of a watch is not JSON: {line[:80]!r}") from e
    kind = told.get("type") if isinstance(told, dict) else None
    manifest = told.get("object") if isinstance(told, dict) else None
    if not isinstance(manifest, dict):
        raise Garbled(f"a line of a watch has no object: {line[:80]!r}")
    if kind == "ERROR":
        code = manifest.get("code")
        raise error_for(code if isinstance(code, int) else 500, json.dumps(manifest).encode())
    word = _TYPES.get(kind) if isinstance(kind, str) else None
    metadata = manifest.get("metadata")
    if word is None or not isinstance(metadata, dict):
        raise Garbled(f"a line of a watch is no event: {line[:80]!r}")
    if word != "BOOKMARK" and not isinstance(metadata.get("name"), str):
        raise Garbled(f"a line of a watch has an object without a name: {line[:80]!r}")
    return WatchEvent(word, manifest)
