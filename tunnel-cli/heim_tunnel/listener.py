"""Listen where `forward` was asked to: a TCP port, or a unix socket that only its owner may use."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import socket
import stat

from heim_runtime.complaints import FAILED, Complaint
from heim_tunnel.complaints import clean
from heim_tunnel.local import Local

__all__ = ["listen"]

_BACKLOG = 128


def listen(local: Local) -> tuple[socket.socket, Local]:
    """A listening socket, and where it listens: with the port that a 0 became.

    A unix socket that nobody listens on any more is replaced. The caller closes the socket and
    removes its path.

    Raises:
        Complaint: It is taken or not allowed; the text says what to do.
    """
    try:
        if local.path is not None:
            return _unix(local.path), local
        sock = _tcp(local)
    except OSError as error:
        raise Complaint(_explain(error, local), FAILED) from error
    return sock, dataclasses.replace(local, port=sock.getsockname()[1])


def _tcp(local: Local) -> socket.socket:
    family = socket.AF_INET6 if ":" in local.address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port whose last connections linger in TIME_WAIT can be taken again at once.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((local.address, local.port))
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _unix(path: str) -> socket.socket:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Connecting needs the right to write: whoever connects acts as us. Set before the path exists.
    umask = os.umask(0o177)
    try:
        sock.bind(path)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(umask)
    return sock


def _remove_stale(path: str) -> None:
    """Remove what an earlier forward left behind; never a file, never one that is in use."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _explain(error: OSError, local: Local) -> str:
    if error.errno == errno.EADDRINUSE:
        what = "another program listens there" + (" (or the path exists)" if local.path else "")
        advice = "choose another" if local.path else "choose another port, or none for a free one"
        return f"cannot listen on {local}: {what}; {advice}"
    if error.errno in (errno.EACCES, errno.EPERM) and local.path is None and local.port < 1024:
        return (
            f"cannot listen on {local}: ports below 1024 are for root; choose a higher one, such "
            f"as {10_000 + local.port}"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"cannot listen on {local}: that is no address of this machine"
    return f"cannot listen on {local}: {clean(error.strerror or str(error))}"
