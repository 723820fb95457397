"""A configuration document out of the pieces in which it is published, or nothing yet.

A ConfigMap holds at most 1 MiB, so a large document comes in shards, each written by itself. The
index says how the whole must hash: a set of which only some are written is never taken for one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from heim_config.layers import MAX_DOCUMENT_BYTES
from heim_wire.strict_json import StrictJsonError, read_object

__all__ = ["INDEX", "IncompleteError", "Sheet", "assemble", "sha256_of", "shards_of"]

INDEX: Final = "index.json"

VERSION: Final = 1
# One in each of nine ConfigMaps; more pieces only have a reason when they are small.
MAX_SHARDS: Final = 64

# A key of a ConfigMap, which is a file's name where it is mounted: never "..data", never a path.
_KEY: Final = re.compile(r"(?!\.\.)[A-Za-z0-9._-]{1,253}", re.ASCII)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A document that is complete: its bytes, and their SHA-256 in hexadecimal."""

    content: bytes
    sha256: str

    def __repr__(self) -> str:
        return f"<Sheet {self.sha256[:16]} bytes={len(self.content)}>"


class IncompleteError(Exception):
    """Pieces that are no document (yet); the text says in one line what is wrong with them."""


@dataclass(frozen=True, slots=True)
class _Index:
    sha256: str
    shards: tuple[str, ...]


def shards_of(pieces: Mapping[str, bytes]) -> tuple[str, ...]:
    """The keys that the index lists, in order; () when there is no usable index."""
    try:
        return _index(pieces).shards
    except IncompleteError:
        return ()


def sha256_of(pieces: Mapping[str, bytes]) -> str | None:
    """The hash that the index tells of its document; None when there is no usable index."""
    try:
        return _index(pieces).sha256
    except IncompleteError:
        return None


def assemble(pieces: Mapping[str, bytes]) -> Sheet:
    """Join the shards that the index lists.

    Args:
        pieces: The index and the shards by their keys; others are left alone.

    Raises:
        IncompleteError: When they are not all there, or not all of the same document.
    """
    index = _index(pieces)
    missing = [name for name in index.shards if name not in pieces]
    if missing:
        raise IncompleteError(f"{missing[0]} is missing")
    if sum(len(pieces[name]) for name in index.shards) > MAX_DOCUMENT_BYTES:
        raise IncompleteError(f"the document is larger than {MAX_DOCUMENT_BYTES >> 20} MiB")
    content = b"".join(pieces[name] for name in index.shards)
    if hashlib.sha256(content).hexdigest() != index.sha256:
        raise IncompleteError(f"it is not what {INDEX} says: half of a change is written")
    return Sheet(content, index.sha256)


def _index(pieces: Mapping[str, bytes]) -> _Index:
    if INDEX not in pieces:
        raise IncompleteError(f"{INDEX} is missing")
    try:
        told: dict[str, Any] = read_object(pieces[INDEX])
    except StrictJsonError as error:
        raise IncompleteError(f"{INDEX} {error}") from error
    if told.get("version") != VERSION:
        raise IncompleteError(f"{INDEX} is not of version {VERSION}, the only one known here")
    sha256, shards = told.get("sha256"), told.get("shards")
    if not isinstance(sha256, str) or not _DIGEST.fullmatch(sha256):
        raise IncompleteError(f"{INDEX} has no sha256")
    if not isinstance(shards, list) or not 0 < len(shards) <= MAX_SHARDS or not _are_keys(shards):
        raise IncompleteError(f"{INDEX} lists no usable shards")
    return _Index(sha256, tuple(shards))


def _are_keys(names: Iterable[object]) -> bool:
    return all(isinstance(name, str) and _KEY.fullmatch(name) for name in names)
