"""heim_wire's multiplexed session at both ends, as agents and proxies will have between them."""

from __future__ import annotations

from bench.process import free_port
from bench.tunnel.ground import Ground, python
from bench.tunnel.peers.base import Tunnel
from bench.tunnel.stream import Way

__all__ = ["start"]


def start(ground: Ground) -> Tunnel:
    """One TLS connection, a stream for each local connection."""
    room = ground.room("mux")
    port, local = free_port(), free_port()
    carrier = ["--server", ground.far.address, "--server-port", str(port)]
    command = [*python("bench.tunnel.muxend"), "far", *carrier]
    command += ["--certificate", str(ground.directory / "tls.crt")]
    command += ["--key", str(ground.directory / "tls.key")]
    command += ["--target-port", str(ground.target_port)]
    server = ground.far.start(command, room / "output", port)
    command = [*python("bench.tunnel.muxend"), "near", *carrier]
    command += ["--port", str(local), "--authority", str(ground.directory / "ca.pem")]
    client = ground.near.start(command, room / "client.output", local)
    return Tunnel("heim mux at both ends", Way(local), server, client)
