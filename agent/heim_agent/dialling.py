"""Reach the login host: names, web proxies, TLS; each step with its deadline.

Names are looked up at every attempt and addresses raced (RFC 8305) by `heim_runtime.race`, which
blocks: in a thread here, so that it is the same on every event loop (uvloop has no Happy Eyeballs).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from heim_agent.complaints import with_hint
from heim_agent.endings import Ending, Kind, NotConnected, failed
from heim_runtime import race, trust, webproxy
from heim_runtime.complaints import Complaint
from heim_runtime.tasks import spawn
from heim_wire.aio.connection import Connection
from heim_wire.aio.sockets import tune_carriage
from heim_wire.handshake import Connect, connect_request
from heim_wire.problem import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final, TypeVar

    T = TypeVar("T")

__all__ = ["OTHER_NAME", "Carriage", "Connected", "Way", "connect", "open_tcp"]

HTTPS_PORT: Final = 443

CONNECT_S: Final = 10.0
"""For the name and TCP together."""

WEB_PROXY_S: Final = 20.0
"""A web proxy resolves and connects in its turn, often after asking a scanner."""

TLS_S: Final = 10.0

CUT_S: Final = 2.0
"""For a connection that was cut to be gone."""

OTHER_NAME: Final = (
    "is this the proxy's login host? If so, the proxy needs a certificate for this name"
)
"""What to do about a certificate that is for another name."""

_REFUSED: Final = os.strerror(errno.ECONNREFUSED).lower()
_ADVICE: Final = "name its authority with: heim-agent join --ca-file FILE"


@dataclass(frozen=True, slots=True)
class Way:
    """Where the login host is, and how to get there.

    Attributes:
        host: Its name: what TLS verifies.
        port: Its port.
        ca_file: Authorities to trust instead of the system's; None for the system's.
        connect_to: Where to connect instead of where the name says, or None.
    """

    host: str
    port: int = HTTPS_PORT
    ca_file: str | None = None
    connect_to: tuple[str, int] | None = None

    @classmethod
    def to(
        cls, url: str, *, ca_file: str | None = None, connect_to: tuple[str, int] | None = None
    ) -> Way:
        """The way to the origin of an https URL."""
        parts = urlsplit(url)
        return cls(parts.hostname or "", parts.port or HTTPS_PORT, ca_file, connect_to)

    @property
    def authority(self) -> str:
        """For Host: the name, with `:port` unless it is 443."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == HTTPS_PORT else f"{host}:{self.port}"


class Carriage(Connection):
    """A connection that tells when it is closed for good.

    Attributes:
        gone: Set then. A loop must not be closed before: uvloop would hang on it.
    """

    __slots__ = ("gone",)

    def __init__(self) -> None:
        super().__init__()
        self.gone = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self.gone.set()
        super().connection_lost(exc)


@dataclass(slots=True)
class Connected:
    """A TLS connection to the login host, verified.

    Attributes:
        connection: Its protocol.
        spki: SHA-256 of the SubjectPublicKeyInfo of the certificate that was seen.
        via: The web proxy it goes through, or "".
    """

    connection: Carriage
    spki: bytes
    via: str = ""


def open_tcp(way: Way, environ: Mapping[str, str] = os.environ) -> tuple[socket.socket, str]:
    """A TCP connection to the login host, or through the web proxy that the environment names.

    Blocks for at most CONNECT_S + WEB_PROXY_S (+ TLS_S for an https:// web proxy). The socket is
    tuned as a carriage; the caller closes it.

    Returns:
        The socket and the web proxy's URL (without password), or "".

    Raises:
        Complaint: DNS, connect or the web proxy failed.
        Refused: The web proxy answered otherwise than 200.
    """
    host, port = way.connect_to or (way.host, way.port)
    proxy = webproxy.find(host, port, environ)
    if proxy is None:
        hint = "is the proxy running, and are this its address and port?"
        return _open(host, port, f"{host}:{port}", hint), ""
    try:
        sock = _open(proxy.host, proxy.port, f"web proxy {proxy}", "is HTTPS_PROXY right?")
    except Complaint as e:
        # Not the host that the person knows of.
        named = "" if str(proxy) in e.text else f"web proxy {proxy}: "
        raise Complaint(f"{named}{e.text}", e.status) from e
    try:
        if proxy.scheme == "https":
            from heim_runtime import bridge

            sock = bridge.open_tls(sock, proxy, way.ca_file, time.monotonic() + TLS_S)
        webproxy.join(
            sock,
            proxy,
            lambda auth: connect_request(host, port, auth),
            Connect(str(proxy)),
            deadline=time.monotonic() + WEB_PROXY_S,
        )
    except BaseException:
        sock.close()
        raise
    return sock, str(proxy)


