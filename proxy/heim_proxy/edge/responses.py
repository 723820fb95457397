"""The edge's own answers: short, the same text for people and programs, nothing secret.

Every refusal says what happened, which backend or rule, what to do, and the request id that finds
the log line; in at most four lines. Browsers get a small page, everything else
``application/problem+json`` (RFC 9457).
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from importlib import resources
from time import time
from typing import Final
from urllib.parse import quote

from heim_proxy.edge.answer import date_line, status_line

__all__ = [
    "STYLE",
    "STYLE_HASH",
    "Refusal",
    "no_content",
    "problem",
    "redirect",
    "refusal",
    "wants_page",
]

# One style sheet for the edge's pages and the portal's, inlined: nothing is loaded from anywhere.
STYLE: Final = (resources.files("heim_proxy.edge") / "style.css").read_text("utf-8")
# The only style that the pages' Content-Security-Policy allows.
STYLE_HASH: Final = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_COMMON: Final = (
    b"Cache-Control: no-store\r\n"
    b"Referrer-Policy: no-referrer\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
)
_PAGE_HEADERS: Final = (
    "Content-Type: text/html; charset=utf-8\r\n"
    f"Content-Security-Policy: default-src 'none'; style-src '{STYLE_HASH}'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'\r\n"
    "Cross-Origin-Opener-Policy: same-origin\r\n"
).encode("ascii")
_PROBLEM_HEADERS: Final = b"Content-Type: application/problem+json\r\n"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not the upstream's.

    `code` is the stable word for programs and logs; `detail` what happened, `hint` what to do
    about it, `user` whom it concerns (for the log). `headers` are complete extra lines. `close`
    ends the connection after it. `login_url` is where to sign in (on a page a button), and
    `retry_after` after how many seconds it is worth trying again (for everybody a header).
    """

    status: int
    code: str
    detail: str
    hint: str = ""
    headers: Sequence[str] = field(default=())
    backend: str = ""
    user: str = ""
    close: bool = False
    login_url: str = ""
    retry_after: int = 0

    def closing(self) -> Refusal:
        """The same answer, ending the connection."""
        return replace(self, close=True)


def wants_page(accept: bytes | None) -> bool:
    """Whether an Accept header asks for a page: it names text/html."""
    return accept is not None and b"text/html" in accept.lower()


def refusal(
    answer: Refusal, *, page: bool, request_id: str, head_only: bool, target: bytes = b"/"
) -> bytes:
    """A complete refusal, as a page or as problem details; without a body for HEAD.

    `target` is the path and query that were asked for, so that somebody else can sign in for it.
    """
    title = _title(answer.status)
    if page:
        body = _page(answer, title, request_id, target)
    else:
        body = json.dumps(problem(answer, request_id)).encode()
    lines = [
        _opening(answer.status, request_id),
        _PAGE_HEADERS if page else _PROBLEM_HEADERS,
        _COMMON,
        *(f"{line}\r\n".encode("latin-1") for line in answer.headers),
        b"Retry-After: %d\r\n" % answer.retry_after if answer.retry_after else b"",
        b"Content-Length: %d\r\n" % len(body),
        b"Connection: close\r\n\r\n" if answer.close else b"\r\n",
    ]
    if not head_only:
        lines.append(body)
    return b"".join(lines)


def redirect(
    status: int,
    location: str,
    *,
    request_id: str,
    set_cookies: Sequence[str] = (),
    close: bool = False,
) -> bytes:
    """A redirect without a body. `location` and the cookies must already be valid header text."""
    lines = [
        _opening(status, request_id),
        f"Location: {location}\r\n".encode("ascii"),
        _COMMON,
        *(f"Set-Cookie: {cookie}\r\n".encode("ascii") for cookie in set_cookies),
        b"Content-Length: 0\r\n",
        b"Connection: close\r\n\r\n" if close else b"\r\n",
    ]
    return b"".join(lines)


def no_content(headers: Sequence[str], *, request_id: str, close: bool = False) -> bytes:
    """204 with the given complete header lines; it has neither a body nor a length."""
    lines = [
        _opening(204, request_id),
        *(f"{line}\r\n".encode("latin-1") for line in headers),
    ]
    lines.append(b"Connection: close\r\n\r\n" if close else b"\r\n")
    return b"".join(lines)


def _opening(status: int, request_id: str) -> bytes:
    """What every answer of ours begins with; a Date must be there (RFC 9110, 6.6.1)."""
    return b"%b\r\n%b\r\nX-Request-Id: %b\r\n" % (
        status_line(status),
        date_line(int(time())),
        request_id.encode("ascii"),
    )


def _title(status: int) -> str:
    return HTTPStatus(status).phrase


def problem(answer: Refusal, request_id: str) -> dict[str, object]:
    """The one form of all our problem documents (RFC 9457); what is empty is left out.

    `type` always is: about:blank, whose `title` is the status in words. Programs act on `code`.
    """
    document = {
        "title": _title(answer.status),
        "status": answer.status,
        "code": answer.code,
        "detail": answer.detail,
        "hint": answer.hint,
        "login_url": answer.login_url,
        "retry_after": answer.retry_after,
        "request_id": request_id,
    }
    return {key: value for key, value in document.items() if value}


def _sentence(text: str) -> str:
    """A sentence for a page; one that begins with an address or a key keeps its small letter."""
    if text.partition(" ")[0].isalpha():
        text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def _page(answer: Refusal, title: str, request_id: str, target: bytes) -> bytes:
    somebody_else = answer.status == 403 and answer.user
    heading = "You may not open this" if somebody_else else title
    lines = [f"<p>{html.escape(_sentence(answer.detail))}</p>"]
    if answer.hint:
        lines.append(f"<p>{html.escape(_sentence(answer.hint))}</p>")
    lines.append(
        f'<p class="soft">{answer.status}, request <code>{html.escape(request_id)}</code></p>'
    )
    if somebody_else:
        link = f"/.heim/logout?rd={quote(target, safe='/')}"
        lines.append(f'<a class="button first" href="{link}">Sign in as somebody else</a>')
    elif answer.status == 401:
        link = html.escape(answer.login_url or "/.heim/login")
        lines.append(f'<a class="button first" href="{link}">Sign in</a>')
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>"
        f"<body><main><h1>{heading}</h1>{''.join(lines)}</main></body></html>\n"
    ).encode()
