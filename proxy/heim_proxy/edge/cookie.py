"""Cookie request headers: our cookies taken out, everything else byte for byte as it came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from heim_proxy.identity.cookies import SESSION_COOKIE, is_ours

__all__ = ["Cookies", "split_cookies"]

_SESSION: Final = SESSION_COOKIE.encode("ascii")


@dataclass(slots=True)
class Cookies:
    """A Cookie header, divided.

    `session` is the session cookie's value, None when there is none or several (two cookies of
    our name mean that somebody planted one). `presented` counts how many there were. `flows` are
    the names of pending login flows. `rest` is what an upstream may see, None when nothing.
    """

    session: bytes | None
    presented: int
    flows: tuple[str, ...]
    rest: bytes | None

    def without_session(self) -> Cookies:
        """The same, with a session cookie that turned out to be worthless."""
        return Cookies(None, self.presented, self.flows, self.rest)


def split_cookies(value: bytes) -> Cookies:
    """Divide a Cookie header value into ours and the upstream's (RFC 6265, 4.2.1)."""
    kept: list[bytes] = []
    sessions: list[bytes] = []
    flows: list[str] = []
    for pair in value.split(b";"):
        name, equals, content = pair.partition(b"=")
        if not is_ours(name):
            kept.append(pair)
            continue
        bare = name.strip()
        if equals and bare == _SESSION:
            sessions.append(content.strip())
        elif bare.isascii():
            flows.append(bare.decode("ascii"))
    rest = b";".join(kept).strip() if kept else b""
    session = sessions[0] if len(sessions) == 1 else None
    return Cookies(session, len(sessions), tuple(flows), rest or None)
