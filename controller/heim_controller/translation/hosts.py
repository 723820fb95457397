"""Hosts of rules in canonical form, and which namespace each belongs to.

A host belongs to the namespace whose object named it first. So does what a one-label wildcard
covers: under an older ``*.example.com`` of somebody else nobody can take ``login.example.com``.
Objects can be edited to name other hosts without getting younger, so a namespace that had a host
before keeps it for as long as it names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

__all__ = ["CATCH_ALL", "Owners", "canonical_host", "parent_wildcard", "under_suffix"]

# How the configuration spells "any host that nobody else has".
CATCH_ALL: Final = "*"

# The last label must hold a letter: browsers read a name that ends in a number as an address
# (WHATWG URL, host parsing).
_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*"
    r"(?!(?:[0-9]+|0x[0-9a-f]*)\Z)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?",
    re.ASCII,
)

# Every host is written twice or more, and translated again with every change.
_REMEMBERED: Final = 16384

Seniority = tuple[str, str, str]


@lru_cache(_REMEMBERED)
def canonical_host(text: str) -> str | None:
    """A host as everything compares it: lower case, no trailing dot; None when it is not one.

    ``*.`` in front stands for one label. Names outside ASCII come as punycode.
    """
    host = text.lower().removesuffix(".")
    return host if _HOST.fullmatch(host) else None


def parent_wildcard(host: str) -> str | None:
    """The wildcard that covers an exact `host`; None for wildcards and single labels."""
    label, dot, parent = host.partition(".")
    return f"*.{parent}" if dot and label != "*" else None


def under_suffix(host: str, suffixes: Iterable[str]) -> bool:
    """Whether `host` is one of `suffixes` or below one; borders are dots."""
    name = host.removeprefix("*.")
    return any(name == suffix or name.endswith(f".{suffix}") for suffix in suffixes)


class Owners:
    """Which namespace each host belongs to.

    Args:
        claims: Host, namespace and seniority of every rule that names a host.
        before: The outcome of last time.
    """

    __slots__ = ("_claims", "hosts")

    def __init__(
        self, claims: Iterable[tuple[str, str, Seniority]], before: Mapping[str, str]
    ) -> None:
        # The best claim on each host: whether it is new, its seniority, its namespace.
        best: dict[str, tuple[bool, Seniority, str]] = {}
        for host, namespace, seniority in claims:
            claim = (before.get(host) != namespace, seniority, namespace)
            known = best.get(host)
            if known is None or claim < known:
                best[host] = claim
        self._claims = best
        self.hosts: dict[str, str] = {host: self._owner(host) for host in best}

    def may(self, namespace: str, host: str) -> bool:
        """Whether a namespace may answer for `host`, by age: nobody else had it before."""
        owner = self.owner(host)
        return owner is None or owner == namespace

    def owner(self, host: str) -> str | None:
        """Whose `host` is, named or covered by a wildcard; None when it is nobody's."""
        named = self.hosts.get(host)
        if named is not None:
            return named
        wildcard = parent_wildcard(host)
        return self.hosts.get(wildcard) if wildcard is not None else None

    def _owner(self, host: str) -> str:
        claim = self._claims[host]
        is_new = claim[0]
        if not is_new:
            return claim[2]
        wildcard = parent_wildcard(host)
        wider = self._claims.get(wildcard) if wildcard is not None else None
        return wider[2] if wider is not None and wider < claim else claim[2]
