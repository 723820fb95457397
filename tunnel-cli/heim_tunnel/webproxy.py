"""The web proxy that a company puts between its people and port 443 (HTTPS_PROXY, CONNECT).

Which one is read from the environment as curl reads it: `https_proxy` before `HTTPS_PROXY` before
`all_proxy` before `ALL_PROXY`, except for what `no_proxy` or `NO_PROXY` names and for loopback. User
and password come from its URL (Basic) or whole header lines from the file that
HEIM_WEB_PROXY_HEADER_FILE names; NTLM and Negotiate need a local helper such as cntlm or px.
"""

from __future__ import annotations

import binascii
import os
import select
import socket

from heim_tunnel.complaints import Complaint, UsageError, clean
from heim_tunnel.link import ready
from heim_tunnel.race import is_loopback_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

__all__ = ["WebProxy", "find", "join"]

HEADER_FILE: Final = "HEIM_WEB_PROXY_HEADER_FILE"
_VARIABLES: Final = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
_PORTS: Final = {"http": 80, "https": 443}

HEAD_BYTES: Final = 16 * 1024
"""The most that an answer to CONNECT may say before it is called nonsense."""


class WebProxy:
    """Where it is and what it is told. `str()` is its URL without the password."""

    __slots__ = ("authorization", "host", "port", "scheme")

    def __init__(self, scheme: str, host: str, port: int, authorization: str | None) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.authorization = authorization

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
    scheme, found, rest = url.strip().rpartition("://")
    scheme = scheme.lower() if found else "http"
    if scheme not in _PORTS:
        raise UsageError(f"{name}: only http:// and https:// proxies are known, not {scheme}://")
    userinfo, found, authority = rest.partition("/")[0].rpartition("@")
    authorization = None
    if found:
        token = binascii.b2a_base64(_unquote(userinfo), newline=False).decode()
        authorization = f"Basic {token}"
    host, port = authority, ""
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
        port = port.removeprefix(":")
    elif ":" in authority:
        host, _, port = authority.partition(":")
    if not host or (port and not (port.isdecimal() and 0 < int(port) < 65536)):
        raise UsageError(f"{name} is not a URL such as http://proxy.example.com:3128")
    return WebProxy(scheme, host, int(port) if port else _PORTS[scheme], authorization)


def _unquote(text: str) -> bytes:
    """Percent-decoded; a user without a password gets the colon that Basic wants."""
    if ":" not in text:
        text += ":"
    first, *rest = text.encode().split(b"%")
    decoded = [first]
    for part in rest:
        try:
            decoded.append(binascii.unhexlify(part[:2]) + part[2:])
        except binascii.Error:
            decoded.append(b"%" + part)
    return b"".join(decoded)


def _is_loopback(host: str) -> bool:
    if is_loopback_name(host):
        return True
    address = _packed(host)
    return address is not None and (
        (len(address) == 4 and address[0] == 127) or address == b"\0" * 15 + b"\1"
    )


def _packed(host: str) -> bytes | None:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_pton(family, host)
        except OSError:
            continue
    return None


def _excepted(host: str, port: int, exceptions: str) -> bool:
    """Whether NO_PROXY names a host: `*`, a name and what is below it, an address, a network."""
    address = _packed(host)
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


def _within(address: bytes, network: str) -> bool:
    base, _, length = network.strip("[]").partition("/")
    packed = _packed(base)
    if packed is None or len(packed) != len(address):
        return False
    bits = 8 * len(packed)
    if length and not (length.isdecimal() and int(length) <= bits):
        return False
    shift = bits - int(length) if length else 0
    return int.from_bytes(address, "big") >> shift == int.from_bytes(packed, "big") >> shift


def join(
    sock: socket.socket,
    proxy: WebProxy,
    target: str,
    deadline: float,
    *,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Ask the proxy at the other end of a connection to connect to `target`, `host:port`.

    Raises:
        Complaint: It refuses, answers nonsense or does not answer by the deadline.
    """
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    lines.extend(_credentials(proxy, environ))
    try:
        sock.setblocking(True)
        sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        head = _head(sock, proxy, deadline)
    except OSError as e:
        raise Complaint(f"web proxy {proxy}: {e.strerror or e}") from e
    version, _, rest = head.decode("latin-1").split("\r\n", 1)[0].partition(" ")
    if not version.startswith("HTTP/1."):
        raise Complaint(f"web proxy {proxy} does not speak HTTP")
    if not rest.startswith("2"):
        raise Complaint(_refusal(proxy, target, clean(rest, 80)))


def _credentials(proxy: WebProxy, environ: Mapping[str, str]) -> list[str]:
    path = environ.get(HEADER_FILE)
    if path:
        try:
            with open(os.path.expanduser(path), encoding="latin-1") as file:
                lines = [line.strip() for line in file]
        except OSError as e:
            raise UsageError(f"{HEADER_FILE}: cannot read {path}: {e.strerror}") from e
        lines = [line for line in lines if line]
        if not all(":" in line for line in lines):
            raise UsageError(f"{HEADER_FILE}: {path} must hold header lines, `Name: value`")
        return lines
    return [f"Proxy-Authorization: {proxy.authorization}"] if proxy.authorization else []


def _head(sock: socket.socket, proxy: WebProxy, deadline: float) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        if len(head) > HEAD_BYTES:
            raise Complaint(f"web proxy {proxy} does not speak HTTP")
        if not ready(sock.fileno(), select.POLLIN, deadline):
            raise Complaint(f"web proxy {proxy} does not answer")
        data = sock.recv(HEAD_BYTES)
        if not data:
            raise Complaint(f"web proxy {proxy} closed the connection")
        head += data
    return head


def _refusal(proxy: WebProxy, target: str, status: str) -> str:
    text = f"web proxy {proxy} answered {status} to CONNECT {target}"
    if status.startswith("407"):
        told = "the user and password given" if proxy.authorization else "no user and password"
        text += f" (sent {told}); put them into HTTPS_PROXY or name a {HEADER_FILE}"
    return text
