"""How agents are answered: JSON, and problem documents with a code that programs act on (RFC 9457).

The documents are those of the edge (`edge.responses`), so that a program has one form to read.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from heim_proxy.edge.responses import Refusal
from heim_proxy.edge.responses import problem as one_form
from heim_proxy.portal.forms import read_body
from heim_proxy.portal.limits import NetworkRate
from heim_proxy.portal.oauth import Handler
from heim_proxy.portal.visit import Visit
from heim_proxy.store.base import StoreUnavailable
from heim_wire.strict_json import StrictJsonError, read_object

__all__ = ["MAX_DOCUMENT_BYTES", "Document", "ProblemError", "document_of", "for_agents", "text_of"]

log = logging.getLogger(__name__)

MAX_DOCUMENT_BYTES: Final = 4096
"""A certificate signing request for a P-256 key is 300 bytes, in base64 400."""

Document = dict[str, object]

_UPDATE: Final = "update heim-agent"


@dataclass(eq=False)
class ProblemError(Exception):
    """Stops a handler; becomes a problem document.

    Attributes:
        status: The HTTP status.
        code: The stable word that programs act on.
        detail: What happened, one clause.
        hint: What to do about it, one clause.
        retry_after: Seconds after which it is worth trying again; 0 when that is not the remedy.
    """

    status: int
    code: str
    detail: str
    hint: str
    retry_after: int = 0

    def __str__(self) -> str:
        return f"{self.status} {self.code}"


def for_agents(handler: Handler, *, rate: NetworkRate) -> Handler:
    """A handler whose every refusal is a problem document, within a rate."""

    async def answer(visit: Visit) -> web.StreamResponse:
        try:
            wait = rate.wait(visit.facts.client, visit.ctx.clock.monotonic())
            if wait > 0:
                raise ProblemError(
                    429,
                    "busy",
                    "too many requests came from your address",
                    "wait, then try again",
                    retry_after=int(wait) + 1,
                )
            return await handler(visit)
        except ProblemError as problem:
            return _document(visit, problem)
        except StoreUnavailable as error:
            reason = {"reason": str(error), **visit.facts.ids}
            log.warning("portal.store_unavailable", extra=reason)
            failure = ProblemError(
                503,
                "busy",
                "enrolments cannot be looked up right now",
                "try again in a minute; agents that are connected are not affected",
                retry_after=5,
            )
            return _document(visit, failure)

    return answer


async def document_of(visit: Visit) -> Document:
    """The JSON object of a request; its body can be read only once.

    Raises:
        ProblemError: bad_request, when it is none.
    """
    # A page of another site cannot send this type without asking first, and nobody answers that.
    if visit.request.content_type != "application/json":
        raise ProblemError(415, "bad_request", "the request is not application/json", _UPDATE)
    body = await read_body(visit.request, max_bytes=MAX_DOCUMENT_BYTES)
    if body is None:
        limit = f"the request is longer than {MAX_DOCUMENT_BYTES} bytes"
        raise ProblemError(413, "bad_request", limit, _UPDATE)
    try:
        return read_object(body, max_bytes=MAX_DOCUMENT_BYTES)
    except StrictJsonError as error:
        detail = f"the request {error}"
        raise ProblemError(400, "bad_request", detail, _UPDATE) from error


def text_of(document: Document, name: str, *, optional: bool = False) -> str:
    """A text of a request.

    Raises:
        ProblemError: bad_request, when it is no text, or missing or empty and not `optional`.
    """
    value = document.get(name, "")
    if not isinstance(value, str) or not (value or optional):
        raise ProblemError(
            400, "bad_request", f"the request has no {name}, or it is no text", _UPDATE
        )
    return value


def _document(visit: Visit, problem: ProblemError) -> web.Response:
    wait = problem.retry_after
    answer = Refusal(problem.status, problem.code, problem.detail, problem.hint, retry_after=wait)
    document = one_form(answer, visit.facts.request_id)
    headers = {"Retry-After": str(wait)} if wait else {}
    response = web.json_response(document, status=problem.status, headers=headers)
    response.content_type = "application/problem+json"
    return response
