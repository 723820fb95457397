"""The portal's pages: templates compiled at start, one inlined style sheet, no scripts at all.

Every value is escaped by the templates (autoescape). The policy allows nothing but that style sheet
by its hash, so even a hole in the escaping could not run a script, load anything or send a form
elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, Final

import jinja2
from aiohttp import web

from heim_proxy.edge.responses import STYLE, STYLE_HASH, Refusal, problem
from heim_proxy.portal.errors import PortalError

__all__ = ["Pages", "wants_html"]

TEMPLATES: Final = (
    "agent_asked",
    "agent_decided",
    "agents",
    "authorize",
    "device",
    "device_asked",
    "device_decided",
    "devices",
    "error",
    "home",
    "logout",
    "me",
    "picker",
    "signed_out",
)


class Pages:
    """Renders pages; a template that does not compile stops the start."""

    __slots__ = ("_templates",)

    def __init__(self) -> None:
        self._templates = _compiled()

    def page(
        self,
        name: str,
        *,
        status: int = 200,
        form_may_leave: bool = False,
        **values: object,
    ) -> web.Response:
        """Render a page.

        Args:
            name: One of `TEMPLATES`.
            status: The HTTP status.
            form_may_leave: Whether the answer of this page's form may redirect to other origins.
            **values: What the template shows.
        """
        text = self._templates[name].render(**values)
        response = web.Response(status=status, text=text, content_type="text/html", charset="utf-8")
        response.headers["Content-Security-Policy"] = self._policy(form_may_leave=form_may_leave)
        return response

    def form(self, name: str, *, csrf: str, **values: Any) -> web.Response:
        """As `page`, with a form that `forms.is_ours` will recognise by `csrf`."""
        response = self.page(name, csrf=csrf, **values)
        # With no-referrer, browsers send "Origin: null" with the form (Fetch, 3.2), and the
        # comparison in `is_ours` is what keeps other sites from sending it.
        response.headers["Referrer-Policy"] = "same-origin"
        return response

    def _policy(self, *, form_may_leave: bool) -> str:
        forms = "" if form_may_leave else "form-action 'self'; "
        return (
            f"default-src 'none'; style-src '{STYLE_HASH}'; {forms}"
            "base-uri 'none'; frame-ancestors 'none'"
        )

    def error(self, error: PortalError, *, request_id: str, html: bool) -> web.Response:
        """What a `PortalError` looks like: a page of at most four lines, or a problem document."""
        if html:
            response = self.page("error", status=error.status, error=error, request_id=request_id)
        else:
            answer = Refusal(
                error.status,
                error.code,
                error.title,
                error.todo,
                login_url=error.login_url,
                retry_after=int(error.headers.get("Retry-After", 0)),
            )
            document = problem(answer, request_id)
            if error.account:
                document["account"] = error.account
            if error.step:
                document["step"] = error.step
            response = web.json_response(document, status=error.status)
            response.content_type = "application/problem+json"
        if error.login_url:
            response.headers["WWW-Authenticate"] = f'Heim login_url="{error.login_url}"'
        response.headers.update(error.headers)
        for value in error.set_cookies:
            response.headers.add("Set-Cookie", value)
        return response


def wants_html(accept: str) -> bool:
    """Whether a client asked for pages: it names text/html, and not with q=0 (RFC 9110, 12.5.1).

    A bare ``*/*`` is a program (curl, fetch), and programs get JSON.
    """
    for item in accept.lower().split(","):
        kind, _, parameters = item.partition(";")
        if kind.strip() in ("text/html", "application/xhtml+xml"):
            weight = parameters.replace(" ", "")
            return weight not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _when(moment: float) -> str:
    """A time for people, in UTC because the server does not know where they are."""
    return datetime.fromtimestamp(moment, UTC).strftime("%d %b %Y, %H:%M UTC")


@cache
def _compiled() -> Mapping[str, jinja2.Template]:
    """Every template by its name. Takes 30 ms, so once for each process."""
    folder = resources.files("heim_proxy.portal") / "templates"
    names = [*(f"{name}.html" for name in TEMPLATES), "base.html", "applications.html"]
    sources = {name: (folder / name).read_text("utf-8") for name in names}
    environment = jinja2.Environment(
        loader=jinja2.DictLoader(sources),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["when"] = _when
    environment.globals["style"] = STYLE
    return {name: environment.get_template(f"{name}.html") for name in TEMPLATES}
