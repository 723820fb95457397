"""Heim's two ends: a real `heim-proxy run` with a real `heim-agent run` behind it, TLS between.

Users come in three ways. Over plain http with an upgrade they are bytes on a socket, as for the
other tunnels with two ends: what is left of the proxy is its HTTP side, its part of the stream and
the agent's leg. Over TLS with a service token, and by `heim-tunnel`, they come as people do.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from bench.agents import enrolled
from bench.process import Program, StartError, free_port
from bench.tunnel.ground import DOMAIN, HOST, Ground
from bench.tunnel.peers import heim
from bench.tunnel.peers.base import Tunnel
from bench.tunnel.stream import Way

__all__ = ["AGENT", "LOGIN_HOST", "OPEN_HOST", "Pair", "open_pair", "start", "start_by_people"]

LOGIN_HOST: Final = f"auth.{DOMAIN}"
AGENT: Final = "box"
_TARGET: Final = "sink"
# A public backend that is reached over plain http.
OPEN_HOST: Final = f"open.{DOMAIN}"
_READY_S: Final = 15.0

_REQUEST: Final = (
    f"GET / HTTP/1.1\r\nHost: {OPEN_HOST}\r\nConnection: Upgrade\r\nUpgrade: bench\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A proxy and its agent, connected."""

    proxy: Program
    agent: Program
    room: Path
    https_port: int
    http_port: int
    admin: Path

    @property
    def plain(self) -> Way:
        """Over plain http with an upgrade."""
        return Way(self.http_port, codec="upgraded", head=_REQUEST)

    def stop(self) -> None:
        self.agent.stop()
        self.proxy.stop()


def open_pair(ground: Ground, room: str = "heim-agent") -> Pair:
    """Enrol, start the proxy at the near place and the agent at the far one, beside the target."""
    place = ground.room(room)
    state = place / "state"
    (machine,) = enrolled.enrol(state, [AGENT], login_host=LOGIN_HOST)
    https, http = free_port(), free_port()
    config = place / "heim.yaml"
    config.write_text(yaml.safe_dump(_document(ground, place, https, http), sort_keys=False))
    command = [heim.program("heim-proxy"), "run", "--config", str(config)]
    command += ["--access-log", str(place / "access.log")]
    proxy = ground.near.start(command, place / "output", https, http)
    try:
        agent = _start_agent(ground, machine, place, https)
    except StartError:
        proxy.stop()
        raise
    return Pair(proxy, agent, place, https, http, place / "admin.sock")


def start(ground: Ground) -> Tunnel:
    """Bytes in, bytes out: what an agent's leg costs beside other tunnels with two ends."""
    pair = open_pair(ground)
    return Tunnel("heim agent", pair.plain, pair.agent, pair.proxy)


def start_by_people(ground: Ground) -> Tunnel:
    """As people come: TLS and Heim's frames up to the proxy, then the agent's leg."""
    pair = open_pair(ground, "heim-agent-tls")
    token = heim.token(pair.room / "heim.yaml").partition("@")[0]
    way = Way(
        pair.https_port,
        codec="heim",
        head=heim.request(token),
        host=HOST,
        authority=str(ground.directory / "ca.pem"),
    )
    return Tunnel("heim agent, users over TLS", way, pair.agent, pair.proxy)


def _start_agent(ground: Ground, machine: enrolled.Machine, place: Path, port: int) -> Program:
    directory = place / "agent"
    enrolled.install(
        machine,
        directory,
        state=place / "state",
        login_host=LOGIN_HOST,
        ca=ground.directory / "ca.pem",
    )
    address = f"127.0.0.1:{ground.target_port}"
    (directory / "agent.toml").write_text(f'[targets.{_TARGET}]\naddress = "{address}"\n')
    command = [heim.program("heim-agent"), "run", "--state", str(directory)]
    command += ["--config", str(directory / "agent.toml")]
    command += ["--connect-to", f"{ground.near.address}:{port}"]
    output = place / "agent.output"
    agent = ground.far.start(command, output)
    deadline = time.monotonic() + _READY_S
    while not _is_ready(output):
        if agent.ended or time.monotonic() > deadline:
            raise StartError(f"heim-agent is not connected: {agent.tail()}")
        time.sleep(0.02)
    return agent


def _is_ready(output: Path) -> bool:
    lines = output.read_text().splitlines()
    return any(json.loads(line).get("event") == "lane.ready" for line in lines if line[:1] == "{")


def _document(ground: Ground, room: Path, https: int, http: int) -> dict[str, Any]:
    return {
        **heim.frame(ground, room, https),
        "listeners": {
            "https": {"address": f"{ground.near.address}:{https}"},
            "http": {"address": f"{ground.near.address}:{http}"},
            "admin": {"address": f"unix:{room / 'admin.sock'}"},
        },
        "agents": [{"name": AGENT, "targets": [_TARGET]}],
        "backends": [
            {
                "name": heim.BACKEND,
                "host": HOST,
                "tcp": {"agent": AGENT, "target": _TARGET},
            },
            {
                "name": "open",
                "host": OPEN_HOST,
                "public": True,
                "allow_http": True,
                "upgrades": ["bench"],
                "http": [{"path": "/", "agent": AGENT, "target": _TARGET}],
            },
        ],
    }
