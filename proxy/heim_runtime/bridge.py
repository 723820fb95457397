"""TLS to the web proxy itself (`HTTPS_PROXY=https://…`), seen from outside as a plain socket.

TLS to Heim runs inside it. A thread carries bytes between the two layers, so that nothing else has
to know; such web proxies are rare, and one thread switch per 256 KiB is not what makes them slow.
"""

from __future__ import annotations

import _thread
import select
import socket
import ssl
import time

from heim_runtime import trust
from heim_runtime.complaints import Complaint
from heim_runtime.link import Link, Lost

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from heim_runtime.webproxy import WebProxy

__all__ = ["open_tls"]

READ_BYTES: Final = 64 * 1024

ENDING_S: Final = 5.0
"""For the last bytes of one side when the other has closed."""


def open_tls(
    sock: socket.socket, proxy: WebProxy, ca_file: str | None, deadline: float
) -> socket.socket:
    """One end of a socket pair whose bytes travel to the web proxy in TLS.

    Args:
        sock: Connected to it; closed by whoever carries the bytes.
        proxy: Which it is, and so what its certificate must say.
        ca_file: Authorities to trust beside the system's; None for no more.
        deadline: For the handshake, seconds of time.monotonic.

    Raises:
        Complaint: TLS with the web proxy failed; its socket is closed.
    """
    # `--ca-file` is about Heim; a company's own authority is in the system's store most often.
    context = trust.context(None, bundle=True)
    if ca_file is not None:
        trust.load(context, ca_file)
    link = Link(sock, context, proxy.host)
    try:
        link.handshake(deadline)
    except (ssl.SSLError, TimeoutError, Lost) as e:
        link.close()
        if isinstance(e, ssl.SSLError):
            raise Complaint(f"web proxy: {trust.explain(e, proxy.host, ca_file)}") from e
        raise Complaint(f"no TLS with web proxy {proxy}: {e or 'it does not answer'}") from e
    ours, theirs = socket.socketpair()
    _thread.start_new_thread(_carry, (link, theirs))
    return ours


def _carry(link: Link, inner: socket.socket) -> None:
    """Carry until either side ends; both are closed then, which the other side notices."""
    try:
        inner.setblocking(False)
        _join(link, inner)
    except (OSError, Lost):
        return
    finally:
        link.finish()
        link.close()
        inner.close()


def _join(link: Link, inner: socket.socket) -> None:
    inward: list[bytes] = []
    ending: float | None = None
    outer_fd, inner_fd = link.fileno(), inner.fileno()
    while ending is None or (time.monotonic() < ending and (inward or link.unsent)):
        poll = select.poll()
        # One direction at a time holds at most one read: who cannot write does not read.
        poll.register(
            outer_fd,
            (0 if inward or link.ended else select.POLLIN) | (select.POLLOUT if link.unsent else 0),
        )
        if ending is None or inward:
            poll.register(
                inner_fd,
                (0 if link.unsent or ending else select.POLLIN) | (select.POLLOUT if inward else 0),
            )
        ready = dict(poll.poll(1000 if ending else None))
        if ready.get(outer_fd, 0) & ~select.POLLOUT and not inward:
            inward = link.read()
        if ready.get(inner_fd, 0) & ~select.POLLOUT and not link.unsent and ending is None:
            data = inner.recv(READ_BYTES)
            if data:
                link.write(data)
            else:
                ending = time.monotonic() + ENDING_S
        link.flush()
        while inward:
            try:
                sent = inner.send(inward[0])
            except BlockingIOError:
                break
            inward[0] = inward[0][sent:]
            if not inward[0]:
                del inward[0]
        if link.ended and not inward and ending is None:
            ending = time.monotonic()
