"""nginx as a reverse proxy, alone and asking an authentication service about every request."""

from __future__ import annotations

from pathlib import Path

from bench.peers.base import Entry, Server
from bench.process import Program, free_port
from bench.site import PERSON, PUBLIC_HOST, Site, nginx_frame

__all__ = ["start", "start_with_auth"]


def start(site: Site) -> Server:
    """nginx with `proxy_pass`, no identity."""
    return _start(site, site.room("nginx"), auth_port=None)


def start_with_auth(site: Site) -> Server:
    """nginx with `auth_request`; its service is a second nginx that always says yes."""
    room = site.room("nginx-auth")
    service = room / "service"
    service.mkdir()
    port = free_port()
    config = nginx_frame(
        service,
        f"""\
    access_log off;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            add_header X-Auth-Id {PERSON};
            return 200;
        }}
    }}
""",
    )
    program = _run(service, config, site.cores.server)
    program.wait_for(port)
    return _start(site, room, auth_port=port, beside=program)


def _start(
    site: Site, room: Path, *, auth_port: int | None, beside: Program | None = None
) -> Server:
    plain, secure = free_port(), free_port()
    auth_upstream, auth_location, ask = "", "", ""
    if auth_port is not None:
        auth_upstream = f"upstream auth {{ server 127.0.0.1:{auth_port}; keepalive 64; }}"
        auth_location = """\
        location = /_auth {
            internal;
            proxy_pass http://auth;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Original-URI $request_uri;
        }"""
        ask = """\
            auth_request /_auth;
            auth_request_set $person $upstream_http_x_auth_id;
            proxy_set_header X-Auth-Id $person;"""
    config = nginx_frame(
        room,
        f"""\
    access_log {room}/access.log combined buffer=64k flush=1s;
    ssl_certificate {site.directory}/tls.crt;
    ssl_certificate_key {site.directory}/tls.key;
    ssl_protocols TLSv1.3;
    upstream app {{
        server 127.0.0.1:{site.upstream_port};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    {auth_upstream}
    proxy_http_version 1.1;
    server {{
        listen 127.0.0.1:{plain} backlog=4096;
        listen 127.0.0.1:{secure} ssl backlog=4096;
{auth_location}
        location / {{
{ask}
            proxy_pass http://app;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $host;
        }}
    }}
""",
    )
    program = _run(room, config, site.cores.server)
    program.wait_for(plain, secure)
    label = "nginx" if auth_port is None else "nginx+auth"
    return Server(
        name=label,
        program=program,
        http_port=plain,
        https_port=secure,
        access_log=room / "access.log",
        entries=(Entry(label, PUBLIC_HOST),),
        beside=beside,
    )


def _run(room: Path, config: Path, core: int) -> Program:
    command = ["nginx", "-e", str(room / "error.log"), "-c", str(config)]
    return Program(command, core=core, output=room / "output")
