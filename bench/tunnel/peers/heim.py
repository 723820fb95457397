"""Heim itself: `heim-proxy run` with a TCP backend, and a service token made as its command does.

Each stream's request is authenticated, judged by the policy, put into the live registry, dialled
for, and written to the audit and access logs; frames are masked, credited and checked. The other
servers here know nobody and forward everything.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from bench import configuration
from bench.process import Program, StartError, free_port
from bench.tunnel.ground import DOMAIN, HOST, Ground
from bench.tunnel.peers.base import Tunnel
from bench.tunnel.stream import Way

__all__ = [
    "BACKEND",
    "Heim",
    "frame",
    "open_heim",
    "program",
    "request",
    "start",
    "start_forward",
    "token",
]

_LOGIN_HOST: Final = f"auth.{DOMAIN}"
BACKEND: Final = "sink"
_COMMAND_S: Final = 60
_DAY_S: Final = 86400.0


@dataclass(frozen=True, slots=True)
class Heim:
    """A running proxy, and what a client of it needs. `home` is a client's HEIM_TUNNEL_HOME."""

    server: Program
    room: Path
    port: int
    way: Way
    token_file: Path
    home: Path

    def client(self, *words: str) -> tuple[list[str], dict[str, str]]:
        """A command of heim-tunnel with its environment, dialling the proxy wherever it is."""
        command = [program("heim-tunnel"), *words]
        command += ["--connect-to", f"{self.way.address}:{self.port}"]
        return command, {"HEIM_TUNNEL_HOME": str(self.home)}


def program(name: str) -> str:
    """A command of ours, from the environment that runs the measurement."""
    return str(Path(sys.executable).with_name(name))


def open_heim(ground: Ground, room: str = "heim") -> Heim:
    """Configure, make a token, start; the login file is as a person's login leaves it."""
    place = ground.room(room)
    port = free_port()
    config = place / "heim.yaml"
    config.write_text(yaml.safe_dump(_document(ground, place, port), sort_keys=False))
    command = [program("heim-proxy"), "run", "--config", str(config)]
    command += ["--access-log", str(place / "access.log")]
    server = ground.far.start(command, place / "output", port)
    # The proxy has made its state by now; it does not notice who makes tokens in it.
    made = token(config)
    # Behind the @ is where it may be sent, which is not part of it.
    bearer = made.partition("@")[0]
    token_file = place / "token"
    token_file.write_text(made)
    token_file.chmod(0o600)
    way = Way(
        port,
        ground.far.address,
        codec="heim",
        head=request(bearer),
        host=HOST,
        authority=str(ground.directory / "ca.pem"),
    )
    return Heim(server, place, port, way, token_file, _home(ground, place, bearer))


def start(ground: Ground) -> Tunnel:
    """The proxy process alone; the load speaks TLS, WebSocket and Heim's frames."""
    heim = open_heim(ground)
    return Tunnel("heim", heim.way, heim.server)


def start_forward(ground: Ground) -> Tunnel:
    """`heim-tunnel forward` as the client: a TLS connection for each stream."""
    heim = open_heim(ground, "heim-forward")
    local = free_port()
    command, environment = heim.client("forward", f"{local}:{HOST}")
    client = ground.near.start(command, heim.room / "client.output", local, environment=environment)
    return Tunnel("heim-tunnel forward", Way(local), heim.server, client)


def request(bearer: str) -> str:
    """What opens a stream over HTTP, with a service token."""
    return (
        "GET /.heim/tunnel/connect HTTP/1.1\r\n"
        f"Host: {HOST}\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Sec-WebSocket-Protocol: heim.tunnel.v1\r\n"
        f"Authorization: Bearer {bearer}\r\n\r\n"
    )


def token(config: Path) -> str:
    """A service token, as its command makes it: `heim_…@domain`."""
    command = [program("heim-proxy"), "token", "create", "bench", "--expires", "1d"]
    done = subprocess.run(
        [*command, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=_COMMAND_S,
        check=False,
    )
    if done.returncode != 0:
        raise StartError(f"heim-proxy token create: {done.stderr[-800:]}")
    return done.stdout.strip()


def _home(ground: Ground, room: Path, token: str) -> Path:
    home = room / "client"
    logins = home / "logins"
    for directory in (home, logins):
        directory.mkdir(mode=0o700)
    login = logins / f"{_LOGIN_HOST}.json"
    later = time.time() + _DAY_S
    login.write_text(
        json.dumps(
            {
                "login_url": f"https://{_LOGIN_HOST}",
                "user": "bench",
                "domains": [DOMAIN],
                "access_token": token,
                "access_expires": later,
                "refresh_token": "none",
                "session_expires": later,
                "ca_file": str(ground.directory / "ca.pem"),
            }
        )
    )
    login.chmod(0o600)
    return home


def _document(ground: Ground, room: Path, port: int) -> dict[str, Any]:
    return {
        **frame(ground, room, port),
        "backends": [
            {
                "name": BACKEND,
                "host": HOST,
                "tcp": {"upstream": f"127.0.0.1:{ground.target_port}"},
            }
        ],
    }


def frame(ground: Ground, room: Path, port: int) -> dict[str, Any]:
    """A configuration without backends; its role is for `BACKEND`."""
    return {
        **configuration.frame(
            ground.directory, room, domain=DOMAIN, https=f"{ground.far.address}:{port}"
        ),
        "tunnel": {"streams_per_user": 4096},
        "service_accounts": [{"name": "bench"}],
        "roles": [
            {
                "name": "benches",
                "members": [{"service_account": "bench"}],
                "bindings": [{"backend": BACKEND}],
            }
        ],
        "drain": "1s",
    }
