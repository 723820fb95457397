from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_controller.kube.errors import ApiError, Busy, Garbled, Gone, Unreachable
from heim_controller.kube.watch import Lines, WatchEvent, events_of


class Content:
    """The body of an answer, as aiohttp reads it."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self.pieces = pieces
        self.error = error
        self.content = self

    async def iter_any(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.error is not None:
            raise self.error


async def read(*pieces: bytes, error: Exception | None = None) -> list[WatchEvent]:
    response = cast(aiohttp.ClientResponse, Content(*pieces, error=error))
    return [event async for event in events_of(response)]


def line(kind: Any, manifest: Any) -> bytes:
    return json.dumps({"type": kind, "object": manifest}).encode() + b"\n"


LEASE = {"metadata": {"name": "a", "resourceVersion": "7"}}


@given(
    st.lists(st.binary(min_size=1).filter(lambda word: b"\n" not in word and word.strip())),
    st.lists(st.integers(1, 9)),
)
def test_lines_do_not_depend_on_how_they_were_cut(words: list[bytes], sizes: list[int]) -> None:
    data = b"".join(word + b"\n" for word in words)
    lines, start = Lines(), 0
    found: list[bytes] = []
    for size in [*sizes, len(data) + 1]:
        found += lines.feed(data[start : start + size])
        start += size
    assert found == [word.strip() for word in words]


def test_a_line_has_an_end() -> None:
    lines = Lines(limit=10)
    assert list(lines.feed(b"0123456789")) == []
    with pytest.raises(Garbled, match="longer than 10"):
        list(lines.feed(b"x"))


def test_a_line_of_pieces_is_searched_once() -> None:
    lines = Lines()
    piece = b"x" * 1000
    for _ in range(3000):  # 3 MB: seconds if every piece searched all of it
        assert list(lines.feed(piece)) == []
    assert [len(found) for found in lines.feed(b"\n")] == [3_000_000]


async def test_events_are_told_in_order() -> None:
    data = line("ADDED", LEASE) + b"\n" + line("BOOKMARK", {"metadata": {}})
    assert [event.type for event in await read(data[:30], data[30:])] == ["ADDED", "BOOKMARK"]


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\n", b"[]\n", b"7\n", line("ADDED", None), line("MOVED", LEASE), line([], LEASE),
        line("ADDED", {}), line("ADDED", {"metadata": {}}), line("ADDED", {"metadata": []}),
        b"{\xff}\n",
    ],
    ids=[
        "text", "list", "number", "nothing", "verb", "no verb", "no metadata", "no name",
        "odd metadata", "bytes",
    ],
)  # fmt: skip
async def test_what_is_no_event_is_garbled(data: bytes) -> None:
    with pytest.raises(Garbled):
        await read(data)


@pytest.mark.parametrize(
    ("status", "kind"),
    [({"code": 410, "reason": "Expired"}, Gone), ({"code": 500}, Busy), ({}, Busy)],
    ids=["gone", "failure", "unsaid"],
)
async def test_an_error_ends_a_watch(status: dict[str, Any], kind: type[ApiError]) -> None:
    with pytest.raises(kind):
        await read(line("ERROR", status))


@pytest.mark.parametrize(
    "error",
    [aiohttp.ClientPayloadError("cut"), TimeoutError(), ConnectionResetError()],
    ids=["cut", "silent", "reset"],
)
async def test_a_watch_that_breaks_is_unreachable(error: Exception) -> None:
    with pytest.raises(Unreachable):
        await read(line("ADDED", LEASE), error=error)
