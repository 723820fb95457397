"""How a browser resolves a Location against the page it came from (WHATWG URL, special schemes).

Written for tests of redirects: it forgives everything that browsers forgive, and answers with an
origin and a path so that a test can see where one would end up.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["resolve"]

_SPECIAL = {"https", "http", "ws", "wss", "ftp"}
_DEFAULT_PORTS = {"https": "443", "http": "80"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")


def resolve(location: str, base: str) -> str:
    """The URL a browser on `base` (https, an origin and a path) would open; "invalid:" for none."""
    # 4.4: leading and trailing C0 controls and spaces are stripped, tabs and newlines removed.
    text = location.strip("".join(map(chr, range(0x21))))
    text = re.sub(r"[\t\r\n]", "", text)
    base_scheme, _, base_rest = base.partition("://")
    base_authority = base_rest.partition("/")[0]

    match = _SCHEME.match(text)
    if match is not None:
        scheme, rest = match[1].lower(), text[match.end() :]
        if scheme not in _SPECIAL:
            return f"{scheme}:{rest}"
        slashes = len(rest) - len(rest.lstrip("/\\"))
        if slashes < 2 and scheme == base_scheme and rest[:2].replace("\\", "/") != "//":
            # "https:path" on an https page: relative to the page, an old habit that stayed.
            return _relative(rest, base_scheme, base_authority)
        return _absolute(rest.lstrip("/\\"), scheme)
    return _relative(text, base_scheme, base_authority)


def _relative(text: str, scheme: str, authority: str) -> str:
    if text[:2].replace("\\", "/") == "//":
        return _absolute(text.lstrip("/\\"), scheme)
    return f"{scheme}://{authority}{_path(text)}"


def _absolute(rest: str, scheme: str) -> str:
    authority = re.split(r"[/\\?#]", rest, maxsplit=1)[0]
    host = unquote(authority.rpartition("@")[2]).lower().replace("。", ".")
    name, _, port = host.rpartition(":") if re.search(r":\d*$", host) else (host, "", "")
    if not name:
        return "invalid:"
    shown = name if port in ("", _DEFAULT_PORTS.get(scheme)) else f"{name}:{port}"
    return f"{scheme}://{shown}{_path(rest[len(authority) :])}"


def _path(text: str) -> str:
    """Dot segments resolved, backslashes turned; query and fragment as they are."""
    path = re.split(r"[?#]", text, maxsplit=1)[0]
    tail = text[len(path) :]
    kept: list[str] = []
    segments = path.replace("\\", "/").split("/")
    for segment in segments[1:] if segments and not segments[0] else segments:
        plain = re.sub("%2e", ".", segment, flags=re.IGNORECASE)
        if plain == "..":
            del kept[-1:]
        elif plain != ".":
            kept.append(segment)
    return f"/{'/'.join(kept)}{tail}"
