from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from heim_proxy.sources.document import (
    INDEX,
    MAX_SHARDS,
    IncompleteError,
    assemble,
    sha256_of,
    shards_of,
)

CONTENT = b'{"backends":[],"roles":[]}'
SHA = hashlib.sha256(CONTENT).hexdigest()


def pieces(*parts: bytes, **told: Any) -> dict[str, bytes]:
    """An index and its shards; `told` changes what the index says."""
    names = [f"document-{number}" for number in range(len(parts))]
    index = {"version": 1, "sha256": SHA, "shards": names, **told}
    return {INDEX: json.dumps(index).encode(), **dict(zip(names, parts, strict=True))}


@pytest.mark.parametrize(
    "parts", [(CONTENT,), (CONTENT[:5], CONTENT[5:9], CONTENT[9:])], ids=["one", "three"]
)
def test_shards_are_joined_in_the_order_of_the_index(parts: tuple[bytes, ...]) -> None:
    sheet = assemble({**pieces(*parts), "other": b"left alone"})
    assert (sheet.content, sheet.sha256) == (CONTENT, SHA)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, "index.json is missing"),
        ({INDEX: b"{"}, "index.json is not JSON"),
        ({INDEX: b"[]"}, "index.json is not a JSON object"),
        (pieces(CONTENT, version=2), "index.json is not of version 1"),
        (pieces(CONTENT, version="1"), "index.json is not of version 1"),
        (pieces(CONTENT, sha256="x"), "index.json has no sha256"),
        (pieces(CONTENT, sha256=None), "index.json has no sha256"),
        (pieces(CONTENT, sha256=SHA.upper()), "index.json has no sha256"),
        (pieces(CONTENT, shards=[]), "index.json lists no usable shards"),
        (pieces(CONTENT, shards="document-0"), "index.json lists no usable shards"),
        (pieces(CONTENT, shards=[1]), "index.json lists no usable shards"),
        (pieces(CONTENT, shards=["../etc/passwd"]), "index.json lists no usable shards"),
        (pieces(CONTENT, shards=["..data"]), "index.json lists no usable shards"),
        (pieces(CONTENT, shards=["x"] * (MAX_SHARDS + 1)), "index.json lists no usable shards"),
        (pieces(CONTENT, shards=["document-0", "document-1"]), "document-1 is missing"),
        (pieces(CONTENT[:-1]), "half of a change is written"),
        (pieces(CONTENT[5:], CONTENT[:5]), "half of a change is written"),
    ],
    ids=[
        "nothing", "half an index", "a list", "newer", "version as text", "short hash", "no hash",
        "upper case", "no shards", "a shard as text", "a number", "a path", "kubelet's link",
        "too many", "one missing", "cut", "swapped",
    ],
)  # fmt: skip
def test_what_is_not_whole_is_no_document(found: dict[str, bytes], message: str) -> None:
    with pytest.raises(IncompleteError, match=message):
        assemble(found)


def test_a_document_beyond_the_limit_is_refused_before_it_is_joined() -> None:
    part = b"x" * (3 << 20)
    with pytest.raises(IncompleteError, match="larger than 8 MiB"):
        assemble(pieces(part, part, part))


def test_the_index_is_understood_before_the_shards_are_there() -> None:
    found = {INDEX: pieces(CONTENT)[INDEX]}
    assert shards_of(found) == ("document-0",)
    assert sha256_of(found) == SHA
    assert shards_of({}) == ()
    assert sha256_of({INDEX: b"{"}) is None


def test_a_repr_does_not_show_the_document() -> None:
    assert repr(assemble(pieces(CONTENT))) == f"<Sheet {SHA[:16]} bytes={len(CONTENT)}>"
