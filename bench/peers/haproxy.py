"""haproxy as a reverse proxy, no identity."""

from __future__ import annotations

from bench.peers.base import Entry, Server
from bench.process import Program, free_port
from bench.site import PUBLIC_HOST, Site

__all__ = ["start"]


def start(site: Site) -> Server:
    """One thread; its log goes to standard output, which is a file: haproxy has no buffer there."""
    room = site.room("haproxy")
    plain, secure = free_port(), free_port()
    config = room / "haproxy.cfg"
    config.write_text(f"""\
global
    nbthread 1
    maxconn 8192
    log stdout format raw local0
    ssl-default-bind-options ssl-min-ver TLSv1.3

defaults
    mode http
    log global
    option httplog
    timeout connect 5s
    timeout client 75s
    timeout server 60s
    timeout http-keep-alive 75s
    timeout http-request 10s
    http-reuse always

frontend front
    bind 127.0.0.1:{plain} backlog 4096
    bind 127.0.0.1:{secure} backlog 4096 ssl crt {site.directory}/tls.pem alpn http/1.1
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
    http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    default_backend app

backend app
    server app 127.0.0.1:{site.upstream_port}
""")
    log = room / "access.log"
    command = ["haproxy", "-db", "-f", str(config)]
    program = Program(command, core=site.cores.server, output=log)
    program.wait_for(plain, secure)
    return Server(
        name="haproxy",
        program=program,
        http_port=plain,
        https_port=secure,
        access_log=log,
        entries=(Entry("haproxy", PUBLIC_HOST),),
    )
