"""`heim-agent targets`: what agent.toml allows, and whether it can be reached."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence

from heim_agent import config
from heim_agent.complaints import clean, say
from heim_agent.differences import Differences, of_status
from heim_agent.places import Places
from heim_agent.status import running
from heim_agent.targets import Target
from heim_runtime.complaints import FAILED, OK

__all__ = ["command"]


def command(args: argparse.Namespace, places: Places) -> int:
    """Print the targets; with `check` dial each, and FAILED when one cannot be reached."""
    targets = list(config.load(places.config).targets.values())
    if args.check is None:
        sys.stdout.write(_columns((one.name, one.address, _notes(one)) for one in targets))
        sys.stdout.flush()
        _compare([one.name for one in targets], places)
        return OK
    import asyncio

    found = asyncio.run(_check(targets))
    rows = [
        (one.name, one.address, "reached" if reason is None else f"not reached: {reason}")
        for one, reason in zip(targets, found, strict=True)
    ]
    sys.stdout.write(_columns(rows))
    sys.stdout.flush()
    _compare([one.name for one in targets], places)
    return FAILED if any(reason is not None for reason in found) else OK


def _compare(served: Sequence[str], places: Places) -> None:
    """Say where the proxy names targets otherwise, if an agent runs here with this agent.toml."""
    found = running(places.state)
    if found is None or found.get("config") != os.path.abspath(places.config):
        return
    for line in (of_status(found, served) or Differences()).lines():
        say(line)


def _notes(target: Target) -> str:
    notes = []
    if target.role is not None:
        notes.append(f"only for role {target.role}")
    if target.proxy_protocol:
        notes.append("with a PROXY v2 header")
    return ", ".join(notes)


async def _check(targets: Sequence[Target]) -> list[str | None]:
    """Why each could not be reached; None for those that were."""
    import asyncio

    from heim_agent.dials import MAX_DIALS
    from heim_agent.reach import NotReached, connect

    places = asyncio.Semaphore(MAX_DIALS)

    async def check(target: Target) -> str | None:
        async with places:
            try:
                transport = await connect(
                    target, asyncio.Protocol, timeout_s=target.connect_timeout_s
                )
            except NotReached as error:
                return error.reason
            transport.close()
            return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(check(target)) for target in targets]
    return [task.result() for task in tasks]


def _columns(rows: Iterable[tuple[str, str, str]]) -> str:
    listed = [tuple(clean(cell) for cell in row) for row in rows]
    widths = [max((len(row[at]) for row in listed), default=0) for at in range(3)]
    lines = (
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        for row in listed
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)
