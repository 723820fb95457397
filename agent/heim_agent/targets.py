"""What an agent serves: a name, a place on this machine or network, and who may use it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["FIELDS", "Field", "Target", "is_agent_name", "is_name", "parse_target"]

# As the proxy spells names (docs/reference/configuration.md).
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
# An Agent or a Role of Kubernetes is <namespace>.<name>.
_QUALIFIED: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_MAX_AGENT_NAME: Final = 63
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?", re.ASCII)
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m)", re.ASCII)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0}
# The proxy gives up on a dial after at most 60 s, whatever we would wait for.
_MAX_CONNECT_S: Final = 60.0
# sockaddr_un.sun_path is 108 bytes with its NUL on Linux.
_MAX_UNIX_PATH: Final = 107


@dataclass(frozen=True, slots=True)
class Field:
    """One key of agent.toml, for its parser, its reference and its advice.

    Attributes:
        name: The key.
        default: As it is written in TOML; "" when it is required or may be left out.
        meaning: One sentence.
    """

    name: str
    default: str
    meaning: str


FIELDS: Final = (
    Field(
        "address",
        "",
        "where connections go: `host:port`, `[v6]:port` or `unix:/path`. Required. A name is "
        "resolved each time, and all its addresses are tried",
    ),
    Field(
        "role",
        "",
        "role that the user must hold at the proxy, on top of what the proxy itself decides; "
        "without it whoever the proxy lets through may use the target",
    ),
    Field(
        "proxy_protocol",
        "false",
        "begin each connection with a PROXY v2 header: the user's address as the source, the "
        "user's name in TLV 0xE0. Only for services that expect it, and that nobody else reaches",
    ),
    Field(
        "connect_timeout",
        '"5s"',
        f'how long a connection may take to be made, the name included; `"{_MAX_CONNECT_S:.0f}s"` '
        "is the most",
    ),
)
"""The keys of `[targets.NAME]`."""


@dataclass(frozen=True, slots=True)
class Target:
    """One entry of the allow-list.

    Attributes:
        name: What the proxy calls it.
        host: Name or address; "" for a unix socket.
        port: 0 for a unix socket.
        path: Of the unix socket; "" for TCP.
        role: Role that the user must hold by the proxy's word, or None.
        proxy_protocol: Whether a PROXY v2 header with the user's address and name goes first.
        connect_timeout_s: For the dial, names and every address included.
    """

    name: str
    host: str = ""
    port: int = 0
    path: str = ""
    role: str | None = None
    proxy_protocol: bool = False
    connect_timeout_s: float = 5.0

    @property
    def address(self) -> str:
        """The place as agent.toml writes it."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_name(text: str) -> bool:
    """Whether this can be a target's name."""
    return _NAME.fullmatch(text) is not None


def is_agent_name(text: str) -> bool:
    """Whether this can be an agent's name."""
    return len(text) <= _MAX_AGENT_NAME and _is_qualified(text)


def _is_qualified(text: str) -> bool:
    return _QUALIFIED.fullmatch(text) is not None and ".." not in text


def parse_target(name: str, found: Mapping[str, object]) -> tuple[Target | None, dict[str, str]]:
    """Read one `[targets.NAME]`, whose keys are all in FIELDS.

    Returns:
        The target, or None with what is wrong, by key.
    """
    problems: dict[str, str] = {}
    host, port, path = "", 0, ""
    address = found.get("address")
    if address is None:
        problems[""] = 'has no address, as in: address = "127.0.0.1:22"'
    else:
        try:
            host, port, path = _address(address)
        except ValueError as error:
            problems["address"] = str(error)
    role = found.get("role")
    if role is not None and not (isinstance(role, str) and _is_qualified(role)):
        problems["role"] = 'must be the name of a role at the proxy, as in "prod-ssh"'
    proxy_protocol = found.get("proxy_protocol", False)
    if not isinstance(proxy_protocol, bool):
        problems["proxy_protocol"] = "must be true or false, without quotes"
    seconds = _duration(found.get("connect_timeout", "5s"))
    if seconds is None:
        problems["connect_timeout"] = (
            f'must be a duration from "100ms" to "{_MAX_CONNECT_S:.0f}s", in quotes, as in "5s"'
        )
    if problems:
        return None, problems
    target = Target(
        name=name,
        host=host,
        port=port,
        path=path,
        role=role if isinstance(role, str) else None,
        proxy_protocol=proxy_protocol is True,
        connect_timeout_s=seconds or 0.0,
    )
    return target, {}


def _address(value: object) -> tuple[str, int, str]:
    """Host, port and path. Raises ValueError in words for the person who wrote it."""
    if not isinstance(value, str):
        raise ValueError(_ADDRESS)  # noqa: TRY004 - of a file's text
    if value.startswith("unix:"):
        path = value.removeprefix("unix:")
        if not path.startswith("/") or "\0" in path:
            raise ValueError("a unix socket needs its whole path, as in unix:/run/app.sock")
        if len(path.encode()) > _MAX_UNIX_PATH:
            raise ValueError(f"the path is longer than a socket's may be ({_MAX_UNIX_PATH} bytes)")
        return "", 0, path
    if "://" in value:
        scheme = value.partition("://")[0]
        raise ValueError(f"{_ADDRESS}, without {scheme}:// in front")
    host, colon, digits = value.rpartition(":")
    if not colon or not digits.isdecimal() or not digits.isascii() or len(digits) > 5:
        raise ValueError(f"{_ADDRESS}; a port is needed")
    port = int(digits)
    if not 0 < port < 65536:
        raise ValueError("the port must be from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        return _v6(host[1:-1]), port, ""
    if ":" in host:
        raise ValueError("an IPv6 address goes into brackets, as in [fd00::7]:22")
    if not _HOST.fullmatch(host):
        raise ValueError(_ADDRESS)
    return host, port, ""


def _v6(host: str) -> str:
    try:
        ipaddress.IPv6Address(host)
    except ValueError as e:
        raise ValueError("there is no IPv6 address between the brackets") from e
    return host


_ADDRESS: Final = 'must be "host:port" or "unix:/path"'


def _duration(value: object) -> float | None:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    seconds = float(found[1]) * _SECONDS[found[2]]
    return seconds if 0.1 <= seconds <= _MAX_CONNECT_S else None
