"""Connect to a host on port 443 or another: names, web proxies, TLS; each step with its deadline.

`connect` gives the plain TCP connection (through a web proxy where one is configured), `secure`
puts verified TLS on it, `dial` does both. Every failure is a `Complaint` that names the step.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket

    from heim_tunnel.link import Link

__all__ = ["Endpoint", "Way", "connect", "dial", "secure"]

HTTPS_PORT = 443


class Endpoint:
    """A host and a port. `str()` is `host` for port 443, else `host:port`."""

    __slots__ = ("host", "port")

    def __init__(self, host: str, port: int = HTTPS_PORT) -> None:
        self.host = host
        self.port = port

    @classmethod
    def parse(cls, text: str, *, what: str = "HOST[:PORT]") -> Endpoint:
        """Read `host`, `host:port`, `[v6]:port` or `https://host[:port][/]`.

        Raises:
            UsageError: It is none of them; the message names `what`.
        """
        raise NotImplementedError


class Way:
    """How hosts are reached: which authorities are trusted, and the detours.

    Attributes:
        ca_file: Authorities to trust instead of the system's; None for the system's.
        connect_to: Where to connect instead of where the name says (`--connect-to`); the name
            stays what TLS verifies. It holds for every connection of the process.
        verbose: Whether steps are told on standard error (`-v`).
    """

    __slots__ = ("ca_file", "connect_to", "verbose")

    def __init__(
        self,
        *,
        ca_file: str | None = None,
        connect_to: Endpoint | None = None,
        verbose: bool = False,
    ) -> None:
        self.ca_file = ca_file
        self.connect_to = connect_to
        self.verbose = verbose

    @classmethod
    def from_environment(cls) -> Way:
        """The way the environment asks for: HEIM_CA_FILE."""
        raise NotImplementedError


def connect(endpoint: Endpoint, way: Way) -> socket:
    """Open a TCP connection, through the web proxy that the environment asks for.

    `*.localhost` is loopback (RFC 6761). Addresses are raced (RFC 8305). The socket comes back
    blocking, with TCP_NODELAY, keep-alive, TCP_USER_TIMEOUT and TCP_NOTSENT_LOWAT set; the caller
    closes it.

    Raises:
        Complaint: DNS, connect or the web proxy failed.
    """
    raise NotImplementedError


def secure(sock: socket, host: str, way: Way) -> Link:
    """Put TLS on a connection from `connect`, verified for `host`; ALPN http/1.1.

    For asyncio use `trust.context(way.ca_file)` with `create_connection(sock=…, ssl=context,
    server_hostname=host)` instead and give a certificate error to `trust.explain`.

    Raises:
        Complaint: The certificate is not trusted, is for another name, or the handshake failed.
            The socket is closed then.
    """
    raise NotImplementedError


def dial(endpoint: Endpoint, way: Way) -> Link:
    """`connect` and `secure`."""
    raise NotImplementedError
