"""nginx `stream`: TLS in front of TCP, and the same nginx as the client that adds the TLS."""

from __future__ import annotations

import os
from pathlib import Path

from bench.process import Program, free_port
from bench.tunnel.ground import HOST, Ground
from bench.tunnel.peers.base import Tunnel
from bench.tunnel.place import Place
from bench.tunnel.stream import Way

__all__ = ["start", "start_both"]

_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def start(ground: Ground) -> Tunnel:
    """One worker, nginx's own defaults; the load speaks TLS."""
    room = ground.room("nginx")
    server, port = _server(ground, room)
    way = Way(port, ground.far.address, host=HOST, authority=str(ground.directory / "ca.pem"))
    return Tunnel("nginx", way, server)


def start_both(ground: Ground) -> Tunnel:
    """A TLS connection for each stream, by nginx at both ends."""
    room = ground.room("nginx-both")
    server, port = _server(ground, room)
    local = free_port()
    near = room / "client"
    near.mkdir()
    client = _run(
        near,
        ground.near,
        f"""\
        listen 127.0.0.1:{local};
        proxy_pass {ground.far.address}:{port};
        proxy_ssl on;
        proxy_ssl_protocols TLSv1.3;
        proxy_ssl_verify on;
        proxy_ssl_name {HOST};
        proxy_ssl_server_name on;
        proxy_ssl_trusted_certificate {ground.directory}/ca.pem;
""",
        local,
    )
    return Tunnel("nginx at both ends", Way(local), server, client)


def _server(ground: Ground, room: Path) -> tuple[Program, int]:
    port = free_port()
    program = _run(
        room,
        ground.far,
        f"""\
        listen {ground.far.address}:{port} ssl;
        ssl_certificate {ground.directory}/tls.crt;
        ssl_certificate_key {ground.directory}/tls.key;
        ssl_protocols TLSv1.3;
        proxy_pass 127.0.0.1:{ground.target_port};
""",
        port,
    )
    return program, port


def _run(room: Path, place: Place, server: str, port: int) -> Program:
    # Workers of a root master would become nobody, who cannot enter our directory.
    user = "user root;" if os.geteuid() == 0 else ""
    module = f"load_module {_MODULE};" if _MODULE.exists() else ""
    config = room / "nginx.conf"
    config.write_text(f"""\
{module}
{user}
daemon off;
worker_processes 1;
pid {room}/nginx.pid;
error_log {room}/error.log warn;
events {{ worker_connections 4096; }}
stream {{
    server {{
        proxy_timeout 1h;
{server}
    }}
}}
""")
    command = ["nginx", "-e", str(room / "error.log"), "-c", str(config)]
    return place.start(command, room / "output", port)
