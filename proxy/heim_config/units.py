"""Durations, sizes and network addresses as people write them in the configuration."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from heim_config.problems import mistake, show

__all__ = [
    "Address",
    "Network",
    "format_duration",
    "parse_address",
    "parse_duration",
    "parse_network",
    "parse_port",
]

Network = IPv4Network | IPv6Network

# Ten years: longer is a typing error, and timers made of it overflow.
MAX_DURATION_S: Final = 3650 * 86400.0
# sockaddr_un.sun_path is 108 bytes with its NUL on Linux.
MAX_UNIX_PATH: Final = 107

_DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)", re.ASCII)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener is bound: an IP address and a port, or a unix socket's path.

    For a unix socket `path` is set, `host` is empty and `port` is 0. Port 0 of an IP address means
    any free port.
    """

    host: str
    port: int
    path: Path | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach it."""
        return self.path is not None or ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_duration(text: object) -> float:
    """Seconds of ``250ms``, ``15s``, ``5m``, ``8h`` or ``1d``; above 0, ten years at most."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        raise mistake(f"{text} has no unit", f"write {text}s, {text}m, {text}h or {text}d")
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise mistake(f"{show(text)} is not a duration", "write 250ms, 15s, 5m, 8h or 1d")
    seconds = float(found[1]) * _SECONDS[found[2]]
    if not 0 < seconds <= MAX_DURATION_S:
        raise mistake(f"{show(text)} is not above 0 and at most 3650d")
    return seconds


def format_duration(seconds: float) -> str:
    """`seconds` as `parse_duration` reads it, in the largest unit that divides it: ``8h``."""
    milliseconds = round(seconds * 1000)
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(milliseconds, round(_SECONDS[unit] * 1000))
        if count and not rest:
            return f"{count}{unit}"
    return f"{milliseconds}ms"


def parse_port(text: str) -> int:
    """A TCP port from 0 to 65535, written in decimal digits."""
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise mistake(f"{show(text)} is not a port from 0 to 65535")
    return int(text)


def parse_address(text: object, *, base: Path | None, unix: bool) -> Address:
    """An `Address` of ``0.0.0.0:443`` or ``[::]:443``, and of ``unix:/path`` if `unix`.

    A relative socket path is taken from `base`. Names are refused: they may stand for several
    addresses, or for another one tomorrow.
    """
    if not isinstance(text, str):
        raise mistake(f"{show(text)} is not an address", 'write it as "0.0.0.0:443"')
    if text.startswith("unix:"):
        if not unix:
            raise mistake("cannot be a unix socket", "only listeners.admin can")
        return _unix_address(text, base)
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise mistake(
            f"{show(text)} is not an address with a port", f"write 0.0.0.0:{port} or [::]:{port}"
        )
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        # A zone ("%eth0") names an interface of this machine; nothing here needs it.
        ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise mistake(
            f"{show(host)} is not an IP address", "write 127.0.0.1 for this machine only"
        ) from None
    if bracketed != (ip.version == 6) or getattr(ip, "scope_id", None):
        raise mistake(f"{show(text)} is not an address", "write IPv6 as [::1]:443")
    return Address(str(ip), parse_port(port))


def _unix_address(text: str, base: Path | None) -> Address:
    name = text.removeprefix("unix:")
    if not name or "\0" in name:
        raise mistake(f"{show(text)} names no socket", "write unix:/run/heim/admin.sock")
    path = (base or Path()) / name
    if len(str(path).encode()) > MAX_UNIX_PATH:
        raise mistake(f"the socket's path is longer than {MAX_UNIX_PATH} bytes")
    return Address("", 0, path)


def parse_network(text: object) -> Network:
    """A network of ``10.0.0.0/8``, ``2001:db8::/32`` or a single address.

    Networks are trusted to name other people's addresses, so ``/0`` is refused.
    """
    if isinstance(text, (IPv4Network, IPv6Network)):
        return text
    if not isinstance(text, str):
        raise mistake(f"{show(text)} is not a network", 'write it as "10.0.0.0/8"')
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise mistake(
            f"{show(text)} is not a network", "write 10.0.0.0/8 or 2001:db8::/32"
        ) from None
    if network.prefixlen == 0:
        raise mistake(
            f"{show(text)} would let anyone choose the address they are seen with",
            "name the networks of your own proxies",
        )
    address = ipaddress.ip_interface(text).ip
    if address != network.network_address:
        raise mistake(f"{show(text)} has bits after its prefix", f"write {network}")
    return network
