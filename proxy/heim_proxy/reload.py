"""From a new configuration to a new snapshot in use; what is bad never replaces what is good.

The reloader knows neither snapshots nor the edge: it is given how to build one and how to put it in
place. What it keeps for operators is which generation is in use and what the last failure was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from heim_config.model import Config
from heim_config.problems import ConfigError, Problem
from heim_proxy.observe.metrics import Metrics
from heim_proxy.sources.base import Loaded, Rejected, Source, Update
from heim_runtime.clock import Clock, SystemClock
from heim_runtime.collector import without_collecting

__all__ = ["Failure", "Reloader", "Status"]

log = logging.getLogger(__name__)

S = TypeVar("S")

# A log line is for reading; `heim-proxy check` shows the rest.
MAX_LOGGED_PROBLEMS: Final = 20
HASH_CHARS: Final = 16


@dataclass(frozen=True, slots=True)
class Failure:
    """A configuration that was not applied: when (seconds since the epoch) and why."""

    at: float
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """What is in use. Immutable; the reloader replaces it as a whole.

    `generation` counts applied configurations from 1, 0 before the first. `config_hash` is the
    beginning of the SHA-256 of the text in use. `loaded_at` is in seconds since the epoch.
    `last_error` is None as soon as a configuration was applied. `restart_needed` names the keys
    whose new values wait for a restart. `document_hash` is the SHA-256 of the configuration
    document in use, None when the configuration is one file.
    """

    generation: int = 0
    config_hash: str = ""
    loaded_at: float | None = None
    last_error: Failure | None = None
    restart_needed: tuple[str, ...] = ()
    failures: int = 0
    document_hash: str | None = None


class Reloader(Generic[S]):
    """Takes configurations from a source, builds snapshots, and puts them in place one by one.

    `start` applies the first one or raises; `run` then applies each change for ever.
    """

    def __init__(
        self,
        source: Source,
        *,
        build: Callable[[Config], S],
        swap: Callable[[S], None],
        clock: Clock | None = None,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            source: Where configurations come from.
            build: Makes a snapshot, or raises: ConfigError with problems, or anything else, whose
                text is then the problem. Called in a thread, one at a time. While it runs,
                `status.generation` is still the old one.
            swap: Puts a snapshot in place. Expected not to fail.
            clock: Where times in the status come from.
        """
        self._source = source
        self._build = build
        self._swap = swap
        self._clock: Clock = clock or SystemClock()
        self._status = Status()
        self._boot: Config | None = None
        self._updates: AsyncIterator[Update] | None = None

    @property
    def status(self) -> Status:
        """What is in use now."""
        return self._status

    async def start(self, *, stopping: asyncio.Event | None = None) -> bool:
        """Apply the first configuration; False when `stopping` was set before there was one.

        Raises:
            ConfigError: When it cannot be used; there is nothing older to fall back on. A source
                with a boot file is waited for instead.
        """
        self._updates = self._source.updates()
        first = asyncio.ensure_future(self._first(self._updates))
        stop = asyncio.ensure_future((stopping or asyncio.Event()).wait())
        try:
            await asyncio.wait((first, stop), return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                return False
            first.result()
            return True
        finally:
            first.cancel()
            stop.cancel()
            await asyncio.gather(first, stop, return_exceptions=True)

    async def _first(self, updates: AsyncIterator[Update]) -> None:
        while problems := await self._take(await anext(updates)):
            if self._source.boot is None:
                raise ConfigError(problems)

    async def run(self) -> None:
        """Apply every further change; returns only when the source ends."""
        if self._updates is None:
            raise RuntimeError("start() comes before run()")
        updates = self._updates
        # A generator that raised is over: whoever runs this again begins with a fresh one.
        self._updates = self._source.updates()
        async for update in updates:
            await self._take(update)

    def ready(self) -> tuple[bool, str]:
        """Whether a configuration is in use, and what there is to say about a newer one."""
        status, trouble = self._status, self._source.trouble
        problem = str(status.last_error.problems[0]) if status.last_error is not None else ""
        if not status.generation:
            return False, problem or trouble or "waiting for the first configuration"
        if problem:
            return True, f"still generation {status.generation}; the latest was refused: {problem}"
        return True, f"still generation {status.generation}; {trouble}" if trouble else ""

    def facts(self) -> dict[str, object]:
        """What /status says about configurations."""
        status = self._status
        error = status.last_error
        return {
            "generation": status.generation,
            "config_hash": status.config_hash,
            "document_hash": status.document_hash,
            "loaded_at": status.loaded_at,
            "restart_needed": list(status.restart_needed),
            "source_trouble": self._source.trouble or None,
            "last_error": None
            if error is None
            else {"at": error.at, "problems": [str(problem) for problem in error.problems]},
        }

    def look(self) -> None:
        """Have the source look again now (SIGHUP)."""
        self._source.look()

    def expose(self, metrics: Metrics) -> None:
        """Say where the figures come from."""
        metrics.expose("heim_config_generation", lambda: self._status.generation)
        metrics.expose(
            "heim_config_last_reload_successful", lambda: float(self._status.last_error is None)
        )
        metrics.expose("heim_config_last_reload_timestamp_seconds", self._last_reload)
        metrics.expose("heim_config_source_lost", lambda: float(bool(self._source.trouble)))

    def _last_reload(self) -> float:
        status = self._status
        failed = status.last_error.at if status.last_error is not None else 0.0
        return max(status.loaded_at or 0.0, failed)

    async def _take(self, update: Update) -> tuple[Problem, ...]:
        """Apply or reject `update`; returns its problems, none when it was applied."""
        if isinstance(update, Rejected):
            return self._rejected(update.problems)
        config, waiting = self._without_restart(update.config)
        try:
            # In a thread: with thousands of backends it takes longer than anybody may wait.
            snapshot = await asyncio.to_thread(self._made, config)
            self._swap(snapshot)
        except ConfigError as error:
            self._source.refused()
            return self._rejected(error.problems)
        except Exception as error:
            self._source.refused()
            # Whatever a build trips over, the snapshot in use stays and the process lives.
            log.exception("config.build_failed", extra={"source": self._source.name})
            text = f"cannot be used: {error}" if str(error) else f"cannot be used: {error!r}"
            return self._rejected((Problem(self._source.name, None, "", text),))
        self._applied(update, config, waiting)
        return ()

    def _made(self, config: Config) -> S:
        with without_collecting():
            return self._build(config)

    def _without_restart(self, config: Config) -> tuple[Config, tuple[str, ...]]:
        """`config` with what only a restart can change as it was at the start (decision 23)."""
        if self._boot is None:
            return config, ()
        waiting: list[str] = []
        if config.listeners != self._boot.listeners:
            waiting.append("listeners")
        if config.state.url != self._boot.state.url:
            waiting.append("state.url")
        if not waiting:
            return config, ()
        kept = {"listeners": self._boot.listeners, "state": self._boot.state}
        return config.model_copy(update=kept), tuple(waiting)

    def _applied(self, update: Loaded, config: Config, waiting: tuple[str, ...]) -> None:
        if self._boot is None:
            self._boot = config
        self._status = Status(
            generation=self._status.generation + 1,
            config_hash=update.digest[:HASH_CHARS],
            loaded_at=self._clock.now(),
            restart_needed=waiting,
            failures=self._status.failures,
            document_hash=update.document_hash,
        )
        log.info(
            "config.applied",
            extra={
                "source": self._source.name,
                "generation": self._status.generation,
                "config_hash": self._status.config_hash,
                "backends": len(config.backends),
                "roles": len(config.roles),
            },
        )
        if waiting:
            log.warning(
                "config.restart_needed",
                extra={"source": self._source.name, "keys": waiting, "kept": "as at the start"},
            )

    def _rejected(self, problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
        failure = Failure(self._clock.now(), problems)
        self._status = replace(self._status, last_error=failure, failures=self._status.failures + 1)
        log.error(
            "config.rejected",
            extra={
                "source": self._source.name,
                "problems": [str(problem) for problem in problems[:MAX_LOGGED_PROBLEMS]],
                "problem_count": len(problems),
                "generation_kept": self._status.generation,
            },
        )
        return problems
