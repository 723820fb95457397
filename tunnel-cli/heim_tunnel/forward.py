"""`heim-tunnel forward`: a local port (or unix socket) whose connections become tunnels.

Each connection has a tunnel of its own, with its own token check and its own end: half-closes,
resets and back-pressure pass through `heim_wire.aio.relay` as they came.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
from typing import Final

from heim_runtime.tasks import cancel, spawn
from heim_tunnel.complaints import say
from heim_tunnel.dial import Way
from heim_tunnel.entrance import Entrance
from heim_tunnel.invocation import Invocation
from heim_tunnel.listener import listen
from heim_tunnel.local import parse
from heim_tunnel.naming import host_of
from heim_tunnel.passage import Passage

__all__ = ["Forward", "command"]

# As many as the proxy allows one person unless it is told otherwise.
MAX_CONNECTIONS: Final = 256
_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# For RESET frames and close frames to leave when everything is stopped.
_GOODBYE_S: Final = 1.0


def command(args: argparse.Namespace, way: Way) -> int:
    """Listen until somebody stops us; 128 + the signal's number."""
    wish = parse(args.forward)
    target = host_of(wish.backend, way, token_file=args.token_file)
    entrance = Entrance(Invocation(target, way, token_file=args.token_file))
    sock, local = listen(wish.local)
    # Until the loop listens for them: a Ctrl-C while it starts would leave it half made.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        with sock:
            if not local.is_private:
                say(target, f"everybody who reaches {local} acts as you")
            say(target, f"listening on {local}; Ctrl-C ends it")
            # Standard output is for the program that started us: where to connect, from now on.
            sys.stdout.write(f"{local}\n")
            sys.stdout.flush()
            return asyncio.run(Forward(entrance).run(sock))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
        if local.path is not None:
            with contextlib.suppress(OSError):
                os.unlink(local.path)


class Forward:
    """Every connection that is accepted, each with its tunnel."""

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance
        self._open: dict[Passage, asyncio.Task[None]] = {}

    async def run(self, sock: socket.socket) -> int:
        """Serve a listening socket until SIGINT, SIGTERM or SIGHUP; 128 + its number."""
        loop = asyncio.get_running_loop()
        stopped: asyncio.Future[int] = loop.create_future()
        for number in _STOPPING:
            loop.add_signal_handler(number, _settle, stopped, int(number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
        make = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
        server = await make(self.accept, sock=sock)
        try:
            return 128 + await stopped
        finally:
            server.close()
            await self.stop()

    def accept(self) -> Passage:
        """The protocol of a connection that was just accepted; a task opens its tunnel."""
        passage = Passage(self._entrance, self._say)
        if len(self._open) >= MAX_CONNECTIONS:
            self._say(f"refused a connection: {MAX_CONNECTIONS} are open already")
            passage.stop()
        else:
            task = self._open[passage] = spawn("forward", passage.run())
            task.add_done_callback(lambda _: self._open.pop(passage))
        return passage

    async def stop(self) -> None:
        """End every connection; what was sent is not taken back, what waits is lost."""
        tasks = list(self._open.values())
        for passage in list(self._open):
            passage.stop()
        if tasks:
            await asyncio.wait(tasks, timeout=_GOODBYE_S)
            await cancel(tasks, timeout_s=_GOODBYE_S)

    def _say(self, text: str) -> None:
        say(self._entrance.invocation.target, text)


def _settle(future: asyncio.Future[int], number: int) -> None:
    if not future.done():
        future.set_result(number)
