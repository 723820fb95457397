"""The page somebody signed out from, kept in their browser while the provider signs them out.

It cannot travel in the URL that the provider sends people back to: that one is registered to the
letter. So it is a sealed cookie of the login host, and what comes out is judged again like anything
else that says where to go: a page of a backend's host, or nothing.
"""

from __future__ import annotations

from typing import Final

from heim_proxy.identity.cookies import RETURN_COOKIE, clear_cookie, set_cookie
from heim_proxy.identity.seal import Purpose
from heim_proxy.portal.destination import Goal, page_of
from heim_proxy.portal.errors import PortalError
from heim_proxy.portal.visit import Visit

__all__ = ["keep_page", "kept_page", "page_left"]

# How long the provider's own sign-out may take, in seconds.
LIFETIME_S: Final = 10 * 60.0
# Sealed, 1.5 KiB: the head of a request stays within what `flow.MAX_COOKIE_BYTES` leaves to it.
MAX_PATH_CHARACTERS: Final = 1024


def page_left(visit: Visit) -> Goal | None:
    """The application's page that a request to sign out names; None for none, and for nonsense.

    On an application's host that is `rd`, on the login host `host` and `rd`. A damaged query is no
    reason to refuse a sign-out.
    """
    try:
        query = visit.query()
    except PortalError:
        return None
    host = query.get("host") if visit.facts.on_login_host else visit.facts.host
    return page_of(host, query.get("rd"), origin_of=visit.settings.origin_of)


def keep_page(visit: Visit, page: Goal | None) -> tuple[str, ...]:
    """The Set-Cookie values that make this browser remember `page`, or forget an earlier one."""
    if page is None or page.host is None:
        present = any(name == RETURN_COOKIE for name, _ in visit.cookies)
        return (clear_cookie(RETURN_COOKIE),) if present else ()
    path = page.path if len(page.path) <= MAX_PATH_CHARACTERS else page.path.partition("?")[0]
    path = path if len(path) <= MAX_PATH_CHARACTERS else "/"
    value = visit.ctx.sealer.seal(
        f"{visit.now!r}\n{page.host}\n{path}".encode("ascii"),
        purpose=Purpose.RETURN,
        host=visit.settings.login_host,
        name=RETURN_COOKIE,
    )
    return (set_cookie(RETURN_COOKIE, value, LIFETIME_S),)


def kept_page(visit: Visit) -> Goal | None:
    """The page this browser remembers; None when it is none of ours, or no longer."""
    values = [value for name, value in visit.cookies if name == RETURN_COOKIE]
    if len(values) != 1:
        return None
    opened = visit.ctx.sealer.open(
        values[0], purpose=Purpose.RETURN, host=visit.settings.login_host, name=RETURN_COOKIE
    )
    if opened is None:
        return None
    try:
        kept, host, path = opened.payload.decode("ascii").split("\n")
        if not 0 <= visit.now - float(kept) < LIFETIME_S:
            return None
    except ValueError:  # sealed by another version of us
        return None
    # Again: the host may have left the configuration since.
    return page_of(host, path, origin_of=visit.settings.origin_of)
