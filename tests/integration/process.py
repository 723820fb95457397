"""`heim-proxy` as a process of its own, on the files that tests.fakes.heim writes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from heim_proxy.access.subject import Subject
from heim_proxy.identity.keys import KeyRing
from heim_proxy.identity.seal import Sealer
from heim_proxy.identity.session import Session, Sessions
from heim_proxy.live import LiveRegistry
from heim_proxy.store.sqlite import SqliteStore
from heim_runtime.clock import SystemClock
from tests.fakes.heim import Answer, Heim, Wire

__all__ = ["HEIM_PROXY", "Finished", "HeimProcess", "admin", "heim_proxy", "running"]

HEIM_PROXY = str(Path(sys.executable).with_name("heim-proxy"))

START_DEADLINE_S = 15.0
"""It takes half a second here; a loaded CI machine more."""

COMMAND_DEADLINE_S = 20.0


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    status: int
    out: str
    err: str


async def heim_proxy(
    *args: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> Finished:
    """Run a command of `heim-proxy` to its end."""
    process = await asyncio.create_subprocess_exec(
        HEIM_PROXY,
        *args,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
        cwd=cwd,
    )
    async with asyncio.timeout(COMMAND_DEADLINE_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


async def admin(directory: Path, path: str, *, host: str = "localhost") -> Answer:
    """Ask the admin listener of the proxy that runs in `directory`."""
    reader, writer = await asyncio.open_unix_connection(str(directory / "admin.sock"))
    wire = Wire(reader, writer)
    try:
        wire.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        async with asyncio.timeout(5):
            return await wire.answer()
    finally:
        wire.close()


@dataclass(repr=False)
class HeimProcess(Heim):
    """A proxy in a process of its own; requests are made as with `Heim`."""

    process: asyncio.subprocess.Process = field(init=False)
    addresses: list[str] = field(default_factory=list)
    # What runs it: another network, perhaps.
    within: tuple[str, ...] = ()
    # How long it may take to start, in seconds: some wait for others.
    patience_s: float = START_DEADLINE_S

    async def launch(self) -> None:
        """Start the process and wait until it accepts connections."""
        with self.log_file.open("ab") as stderr:
            begin = stderr.tell()
            self.process = await asyncio.create_subprocess_exec(
                *self.within,
                HEIM_PROXY,
                "run",
                "--config",
                str(self.config_file),
                "--access-log",
                str(self.log),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=stderr,
            )
        async with asyncio.timeout(self.patience_s):
            while not (started := self.events("proxy.started", begin)):
                if self.process.returncode is not None:
                    raise RuntimeError(self.log_file.read_text())
                await asyncio.sleep(0.02)
        self.addresses = started[0]["listeners"]

    async def stop(self) -> None:
        """End it, hard if it has not ended by itself."""
        for wire in self._wires:
            wire.close()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    @property
    def log_file(self) -> Path:
        """Its standard error: JSON lines."""
        return self.directory / "heim.log"

    def events(self, name: str, begin: int = 0) -> list[dict[str, Any]]:
        """The log entries of one kind, from that offset of the log on."""
        with self.log_file.open("rb") as file:
            file.seek(begin)
            text = file.read()
        lines = text[: text.rfind(b"\n") + 1].splitlines()
        return [entry for line in lines if (entry := json.loads(line)).get("event") == name]

    @property
    def https_port(self) -> int:
        return int(self.addresses[0].rpartition(":")[2])

    @property
    def http_port(self) -> int:
        return int(self.addresses[1].rpartition(":")[2])

    async def status(self) -> dict[str, Any]:
        """What /status of the admin listener says."""
        found: dict[str, Any] = json.loads((await admin(self.directory, "/status")).body)
        return found

    # -- people: their sessions are written beside the process, as another replica would -------

    @property
    def database(self) -> Path:
        return self.directory / "state" / "state.db"

    @asynccontextmanager
    async def _sessions(self) -> AsyncIterator[Sessions]:
        store = SqliteStore(self.database)
        await store.open()
        try:
            ring = KeyRing.load(self.directory / "state" / "session.keys")
            yield Sessions(
                store,
                Sealer(ring),
                LiveRegistry(),
                lifetime=3600,
                idle=3600,
                clock=SystemClock(),
            )
        finally:
            await store.close()

    async def session(self, who: Subject, *, auth_time: float | None = None) -> Session:
        now = time.time()
        async with self._sessions() as sessions:
            return await sessions.create(
                who, auth_time=now if auth_time is None else auth_time, tokens=b"", now=now
            )

    async def cookie_of(self, session: Session, host: str) -> str:
        """The Cookie header that presents a session on a host."""
        async with self._sessions() as sessions:
            return sessions.cookie_for(session, host, time.time()).split(";")[0]

    async def signed_in(self, who: Subject, host: str) -> str:
        return await self.cookie_of(await self.session(who), host)


@asynccontextmanager
async def running(
    directory: Path,
    *,
    backends: list[dict[str, Any]],
    roles: list[dict[str, Any]] | None = None,
    within: tuple[str, ...] = (),
    **more: Any,
) -> AsyncIterator[HeimProcess]:
    """A proxy process for the length of the block; `within` is a command that runs another one."""
    heim = HeimProcess.prepare(directory, backends=backends, roles=roles, **more)
    assert isinstance(heim, HeimProcess)
    heim.within = within
    try:
        await heim.launch()
        yield heim
    finally:
        # Also one that did not get ready in time.
        if hasattr(heim, "process"):
            await heim.stop()
