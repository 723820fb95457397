"""Request heads for the tests beside it."""

from __future__ import annotations

from heim_proxy.edge.head import RequestHead

__all__ = ["HOST", "head_bytes", "parsed", "passed"]

HOST = "app.example.test"


def head_bytes(
    target: str = "/",
    *,
    method: str = "GET",
    host: str | None = HOST,
    headers: tuple[str, ...] = (),
    version: str = "HTTP/1.1",
) -> bytes:
    """A request head; `headers` are whole lines without their end."""
    lines = [f"{method} {target} {version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    return "\r\n".join((*lines, *headers, "", "")).encode("latin-1")


def parsed(
    target: str = "/",
    *,
    method: str = "GET",
    host: str | None = HOST,
    headers: tuple[str, ...] = (),
    version: str = "HTTP/1.1",
) -> RequestHead:
    """The same, parsed."""
    head = RequestHead()
    head.parse(head_bytes(target, method=method, host=host, headers=headers, version=version))
    return head


def passed(head: RequestHead) -> list[bytes]:
    """The lines that would pass upstream, without their ends."""
    return list(head.fields)
