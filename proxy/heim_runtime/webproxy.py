"""The web proxy that a company puts between its people and port 443 (HTTPS_PROXY, CONNECT).

Which one is read from the environment as curl reads it: `https_proxy` before `HTTPS_PROXY` before
`all_proxy` before `ALL_PROXY`, except for loopback and for what `no_proxy` or `NO_PROXY` names.
User and password come from its URL (Basic) or whole header lines from the file that
HEIM_WEB_PROXY_HEADER_FILE names; NTLM and Negotiate need a local helper such as cntlm or px.
"""

from __future__ import annotations

import os
import select
import socket

from heim_runtime.complaints import Complaint, UsageError
from heim_runtime.link import ready
from heim_runtime.race import is_loopback_name, literal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final, Protocol

    class Answer(Protocol):
        """Collects what the web proxy says: `heim_wire.handshake.Connect`."""

        def receive(self, data: bytes) -> bytes | None:
            """Take bytes: None while it is incomplete, else what followed its head."""

        def eof(self) -> Exception:
            """What to raise when it closed before that."""


__all__ = ["WebProxy", "find", "join"]

HEADER_FILE: Final = "HEIM_WEB_PROXY_HEADER_FILE"
_VARIABLES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_PORTS: Final = {"http": 80, "https": 443}

READ_BYTES: Final = 16 * 1024


class WebProxy:
    """Where it is, and `user:password` or "". `str()` is its URL without them."""

    __slots__ = ("auth", "host", "port", "scheme")

    def __init__(self, scheme: str, host: str, port: int, auth: str) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.auth = auth

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def __repr__(self) -> str:
        return f"<WebProxy {self}>"


def find(host: str, port: int, environ: Mapping[str, str]) -> WebProxy | None:
    """The web proxy for a connection to a host; None for a direct one.

    Raises:
        UsageError: A variable holds what cannot be used; the message names it.
    """
    name = next((name for name in _VARIABLES if environ.get(name)), None)
    if name is None or _is_loopback(host):
        return None
    exceptions = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if exceptions and _excepted(host.lower().rstrip("."), port, exceptions):
        return None
    return _parse(name, environ[name])


def _parse(name: str, url: str) -> WebProxy:
    """Read `[scheme://][user[:password]@]host[:port][/]`. The URL itself is never repeated."""
    # The first one: a later one is in the password, and what stands before it is told below.
    scheme, found, rest = url.strip().partition("://")
    if not found or not scheme.isalnum():
        scheme, rest = "http", url.strip()
    scheme = scheme.lower()
    if scheme not in _PORTS:
        raise UsageError(f"{name}: only http:// and https:// proxies are known, not {scheme}://")
    userinfo, found, authority = rest.partition("/")[0].rpartition("@")
    auth = _unquote(userinfo) if found else ""
    host, port = authority, ""
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
        port = port.removeprefix(":")
    elif ":" in authority:
        host, _, port = authority.partition(":")
    if port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        host = ""
    if not host:
        raise UsageError(f"{name} is not a URL such as http://proxy.example.com:3128")
    return WebProxy(scheme, host, int(port) if port else _PORTS[scheme], auth)


def _unquote(text: str) -> str:
    """Percent-decoded; a user without a password gets the colon that Basic wants."""
    if ":" not in text:
        text += ":"
    first, *rest = text.encode().split(b"%")
    decoded = first
    for part in rest:
        digits = part[:2]
        if len(digits) == 2 and not digits.strip(b"0123456789abcdefABCDEF"):
            decoded += bytes((int(digits, 16),)) + part[2:]
        else:
            decoded += b"%" + part
    return decoded.decode("utf-8", "replace")


def _is_loopback(host: str) -> bool:
    if is_loopback_name(host):
        return True
    address = literal(host)
    if address is None:
        return False
    family, packed = address
    return packed[0] == 127 if family == socket.AF_INET else packed == b"\0" * 15 + b"\1"


def _excepted(host: str, port: int, exceptions: str) -> bool:
    """Whether NO_PROXY names a host: `*`, a name and what is below it, an address, a network."""
    address = literal(host)
    for entry in exceptions.replace(",", " ").lower().split():
        name, _, number = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
        if number.isdecimal():
            if int(number) != port:
                continue
        else:
            name = entry
        if name == "*":
            return True
        if address is not None:
            if _within(address, name):
                return True
            continue
        name = name.removeprefix("*").strip(".")
        if name and (host == name or host.endswith("." + name)):
            return True
    return False


def _within(address: tuple[int, bytes], network: str) -> bool:
    base, _, length = network.strip("[]").partition("/")
    first = literal(base)
    if first is None or first[0] != address[0]:
        return False
    bits = 8 * len(first[1])
    if length and not (length.isdecimal() and int(length) <= bits):
        return False
    shift = bits - int(length) if length else 0
    return int.from_bytes(address[1], "big") >> shift == int.from_bytes(first[1], "big") >> shift


def join(
    sock: socket.socket,
    proxy: WebProxy,
    request: Callable[[str], bytes],
    answer: Answer,
    *,
    deadline: float,
) -> None:
    """Ask the proxy at the other end of a connection to connect on.

    Args:
        sock: Connected to it.
        proxy: Which it is, for complaints.
        request: Makes the CONNECT for a `user:password`, or for "" when there is none or a file of
            header lines takes its place (`heim_wire.handshake.connect_request`).
        answer: Judges what comes back.
        deadline: For all of it, seconds of time.monotonic.

    Raises:
        Complaint: It answers nonsense or does not answer by the deadline.
        Exception: What `answer` raises.
    """
    extra = _header_lines(os.environ.get(HEADER_FILE))
    asked = request("" if extra else proxy.auth)
    try:
        sock.setblocking(True)
        sock.sendall(asked[:-2] + extra + asked[-2:])
        rest = None
        while rest is None:
            if not ready(sock.fileno(), select.POLLIN, deadline):
                raise Complaint(f"web proxy {proxy} does not answer")
            data = sock.recv(READ_BYTES)
            if not data:
                raise answer.eof()
            rest = answer.receive(data)
    except OSError as e:
        raise Complaint(f"web proxy {proxy}: {e.strerror or e}") from e
    if rest:
        # TLS begins with us: whoever speaks first is not who we asked for.
        raise Complaint(f"web proxy {proxy} sent more than its answer")


def _header_lines(path: str | None) -> bytes:
    if not path:
        return b""
    try:
        with open(os.path.expanduser(path), encoding="latin-1") as file:
            lines = [line.strip() for line in file.read(READ_BYTES).splitlines()]
    except OSError as e:
        raise UsageError(f"{HEADER_FILE}: cannot read {path}: {e.strerror}") from e
    lines = [line for line in lines if line]
    if not lines or not all(":" in line and line.isprintable() for line in lines):
        raise UsageError(f"{HEADER_FILE}: {path} must hold header lines, `Name: value`")
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")
