"""The agent's link to its proxy: lanes that are kept up, until somebody says stop.

    link = Link(identity, serving, lanes=settings.lanes)
    with handling({SIGTERM: link.stop, SIGINT: link.stop}):
        await link.run()

A failure never ends it: an agent that gives up is a machine that somebody has to drive to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time

from heim_agent.clock import ProxyClock
from heim_agent.comparison import Comparison
from heim_agent.dialling import Way
from heim_agent.keeper import Keeper
from heim_agent.lane import Terms
from heim_agent.proof import Program
from heim_agent.renewed import Watch
from heim_agent.report import Report
from heim_runtime.service_manager import ServiceManager
from heim_runtime.tasks import cancel, spawn
from heim_runtime.version import version
from heim_wire.agents import MAX_LANES
from heim_wire.window import WindowBudget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Final

    from heim_agent.identity import Identity
    from heim_agent.lane import Lane, Server

__all__ = ["DRAIN_S", "Link"]

log = logging.getLogger(__name__)

DRAIN_S: Final = 10.0
"""How long streams may go on after `stop`."""

GOODBYE_S: Final = 2.0
"""For the proxy to answer our close; a proxy that is gone must not hold up a stop."""

SETTLE_S: Final = 0.05

# How often certificate files are looked at, and the service manager told at the least.
_LOOK_S: Final = 10.0


class Link:
    """All lanes of one agent. Use once, on one event loop."""

    def __init__(
        self,
        identity: Identity,
        server: Server,
        *,
        lanes: int = 1,
        connect_to: tuple[str, int] | None = None,
        clock: ProxyClock | None = None,
        environ: Mapping[str, str] = os.environ,
        fraction: Callable[[], float] | None = None,
    ) -> None:
        """Prepare; nothing is dialled before `run`.

        Args:
            identity: Who we are; its certificate and pins are kept up to date.
            server: Serves the streams: `heim_agent.serving.Serving`.
            lanes: Connections to keep up, 1 to 4.
            connect_to: Where to connect instead of where the login URL's name says.
            clock: The proxy's time, as statements set it; shared with whoever verifies assertions.
            environ: Names web proxies (HTTPS_PROXY, NO_PROXY) and the service manager.
            fraction: Gives numbers in [0, 1) for jitter; tests hand in their own.
        """
        self.identity: Final = identity
        self.clock: Final = clock or ProxyClock()
        self._server = server
        self._environ = environ
        self._fraction = fraction
        self._manager = ServiceManager(environ)
        self._report = Report(identity.places.state, self.describe)
        self._terms = Terms(
            identity,
            server,
            Program(version(), socket.gethostname()),
            self.clock,
            Way.to(identity.login_url, ca_file=identity.ca_file, connect_to=connect_to),
            WindowBudget(),
        )
        self._wanted = max(1, min(lanes, MAX_LANES))
        self._keepers: list[Keeper] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._started = 0.0
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._said = ""
        self._names = Comparison()

    @property
    def connected(self) -> bool:
        """Whether a lane is ready."""
        return any(keeper.lane is not None for keeper in self._keepers)

    def stop(self) -> None:
        """Say goodbye and let streams end, DRAIN_S at most; a second call cuts them."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    def resize(self, lanes: int) -> None:
        """Keep up another number of lanes from now on. Those that are ready and too many drain."""
        self._wanted = max(1, min(lanes, MAX_LANES))
        if self._keepers and not self._stopping.is_set():
            self._adjust()

    def serve(self, targets: Iterable[str]) -> None:
        """These are the targets of agent.toml from now on: compared with what the proxy asks for.

        In the running loop. Without it nothing is compared.
        """
        self._names.serve(targets)
        if self._keepers:
            self._changed()

    async def run(self) -> None:
        """Keep lanes up until `stop`; returns when everything has ended."""
        self._started = time.time()
        watch = Watch(self.identity)
        self._adjust()
        self._manager.notify("READY=1", f"STATUS={self._status()}")
        background = [spawn("link-watchdog", self._feed()), spawn("link-watch", watch.run())]
        try:
            await self._stopping.wait()
            self._manager.notify("STOPPING=1", "STATUS=stopping")
            await self._say_goodbye()
        finally:
            for keeper in self._keepers:
                for lane in _lanes(keeper):
                    lane.abort()
            await cancel([*self._tasks, *background])
            await self._gone()
            self._report.remove()

    def describe(self) -> dict[str, object]:
        """What `status.json` holds; times in seconds since the epoch, by this machine's clock."""
        identity, clock = self.identity, self.clock
        # Certificates live by the proxy's time; people look at this machine's.
        ahead = clock.now() - time.time() if clock.known else 0.0
        latest = [keeper.ending for keeper in self._keepers if keeper.ending is not None]
        return {
            "agent": identity.agent,
            "login_url": identity.login_url,
            "version": self._terms.program.version,
            "pid": os.getpid(),
            "started": self._started,
            "updated": time.time(),
            "connected": self.connected,
            "stopping": self._stopping.is_set(),
            "lanes": [_describe(keeper) for keeper in self._keepers],
            "serves": self._names.served,
            "config": os.path.abspath(identity.places.config),
            "certificate": {
                "expires": identity.expires - ahead,
                "problem": next((keeper.certificate_problem for keeper in self._keepers), ""),
                "unsaved": identity.unsaved or "",
            },
            "clock_off_s": round(-ahead, 1),
            "last_error": latest[-1].line if latest else "",
        }

    def _adjust(self) -> None:
        for number in range(len(self._keepers), self._wanted):
            keeper = Keeper(
                self._terms,
                number,
                self._changed,
                environ=self._environ,
                fraction=self._fraction,
            )
            self._keepers.append(keeper)
            self._tasks.append(spawn(f"lane-{number}", self._keep(keeper)))
        while len(self._keepers) > self._wanted:
            keeper, task = self._keepers.pop(), self._tasks.pop()
            task.cancel()
            for lane in _lanes(keeper):
                spawn(f"lane-{keeper.number}-retire", self._retire(lane))
        self._changed()

    async def _keep(self, keeper: Keeper) -> None:
        if keeper.number:
            # The first one finds out whether this agent is let in at all, and with how many lanes.
            await self._keepers[0].connected.wait()
            while keeper.number >= self._allowed():  # noqa: ASYNC110 - it is said once, on a lane
                await asyncio.sleep(_LOOK_S)
        await keeper.run()

    def _allowed(self) -> int:
        """How many lanes the proxy wants, as far as it has said."""
        lanes = [keeper.lane for keeper in self._keepers]
        return max((lane.grant.lanes for lane in lanes if lane and lane.grant), default=1)

    async def _retire(self, lane: Lane) -> None:
        lane.leave(DRAIN_S)
        until = time.monotonic() + DRAIN_S
        while lane.streams and time.monotonic() < until:
            await asyncio.wait((lane.ended,), timeout=0.2)
        lane.finish()
        await asyncio.wait((lane.ended,), timeout=GOODBYE_S)
        lane.abort()

    async def _say_goodbye(self) -> None:
        await cancel(self._tasks)
        lanes = [lane for keeper in self._keepers for lane in _lanes(keeper)]
        log.info("link.stopping", extra={"streams": sum(lane.streams for lane in lanes)})
        for lane in lanes:
            lane.leave(DRAIN_S)
        finishing = spawn("streams-finish", self._server.finish(DRAIN_S))
        hurry = spawn("streams-hurry", self._cut())
        await asyncio.wait((finishing, hurry), return_when=asyncio.FIRST_COMPLETED)
        await cancel((finishing, hurry))
        for lane in lanes:
            lane.finish()
        waiting = [lane.ended for lane in lanes if not lane.ended.done()]
        if waiting and not self._hurry.is_set():
            await asyncio.wait(waiting, timeout=GOODBYE_S)

    async def _gone(self) -> None:
        """Cut what is left, and wait for it: the loop may be closed next (uvloop would hang)."""
        left = [carriage for carriage in self._terms.carriages if not carriage.gone.is_set()]
        for carriage in left:
            if carriage.transport is not None:
                carriage.transport.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                for carriage in left:
                    await carriage.gone.wait()
        # Transports whose handshake was given up close a few turns later, without a word.
        await asyncio.sleep(SETTLE_S)

    async def _cut(self) -> None:
        await self._hurry.wait()

    async def _feed(self) -> None:
        """Show the watchdog that this loop runs."""
        while True:
            self._manager.notify("WATCHDOG=1", f"STATUS={self._status()}")
            await asyncio.sleep(min(self._manager.watchdog_s or _LOOK_S, _LOOK_S))

    def _changed(self) -> None:
        self._report.change()
        self._names.look(
            keeper.lane.grant for keeper in self._keepers if keeper.lane and keeper.lane.grant
        )
        status = self._status()
        if status != self._said:
            self._said = status
            self._manager.notify(f"STATUS={status}")

    def _status(self) -> str:
        """One line for `systemctl status`."""
        where = self._terms.way.authority
        ready = sum(keeper.lane is not None for keeper in self._keepers)
        if ready:
            return f"connected to {where} ({ready} of {len(self._keepers)} lanes)"
        first = self._keepers[0] if self._keepers else None
        if first is not None and first.ending is not None:
            return f"not connected to {where}: {first.ending.line}"
        return f"connecting to {where}"


def _lanes(keeper: Keeper) -> list[Lane]:
    return [*([keeper.lane] if keeper.lane is not None else []), *keeper.drained]


def _describe(keeper: Keeper) -> dict[str, object]:
    lane = keeper.lane
    described: dict[str, object] = {"lane": keeper.number, "state": keeper.state}
    if lane is not None and lane.grant is not None:
        described |= {
            "since": lane.since,
            "replica": lane.grant.replica,
            "targets": list(lane.grant.targets),
            "targets_whole": lane.grant.whole,
            "streams": lane.streams,
        }
        with contextlib.suppress(TypeError):
            described["rtt_ms"] = round((lane.rtt or 0.0) * 1000, 1)
    elif keeper.ending is not None:
        described |= {
            "error": keeper.ending.line,
            "kind": keeper.ending.kind.value,
            "code": keeper.ending.code,
            "retry_at": keeper.retry_at,
            "attempts": keeper.attempts,
        }
    return described
