"""Host names, origins and URLs of the configuration in the one form everything compares them in.

Hosts come out as the edge sees them in a Host header: lower case, punycode, no port, no trailing
dot. People may write them as they read them (``Bücher.example``).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

import idna

from heim_config.problems import mistake, show
from heim_config.units import MAX_UNIX_PATH, parse_port

__all__ = [
    "Upstream",
    "is_loopback_host",
    "parse_email",
    "parse_host",
    "parse_issuer",
    "parse_origin",
    "parse_tcp",
    "parse_upstream",
]

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
# Upstreams are looked up by the resolver, where service names with underscores are common.
_UPSTREAM_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
# The WHATWG URL standard reads a name whose last label is a number as an IPv4 address.
_NUMERIC: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_EMAIL_LOCAL: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}", re.ASCII)
_PORTS: Final = {"http": 80, "https": 443}
# Every change of a large document brings all its names again, and to judge those of 5,000 backends
# took a third of a second. As many as the largest documents have; some 10 MiB at the most.
_REMEMBERED: Final = 32_768


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where connections go: http, https, tcp or unix, as it is written in the configuration.

    For `unix`, `host` is the socket's path and `port` is 0.
    """

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (
            f"{host}:{self.port}" if self.scheme == "tcp" else f"{self.scheme}://{host}:{self.port}"
        )


def parse_host(text: object, *, wildcard: bool = False) -> str:
    """The canonical form of a host name; a leading ``*.`` is kept if `wildcard`.

    Addresses are refused: browsers send no SNI for them, and a certificate rarely names them.
    """
    if not isinstance(text, str):
        raise mistake(f"{show(text)} is not a host name")
    return _host(text, wildcard)


@lru_cache(_REMEMBERED)
def _host(text: str, wildcard: bool) -> str:
    # What cannot be seen would be mapped away: two different texts would become one host.
    if not text or not text.isprintable():
        raise mistake(f"{show(text)} is not a host name")
    if "://" in text or "/" in text:
        raise mistake(f"{show(text)} is a URL", "write only the host name")
    name, star = text, ""
    if text.startswith("*."):
        if not wildcard:
            raise mistake(f"{show(text)}: a wildcard is not possible here")
        name, star = text[2:], "*."
    if "*" in name:
        hint = "write *.example.com; it stands for exactly one label" if wildcard else None
        raise mistake(f"{show(text)}: * can only be the whole first label", hint)
    if _is_address(name):
        raise mistake(f"{show(text)} is an address, not a host name")
    if ":" in name:
        hint = "remove the port; people's URLs carry public_port"
        raise mistake(f"{show(text)} is not a host name", hint)
    return star + _dns_name(name, _LABEL)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _dns_name(text: str, label: re.Pattern[str]) -> str:
    name = text.removesuffix(".")
    if not name.isascii():
        try:
            # What browsers do (UTS 46, non-transitional), so that both arrive at the same bytes.
            name = idna.encode(name, uts46=True, std3_rules=True).decode("ascii")
        except idna.IDNAError as error:
            raise mistake(f"{show(text)} is not a host name: {show(str(error))}") from None
    name = name.lower()
    labels = name.split(".")
    if len(name) > 253 or not all(label.fullmatch(part) for part in labels):
        raise mistake(
            f"{show(text)} is not a host name", "labels are letters, digits and inner hyphens"
        )
    if _NUMERIC.fullmatch(labels[-1]):
        raise mistake(f"{show(text)} would be read as an address: its last label is a number")
    return name


def parse_email(text: object) -> str:
    """An e-mail address, ASCII-lowercased as subjects are; the domain in canonical form."""
    if not isinstance(text, str):
        raise mistake(f"{show(text)} is not an e-mail address")
    local, at, domain = text.rpartition("@")
    if not at or not local or not domain:
        raise mistake(f"{show(text)} is not an e-mail address")
    if local == "*":
        raise mistake(f"{show(text)} is not an e-mail address", f"write domain: {domain}")
    if not _EMAIL_LOCAL.fullmatch(local):
        raise mistake(f"{show(text)} is not an e-mail address that a provider can verify")
    return f"{local.lower()}@{parse_host(domain)}"


