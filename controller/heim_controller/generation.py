"""One generation of the configuration: what the cluster says now, translated and in bytes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from heim_controller.caches import Inventory
from heim_controller.certificates import Book
from heim_controller.issuing import with_issued
from heim_controller.mirror import mirrors_of
from heim_controller.sharding import CAPACITY, split
from heim_controller.translation.document import canonical, digest
from heim_controller.translation.memory import Memory
from heim_controller.translation.objects import listed, mapping
from heim_controller.translation.settings import Settings
from heim_controller.translation.shedding import shed, weigh
from heim_controller.translation.translate import Translation, translate
from heim_runtime.collector import paused

__all__ = ["Generation", "count_routes", "generate"]


@dataclass(frozen=True, slots=True)
class Generation:
    """What one translation gave.

    Attributes:
        translation: The document, what to say, who is served.
        content: The document's canonical bytes.
        digest: Their SHA-256 in hexadecimal.
        data: The data of each ConfigMap; None when the document is too large for them.
        complaint: Why there is no data.
        routes: How many routes and streams the document has.
        seconds: How long it took.
    """

    translation: Translation
    content: bytes
    digest: str
    data: list[dict[str, str]] | None
    complaint: str
    routes: int
    seconds: float

    def __repr__(self) -> str:
        return f"<Generation {self.digest[:16]} bytes={len(self.content)} routes={self.routes}>"


@paused()
def generate(
    inventory: Inventory,
    settings: Settings,
    book: Book,
    *,
    owners: Mapping[str, str],
    now: float,
    memory: Memory | None = None,
    limit: int = CAPACITY,
) -> Generation:
    """Translate an inventory.

    Takes 90 µs for each Ingress, and 10 for one that `memory` knows, so call it in a thread.

    Args:
        inventory: What there is.
        settings: What the controller was started with.
        book: What was known of TLS Secrets before; it learns.
        owners: Which namespace each host belonged to after the last generation.
        now: Seconds since the epoch.
        memory: What the last generation left; it learns. The result is the same without.
        limit: Bytes that a document may have before namespaces are left out of it.
    """
    began = time.perf_counter()
    known = book.look(
        inventory.secrets, mirrors_of(inventory.own), now=now, excuses=inventory.excuses
    )
    objects = replace(
        inventory.objects,
        certificates=known,
        proxies=with_issued(inventory.objects.proxies, settings),
    )
    memory = memory or Memory()
    translation = translate(objects, settings, owners=owners, now=now, memory=memory)
    content = canonical(translation.document, memory.texts)
    if len(content) > limit:
        translation = shed(translation, limit=limit, proxy=settings.proxy)
        content = canonical(translation.document)
    data, complaint = None, ""
    try:
        data = split(content, translation.owners)
    except ValueError as e:
        [(name, size)] = weigh(translation).most_common(1) or [("", 0)]
        complaint = f"{e}; namespace {name} alone takes {size} of them"
    return Generation(
        translation,
        content,
        digest(content),
        data,
        complaint,
        count_routes(translation.document),
        time.perf_counter() - began,
    )


def count_routes(document: Mapping[str, Any]) -> int:
    """How many routes and streams a document has."""
    return sum(
        len(listed(backend.get("http"))) + ("tcp" in backend)
        for backend in map(mapping, listed(document.get("backends")))
    )
