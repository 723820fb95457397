"""Which applications somebody may open, and at which of their pages to begin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from heim_proxy.access.policy import Allow, Grants
from heim_proxy.routing import HostRoutes

__all__ = ["Application", "entrance"]

_GET: Final = b"GET"


@dataclass(frozen=True, slots=True)
class Application:
    """A backend as people see it: its name, and the address of a page they may open."""

    name: str
    url: str


def entrance(grants: Grants, backend: str, routes: HostRoutes) -> bytes | None:
    """The canonical path on which to begin with a backend; None when nothing of it may be read.

    The root if it may be, else the first page that is both served and allowed. Rules of wildcards
    only (`/users/*/profile`) name no page; then it is the root, too. What only a break-glass role
    opens is not offered: nobody should break the glass by following a link.
    """
    heads = grants.readable(backend)
    if not heads:
        return None
    served = (b"/", *(route.path for route in reversed(routes.prefixes)), *routes.exact, *heads)
    return next(_open(served, grants, backend, routes), b"/")


def _open(
    paths: tuple[bytes, ...], grants: Grants, backend: str, routes: HostRoutes
) -> Iterator[bytes]:
    for path in paths:
        decision = grants.decide(backend, _GET, path)
        if isinstance(decision, Allow) and not decision.break_glass:
            route = routes.match(path)
            if route is not None and route.backend.name == backend:
                yield path