def _open(host: str, port: int, name: str, hint: str) -> socket.socket:
    """A connection to `host`; `hint` is what to ask oneself when nothing listens there."""
    deadline = time.monotonic() + CONNECT_S
    addresses = race.resolve(host, port, deadline)
    try:
        sock = race.connect(addresses, name, deadline)
    except Complaint as e:
        if _REFUSED not in e.text.lower():
            raise
        raise Complaint(with_hint(e.text, hint), e.status) from e
    tune_carriage(sock)
    return sock


async def connect(way: Way, environ: Mapping[str, str] = os.environ) -> Connected:
    """Connect and shake hands, verified by `way.ca_file` or the system's authorities.

    Raises:
        NotConnected: With the step that failed.
    """

    def blocking() -> tuple[socket.socket, str, ssl.SSLContext]:
        # With the whole bundle, each time: 18 ms in a thread, and a renewed store is seen.
        context = trust.context(way.ca_file, bundle=True)
        return *open_tcp(way, environ), context

    try:
        sock, via, context = await _in_thread(blocking, lambda found: found[0].close())
    except Refused as e:
        # It is the web proxy's, so its 403 says nothing about this agent.
        ending = Ending(Kind.UNREACHABLE, e.detail, e.hint, wait_s=e.retry_after)
        raise NotConnected(ending) from e
    except Complaint as e:
        raise NotConnected(failed(e)) from e
    connection = await _secure(sock, context, way)
    assert connection.transport is not None
    tls = cast("ssl.SSLObject", connection.transport.get_extra_info("ssl_object"))
    leaf = tls.getpeercert(binary_form=True)
    assert leaf is not None
    return Connected(connection, _spki(leaf), via)


async def _secure(sock: socket.socket, context: ssl.SSLContext, way: Way) -> Carriage:
    connection = Carriage()
    shaking = spawn("tls-handshake", _shake(connection, sock, context, way.host))
    try:
        problem = await asyncio.shield(shaking)
    except asyncio.CancelledError:
        # uvloop leaves a transport behind whose handshake is cancelled, or whose write fails in it,
        # and hangs on it when the loop is closed. An end of input ends it in an orderly way.
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RD)
        await asyncio.wait((shaking,), timeout=CUT_S)
        if connection.transport is not None:
            connection.transport.abort()
            await connection.gone.wait()
        sock.close()
        raise
    if problem is None:
        return connection
    sock.close()
    raise NotConnected(_explain(problem, way)) from problem


async def _shake(
    connection: Carriage, sock: socket.socket, context: ssl.SSLContext, host: str
) -> OSError | EOFError | None:
    """Make `sock` the transport of `connection`; why that failed, or None."""
    try:
        await asyncio.get_running_loop().create_connection(
            lambda: connection,
            sock=sock,
            ssl=context,
            server_hostname=host,
            ssl_handshake_timeout=TLS_S,
            ssl_shutdown_timeout=CUT_S,
        )
    except (OSError, EOFError) as e:
        return e
    return None


def _explain(problem: OSError | EOFError, way: Way) -> Ending:
    if isinstance(problem, ssl.SSLError):
        text = trust.explain(problem, way.host, way.ca_file, advice=_ADVICE)
        if trust.other_name(problem):
            return Ending(Kind.UNREACHABLE, text, OTHER_NAME)
    elif isinstance(problem, TimeoutError | ConnectionAbortedError):
        text = f"no TLS with {way.host}: it does not answer"
    else:
        why = (problem.strerror if isinstance(problem, OSError) else "") or "it hung up"
        text = f"no TLS with {way.host}: {why[:1].lower()}{why[1:]}"
    return Ending(Kind.UNREACHABLE, text)


def _spki(leaf: bytes) -> bytes:
    key = x509.load_der_x509_certificate(leaf).public_key()
    return hashlib.sha256(
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).digest()


async def _in_thread(work: Callable[[], T], unwanted: Callable[[T], None]) -> T:
    """What `work` returns or raises; `unwanted` gets it when nobody waits any more.

    Its own daemon thread and not the loop's executor: that one is waited for when a program ends.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            if error is None:
                unwanted(cast("T", result))
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(cast("T", result))

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = work()
        except BaseException as e:  # noqa: BLE001 - handed to whoever waits
            error = e
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            # The loop is closed: the program ends.
            if error is None:
                unwanted(cast("T", result))

    threading.Thread(target=run, name="heim-dial", daemon=True).start()
    try:
        return await future
    except asyncio.CancelledError:
        if future.done() and not future.cancelled() and future.exception() is None:
            # It had come already.
            unwanted(future.result())
        raise
