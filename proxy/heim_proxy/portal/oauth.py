"""How programs are answered: JSON, and errors in the words of OAuth (RFC 6749, 5.2)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from heim_proxy.portal.errors import PortalError
from heim_proxy.portal.forms import read_form
from heim_proxy.portal.limits import RateLimit, client_key
from heim_proxy.portal.visit import Visit
from heim_proxy.store.base import StoreUnavailable

__all__ = ["Handler", "OAuthError", "for_programs", "form_of", "needed"]

log = logging.getLogger(__name__)

Handler = Callable[[Visit], Awaitable[web.StreamResponse]]


@dataclass(eq=False)
class OAuthError(Exception):
    """Stops a handler; becomes ``{error, error_description, request_id}``.

    Attributes:
        error: The word that programs act on.
        description: What happened and what to do, one sentence for people.
        status: The HTTP status.
        headers: Added to the answer.
    """

    error: str
    description: str
    status: int = 400
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status} {self.error}"


def for_programs(handler: Handler, *, rate_limit: RateLimit) -> Handler:
    """A handler whose every failure is JSON, within a rate per client."""

    async def answer(visit: Visit) -> web.StreamResponse:
        try:
            wait = rate_limit.wait(client_key(visit.facts.client), visit.ctx.clock.monotonic())
            if wait > 0:
                raise _busy("Too many requests from your address; try again later.", wait)
            return await handler(visit)
        except OAuthError as error:
            return _json(visit, error)
        except PortalError as error:
            return _json(visit, OAuthError("invalid_request", error.title, error.status))
        except StoreUnavailable as error:
            reason = {"reason": str(error), **visit.facts.ids}
            log.warning("portal.store_unavailable", extra=reason)
            failure = OAuthError(
                "temporarily_unavailable",
                "Logins cannot be looked up right now; try again in a minute.",
                503,
                {"Retry-After": "5"},
            )
            return _json(visit, failure)

    return answer


async def form_of(visit: Visit) -> Mapping[str, str]:
    """The form of a request; its body can be read only once.

    Raises:
        OAuthError: invalid_request, when it is none.
    """
    form = await read_form(visit.request)
    if form is None:
        raise OAuthError(
            "invalid_request",
            "The request is no urlencoded form of ours: every field once, 4 KiB in all.",
        )
    return form


def needed(form: Mapping[str, str], *names: str) -> tuple[str, ...]:
    """The values of these fields.

    Raises:
        OAuthError: invalid_request, when one is missing or empty.
    """
    missing = [name for name in names if not form.get(name)]
    if missing:
        raise OAuthError("invalid_request", f"The request has no {' and no '.join(missing)}.")
    return tuple(form[name] for name in names)


def _busy(description: str, wait: float) -> OAuthError:
    # Not slow_down: that is for devices that poll, with status 400, which other programs take
    # for the end of their login.
    headers = {"Retry-After": str(int(wait) + 1)}
    return OAuthError("temporarily_unavailable", description, 429, headers)


def _json(visit: Visit, error: OAuthError) -> web.Response:
    document = {
        "error": error.error,
        "error_description": error.description,
        "request_id": visit.facts.request_id,
    }
    return web.json_response(document, status=error.status, headers=error.headers)
