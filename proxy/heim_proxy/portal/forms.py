"""Forms: reading what was posted, and telling our own pages' forms from anybody else's."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

from heim_proxy.portal.visit import Visit

__all__ = ["MAX_FORM_BYTES", "csrf_token", "is_ours", "read_body", "read_form"]

MAX_FORM_BYTES: Final = 4096
MAX_FIELDS: Final = 16


async def read_form(request: web.BaseRequest) -> Mapping[str, str] | None:
    """The fields of a urlencoded form; None when the body is none.

    Also None when a field is there twice (RFC 6749, 3.2: two programs would each believe another
    one), when it is too long or has too many fields, or cannot be decoded.
    """
    if request.content_type != "application/x-www-form-urlencoded":
        return None
    body = await read_body(request, max_bytes=MAX_FORM_BYTES)
    if body is None:
        return None
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:
        return None
    found = dict(pairs)
    return found if len(found) == len(pairs) else None


async def read_body(request: web.BaseRequest, *, max_bytes: int) -> bytes | None:
    """A request's body, which can be read only once; None when it is longer than allowed."""
    body = b""
    while chunk := await request.content.readany():
        body += chunk
        if len(body) > max_bytes:
            return None
    return body


def csrf_token(session_cookie: str, action: str) -> str:
    """A token that only this browser's page for `action` holds.

    It is made from a cookie that no script can read, needs no state and dies with the session.
    Nothing of the cookie can be learned from it.
    """
    mac = hmac.new(session_cookie.encode(), f"heim csrf {action}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(mac.digest()).rstrip(b"=").decode("ascii")


def is_ours(
    visit: Visit, form: Mapping[str, str] | None, *, session_cookie: str, action: str
) -> bool:
    """Whether a form of `Pages.form` for `action` was sent by this browser's owner (P2)."""
    if form is None or visit.request.headers.getall("Origin", []) != [visit.settings.login_url]:
        return False
    given = form.get("csrf", "").encode("utf-8", "replace")
    return hmac.compare_digest(given, csrf_token(session_cookie, action).encode())
