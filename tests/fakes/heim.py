"""A whole proxy in the test's own process and loop, with real sockets, TLS and state.

`Heim.start` writes an ordinary heim.yaml, starts `heim_proxy.app.Proxy` on it and offers what tests
need: a raw TLS connection, a small HTTP client that normalises nothing, a signed-in cookie without
a login, and a changed configuration. Everything listens on 127.0.0.1 with a free port.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme
import yaml

from heim_proxy.access.subject import Subject, SubjectKind
from heim_proxy.app import Proxy
from heim_proxy.identity.session import Session
from heim_proxy.sources.file import FileSource
from heim_runtime.clock import Clock

__all__ = ["DOMAIN", "LOGIN_HOST", "Answer", "Heim", "user"]

DOMAIN = "example.test"
LOGIN_HOST = f"auth.{DOMAIN}"
ISSUER = "http://127.0.0.1:1"


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


@functools.cache
def trusting_context() -> ssl.SSLContext:
    """What clients trust: our authority alone, since loading the system's takes 15 ms each time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context


def user(name: str, *, groups: tuple[str, ...] = (), issuer: str = ISSUER) -> Subject:
    """A person of the test provider, as a login would make them."""
    return Subject(
        SubjectKind.USER,
        issuer,
        name,
        "test",
        email=f"{name}@example.com",
        domain="example.com",
        groups=frozenset(groups),
    )


