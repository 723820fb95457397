"""Where somebody may be sent after signing in: only ever to a host we serve (security.md A).

Pure. What arrives as `rd` is hostile until it is either a path, which is then put behind the URL of
a host we know, or an absolute https URL whose host and port are exactly those of a host we know.
There is no general URL parser here on purpose: browsers, `urllib` and every other parser disagree
about the odd ones, and all of those fall back to the start page.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from heim_proxy.identity.handoff import is_challenge
from heim_proxy.identity.redirect import MAX_RD_CHARACTERS, safe_rd
from heim_proxy.target import canonical_host

__all__ = ["Goal", "goal_of", "own_page", "page_of"]

_URL: Final = re.compile(r"https://([A-Za-z0-9.-]{1,254})(?::([0-9]{1,5}))?((?:[/?][!-~]*)?)")

# Pages of the login host that send people to sign in first. To the letter: they are what we wrote
# into the link ourselves, and none of them redirects anywhere by being looked at.
_OWN: Final = re.compile(
    r"/\.heim/(?:cli/authorize|devices?|agents)(?:\?[A-Za-z0-9%&=+._~:/-]*)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Goal:
    """Where somebody wants to go.

    `host` is the canonical name of a backend's host, or None for the login host's own pages; `path`
    has its query with it; `binding` ties a hand-off to the browser that asked on `host`, and is
    None when the wish did not come from there.
    """

    host: str | None = None
    path: str = "/"
    binding: str | None = None


def goal_of(
    host: str | None,
    rd: str | None,
    binding: str | None,
    *,
    origin_of: Callable[[str], str | None],
) -> Goal:
    """The goal that the parameters of a login request name, or the closest safe one.

    Args:
        host: The app host that sent the browser here; None when it came by itself.
        rd: A path of `host`, or an absolute URL.
        binding: SHA-256 of the secret in a cookie of `host`, in base64url.
        origin_of: The public origin ("https://host[:port]") of a backend's canonical host; None
            for hosts that are not ours.
    """
    known = None if host is None else _canonical(host)
    if known is not None and origin_of(known) is None:
        known = None
    bound = binding if binding is not None and is_challenge(binding) else None
    if rd is None:
        return Goal(known, "/", bound) if known else Goal()
    if host is None and own_page(rd) is not None:
        return Goal(None, rd)
    absolute = _absolute(rd, origin_of)
    if absolute is not None:
        there, path = absolute
        # The binding was made on the host that sent the browser, and is worth nothing elsewhere.
        return Goal(there, path, bound if there == known else None)
    if known is None:
        return Goal()
    return Goal(known, safe_rd(rd), bound)


def own_page(path: str) -> str | None:
    """`path` if it is a page of the login host that people may come back to after signing in."""
    if len(path) > MAX_RD_CHARACTERS or _OWN.fullmatch(path) is None:
        return None
    return path


def page_of(
    host: str | None, path: str | None, *, origin_of: Callable[[str], str | None]
) -> Goal | None:
    """The page `path` of a backend's host; None unless both are exactly that.

    Stricter than `goal_of`, for links that had better be missing than lead to the wrong place.
    """
    if host is None or path is None or _canonical(host) != host or origin_of(host) is None:
        return None
    return Goal(host, path) if safe_rd(path) == path else None


def _canonical(host: str) -> str | None:
    # Not by str.lower(): the Kelvin sign lowercases to k.
    return canonical_host(host.encode("ascii")) if host.isascii() else None


def _absolute(rd: str, origin_of: Callable[[str], str | None]) -> tuple[str, str] | None:
    if len(rd) > MAX_RD_CHARACTERS:
        return None
    found = _URL.fullmatch(rd)
    host = _canonical(found[1]) if found else None
    if found is None or host is None:
        return None
    port = found[2]
    asked = f"https://{host}" if port in (None, "443") else f"https://{host}:{port}"
    if origin_of(host) != asked:
        return None
    rest = found[3]
    return host, safe_rd(rest if rest.startswith("/") else f"/{rest}")
