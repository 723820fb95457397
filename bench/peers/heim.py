"""Heim itself: `heim-proxy run` with a real configuration and a session in its store.

The session is made as a login would leave it, in the store and with the keys that the proxy then
opens; the proxy knows nothing of being measured.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench import configuration
from bench.peers.base import Entry, Server
from bench.process import Program, free_port
from bench.site import DOMAIN, IDENTITY_HOST, PERSON, PUBLIC_HOST, Site
from heim_proxy.access.subject import Subject, SubjectKind
from heim_proxy.identity.keys import KeyRing
from heim_proxy.identity.seal import Sealer
from heim_proxy.identity.session import Sessions
from heim_proxy.live import LiveRegistry
from heim_proxy.store.sqlite import SqliteStore
from heim_runtime.clock import SystemClock

__all__ = ["Prepared", "prepare", "start"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration on disk with a signed-in person in its store, nothing running."""

    room: Path
    config: Path
    access_log: Path
    http_port: int
    https_port: int
    cookie: str


def prepare(site: Site) -> Prepared:
    """Write the configuration and make the session."""
    room = site.room("heim")
    plain, secure = free_port(), free_port()
    config = room / "heim.yaml"
    config.write_text(yaml.safe_dump(_document(site, room, plain, secure), sort_keys=False))
    cookie = asyncio.run(_sign_in(room))
    return Prepared(room, config, room / "access.log", plain, secure, cookie)


def start(site: Site) -> Server:
    """The proxy with one signed-in person; plain http only reaches the public backend."""
    ready = prepare(site)
    command = [str(Path(sys.executable).with_name("heim-proxy")), "run"]
    command += ["--config", str(ready.config), "--access-log", str(ready.access_log)]
    program = Program(command, core=site.cores.server, output=ready.room / "output")
    program.wait_for(ready.http_port, ready.https_port)
    return Server(
        name="heim",
        program=program,
        http_port=ready.http_port,
        https_port=ready.https_port,
        access_log=ready.access_log,
        entries=(
            # Heim answers signed-in people over TLS only.
            Entry("heim", IDENTITY_HOST, identity=True, tls_only=True),
            Entry("heim, public backend", PUBLIC_HOST),
        ),
        cookie=ready.cookie,
    )


async def _sign_in(room: Path) -> str:
    state = room / "state"
    store = SqliteStore(state / "state.db")
    await store.open()
    try:
        sessions = Sessions(
            store,
            Sealer(KeyRing.load_or_create(state / "session.keys")),
            LiveRegistry(),
            lifetime=24 * 3600.0,
            idle=8 * 3600.0,
            clock=SystemClock(),
        )
        now = time.time()
        person = Subject(
            SubjectKind.USER,
            configuration.ISSUER,
            "alice",
            "test",
            email=PERSON,
            domain=DOMAIN,
            groups=frozenset({"engineers", "oncall", "everyone"}),
        )
        session = await sessions.create(person, auth_time=now, tokens=b"", now=now)
        return sessions.cookie_for(session, IDENTITY_HOST, now).partition(";")[0]
    finally:
        await store.close()


def _document(site: Site, room: Path, plain: int, secure: int) -> dict[str, Any]:
    upstream = f"http://127.0.0.1:{site.upstream_port}"
    return {
        **configuration.frame(
            site.directory,
            room,
            domain=DOMAIN,
            https=f"127.0.0.1:{secure}",
            http=f"127.0.0.1:{plain}",
        ),
        "roles": [
            {
                "name": "engineers",
                "members": [{"group": "engineers"}],
                "bindings": [{"backend": "app", "permission": "read"}],
            },
            {
                "name": "oncall",
                "members": [{"group": "oncall"}, {"user": f"bob@{DOMAIN}"}],
                "bindings": [{"backend": "app", "permission": "operate"}],
            },
            {
                "name": "admins",
                "members": [{"user": f"carol@{DOMAIN}"}],
                "bindings": [{"backend": "app", "permission": "all"}],
            },
        ],
        "backends": [
            {
                "name": "app",
                "host": IDENTITY_HOST,
                "http": [
                    {"path": "/", "upstream": upstream},
                    {"path": "/api", "upstream": upstream},
                ],
                "permissions": [
                    {"name": "all", "locations": [{"any": "/"}]},
                    {
                        "name": "read",
                        "locations": [{"get": "/1k"}, {"get": "/64k"}, {"get": "/users/*/profile"}],
                    },
                    {"name": "operate", "locations": [{"post": "/restart"}, {"get": "/status"}]},
                ],
            },
            {
                "name": "www",
                "host": PUBLIC_HOST,
                "public": True,
                "allow_http": True,
                "http": [{"path": "/", "upstream": upstream}],
            },
        ],
        "drain": "1s",
    }
