"""Accept connections ourselves: who may come in, who is it really, and only then TLS.

asyncio's own server cannot read a PROXY header before the TLS handshake and knows no limits. The
order here is: accept, count against the limits, read the PROXY header if the peer is a balancer
that must send one, count against the client's own limit, shake hands, hand over to the protocol.
Each connection does that in a task of its own under a deadline, so that a thousand clients that
stall in the middle of a handshake delay nobody else.

A protocol given out by `factory` must call `Peer.closed` from its `connection_lost`: that is what
gives the place back.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from heim_proxy.edge.admission import Admission, Place, Tally
from heim_proxy.edge.proxy_protocol import MAX_HEADER_BYTES, ProxyProtocolError, parse
from heim_runtime.tasks import spawn

__all__ = ["ListenError", "Listener", "Peer", "create_sockets", "explain"]

log = logging.getLogger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# For the PROXY header and for the TLS handshake, each. The header is in the balancer's first
# packet, a handshake takes two round trips; this is enough for a satellite and a lost packet.
SETUP_TIMEOUT_S: Final = 5.0

_GRACE_S: Final = 1.0

# How many are accepted before the loop does what is under way. When ten thousand agents come back
# at once, those that were let in must get through their handshakes before others begin theirs: with
# 64, all had begun and nearly all ran into their deadline together (bench/README.md).
ACCEPTS_PER_TURN: Final = 4

# Two or three seconds of handshakes: who would wait for longer is gone when it is served. Others
# try again after a second, as TCP does when a listener is full.
BACKLOG: Final = 1024

# Without descriptors or memory, accepting again at once would spin; connections wait in the
# backlog meanwhile, where clients see a delay and no error.
ACCEPT_BACKOFF_S: Final = 0.2

# While it lasts, the condition is said this often.
COMPLAIN_S: Final = 10.0

# Answers are written whole, so there is nothing to wait for. Keepalive finds clients that vanished
# under an idle WebSocket: after a minute of silence, four probes a quarter of a minute apart.
_SOCKET_OPTIONS: Final = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)

# The peer gave up between the SYN and our accept, or its network did (accept(2)).
_TRANSIENT: Final = frozenset(
    (errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH)
)


class ListenError(Exception):
    """An address cannot be listened on; the message names it and says what to do."""


class Peer:
    """Who is at the other end.

    `ip` and `port` are the client's, as the PROXY header gave them if there was one; `raw_ip` is
    the connection's own peer. IPv4-mapped IPv6 is IPv4 in both.
    """

    __slots__ = ("_place", "ip", "port", "raw_ip")

    def __init__(self, ip: str, port: int, raw_ip: str, *, place: Place | None = None) -> None:
        self.ip = ip
        self.port = port
        self.raw_ip = raw_ip
        self._place = place

    def closed(self) -> None:
        """The connection is over: give its place back. To be called once or more."""
        if self._place is not None:
            self._place.leave()

    def __repr__(self) -> str:
        via = "" if self.ip == self.raw_ip else f" via {self.raw_ip}"
        return f"<Peer {self.ip}:{self.port}{via}>"


class Listener:
    """The accept loop of one listening socket."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        name: str,
        factory: Callable[[Peer], asyncio.BaseProtocol],
        admission: Admission,
        ssl_context: ssl.SSLContext | None = None,
        proxy_from: Sequence[Network] = (),
        setup_timeout_s: float = SETUP_TIMEOUT_S,
    ) -> None:
        """Take over a listening socket; nothing is accepted before `start`.

        Args:
            sock: From `create_sockets`; closed by `close`.
            name: What logs and metrics call this listener.
            factory: Makes the protocol of a connection that passed.
            admission: The limits and their counters.
            ssl_context: For TLS; None for plain http.
            proxy_from: Peers that must send a PROXY header; from others it is not read.
            setup_timeout_s: Deadline of the PROXY header and of the TLS handshake, each.
        """
        sock.setblocking(False)
        # Inherited by accepted sockets on Linux: no system call for each.
        for level, option, value in _SOCKET_OPTIONS:
            sock.setsockopt(level, option, value)
        self._sock = sock
        self._name = name
        self._factory = factory
        self._admission = admission
        self._ssl = ssl_context
        self._proxy_from = tuple(proxy_from)
        self._setup_timeout_s = setup_timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._resume: asyncio.TimerHandle | None = None
        # When each event was last said, in loop time.
        self._complained: dict[str, float] = {}
        self._tally = Tally()
        # Since the start, refused ones included.
        self.accepted = 0

    @property
    def open(self) -> int:
        """Connections of this listener that are open, handshakes included."""
        return self._tally.open

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; of use when the port was 0."""
        host, port = self._sock.getsockname()[:2]
        return str(host), int(port)

    def start(self) -> None:
        """Begin to accept, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def close(self) -> None:
        """Stop accepting and close the socket; connections stay. Harmless when repeated."""
        loop, self._loop = self._loop, None
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        elif loop is not None:
            loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                conn, address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _TRANSIENT:
                    self._pause(error)
                    return
                continue
            self.accepted += 1
            place = self._admission.enter(self._tally)
            if place is None:
                conn.close()
                self._complain("listener.full", limit="connections")
                continue
            conn.setblocking(False)
            spawn("listener.connection", self._admit(conn, address, place))

    def _pause(self, error: OSError) -> None:
        """Stop accepting for a moment; descriptors are freed by connections that end."""
        if self._loop is None:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._resume = self._loop.call_later(ACCEPT_BACKOFF_S, self._retry)
        self._complain("listener.accept_failed", reason=error.strerror or str(error))

    def _retry(self) -> None:
        self._resume = None
        self.start()

    def _complain(self, event: str, **fields: str) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._complained.get(event, float("-inf")) >= COMPLAIN_S:
            self._complained[event] = now
            log.warning(event, extra={"listener": self._name, **fields})

    async def _admit(self, conn: socket.socket, address: tuple[str, int], place: Place) -> None:
        """Bring one accepted connection to its protocol, or close it."""
        try:
            peer = await self._meet(conn, address, place)
            protocol = None if peer is None else self._factory(peer)
        except BaseException:
            conn.close()
            place.leave()
            raise
        if peer is None or protocol is None:
            conn.close()
            place.leave()
        else:
            await self._hand_over(conn, peer, protocol)

    async def _meet(
        self, conn: socket.socket, address: tuple[str, int], place: Place
    ) -> Peer | None:
        """Find out who the client is; None when it may not come in."""
        raw_ip = _plain_ip(address[0])
        ip, port = raw_ip, address[1]
        if self._must_introduce(raw_ip):
            try:
                async with asyncio.timeout(self._setup_timeout_s):
                    source = await _introduced(conn)
            except (ProxyProtocolError, OSError) as error:
                # OSError includes the deadline's TimeoutError.
                reason = str(error) or type(error).__name__
                self._admission.refused.add("proxy_header")
                self._complain("listener.bad_proxy_header", peer=raw_ip, reason=reason)
                return None
            if source is not None:
                ip, port = _plain_ip(source[0]), source[1]
        if not place.claim(ip):
            self._complain("listener.full", limit="per_client", peer=ip)
            return None
        return Peer(ip, port, raw_ip, place=place)

    async def _hand_over(
        self, conn: socket.socket, peer: Peer, protocol: asyncio.BaseProtocol
    ) -> None:
        """Give the socket to the loop, through the TLS handshake if there is one.

        From here on the transport owns the socket; a failed handshake closes it.
        """
        loop = asyncio.get_running_loop()
        deadline = None if self._ssl is None else self._setup_timeout_s
        try:
            # The transport keeps the deadline; ours is for a loop that forgets to (uvloop never
            # answers when connection_made raises).
            async with asyncio.timeout(self._setup_timeout_s + _GRACE_S):
                await loop.connect_accepted_socket(
                    lambda: protocol, conn, ssl=self._ssl, ssl_handshake_timeout=deadline
                )
        except OSError as error:
            self._admission.handshake_failures.add(_handshake_failure(error))
            if log.isEnabledFor(logging.DEBUG):
                fields = {"peer": peer.ip, "reason": str(error)}
                log.debug("listener.handshake_failed", extra=fields)
            peer.closed()
        except BaseException:
            peer.closed()
            raise

    def _must_introduce(self, raw_ip: str) -> bool:
        if not self._proxy_from:
            return False
        address = ipaddress.ip_address(raw_ip)
        return any(address in network for network in self._proxy_from)


