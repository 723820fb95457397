"""The demo's few pages, escaped by default and complete in themselves (no CDN, no build step)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

__all__ = ["page"]

_PAGES: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
)


def page(name: str, values: Mapping[str, object], *, status: int = 200) -> web.Response:
    """Render templates/<name>.html; never cached, never framed, loads nothing from elsewhere.

    `form-action` is left out of the policy on purpose: Chromium applies it to every redirect that
    follows a form, and signing in ends on other hosts.
    """
    return web.Response(
        text=_PAGES.get_template(f"{name}.html").render(values),
        content_type="text/html",
        status=status,
        headers={
            "Cache-Control": "no-store",
            "Content-Security-Policy": (
                "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
                "connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
            ),
            # no-referrer would turn the Origin of our own forms into "null" (Fetch, 3.1).
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        },
    )
