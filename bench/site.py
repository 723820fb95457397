"""What all servers share: a directory, the certificate, the upstream and its bodies."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme

from bench.process import Cores, Program, free_port
from bench.scenarios import SIZES

__all__ = ["DOMAIN", "IDENTITY_HOST", "PERSON", "PUBLIC_HOST", "Site", "body", "nginx_frame"]

DOMAIN: Final = "bench.test"
# A backend that only signed-in people with the right role reach, and one that everybody reaches.
IDENTITY_HOST: Final = f"app.{DOMAIN}"
PUBLIC_HOST: Final = f"www.{DOMAIN}"
PERSON: Final = f"alice@{DOMAIN}"

# The largest number of idle connections that is measured, and as many upstream, with room.
_NGINX_CONNECTIONS: Final = 8192


@dataclass(frozen=True, slots=True)
class Site:
    """The surroundings of one run. Everything lives under `directory`."""

    directory: Path
    cores: Cores
    upstream_port: int
    upstream: Program
    authority: trustme.CA

    @classmethod
    def open(cls, directory: Path, cores: Cores) -> Site:
        """Make the certificate (ECDSA P-256) and start the upstream on the load's core."""
        authority = trustme.CA()
        issued = authority.issue_cert(f"*.{DOMAIN}", key_type=trustme.KeyType.ECDSA)
        certificate = issued.cert_chain_pems[0].bytes()
        key = issued.private_key_pem.bytes()
        (directory / "tls.crt").write_bytes(certificate)
        (directory / "tls.key").write_bytes(key)
        (directory / "tls.pem").write_bytes(certificate + key)
        port = free_port()
        upstream = _start_upstream(directory / "upstream", port, cores.load)
        return cls(directory, cores, port, upstream, authority)

    def room(self, name: str) -> Path:
        """A directory for one server's files."""
        path = self.directory / name
        path.mkdir()
        return path

    def client_context(self) -> ssl.SSLContext:
        """What a client needs to trust the servers; TLS 1.3 only."""
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.authority.configure_trust(context)
        return context


def body(size: str) -> bytes:
    """The upstream's answer, different in every line so that no short read passes for it."""
    line = b"".join(b"%07d\n" % number for number in range(SIZES[size] // 8))
    assert len(line) == SIZES[size]
    return line


def nginx_frame(directory: Path, http: str) -> Path:
    """Write an nginx.conf around the `http` block's content; every nginx here runs alike."""
    # Workers of a root master would become nobody, who cannot enter our directory.
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "\n".join(
        f"    {kind}_temp_path {directory}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = directory / "nginx.conf"
    path.write_text(f"""\
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections {_NGINX_CONNECTIONS}; }}
http {{
{temporary}
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    tcp_nodelay on;
    sendfile on;
{http}
}}
""")
    return path


def _start_upstream(directory: Path, port: int, core: int) -> Program:
    directory.mkdir()
    locations = []
    for size in SIZES:
        (directory / f"{size}.bin").write_bytes(body(size))
        locations.append(f"        location /{size}/ {{ try_files /{size}.bin =404; }}")
    served = "\n".join(locations)
    config = nginx_frame(
        directory,
        f"""\
    access_log off;
    open_file_cache max=16;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {directory};
{served}
        location = /1k/seen {{
            return 200 "$http_x_auth_id\\n$http_x_auth_token\\n$http_cookie\\n$host\\n";
        }}
    }}
""",
    )
    command = ["nginx", "-e", str(directory / "error.log"), "-c", str(config)]
    program = Program(command, core=core, output=directory / "output")
    program.wait_for(port)
    return program
