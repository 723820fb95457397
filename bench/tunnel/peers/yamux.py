"""Go's TLS and hashicorp/yamux at both ends: one connection, streams with fixed windows.

The mux of frp and many other Go tunnels, in a relay of our own (yamux_relay/main.go) because frp
itself cannot be had where this is developed. Built once, kept in bench/out.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from bench.process import StartError, free_port
from bench.tunnel.ground import HOST, Ground
from bench.tunnel.peers.base import Missing, Tunnel
from bench.tunnel.stream import Way

__all__ = ["start", "start_small"]

_SOURCE: Final = Path(__file__).with_name("yamux_relay")
_PROGRAM: Final = Path(__file__).parents[2] / "out" / "yamux_relay"
_BUILD_S: Final = 300
# yamux's own default, and what frp sets.
_DEFAULT_WINDOW: Final = 256 * 1024
_FRP_WINDOW: Final = 6 * 1024 * 1024


def start(ground: Ground) -> Tunnel:
    """With the window that frp gives yamux: 6 MiB for each stream."""
    return _start(ground, "Go yamux, 6 MiB window", _FRP_WINDOW)


def start_small(ground: Ground) -> Tunnel:
    """With yamux's own default window: 256 KiB for each stream."""
    return _start(ground, "Go yamux, 256 KiB window", _DEFAULT_WINDOW)


def _start(ground: Ground, label: str, window: int) -> Tunnel:
    program = _build()
    room = ground.room(f"yamux-{window}")
    port, local = free_port(), free_port()
    far, directory = f"{ground.far.address}:{port}", ground.directory
    command = [program, "server", str(window), far, str(directory / "tls.crt")]
    command += [str(directory / "tls.key"), f"127.0.0.1:{ground.target_port}"]
    server = ground.far.start(command, room / "output", port)
    command = [program, "client", str(window), f"127.0.0.1:{local}"]
    command += [str(directory / "ca.pem"), HOST, far]
    client = ground.near.start(command, room / "client.output", local)
    return Tunnel(label, Way(local), server, client)


def _build() -> str:
    if not _PROGRAM.exists():
        if shutil.which("go") is None:
            raise Missing("yamux: Go, to build bench/tunnel/peers/yamux_relay")
        _PROGRAM.parent.mkdir(exist_ok=True)
        done = subprocess.run(
            ["go", "build", "-o", str(_PROGRAM), "."],
            cwd=_SOURCE,
            capture_output=True,
            text=True,
            timeout=_BUILD_S,
            check=False,
        )
        if done.returncode != 0:
            raise StartError(f"go build of yamux_relay failed: {done.stderr[-800:]}")
    return str(_PROGRAM)