def create_sockets(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for an address, one for each that `host` resolves to.

    Args:
        host: An address or name; ``::`` listens on IPv4 too (dual stack).
        port: 0 lets the system choose.

    Raises:
        ListenError: When one of them cannot be had; none is left open.
    """
    name = host.removeprefix("[").removesuffix("]")
    made: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            made.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(name != "::"))
            sock.bind(address)
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in made:
            sock.close()
        raise ListenError(explain(f"{host}:{port}", error)) from error
    return made


def explain(address: str, error: OSError) -> str:
    """Why an address cannot be listened on, and what is in the way."""
    hint = ""
    if error.errno == errno.EADDRINUSE:
        hint = "; another program listens there"
    elif error.errno == errno.EACCES:
        hint = "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
    elif error.errno == errno.EADDRNOTAVAIL:
        hint = "; this machine does not have that address"
    # asyncio writes the address into strerror; a resolver's numbers are negative and its own.
    number = error.errno or 0
    reason = os.strerror(number) if number > 0 else error.strerror or error
    return f"cannot listen on {address}: {reason}{hint}"


async def _introduced(conn: socket.socket) -> tuple[str, int] | None:
    """Read exactly the PROXY header, and return the client it names; None when it names none.

    Peeks, then takes what belongs to the header: the byte after it is TLS's.

    Raises:
        ProxyProtocolError: When there is none or it is bad.
        OSError: When the connection fails or ends.
    """
    taken = b""
    while True:
        await _readable(conn)
        try:
            seen = conn.recv(MAX_HEADER_BYTES - len(taken), socket.MSG_PEEK)
        except BlockingIOError:
            continue
        if not seen:
            raise ProxyProtocolError("the connection ended before a PROXY header")
        header = parse(taken + seen)
        # An unfinished header is all header. Taking it empties the socket, which then wakes us
        # for the rest and not for what we have seen.
        size = len(seen) if header is None else header.length - len(taken)
        taken += conn.recv(size)
        if header is not None:
            return header.source


async def _readable(conn: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(conn.fileno(), _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(conn.fileno())


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _plain_ip(host: str) -> str:
    """An address without zone, and IPv4 as IPv4: 10.0.0.0/8 must hold on a dual-stack socket."""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    return str(address.ipv4_mapped or address)


def _handshake_failure(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "tls"
    # What both loops raise at the deadline is a plain ConnectionAbortedError.
    return "timeout" if isinstance(error, ConnectionAbortedError) else "closed"
