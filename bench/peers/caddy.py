"""caddy as a reverse proxy, no identity."""

from __future__ import annotations

from bench.peers.base import Entry, Server
from bench.process import Program, free_port
from bench.site import PUBLIC_HOST, Site

__all__ = ["start"]


def start(site: Site) -> Server:
    """On one core Go runs one thread of Go code at a time, like the others' one worker."""
    room = site.room("caddy")
    plain, secure = free_port(), free_port()
    log = room / "access.log"
    config = room / "Caddyfile"
    config.write_text(f"""\
{{
    admin off
    auto_https off
    default_bind 127.0.0.1
    servers {{
        protocols h1
        timeouts {{
            idle 75s
        }}
    }}
}}
(app) {{
    log {{
        output file {log} {{
            roll_disabled
        }}
        format json
    }}
    reverse_proxy 127.0.0.1:{site.upstream_port} {{
        transport http {{
            keepalive_idle_conns_per_host 64
            compression off
        }}
    }}
}}
http://:{plain} {{
    import app
}}
https://:{secure} {{
    tls {site.directory}/tls.crt {site.directory}/tls.key {{
        protocols tls1.3 tls1.3
    }}
    import app
}}
""")
    program = Program(
        ["caddy", "run", "--adapter", "caddyfile", "--config", str(config)],
        core=site.cores.server,
        output=room / "output",
        environment={"HOME": str(room), "XDG_DATA_HOME": str(room), "XDG_CONFIG_HOME": str(room)},
    )
    program.wait_for(plain, secure)
    return Server(
        name="caddy",
        program=program,
        http_port=plain,
        https_port=secure,
        access_log=log,
        entries=(Entry("caddy", PUBLIC_HOST),),
    )
