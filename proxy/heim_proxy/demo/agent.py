"""The demo's machine behind NAT: the real heim-agent, joined by a token as people join theirs.

It joins while people read the first lines, and ends with the demo. Without it the rest of the demo
works, and what goes wrong with it is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from types import TracebackType
from typing import Final, Self, TextIO

from heim_proxy.demo.files import DemoFiles
from heim_proxy.demo.programs import Programs
from heim_runtime.tasks import cancel, spawn

__all__ = ["AGENT", "DemoAgent"]

AGENT: Final = "office"
"""Its name in the demo's configuration."""

JOIN_S: Final = 30.0
"""To make a token and join with it; it takes a second here."""

STOP_S: Final = 3.0
"""For the agent to say goodbye."""


class DemoAgent:
    """An async context: a task that joins and runs the agent; it is ended on the way out."""

    def __init__(
        self, files: DemoFiles, programs: Programs, *, login_url: str, out: TextIO
    ) -> None:
        """Prepare; nothing runs before the block is entered.

        Args:
            files: Where its configuration is and its state goes.
            programs: What makes the token, and the agent.
            login_url: The proxy's, which has to be up.
            out: Where people read.
        """
        self._files = files
        self._programs = programs
        self._login_url = login_url
        self._out = out
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._task = spawn("demo.agent", self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            await cancel([self._task])
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    async def _run(self) -> None:
        files, programs = self._files, self._programs
        try:
            async with asyncio.timeout(JOIN_S):
                token = await self._do(
                    programs.proxy, "agent", "token", "create", AGENT,
                    "--config", str(files.configuration),
                )  # fmt: skip
                await self._do(
                    programs.agent, "join", self._login_url, "--token-file", "-",
                    "--ca-file", str(files.ca), "--state", str(files.agent_state),
                    said=token,
                )  # fmt: skip
        except (OSError, TimeoutError, _FailedError) as error:
            self._complain(f"could not join: {error or 'it took too long'}")
            return
        with (files.directory / "agent.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                programs.agent, "run",
                "--config", str(files.agent), "--state", str(files.agent_state),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        status = await self._process.wait()
        self._complain(f"ended with status {status}; see {files.directory / 'agent.log'}")

    async def _do(self, *command: str, said: bytes = b"") -> bytes:
        """Run a command to its end; what it wrote to standard output."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "NO_PROXY": "*"},
        )
        try:
            out, err = await process.communicate(said)
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if process.returncode:
            raise _FailedError(err.decode(errors="replace").strip().rpartition("\n")[2])
        return out

    def _complain(self, what: str) -> None:
        self._out.write(f"  The agent {AGENT} {what}\n")
        self._out.flush()


class _FailedError(Exception):
    """A command failed; the message is the last thing it said."""