def is_loopback_host(host: str) -> bool:
    """Whether `host` is literally this machine: 127.0.0.0/8, ::1 or localhost (decision 11).

    Names are not resolved: what a name means is another's to change.
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_issuer(text: object) -> str:
    """An OIDC issuer as written: it is compared byte by byte (OIDC Core 1.0, 3.1.3.7).

    https, or http when the host is literally loopback; no query, no fragment, no user.
    """
    if not isinstance(text, str):
        raise mistake(f"{show(text)} is not an issuer URL")
    url = _split(text, ("https", "http"))
    if url.query or url.fragment or "?" in text or "#" in text:
        raise mistake(f"{show(text)} has a query or fragment, which an issuer never has")
    if url.scheme == "http" and not is_loopback_host(url.hostname or ""):
        raise mistake(
            f"{show(text)} is plain http off this machine: anyone on the way could sign in as you",
            "write https://",
        )
    return text


def parse_origin(text: object) -> str:
    """A web origin as browsers send it: lower case, no default port, no path (RFC 6454, 6.2)."""
    if not isinstance(text, str):
        raise mistake(f"{show(text)} is not an origin")
    if text in ("*", "null"):
        raise mistake(
            f"{show(text)} would stand for every site", "name the origins: https://app.example.com"
        )
    url = _split(text, ("https", "http"))
    if url.path or url.query or url.fragment or text.endswith(("?", "#", "/")):
        raise mistake(
            f"{show(text)} is more than an origin", f"write {url.scheme}://{url.netloc.lower()}"
        )
    host = url.hostname or ""
    name = _address_or_name(host, text, _LABEL)
    port = _port(url, text)
    suffix = "" if port in (None, _PORTS[url.scheme]) else f":{port}"
    return f"{url.scheme}://{name}{suffix}"


def parse_upstream(text: object, *, base: Path | None = None) -> Upstream:
    """An `Upstream` of ``http://host:port``, ``https://host`` or ``unix:/run/app.sock``.

    A relative socket path is taken from `base`.
    """
    if not isinstance(text, str):
        raise mistake(f"{show(text)} is not an upstream", "write http://127.0.0.1:3000")
    if text.startswith("unix:"):
        return _socket(text, base)
    return _http(text)


@lru_cache(_REMEMBERED)
def _http(text: str) -> Upstream:
    url = _split(text, ("http", "https"))
    if url.query or url.fragment or "?" in text or "#" in text or url.path not in ("", "/"):
        raise mistake(
            f"{show(text)} has a path or query: requests keep the path they came with",
            f"write {url.scheme}://{url.netloc}",
        )
    name = _address_or_name(url.hostname or "", text, _UPSTREAM_LABEL)
    port = _port(url, text)
    if port == 0:
        raise mistake(f"{show(text)}: port 0 cannot be dialled")
    return Upstream(url.scheme, name.strip("[]"), port or _PORTS[url.scheme])


def parse_tcp(text: object, *, base: Path | None = None) -> Upstream:
    """An `Upstream` of ``10.0.0.5:22``, ``[::1]:22``, ``db.internal:5432`` or ``unix:/run/db``.

    There is always a port: no protocol is meant, so none has a default. A relative socket path is
    taken from `base`.
    """
    if not isinstance(text, str):
        raise mistake(f"{show(text)} is not a host and a port", 'write it as "10.0.0.5:22"')
    if text.startswith("unix:"):
        return _socket(text, base)
    scheme, slashes, rest = text.partition("://")
    if slashes:
        # Not the rest of it: what stands before an @ may be a password.
        plain = rest.rstrip("/") if scheme == "tcp" and "@" not in rest else ""
        raise mistake(
            "is a URL, but tcp has only a host and a port", f"write {plain or '10.0.0.5:22'}"
        )
    host, _, port = text.rpartition(":")
    if text.count(":") > 1 and not (host.startswith("[") and host.endswith("]")):
        raise mistake(f"{show(text)} is not a host and a port", "write IPv6 as [::1]:22")
    if not host or not port:
        raise mistake(f"{show(text)} is not a host and a port", "write both: 10.0.0.5:22")
    number = parse_port(port)
    if number == 0:
        raise mistake(f"{show(text)}: port 0 cannot be dialled")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return Upstream("tcp", _dns_name(host, _UPSTREAM_LABEL), number)
    if host.startswith("[") != (address.version == 6):
        raise mistake(f"{show(text)} is not a host and a port", "only IPv6 is in brackets")
    return Upstream("tcp", str(address), number)


def _socket(text: str, base: Path | None) -> Upstream:
    name = text.removeprefix("unix:")
    # unix:///run/x is the same socket to other tools.
    name = "/" + name.lstrip("/") if name.startswith("/") else name
    path = str((base or Path()) / name)
    if not name or "\0" in name or len(path.encode()) > MAX_UNIX_PATH:
        raise mistake(f"{show(text)} is not a socket's path of {MAX_UNIX_PATH} bytes at most")
    return Upstream("unix", path, 0)


def _split(text: str, schemes: tuple[str, ...]) -> SplitResult:
    # urlsplit drops tabs and line ends and accepts what no URL may hold; judged before it.
    if not text.isprintable() or " " in text or "\\" in text:
        raise mistake(f"{show(text)} holds a character that no URL has")
    try:
        url = urlsplit(text)
        host = url.hostname
    except ValueError as error:
        raise mistake(f"{show(text)} is not a URL: {error}") from None
    if url.scheme not in schemes or not text.partition(":")[2].startswith("//"):
        wanted = " or ".join(f"{scheme}://" for scheme in schemes)
        raise mistake(f"{show(text)} does not start with {wanted}")
    if "@" in url.netloc:
        # Not shown: what stands before the @ may be a password.
        raise mistake("holds user information before an @", "secrets come from files")
    if not host:
        raise mistake(f"{show(text)} names no host")
    _port(url, text)
    return url


def _port(url: SplitResult, text: str) -> int | None:
    tail = url.netloc.rpartition("]")[2] if "]" in url.netloc else url.netloc
    _, colon, digits = tail.partition(":")
    if not colon:
        return None
    if not digits:
        raise mistake(f"{show(text)} has a colon and no port")
    return parse_port(digits)


def _address_or_name(host: str, text: str, label: re.Pattern[str]) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if ":" in host:
            raise mistake(f"{show(text)} is not a URL: its address is wrong") from None
        return _dns_name(host, label)
    return f"[{address}]" if address.version == 6 else str(address)
