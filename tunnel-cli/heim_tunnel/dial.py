"""Connect to a host on port 443 or another: names, web proxies, TLS; each step with its deadline.

`connect` gives the plain TCP connection (through a web proxy where one is configured), `secure`
puts verified TLS on it, `dial` does both. Every failure is a `Complaint` that names the step.
"""

from __future__ import annotations

import os
import ssl
import time

from heim_runtime import race, trust, webproxy
from heim_runtime.complaints import Complaint, UsageError
from heim_runtime.link import Link, Lost
from heim_tunnel.complaints import clean, refusal, say
from heim_wire.aio.sockets import tune_carriage
from heim_wire.handshake import Connect, connect_request
from heim_wire.problem import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket
    from typing import Final

    from heim_runtime.race import Address
    from heim_runtime.webproxy import WebProxy
    from heim_tunnel.grant import Login

__all__ = ["Endpoint", "Way", "connect", "dial", "find_addresses", "secure", "untrusted"]

HTTPS_PORT: Final = 443

CONNECT_S: Final = 10.0
"""For the name and TCP together."""

WEB_PROXY_S: Final = 20.0
"""A web proxy resolves and connects in its turn, often after asking a scanner."""

TLS_S: Final = 10.0


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
        rest = text.strip().removeprefix("https://").removesuffix("/")
        if rest.startswith("["):
            host, found, port = rest[1:].partition("]")
            valid = bool(found) and host.count(":") > 1 and port[:1] in ("", ":")
            port = port[1:] if port else str(HTTPS_PORT)
        else:
            host, found, port = rest.partition(":")
            port = port if found else str(HTTPS_PORT)
            valid = True
        # What is put into a request head must be a host: no blanks, controls, path or user.
        valid = valid and rest.isascii() and host.isprintable() and not set(host) & set(" /@?#\\")
        if valid and host and port.isdecimal() and len(port) < 9 and not 0 < int(port) < 65536:
            raise UsageError(f"{what}: {text!r} has no port from 1 to 65535")
        if not (valid and host and port.isdecimal() and len(port) < 6):
            raise UsageError(f"{what}: {text!r} is not a host or host:port")
        return cls(host.lower().rstrip("."), int(port))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == HTTPS_PORT else f"{host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Endpoint {self}>"

    @property
    def authority(self) -> str:
        """`host:port`, always with the port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Way:
    """How hosts are reached: which authorities are trusted, and the detours.

    Attributes:
        ca_file: Authorities to trust instead of the system's; None for the system's.
        connect_to: Where to connect instead of where the name says (`--connect-to`); the name
            stays what TLS verifies. It holds for every connection of the process.
        ca_named: The file that `ca_file` is a copy of, or None when it is none.
        verbose: Whether steps are told on standard error (`-v`).
    """

    __slots__ = ("ca_file", "ca_named", "connect_to", "verbose")

    def __init__(
        self,
        *,
        ca_file: str | None = None,
        connect_to: Endpoint | None = None,
        verbose: bool = False,
        ca_named: str | None = None,
    ) -> None:
        self.ca_file = ca_file
        self.ca_named = ca_named
        self.connect_to = connect_to
        self.verbose = verbose

    @classmethod
    def from_environment(cls) -> Way:
        """The way the environment asks for: HEIM_CA_FILE."""
        return cls(ca_file=os.environ.get("HEIM_CA_FILE") or None)

    def with_authorities(self, login: Login) -> Way:
        """This way with the authorities a login was made with, unless others were asked for.

        Raises:
            Complaint: They are gone.
        """
        if login.authorities is None:
            return self
        if self.ca_file is not None and not (
            # What ssh-config wrote down: when that file is gone, there is the copy of it.
            self.ca_file == login.ca_file and not os.access(self.ca_file, os.R_OK)
        ):
            return self
        if not os.access(login.authorities, os.R_OK):
            raise Complaint(
                f"the authority remembered for {login.login_host} is gone ({login.authorities}); "
                f"run: heim-tunnel login --ca-file FILE {login.login_host}"
            )
        return Way(
            ca_file=login.authorities,
            connect_to=self.connect_to,
            verbose=self.verbose,
            ca_named=login.ca_file,
        )

    @property
    def ca_remembered(self) -> str | None:
        """What a login remembers as its authorities: the file that a person named."""
        return self.ca_named or self.ca_file

    def tell(self, text: str) -> None:
        """Say a step when the person asked for them."""
        if self.verbose:
            say(None, text)


def connect(endpoint: Endpoint, way: Way) -> socket:
    """Open a TCP connection, through the web proxy that the environment asks for.

    `*.localhost` is loopback (RFC 6761). Addresses are raced (RFC 8305). The socket has
    TCP_NODELAY, keep-alive, TCP_USER_TIMEOUT and TCP_NOTSENT_LOWAT set; the caller closes it.

    Raises:
        Complaint: DNS, connect or the web proxy failed.
    """
    target = way.connect_to or endpoint
    proxy = webproxy.find(target.host, target.port, os.environ)
    if proxy is None:
        return _open(target, target.authority, None)
    way.tell(f"through web proxy {proxy} to {target.authority}")
    sock = _open(Endpoint(proxy.host, proxy.port), f"web proxy {proxy}", proxy)
    try:
        if proxy.scheme == "https":
            from heim_runtime import bridge

            sock = bridge.open_tls(sock, proxy, way.ca_file, time.monotonic() + TLS_S)
        webproxy.join(
            sock,
            proxy,
            lambda auth: connect_request(target.host, target.port, auth),
            Connect(str(proxy)),
            deadline=time.monotonic() + WEB_PROXY_S,
        )
    except Refused as e:
        sock.close()
        raise Complaint(refusal(e).text, detail=f"status {e.status}") from e
    except BaseException:
        sock.close()
        raise
    return sock


def find_addresses(where: Endpoint, deadline: float, proxy: WebProxy | None) -> list[Address]:
    """The addresses of whom we connect to, which is `proxy` unless that is None.

    Raises:
        Complaint: There are none.
    """
    try:
        return race.resolve(where.host, where.port, deadline)
    except Complaint as e:
        if proxy is None:
            raise
        # Not the host that the person typed.
        raise Complaint(f"web proxy {proxy}: {e.text}") from e


def _open(where: Endpoint, name: str, proxy: WebProxy | None) -> socket:
    deadline = time.monotonic() + CONNECT_S
    sock = race.connect(find_addresses(where, deadline, proxy), name, deadline)
    tune_carriage(sock)
    return sock


def secure(sock: socket, host: str, way: Way) -> Link:
    """Put TLS on a connection from `connect`, verified for `host`; ALPN http/1.1.

    For asyncio use `trust.context(way.ca_file)` with `create_connection(sock=…, ssl=context,
    server_hostname=host)` instead and give a certificate error to `trust.explain`.

    Raises:
        Complaint: The certificate is not trusted, is for another name, or the handshake failed.
            The socket is closed then.
    """
    try:
        return _shake(sock, host, way, bundle=False)
    except ssl.SSLError as e:
        raise Complaint(trust.explain(e, host, way.ca_file), detail=str(e)) from e


def dial(endpoint: Endpoint, way: Way) -> Link:
    """`connect` and `secure`. Raises Complaint."""
    try:
        link = _shake(connect(endpoint, way), endpoint.host, way, bundle=False)
    except ssl.SSLError as e:
        if way.ca_file is not None or not trust.unknown_issuer(e):
            raise untrusted(e, endpoint, way) from e
        # The system's directory may have no hashes (Fedora): once more with the whole bundle.
        link = _second(endpoint, way)
    way.tell(f"connected to {endpoint.authority} with {link.protocol}")
    return link


def _second(endpoint: Endpoint, way: Way) -> Link:
    try:
        return _shake(connect(endpoint, way), endpoint.host, way, bundle=True)
    except ssl.SSLError as e:
        raise untrusted(e, endpoint, way) from e


def untrusted(error: ssl.SSLError, endpoint: Endpoint, way: Way) -> Complaint:
    """The complaint for a handshake that failed; connects once more for a certificate's names."""
    names = _names(endpoint, way) if trust.other_name(error) else []
    return Complaint(trust.explain(error, endpoint.host, way.ca_file, names), detail=str(error))


