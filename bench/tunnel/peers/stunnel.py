"""stunnel: TLS in front of TCP, and stunnel as the client as well."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.process import Program, free_port
from bench.tunnel.ground import HOST, Ground
from bench.tunnel.peers.base import Missing, Tunnel
from bench.tunnel.place import Place
from bench.tunnel.stream import Way

__all__ = ["start", "start_both"]


def start(ground: Ground) -> Tunnel:
    """One thread for each connection, on the servers' core; the load speaks TLS."""
    room = ground.room("stunnel")
    server, port = _server(ground, room)
    way = Way(port, ground.far.address, host=HOST, authority=str(ground.directory / "ca.pem"))
    return Tunnel("stunnel", way, server)


def start_both(ground: Ground) -> Tunnel:
    """A TLS connection for each stream, by stunnel at both ends."""
    room = ground.room("stunnel-both")
    server, port = _server(ground, room)
    local = free_port()
    near = room / "client"
    near.mkdir()
    client = _run(
        near,
        ground.near,
        f"""\
client = yes
accept = 127.0.0.1:{local}
connect = {ground.far.address}:{port}
CAfile = {ground.directory}/ca.pem
verifyChain = yes
checkHost = {HOST}
""",
        local,
    )
    return Tunnel("stunnel at both ends", Way(local), server, client)


def _server(ground: Ground, room: Path) -> tuple[Program, int]:
    port = free_port()
    program = _run(
        room,
        ground.far,
        f"""\
accept = {ground.far.address}:{port}
connect = 127.0.0.1:{ground.target_port}
cert = {ground.directory}/tls.pem
""",
        port,
    )
    return program, port


def _run(room: Path, place: Place, service: str, port: int) -> Program:
    if shutil.which("stunnel") is None:
        raise Missing("stunnel: Debian's stunnel4")
    config = room / "stunnel.conf"
    config.write_text(f"""\
foreground = yes
pid =
syslog = no
debug = warning
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[tunnel]
sslVersionMin = TLSv1.3
{service}""")
    return place.start(["stunnel", str(config)], room / "output", port)
