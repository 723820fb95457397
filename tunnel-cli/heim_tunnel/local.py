"""What `forward` is asked for: `[LOCAL:]BACKEND`; LOCAL is PORT, ADDRESS:PORT or unix:PATH."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from heim_runtime.complaints import UsageError
from heim_tunnel.complaints import clean

__all__ = ["Local", "Wish", "parse"]


@dataclass(frozen=True, slots=True)
class Local:
    """Where to listen: an address and a port (0: any free one), or the path of a unix socket."""

    address: str = "127.0.0.1"
    port: int = 0
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port}"

    @property
    def is_private(self) -> bool:
        """Whether only this machine reaches it."""
        return self.path is not None or ipaddress.ip_address(self.address).is_loopback


@dataclass(frozen=True, slots=True)
class Wish:
    """A parsed argument: where to listen, and the backend's name or host[:port]."""

    local: Local
    backend: str


def parse(text: str) -> Wish:
    """Read the argument of `forward`.

    A number on the left is the local port, on the right it is the proxy's: `5432:db`,
    `db.x.example.com:8443`, `5432:db.x.example.com:8443`.

    Raises:
        UsageError: It is not of this form; the message shows the ones that are.
    """
    fields = _fields(text)
    if len(fields) > 1 and _port(fields[-1]) is not None and _port(fields[-2]) is None:
        fields[-2:] = [f"{fields[-2]}:{fields[-1]}"]
    for field in fields:
        if field.isascii() and field.isdigit() and _port(field) is None:
            raise UsageError(f"{clean(field, 40)} is no port: they end at 65535")
    *local, backend = fields
    found = _local(local)
    if found is None or not backend or _port(backend) is not None:
        raise UsageError(
            f"{clean(text, 200)!r} is not [LOCAL:]BACKEND, as in db, 5432:db.x.example.com, "
            "127.0.0.1:5432:db or unix:/run/db.sock:db"
        )
    return Wish(found, backend)


def _fields(text: str) -> list[str]:
    """Split at colons, but not inside brackets."""
    fields, depth = [""], 0
    for character in text:
        if character == ":" and not depth:
            fields.append("")
            continue
        depth += (character == "[") - (character == "]")
        fields[-1] += character
    return fields if not depth else [""]


def _local(fields: list[str]) -> Local | None:
    match fields:
        case []:
            return Local()
        case [number] if (port := _port(number)) is not None:
            return Local(port=port)
        case ["unix", path] if path:
            return Local(path=path)
        case [address, number] if (port := _port(number)) is not None:
            found = _address(address)
            return None if found is None else Local(found, port)
        case _:
            return None


def _address(text: str) -> str | None:
    """A literal address: a name could resolve to an address that is reached from elsewhere."""
    if text == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        return None


def _port(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536:
        return int(text)
    return None
