"""The command line of `heim-tunnel proxy`, read without argparse.

argparse costs 14 ms, a third of what ssh may wait for us. The options are few, and
`heim_tunnel.arguments` describes the same ones for --help; a test compares the two.
"""

from __future__ import annotations

import os

from heim_runtime.complaints import UsageError
from heim_tunnel.dial import Endpoint, Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

__all__ = ["Invocation", "read"]

_VALUES: Final = ("--ca-file", "--connect-to", "--token-file")
_USAGE: Final = "usage: heim-tunnel proxy [options] HOST[:PORT]; see heim-tunnel proxy --help"


class Invocation:
    """What is asked for.

    Attributes:
        target: HOST[:PORT] as typed; lines on standard error begin with it.
        host: The backend's host, and the port of the proxy.
        dialled: Whom to connect to: `host`, or the login host that HEIM_PROXY names.
        backend: What Heim-Backend says, with HEIM_PROXY; else None.
        token_file: The file of a service token, or None.
        way: How hosts are reached.
    """

    __slots__ = ("_portless", "backend", "dialled", "host", "target", "token_file", "way")

    def __init__(
        self,
        target: str,
        way: Way,
        *,
        token_file: str | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Work out whom to dial. Raises UsageError."""
        self.target = target
        self.way = way
        self.host = Endpoint.parse(target)
        rest = target.strip().removeprefix("https://").removesuffix("/")
        self._portless = rest.endswith("]") or ":" not in rest
        self.token_file = token_file or environ.get("HEIM_TOKEN_FILE") or None
        login_host = environ.get("HEIM_PROXY")
        if login_host:
            self.dialled = Endpoint.parse(login_host, what="HEIM_PROXY")
            self.backend: str | None = self.host.host
        else:
            self.dialled = self.host
            self.backend = None

    def serve_on(self, port: int) -> None:
        """Dial this port of the host when none was typed: a login knows its proxy's."""
        if self._portless and self.backend is None:
            self.dialled = self.host = Endpoint(self.host.host, port)


def read(arguments: Sequence[str]) -> Invocation:
    """Read what follows `proxy`.

    Raises:
        UsageError: It cannot be understood; the message says what is expected.
    """
    way = Way.from_environment()
    hosts: list[str] = []
    values: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if name in _VALUES:
            if not equals:
                if not rest:
                    raise UsageError(f"{name} needs a value; {_USAGE}")
                value = rest.pop(0)
            values[name] = value
        elif argument in ("-v", "--verbose"):
            way.verbose = True
        elif argument == "--":
            hosts.extend(rest)
            break
        elif argument.startswith("-"):
            raise UsageError(f"unknown option {argument}; {_USAGE}")
        else:
            hosts.append(argument)
    if len(hosts) != 1:
        raise UsageError(f"{'one host, please' if hosts else 'which host?'} {_USAGE}")
    if "--ca-file" in values:
        way.ca_file = values["--ca-file"]
    if "--connect-to" in values:
        way.connect_to = Endpoint.parse(values["--connect-to"], what="--connect-to")
    return Invocation(hosts[0], way, token_file=values.get("--token-file"))
