"""What objects are called in the configuration: names that no two objects can share.

An Ingress `web` in `shop` is the backend `ingress.shop.web`; our own kinds, whose names hold no
dots, are `shop.web`. A namespace never holds a dot, so the parts can be told apart. A name that
would be too long ends in the SHA-256 of the whole, and its first label says so: it can be neither
guessed into nor mistaken for one that is written out.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

__all__ = ["MAX_CHARS", "ingress_name", "is_label", "is_object_key", "own_name"]

# What heim_config accepts as a name.
MAX_CHARS: Final = 253

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_KEY: Final = re.compile(
    r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?/"
    r"(?=.{1,253}\Z)[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*",
    re.ASCII,
)


def ingress_name(namespace: str, name: str, *, plain: bool = False) -> str:
    """The backend of an Ingress; `plain` for those of its hosts that plain http serves too."""
    kind = "ingress-plain" if plain else "ingress"
    whole = f"{kind}.{namespace}.{name}"
    if len(whole) <= MAX_CHARS:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()
    start = f"{kind}-long.{namespace}.{name}"[: MAX_CHARS - len(digest) - 1]
    return f"{start}-{digest}"


def own_name(namespace: str, name: str) -> str:
    """The configuration's name of an object of our own kinds; both must be labels."""
    return f"{namespace}.{name}"


def is_label(text: object) -> bool:
    """Whether `text` is a DNS label (RFC 1123, 2.1): what namespaces and our objects are called."""
    return isinstance(text, str) and _LABEL.fullmatch(text) is not None


def is_object_key(namespace: str, name: str) -> bool:
    """Whether an object can be called so at all; what an API server sends always can."""
    return _KEY.fullmatch(f"{namespace}/{name}") is not None
