"""haproxy in TCP mode: TLS in front of TCP."""

from __future__ import annotations

from bench.process import free_port
from bench.tunnel.ground import HOST, Ground
from bench.tunnel.peers.base import Tunnel
from bench.tunnel.stream import Way

__all__ = ["start"]


def start(ground: Ground) -> Tunnel:
    """One thread, haproxy's own defaults."""
    room = ground.room("haproxy")
    port = free_port()
    config = room / "haproxy.cfg"
    config.write_text(f"""\
global
    nbthread 1
    maxconn 4096
    ssl-default-bind-options ssl-min-ver TLSv1.3

defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h

frontend front
    bind {ground.far.address}:{port} ssl crt {ground.directory}/tls.pem
    default_backend target

backend target
    server target 127.0.0.1:{ground.target_port}
""")
    command = ["haproxy", "-db", "-f", str(config)]
    server = ground.far.start(command, room / "output", port)
    way = Way(port, ground.far.address, host=HOST, authority=str(ground.directory / "ca.pem"))
    return Tunnel("haproxy", way, server)
