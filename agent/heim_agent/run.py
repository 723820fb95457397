"""`heim-agent run`: stay connected and serve, until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import resource
import signal
import time

from heim_agent import config
from heim_agent.config import Settings
from heim_agent.exchange import detour
from heim_agent.files import Lock
from heim_agent.identity import Identity
from heim_agent.link import Link
from heim_agent.loop import loop_factory
from heim_agent.places import Places
from heim_agent.reload import Follower
from heim_agent.serving import Serving
from heim_runtime.complaints import OK, UsageError
from heim_runtime.logs import configure
from heim_runtime.signals import handling
from heim_runtime.tasks import cancel, spawn
from heim_runtime.version import version

__all__ = ["command"]

log = logging.getLogger(__name__)


def command(args: argparse.Namespace, places: Places) -> int:
    """Serve until SIGTERM or SIGINT.

    Raises:
        Complaint: There is no identity, agent.toml cannot be used, or another agent runs here.
    """
    connect_to = detour(args.connect_to)
    settings = config.load(places.config)
    identity = Identity.load(places)
    with Lock(places.state):
        try:
            configure(args.log_level)
        except ValueError as e:
            raise UsageError(f"HEIM_LOG_LEVEL: {e}") from e
        _raise_descriptor_limit()
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_run(identity, settings, connect_to))
    return OK


async def _run(identity: Identity, settings: Settings, connect_to: tuple[str, int] | None) -> None:
    serving = Serving(identity, settings)
    link = Link(identity, serving, lanes=settings.lanes, connect_to=connect_to)

    def apply(fresh: Settings) -> None:
        serving.swap(fresh)
        link.serve(fresh.targets)
        link.resize(fresh.lanes)

    link.serve(settings.targets)
    follower = Follower(identity.places.config, settings, apply)
    _tell(identity, settings)
    following = spawn("agent-settings", follower.run())
    try:
        with handling(
            {
                signal.SIGTERM: link.stop,
                signal.SIGINT: link.stop,
                signal.SIGHUP: follower.poke,
            }
        ):
            await link.run()
    finally:
        await cancel([following])
    log.info("agent.stopped", extra={"agent": identity.agent})


def _tell(identity: Identity, settings: Settings) -> None:
    log.info(
        "agent.started",
        extra={
            "agent": identity.agent,
            "login_url": identity.login_url,
            "fingerprint": identity.key.fingerprint,
            "certificate_expires": time.strftime(
                "%Y-%m-%dT%H:%M:%SZ", time.gmtime(identity.expires)
            ),
            "targets": {name: target.address for name, target in settings.targets.items()},
            "lanes": settings.lanes,
            "version": version(),
        },
    )


def _raise_descriptor_limit() -> None:
    """Allow as many descriptors as the system does; the usual soft limit is 1000 streams."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
