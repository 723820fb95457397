"""websockify: TCP in WebSocket in TLS, a process for each connection; numpy unmasks."""

from __future__ import annotations

import shutil

from bench.process import free_port
from bench.tunnel.ground import HOST, Ground
from bench.tunnel.peers.base import Missing, Tunnel
from bench.tunnel.stream import Way

__all__ = ["start"]

_REQUEST = (
    "GET / HTTP/1.1\r\n"
    f"Host: {HOST}\r\n"
    "Upgrade: websocket\r\n"
    "Connection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    "Sec-WebSocket-Protocol: binary\r\n\r\n"
)


def start(ground: Ground) -> Tunnel:
    """The load speaks TLS and WebSocket."""
    program = shutil.which("websockify")
    if program is None:
        raise Missing("websockify: Debian's websockify")
    room = ground.room("websockify")
    port = free_port()
    command = [program, "--ssl-only", "--ssl-version", "tlsv1_3"]
    command += ["--cert", str(ground.directory / "tls.crt")]
    command += ["--key", str(ground.directory / "tls.key")]
    command += [f"{ground.far.address}:{port}", f"127.0.0.1:{ground.target_port}"]
    server = ground.far.start(command, room / "output", port)
    way = Way(
        port,
        ground.far.address,
        codec="websocket",
        head=_REQUEST,
        host=HOST,
        authority=str(ground.directory / "ca.pem"),
    )
    return Tunnel("websockify", way, server)