def _names(endpoint: Endpoint, way: Way) -> list[str]:
    """What the certificate is for that was not accepted: OpenSSL keeps it to itself then."""
    try:
        sock = connect(endpoint, way)
        try:
            context = trust.context(way.ca_file, bundle=True)
            # Trusted all the same, and nothing is sent on this connection.
            context.check_hostname = False
            link = Link(sock, context, endpoint.host)
            link.handshake(time.monotonic() + TLS_S)
            names = link.certificate.get("subjectAltName")
        finally:
            sock.close()
    except (OSError, ValueError, Lost, Complaint):
        return []
    return [clean(str(pair[1]), 100) for pair in names] if isinstance(names, tuple) else []


def _shake(sock: socket, host: str, way: Way, *, bundle: bool) -> Link:
    """A link after its handshake; the socket is closed on any failure. Raises SSLError too."""
    try:
        link = Link(sock, trust.context(way.ca_file, bundle=bundle), host)
        link.handshake(time.monotonic() + TLS_S)
        return link
    except ssl.SSLError:
        sock.close()
        raise
    except TimeoutError as e:
        sock.close()
        raise Complaint(f"no TLS with {host}: it does not answer") from e
    except Lost as e:
        sock.close()
        raise Complaint(f"no TLS with {host}: {e}") from e
    except (OSError, ValueError, Complaint) as e:
        sock.close()
        if isinstance(e, Complaint):
            raise
        raise Complaint(f"no TLS with {host}: {e}") from e
