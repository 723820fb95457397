"""Debian's nginx as an upstream, started for a test."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from heim_proxy.demo.loopback import free_port
from tests.fakes.real import require
from tests.integration.services import until_it_listens

__all__ = ["Nginx", "nginx"]

CONFIGURATION = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log info;
{user}
events {{ worker_connections 256; }}
http {{
  log_format connections '$connection $connection_requests $request';
  access_log access.log connections;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  types {{ text/plain txt; text/html html; application/octet-stream bin; }}
  gzip on;
  gzip_min_length 1;
  gzip_types text/plain;
  keepalive_timeout {keepalive};
  server {{
    listen 127.0.0.1:{port};
    root www;
    client_max_body_size 1g;
    location / {{ }}
    location /upload/ {{ dav_methods PUT; create_full_put_path on; }}
    location /chunked/ {{ ssi on; ssi_types text/plain; alias www/; }}
    location /version {{ return 200 "{version}"; }}
    location /closing {{ keepalive_timeout 0; return 200 "closing"; }}
    location /moved {{ return 301 /elsewhere; }}
    location /teapot {{ return 418 "short and stout"; }}
    location /broken {{ return 500 "nginx is unwell"; }}
    location /drop {{ return 444; }}
    location /empty {{ return 204; }}
  }}
}}
"""


@dataclass
class Nginx:
    """A running nginx whose files are in `directory`."""

    directory: Path
    port: int
    process: asyncio.subprocess.Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def www(self) -> Path:
        return self.directory / "www"

    def connections(self, path: str) -> set[str]:
        """The numbers of the connections on which a path was asked for."""
        lines = (self.directory / "access.log").read_text().splitlines()
        return {line.split(" ")[0] for line in lines if f" {path} " in line}

    def configure(self, version: str) -> None:
        _write(self.directory, self.port, version=version)

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)


@asynccontextmanager
async def nginx(directory: Path, *, keepalive: str = "60s") -> AsyncIterator[Nginx]:
    """Start it, wait until it answers, stop it at the end of the block."""
    program = require("nginx")
    (directory / "www").mkdir(parents=True)
    port = free_port(18080)
    _write(directory, port, version="1", keepalive=keepalive)
    process = await asyncio.create_subprocess_exec(
        program, "-p", str(directory), "-c", "nginx.conf", "-e", "error.log"
    )
    async with until_it_listens(process, port, directory / "error.log"):
        yield Nginx(directory, port, process)


def _write(directory: Path, port: int, *, version: str, keepalive: str = "60s") -> None:
    # As root, workers would become www-data, who may not look into a test's directory.
    text = CONFIGURATION.format(
        port=port,
        version=version,
        keepalive=keepalive,
        user="user root;" * (directory.owner() == "root"),
    )
    (directory / "nginx.conf").write_text(text)
