"""Connections to upstreams: one seam for TCP, TLS, unix sockets and streams through agents.

A dialer turns an endpoint into a connected protocol (decision 18); pools ask it and never know
how. The caller owns the deadline.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, runtime_checkable

from heim_config.addresses import usable_address
from heim_proxy.routing import Endpoint

if TYPE_CHECKING:
    from heim_proxy.identity.session import Session

__all__ = [
    "OTHER_NAME",
    "AgentDialError",
    "AgentDialing",
    "DialError",
    "Dialer",
    "EndpointDialer",
    "Errand",
    "InProcessDialer",
    "Layered",
    "WrongNameError",
    "dial_reason",
]


OTHER_NAME: Final = (62, 64)
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL."""

_FORBIDDEN: Final = "its name leads to this machine or to another address that is not for upstreams"


class DialError(Exception):
    """No connection could be made; the message is safe for a log and names the endpoint."""


class WrongNameError(DialError):
    """The upstream's name is none, or leads where no upstream may be."""


class AgentDialError(DialError):
    """An agent could not connect, may not, or is not there.

    Attributes:
        code: A number of `heim_wire.errors.Code`.
        detail: What happened, for people; names the agent and the target.
        hint: What to do about it.
        retry_after: Seconds after which it is worth trying again; 0 when time does not help.
    """

    def __init__(
        self, code: int, detail: str, *, hint: str = "", retry_after: int = 0, said: str = ""
    ) -> None:
        """`said` are the agent's own words, for the log only: they may name an address."""
        super().__init__(f"{detail} ({said})" if said else detail)
        self.code = code
        self.detail = detail
        self.hint = hint
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Errand:
    """Whom a connection through an agent is for; the agent is told, signed.

    Attributes:
        session: Whose; None on a public backend.
        backend: Name of the backend that was asked for.
        roles: By which the person may use it.
        client: Address of the person's device; empty when the connection serves several people.
        request_id: What finds it in logs.
        proto: What is to be spoken.
        patience_s: How long whoever asked will wait for the connection.
        wanted: Whether it still is: nobody is asked to connect for a request that has ended.
    """

    session: Session | None
    backend: str
    roles: tuple[str, ...]
    client: str
    request_id: str
    proto: Literal["tcp", "http"]
    patience_s: float
    wanted: Callable[[], bool] = field(default=lambda: True, compare=False)


class Dialer(Protocol):
    """Makes connections to one place."""

    async def dial(self, factory: Callable[[], asyncio.BaseProtocol]) -> asyncio.BaseProtocol:
        """A connected protocol; its transport is closed by the protocol's owner.

        Raises:
            DialError: When the connection could not be made.
        """


class AgentDialing(Protocol):
    """Where dialers for endpoints of agents come from; `app` puts the real one in."""

    def dialer(self, endpoint: Endpoint, errand: Errand) -> Dialer:
        """A dialer for one connection to `endpoint` (scheme agent). It raises `AgentDialError`."""


@runtime_checkable
class Layered(Protocol):
    """A protocol over TLS over a stream, which is told why the stream broke: TLS cannot tell."""

    broken: Exception | None


class EndpointDialer:
    """Dials an `Endpoint` by TCP, TLS over TCP, or a unix socket."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext | None) -> None:
        self._endpoint = endpoint
        self._context = context

    async def dial(self, factory: Callable[[], asyncio.BaseProtocol]) -> asyncio.BaseProtocol:
        """See `Dialer.dial`. TCP_NODELAY is set by both event loops."""
        loop = asyncio.get_running_loop()
        endpoint = self._endpoint
        try:
            if endpoint.scheme == "unix":
                _, protocol = await loop.create_unix_connection(factory, endpoint.host)
            elif endpoint.guarded and not _is_address(endpoint.host):
                sock = await _guarded(endpoint.host, endpoint.port)
                try:
                    _, protocol = await loop.create_connection(factory, sock=sock, **self._tls())
                except OSError:
                    sock.close()
                    raise
            else:
                _, protocol = await loop.create_connection(
                    factory, endpoint.host, endpoint.port, **self._tls()
                )
        except OSError as error:
            raise DialError(dial_reason(error)) from error
        except ValueError as error:
            # A name that cannot be a host name, as the resolver's codec finds out.
            raise WrongNameError("its name is not a host name") from error
        return protocol

    def _tls(self) -> dict[str, Any]:
        """What `create_connection` is told of TLS."""
        if self._context is None:
            return {}
        endpoint = self._endpoint
        name = endpoint.tls.server_name if endpoint.tls is not None else None
        return {"ssl": self._context, "server_hostname": name or endpoint.host}


async def _guarded(host: str, port: int) -> socket.socket:
    """A connection to where a name leads now, unless that is where nobody may send us.

    An address was judged by whoever wrote it down; a name is whatever its owner says today.

    Raises:
        WrongNameError: It leads to this machine, to metadata of a cloud or the like.
        OSError: It cannot be resolved or reached.
    """
    loop = asyncio.get_running_loop()
    allowed = [one for one in await _resolved(host, port) if usable_address(str(one[4][0]))]
    failure: OSError | None = None
    for family, kind, protocol, _, address in allowed:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            # Our own listeners are on other addresses than loopback, too.
            if sock.getsockname()[0] == sock.getpeername()[0]:
                raise WrongNameError(_FORBIDDEN)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or WrongNameError(_FORBIDDEN)


async def _resolved(host: str, port: int) -> list[tuple[Any, ...]]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(found)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def dial_reason(error: OSError) -> str:
    """What went wrong, in the words of the person who has to mend it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in OTHER_NAME:
            # The message would name the host, and this is shown to people.
            return "its certificate is for another name"
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or 'handshake error'})"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, socket.gaierror):
        return "its name does not resolve"
    # Not error.strerror: asyncio writes the address into it.
    return os.strerror(error.errno).lower() if error.errno else "connection failed"


class InProcessDialer:
    """Reaches a server of this process over a socket pair: no port, no path, no other client.

    `server` makes the server side's protocol, as `aiohttp.web.AppRunner.server` does. Because
    nobody else can connect, what the edge says in reserved headers can be believed there
    (decision 19).
    """

    def __init__(self, server: Callable[[], asyncio.BaseProtocol]) -> None:
        self._server = server

    async def dial(self, factory: Callable[[], asyncio.BaseProtocol]) -> asyncio.BaseProtocol:
        """See `Dialer.dial`."""
        loop = asyncio.get_running_loop()
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise DialError(dial_reason(error)) from error
        try:
            ours.setblocking(False)
            theirs.setblocking(False)
            await loop.connect_accepted_socket(self._server, theirs)
            _, protocol = await loop.create_unix_connection(factory, sock=ours)
        except OSError as error:
            ours.close()
            theirs.close()
            raise DialError(dial_reason(error)) from error
        return protocol
