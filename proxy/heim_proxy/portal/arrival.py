"""Arriving on an application's host with a ticket from the login host (decision 5)."""

from __future__ import annotations

from aiohttp import web

from heim_proxy.identity.cookies import FLOW_PREFIX, clear_cookie
from heim_proxy.identity.handoff import MAX_FLOWS, HandoffErrorKind, Redeemed
from heim_proxy.portal.errors import PortalError, TryAgain
from heim_proxy.portal.visit import Visit, redirect

__all__ = ["arrive"]


async def arrive(visit: Visit) -> web.StreamResponse:
    """GET /.heim/handoff?t on a backend's host: redeem the ticket and set the session cookie."""
    visit.refuse_speculation()
    query = visit.query()
    host = visit.facts.host
    origin = visit.settings.public_url(host)
    flows = [(name, value) for name, value in visit.cookies if name.startswith(FLOW_PREFIX)]
    result = await visit.ctx.tickets.redeem(query.get("t", ""), host, flows, visit.now)
    if isinstance(result, Redeemed):
        session = await visit.ctx.sessions.get(result.sid, visit.now)
        if session is None:
            # Signed out between the two redirects; the page asks for a login again.
            return redirect(f"{origin}{result.rd}", (clear_cookie(result.flow_name),))
        cookie = visit.ctx.sessions.cookie_for(session, host, visit.now)
        return redirect(f"{origin}{result.rd}", (clear_cookie(result.flow_name), cookie))
    if await visit.session() is not None:
        # Back button or reload: the ticket is gone, the session it gave is here.
        return redirect(f"{origin}{result.rd}")
    if result.kind is HandoffErrorKind.OTHER_BROWSER and len(flows) >= MAX_FLOWS:
        # Many tabs at once: younger flows pushed this one's cookie out. Asking again ends, because
        # the youngest always arrive, and with the first of them the session is here.
        return redirect(f"{origin}{result.rd}")
    visit.audit("login.failed", step="handoff", detail=result.kind.value, host=host)
    raise PortalError(
        400,
        "The sign-in did not arrive in the browser that asked for it.",
        f"The cookie set before signing in did not return: allow cookies for {host}, or finish "
        "in the browser where you began.",
        step="passing the session on",
        link=TryAgain(f"{origin}{result.rd}"),
    )
