"""A configuration document as the data of ConfigMaps, and back.

A ConfigMap holds 1 MiB at most. A document that is larger comes in shards, the first in the
ConfigMap that the proxy is told of, the next ones in `<name>-1` to `<name>-8`, which is as many as
RBAC names. The index in the first says how the whole must hash, so that a set of which only some
are written is never taken for a document. Who owns which host stands beside it, for whoever
translates after a restart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["CAPACITY", "INDEX", "MAX_SHARDS", "OWNERS", "Sheet", "TooLargeError", "join", "split"]

INDEX: Final = "index.json"
OWNERS: Final = "owners.json"
MAX_SHARDS: Final = 9
# Of 1 MiB for all values of a ConfigMap, keys and the index included.
SHARD_BYTES: Final = 900 * 1024
# Beyond this, some 15,000 hosts, ownership is not remembered across restarts: the document goes
# first.
MAX_OWNERS_BYTES: Final = SHARD_BYTES // 2
# What a document may have so that it fits whatever owners there are; the proxy loads 8 MiB.
CAPACITY: Final = MAX_SHARDS * SHARD_BYTES - MAX_OWNERS_BYTES

_VERSION: Final = 1


class TooLargeError(ValueError):
    """A document that does not fit into as many ConfigMaps as there may be."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A published document: its bytes, their SHA-256 in hexadecimal, and the owners of hosts."""

    content: bytes
    digest: str
    owners: Mapping[str, str]


def split(
    content: bytes, owners: Mapping[str, str], *, shard_bytes: int = SHARD_BYTES
) -> list[dict[str, str]]:
    """The data of each ConfigMap, the first one first; the same for the same arguments.

    Args:
        content: The document; ASCII.
        owners: Which namespace each host belongs to.
        shard_bytes: What one ConfigMap may hold.

    Raises:
        TooLargeError: It does not fit.
    """
    kept = _owners_to_json(owners)
    if len(kept) > min(MAX_OWNERS_BYTES, shard_bytes // 2):
        kept = "{}"
    room = shard_bytes - len(kept)
    pieces = [content[:room]]
    pieces += [content[at : at + shard_bytes] for at in range(room, len(content), shard_bytes)]
    if len(pieces) > MAX_SHARDS:
        raise TooLargeError(
            f"the configuration has {len(content)} bytes; {MAX_SHARDS} ConfigMaps hold "
            f"{room + (MAX_SHARDS - 1) * shard_bytes}"
        )
    names = (
        ["document.json"]
        if len(pieces) == 1
        else [f"document-{number}.json" for number in range(len(pieces))]
    )
    data = [{name: piece.decode("ascii")} for name, piece in zip(names, pieces, strict=True)]
    digest = hashlib.sha256(content).hexdigest()
    index = {"sha256": digest, "shards": names, "version": _VERSION}
    data[0] |= {INDEX: _compact(index), OWNERS: kept}
    return data


def join(data: Mapping[str, Any]) -> Sheet | None:
    """The document in the data of all its ConfigMaps together; None when it is none.

    What somebody else wrote there is no document either: then there is nothing to go on from.
    """
    try:
        index = json.loads(data[INDEX])
        content = b"".join(data[name].encode("ascii") for name in index["shards"])
        digest = hashlib.sha256(content).hexdigest()
        if index["version"] != _VERSION or index["sha256"] != digest:
            return None
        return Sheet(content, digest, _owners_from_json(data.get(OWNERS)))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _owners_to_json(owners: Mapping[str, str]) -> str:
    by_namespace: dict[str, list[str]] = {}
    for host in sorted(owners):
        by_namespace.setdefault(owners[host], []).append(host)
    return _compact(by_namespace)


def _owners_from_json(text: object) -> dict[str, str]:
    found = json.loads(text) if isinstance(text, str) else {}
    return {str(host): str(namespace) for namespace, hosts in found.items() for host in hosts}


def _compact(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
