"""What stands between people and a proxy: nginx and haproxy as TLS front ends, tinyproxy.

The front ends terminate TLS with a certificate of their own authority and speak TLS again to the
proxy behind them, as load balancers and intercepting company proxies do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from heim_proxy.demo.loopback import free_port
from tests.fakes.heim import DOMAIN
from tests.fakes.real import require
from tests.integration.services import until_it_listens

__all__ = [
    "FrontEnd",
    "Tinyproxy",
    "haproxy_in_front",
    "nginx_in_front",
    "tinyproxy",
    "tinyproxy_configuration",
]

NAMES = (f"*.{DOMAIN}", f"*.ssh.{DOMAIN}")

NGINX = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log info;
{user}
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {directory}/front.pem;
    ssl_certificate_key {directory}/front.pem;
    location / {{
      proxy_pass https://127.0.0.1:{behind};
      proxy_http_version 1.1;
      proxy_ssl_server_name on;
      proxy_ssl_name $host;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_read_timeout {idle_s}s;
      proxy_send_timeout {idle_s}s;
    }}
  }}
}}
"""

HAPROXY = """\
global
  maxconn 256
defaults
  mode http
  timeout connect 5s
  timeout client {idle_s}s
  timeout server {idle_s}s
  timeout tunnel {idle_s}s
frontend front
  bind 127.0.0.1:{port} ssl crt {directory}/front.pem alpn http/1.1
  default_backend heim
backend heim
  server heim 127.0.0.1:{behind} ssl verify none sni req.hdr(host),field(1,:)
"""

TINYPROXY = """\
Port {port}
Listen 127.0.0.1
Timeout 600
MaxClients 100
LogFile "{directory}/tinyproxy.log"
LogLevel Connect
Allow 127.0.0.1
{auth}
"""


@dataclass(frozen=True)
class FrontEnd:
    """A TLS front end on loopback; `ca_file` is the authority clients must trust to pass it."""

    port: int
    ca_file: Path


@dataclass(frozen=True)
class Tinyproxy:
    """A company proxy that serves CONNECT; `log` tells what passed."""

    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def nginx_in_front(
    directory: Path, behind: int, *, idle_s: int = 60
) -> AsyncIterator[FrontEnd]:
    """Debian's nginx, which closes an upgraded connection after `idle_s` seconds of silence."""
    program = require("nginx")
    port, ca_file = _prepare(directory)
    user = "user root;" * (directory.owner() == "root")
    text = NGINX.format(port=port, behind=behind, directory=directory, idle_s=idle_s, user=user)
    (directory / "nginx.conf").write_text(text)
    process = await asyncio.create_subprocess_exec(
        program, "-p", str(directory), "-c", "nginx.conf", "-e", "error.log"
    )
    async with until_it_listens(process, port, directory / "error.log"):
        yield FrontEnd(port, ca_file)


@asynccontextmanager
async def haproxy_in_front(
    directory: Path, behind: int, *, idle_s: int = 60
) -> AsyncIterator[FrontEnd]:
    """Debian's haproxy in http mode, which closes a tunnel after `idle_s` seconds of silence."""
    program = require("haproxy")
    port, ca_file = _prepare(directory)
    text = HAPROXY.format(port=port, behind=behind, directory=directory, idle_s=idle_s)
    (directory / "haproxy.cfg").write_text(text)
    with (directory / "haproxy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program, "-db", "-f", str(directory / "haproxy.cfg"), stdout=log, stderr=log
        )
    async with until_it_listens(process, port, directory / "haproxy.log"):
        yield FrontEnd(port, ca_file)


@asynccontextmanager
async def tinyproxy(
    directory: Path, *, login: tuple[str, str] | None = None
) -> AsyncIterator[Tinyproxy]:
    """Debian's tinyproxy; with `login` (user, password) it answers 407 to everybody else."""
    program = require("tinyproxy")
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port(18888)
    configuration = tinyproxy_configuration(directory, port, login)
    process = await asyncio.create_subprocess_exec(
        program, "-d", "-c", str(configuration), stdout=asyncio.subprocess.DEVNULL
    )
    async with until_it_listens(process, port, directory / "tinyproxy.log"):
        yield Tinyproxy(port, directory / "tinyproxy.log")


def tinyproxy_configuration(
    directory: Path, port: int, login: tuple[str, str] | None = None
) -> Path:
    """Write what tinyproxy is started with."""
    auth = f"BasicAuth {login[0]} {login[1]}" if login else ""
    path = directory / "tinyproxy.conf"
    path.write_text(TINYPROXY.format(port=port, directory=directory, auth=auth))
    return path


def _prepare(directory: Path) -> tuple[int, Path]:
    """A certificate of an authority that nobody trusts yet, and a port."""
    directory.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    certificate = authority.issue_cert(*NAMES)
    certificate.private_key_and_cert_chain_pem.write_to_path(directory / "front.pem")
    ca_file = directory / "front-ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    return free_port(19443), ca_file
