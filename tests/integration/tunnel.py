"""A proxy process with TCP backends and `heim-tunnel` on its way to it, for real peers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from heim_proxy.demo.loopback import free_port
from tests.fakes.heim import DOMAIN, authority
from tests.integration.process import HeimProcess, heim_proxy, running
from tests.integration.services import accepts

__all__ = [
    "ACCOUNT",
    "HEIM_TUNNEL",
    "Run",
    "Stream",
    "TunnelSite",
    "forward",
    "run",
    "stream",
    "tcp_backend",
    "tunnel_site",
]

HEIM_TUNNEL = str(Path(sys.executable).with_name("heim-tunnel"))

ACCOUNT = "ci"


@dataclass(frozen=True)
class Run:
    """What a program left behind."""

    status: int
    out: bytes
    err: str


@dataclass(frozen=True)
class TunnelSite:
    """A running proxy, and the environment in which `heim-tunnel` reaches it."""

    heim: HeimProcess
    env: dict[str, str]

    def host(self, name: str) -> str:
        return f"{name}.{DOMAIN}"

    def command(self, name: str, *options: str) -> list[str]:
        """`heim-tunnel proxy` for a backend, without any name service."""
        if "--connect-to" not in options:
            options = (*options, "--connect-to", f"127.0.0.1:{self.port}")
        return [HEIM_TUNNEL, "proxy", *options, self.host(name)]

    async def by_name(self, name: str, env_more: dict[str, str]) -> Run:
        """Run `heim-tunnel proxy` where the name decides the way, which nothing here resolves."""
        target = f"{self.host(name)}:{self.port}"
        return await run(HEIM_TUNNEL, "proxy", target, env={**self.env, **env_more})

    @property
    def port(self) -> int:
        return self.heim.https_port

    async def tunnel(
        self, name: str, stdin: bytes = b"", *options: str, env_more: dict[str, str] | None = None
    ) -> Run:
        """Run `heim-tunnel proxy` to its end."""
        env = {**self.env, **(env_more or {})}
        return await run(*self.command(name, *options), stdin=stdin, env=env)


def tcp_backend(name: str, upstream: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "tcp": {"upstream": upstream, **more}}


@asynccontextmanager
async def tunnel_site(
    directory: Path, backends: list[dict[str, Any]], **more: Any
) -> AsyncIterator[TunnelSite]:
    """A proxy whose service account `ci` may use every backend, and the account's token."""
    roles = [
        {
            "name": "machines",
            "members": [{"service_account": ACCOUNT}, {"user": "alice@example.com"}],
            "bindings": [{"backend": backend["name"]} for backend in backends],
        }
    ]
    async with running(
        directory, backends=backends, roles=roles, service_accounts=[{"name": ACCOUNT}], **more
    ) as heim:
        made = await heim_proxy("token", "create", ACCOUNT, "--config", str(heim.config_file))
        assert made.status == 0, made.err
        token_file = directory / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(made.out)
        ca_file = directory / "ca.pem"
        authority().cert_pem.write_to_path(ca_file)
        env = {
            "HEIM_TOKEN_FILE": str(token_file),
            "HEIM_CA_FILE": str(ca_file),
            "HEIM_TUNNEL_HOME": str(directory / "tunnel-home"),
        }
        yield TunnelSite(heim, env)


class Stream:
    """A running `heim-tunnel proxy` whose pipes are read and written by hand, without waiting."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **env},
            bufsize=0,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        self._said = b""
        os.set_blocking(self.stdin, False)
        os.set_blocking(self.stdout, False)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    async def send(self, data: bytes) -> None:
        """Write all of it."""
        view = memoryview(data)
        while view:
            view = view[self._give(view) :]
            await asyncio.sleep(0 if view else 0.001)

    async def read(self, size: int, within_s: float = 15.0) -> bytes:
        found = bytearray()
        async with asyncio.timeout(within_s):
            while len(found) < size:
                try:
                    data = os.read(self.stdout, min(size - len(found), 65_536))
                except BlockingIOError:
                    await asyncio.sleep(0.001)
                    continue
                assert data, self.said()
                found += data
        return bytes(found)

    async def fill(self) -> int:
        """Write until nothing has been taken for a second; how much was."""
        taken, still = 0, time.monotonic()
        while time.monotonic() - still < 1 and taken < 256 * 1024 * 1024:
            if size := self._give(bytes(65_536)):
                taken, still = taken + size, time.monotonic()
            await asyncio.sleep(0 if size else 0.01)
        return taken

    def _give(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self.stdin, data[:65_536])
        except BlockingIOError:
            return 0

    def said(self) -> str:
        """What it wrote to standard error until its end."""
        self.process.wait(5)
        assert self.process.stderr is not None
        self._said += self.process.stderr.read()
        return self._said.decode()


@contextmanager
def stream(
    site: TunnelSite, name: str, *options: str, within: tuple[str, ...] = ()
) -> Iterator[Stream]:
    """A stream to a backend, killed in the end; `within` is a command that runs another one."""
    started = Stream((*within, *site.command(name, *options)), site.env)
    try:
        yield started
    finally:
        started.close()


@asynccontextmanager
async def forward(site: TunnelSite, name: str) -> AsyncIterator[int]:
    """`heim-tunnel forward` for a backend; gives the local port that leads there."""
    port = free_port(18500)
    process = await asyncio.create_subprocess_exec(
        HEIM_TUNNEL,
        "forward",
        "--connect-to",
        f"127.0.0.1:{site.port}",
        f"{port}:{site.host(name)}",
        stdin=asyncio.subprocess.DEVNULL,
        env={**os.environ, **site.env},
    )
    try:
        async with asyncio.timeout(10):
            while not await accepts(port):
                assert process.returncode is None, "heim-tunnel forward ended"
                await asyncio.sleep(0.05)
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def run(
    *command: str,
    stdin: bytes | Path = b"",
    env: dict[str, str] | None = None,
    within_s: float = 25.0,
) -> Run:
    """Run a program to its end with these bytes, or this file, as its standard input."""
    if isinstance(stdin, Path):
        with stdin.open("rb") as file:
            return await _finish(command, file, None, env, within_s)
    return await _finish(command, asyncio.subprocess.PIPE, stdin, env, within_s)


async def _finish(
    command: tuple[str, ...],
    stdin: IO[bytes] | int,
    said: bytes | None,
    env: dict[str, str] | None,
    within_s: float,
) -> Run:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    try:
        async with asyncio.timeout(within_s):
            out, err = await process.communicate(said)
    except TimeoutError:
        process.kill()
        _, err = await process.communicate()
        raise AssertionError(f"{command[0]} did not end: {err.decode()}") from None
    assert process.returncode is not None
    return Run(process.returncode, out, err.decode(errors="replace"))