@dataclass
class Answer:
    """An HTTP answer as it came; `body` is decoded from its framing."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes
    raw: bytes = b""

    def get(self, name: str) -> str | None:
        return next((value for field, value in self.fields if field.lower() == name.lower()), None)

    def all(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field.lower() == name.lower()]

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Wire:
    """One raw connection to the proxy."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, head_only: bool = False) -> Answer:
        """Read exactly one answer, interim ones included as their own."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")[:-2]
        status = int(lines[0].split(" ")[1])
        fields = [(name, value.strip()) for name, _, value in (x.partition(":") for x in lines[1:])]
        found = Answer(status, fields, b"", head)
        if head_only or status < 200 or status in (204, 304):
            return found
        if (found.get("transfer-encoding") or "").lower() == "chunked":
            found.body = await self._chunks()
        elif (length := found.get("content-length")) is not None:
            found.body = await self.reader.readexactly(int(length))
        else:
            found.body = await self.reader.read()
        return found

    async def _chunks(self) -> bytes:
        body = b""
        while True:
            size = int((await self.reader.readline()).split(b";")[0], 16)
            body += await self.reader.readexactly(size)
            assert await self.reader.readline() == b"\r\n"
            if not size:
                return body

    async def closed(self, within_s: float = 3.0) -> bytes:
        """Wait until the proxy closes the connection; returns what came before."""
        async with asyncio.timeout(within_s):
            try:
                return await self.reader.read()
            except (ConnectionError, ssl.SSLError):
                return b""

    def close(self) -> None:
        self.writer.transport.abort()


@dataclass
class Heim:
    """A running proxy and its files."""

    directory: Path
    document: dict[str, Any]
    proxy: Proxy = field(init=False)
    log: Path = field(init=False)
    _wires: list[Wire] = field(default_factory=list)

    @classmethod
    async def start(
        cls,
        directory: Path,
        *,
        backends: list[dict[str, Any]],
        roles: list[dict[str, Any]] | None = None,
        hosts: tuple[str, ...] = (f"*.{DOMAIN}", DOMAIN),
        clock: Clock | None = None,
        **more: Any,
    ) -> Heim:
        """Start a proxy. `more` are further top-level keys of the configuration."""
        heim = cls.prepare(directory, backends=backends, roles=roles, hosts=hosts, **more)
        heim.proxy = Proxy(FileSource(heim.config_file), clock=clock, access_log=heim.log)
        await heim.proxy.start()
        return heim

    @classmethod
    def prepare(
        cls,
        directory: Path,
        *,
        backends: list[dict[str, Any]],
        roles: list[dict[str, Any]] | None = None,
        hosts: tuple[str, ...] = (f"*.{DOMAIN}", DOMAIN),
        **more: Any,
    ) -> Heim:
        """Write the files of a proxy without starting one."""
        secret = directory / "client-secret"
        secret.write_text("not-a-secret")
        issued = authority().issue_cert(*hosts)
        (directory / "tls.crt").write_bytes(b"".join(p.bytes() for p in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(directory / "tls.key")
        document: dict[str, Any] = {
            "version": 1,
            "domain": DOMAIN,
            "listeners": {
                "https": {"address": "127.0.0.1:0"},
                "http": {"address": "127.0.0.1:0"},
                "admin": {"address": f"unix:{directory / 'admin.sock'}"},
            },
            "tls": {"certificates": [{"cert_file": "tls.crt", "key_file": "tls.key"}]},
            "identity": {
                "providers": [
                    {
                        "name": "test",
                        "type": "oidc",
                        "issuer": ISSUER,
                        "client_id": "heim",
                        "client_secret_file": str(secret),
                    }
                ]
            },
            "state": {"url": f"sqlite://{directory / 'state' / 'state.db'}"},
            "roles": roles or [],
            "backends": backends,
            "drain": "1s",
        }
        document.update(more)
        heim = cls(directory, document)
        heim.log = directory / "access.log"
        heim.write()
        return heim

    async def stop(self) -> None:
        for wire in self._wires:
            wire.close()
        await self.proxy.close()

    # -- configuration ----------------------------------------------------------------------

    @property
    def config_file(self) -> Path:
        return self.directory / "heim.yaml"

    def write(self) -> None:
        """Write the document, in one step as editors and kubelet do."""
        fresh = self.config_file.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(self.document, sort_keys=False))
        os.replace(fresh, self.config_file)

    @property
    def generation(self) -> int:
        return self.proxy._reloader.status.generation

    async def change(self, **keys: Any) -> None:
        """Change top-level keys and wait until the proxy has them in force."""
        before = self.generation
        self.document.update(keys)
        self.write()
        await self._in_force(before)

    async def change_now(self, **keys: Any) -> None:
        """Change top-level keys, without waiting for the proxy's next look at its file."""
        before = self.generation
        self.document.update(keys)
        self.write()
        self.proxy._hang_up()
        await self._in_force(before)

    async def _in_force(self, before: int) -> None:
        """Wait until what is written is what serves; a generation may still be of the last one."""
        digest = hashlib.sha256(self.config_file.read_bytes()).hexdigest()
        reloader = self.proxy._reloader
        await self.until(
            lambda: (
                reloader.status.generation > before
                and digest.startswith(reloader.status.config_hash)
            )
        )

    async def look_at_the_time(self, now: float) -> None:
        """What the proxy does twice a second, at a time of the test's own."""
        sessions, edge = self.proxy._sessions, self.proxy._edge
        assert sessions is not None
        assert edge is not None
        await sessions.tick(now)
        edge.live.expire(now)
        edge.door.tick(now)

    @staticmethod
    async def until(condition: Any, within_s: float = 4.0) -> None:
        """Wait for a condition; fails with a TimeoutError when it does not come true."""
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.01)

    # -- people -----------------------------------------------------------------------------

    async def session(self, who: Subject, *, auth_time: float | None = None) -> Session:
        """A session as a login would leave it, without the login."""
        assert self.proxy._sessions is not None
        now = time.time()
        return await self.proxy._sessions.create(
            who, auth_time=now if auth_time is None else auth_time, tokens=b"", now=now
        )

    def cookie(self, session: Session, host: str) -> str:
        """The Cookie header that presents a session on a host."""
        assert self.proxy._sessions is not None
        return self.proxy._sessions.cookie_for(session, host, time.time()).split(";")[0]

    async def signed_in(self, who: Subject, host: str) -> str:
        """The Cookie header of a fresh session on a host."""
        return self.cookie(await self.session(who), host)

    # -- requests ---------------------------------------------------------------------------

    @property
    def https_port(self) -> int:
        return int(self.proxy.addresses[0].rpartition(":")[2])

    @property
    def http_port(self) -> int:
        return int(self.proxy.addresses[1].rpartition(":")[2])

    async def connect(self, sni: str = f"app.{DOMAIN}", *, plain: bool = False) -> Wire:
        """A raw connection."""
        context = None if plain else trusting_context()
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            self.http_port if plain else self.https_port,
            ssl=context,
            server_hostname=None if plain else sni,
        )
        wire = Wire(reader, writer)
        self._wires.append(wire)
        return wire

    async def raw(self, data: bytes, *, sni: str = f"app.{DOMAIN}", plain: bool = False) -> Answer:
        """Send bytes on a fresh connection and read one answer."""
        wire = await self.connect(sni, plain=plain)
        wire.send(data)
        async with asyncio.timeout(5):
            return await wire.answer()

    async def request(
        self,
        target: str = "/",
        *,
        host: str = f"app.{DOMAIN}",
        method: str = "GET",
        cookie: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
        plain: bool = False,
    ) -> Answer:
        """One request on a fresh connection; nothing is normalised."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if cookie is not None:
            lines.append(f"Cookie: {cookie}")
        if body:
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        wire = await self.connect(host.partition(":")[0], plain=plain)
        wire.send(head + body)
        async with asyncio.timeout(5):
            found = await wire.answer(head_only=method == "HEAD")
        wire.close()
        return found
