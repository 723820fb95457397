"""Values that try to lead a browser elsewhere, made from the parts that browsers forgive (A20)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

__all__ = ["EVIL", "hostile_redirects"]

EVIL: Final = "evil.test"

_OURS: Final = "app1.example.test"

# Leading bytes that the WHATWG parser strips or that a filter may not expect.
_BEFORE: Final = ("", " ", "\t", "\n", "\x00", "\x01", "\x1f", "\u2028", "\ufeff", "\xa0", "%20")
_SCHEMES: Final = ("", "https:", "http:", "hTTps:", "ht\ttps:", "https\n:", "ftp:", "ws:", "file:")
_SLASHES: Final = (
    *("//", "///", "////", "\\\\", "/\\", "\\/", "/\\/", "//\\", "/\t/", "/\n/", "/\r/", "\t//"),
    *("/%09/", "/%0a/", "/%0d/", "/%2f", "/%5c", "%2f%2f", "%5c%5c", "/%252f", "/%255c"),
    *("/.//", "/..//", "/%2e//", "/%2e%2e//", "/./\\", "/;//", "/;/..//", "/.;//", "/a/..//"),
    *("/ /", "/%20/", "/\x0b/", "/\x0c/", "/\x00/", "/\u2215", "\uff0f\uff0f", "\u3000//", ":///"),
    *("", "/", "@", "/@", ".", "/.", "?", "#", "/?//", "/#//"),
)
_HOSTS: Final = (
    EVIL,
    f"{_OURS}.{EVIL}",
    f"{_OURS}@{EVIL}",
    f"{_OURS}:443@{EVIL}",
    f"{_OURS}:pw@{EVIL}:443",
    f"{_OURS}%2e{EVIL}",
    f"{_OURS}%40{EVIL}",
    f"{_OURS}%00.{EVIL}",
    f"{EVIL}\\.{_OURS}",
    f"{EVIL}\\@{_OURS}",
    f"{EVIL}#.{_OURS}",
    f"{EVIL}?.{_OURS}",
    f"{EVIL}%23.{_OURS}",
    f"{EVIL}/.{_OURS}",
    f"{EVIL}:443",
    f"{EVIL}.",
    "ｅｖｉｌ.test",
    "evil。test",
    "evil-example.test",
    "xapp1.example.test",
    "example.test.evil.test",
    "[::ffff:127.0.0.1]",
    "2130706433",
    "0x7f.1",
    f"{_OURS}:8443",
    f"{_OURS}:0443",
    "аpp1.example.test",
    "app1.example.test\u200b.evil.test",
)
_TAILS: Final = ("", "/", "/%2e%2e", "?x=1", "#x", "/\\", f"/@{_OURS}/", "%0d%0aSet-Cookie:x=1")
_WHOLE: Final = (
    *("javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\tscript:alert(1)", "\x01javascript:x"),
    *("javascript://app1.example.test/%0aalert(1)", "data:text/html,<script>alert(1)</script>"),
    *("vbscript:x", "blob:https://evil.test/x", "about:blank", "mailto:x@evil.test", "tel:1"),
    *("view-source:https://evil.test", "intent://evil.test#Intent;scheme=https;end"),
    *("//", "///", "\\", "\\\\", "/\\", "/%5c", "/%2f", "/..", "/.", ".", "..", "?", "#", "", " "),
    *("/%0d%0aLocation:%20https://evil.test", "/\r\nLocation: https://evil.test", "/\n\n<script>"),
    *("/%E5%98%8A%E5%98%8DLocation:https://evil.test", "/\u560a\u560dLocation:https://evil.test"),
    *("/.heim/login?rd=//evil.test", "/.heim/callback?code=x", "/.heim/logout", "/.HEIM/handoff"),
    *("/%2eheim/login", "/%2Eheim/callback", "/x/..%2f.heim/login", "/;/.heim/login", "/.heim"),
    *("/%zz", "/%", "/%u002f/evil.test", "/\ud7ff", "/%c0%af/evil.test", "/%e0%80%af/evil.test"),
)


def hostile_redirects() -> list[str]:
    """Around a thousand values, the same in every run."""
    return sorted(set(_generate()))


def _generate() -> Iterator[str]:
    yield from _WHOLE
    for slashes, host in itertools.product(_SLASHES, _HOSTS[:8]):
        yield f"{slashes}{host}/x"
    for scheme, slashes in itertools.product(_SCHEMES, _SLASHES[:16]):
        yield f"{scheme}{slashes}{EVIL}"
    for host, tail in itertools.product(_HOSTS, _TAILS):
        yield f"https://{host}{tail}"
        yield f"//{host}{tail}"
    for before, slashes in itertools.product(_BEFORE, _SLASHES[:8]):
        yield f"{before}{slashes}{EVIL}"
        yield f"{before}https:{slashes}{EVIL}"
