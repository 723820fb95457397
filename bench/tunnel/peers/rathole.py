"""rathole: an agent dials out, users come in at its server; a TLS connection for each stream."""

from __future__ import annotations

from bench.process import free_port
from bench.tunnel.ground import HOST, Ground
from bench.tunnel.peers.base import Tunnel
from bench.tunnel.peers.installed import find
from bench.tunnel.place import wait_listening
from bench.tunnel.stream import Way

__all__ = ["start"]

_TRANSPORT = '[{side}.transport]\ntype = "tls"\n[{side}.transport.tls]\n'


def start(ground: Ground) -> Tunnel:
    """Users enter at the near end, rathole's server; its agent stands beside the target."""
    program = find("rathole")
    room = ground.room("rathole")
    port, local = free_port(), free_port()
    entry = room / "server.toml"
    entry.write_text(
        f'[server]\nbind_addr = "{ground.near.address}:{port}"\ndefault_token = "bench"\n'
        + _TRANSPORT.format(side="server")
        + f'pkcs12 = "{ground.pkcs12()}"\npkcs12_password = "bench"\n'
        + f'[server.services.target]\nbind_addr = "127.0.0.1:{local}"\n'
    )
    agent = room / "client.toml"
    agent.write_text(
        f'[client]\nremote_addr = "{ground.near.address}:{port}"\ndefault_token = "bench"\n'
        + _TRANSPORT.format(side="client")
        + f'trusted_root = "{ground.directory / "ca.pem"}"\nhostname = "{HOST}"\n'
        + "[client.services.target]\n"
        + f'local_addr = "127.0.0.1:{ground.target_port}"\n'
    )
    quiet = {"RUST_LOG": "info", "NO_COLOR": "1"}
    near = ground.near.start([program, str(entry)], room / "near.output", port, environment=quiet)
    far = ground.far.start([program, str(agent)], room / "output", environment=quiet)
    # It opens the users' port only once its agent has come.
    wait_listening(near, local)
    return Tunnel("rathole", Way(local), far, near)
