"""What the commands that work on the state of a configuration have in common."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

from heim_config.model import Config
from heim_proxy.cli.complain import load_or_complain
from heim_proxy.live import EndReason
from heim_proxy.observe.audit import Audit
from heim_proxy.store.base import SessionRow, Store, StoreUnavailable
from heim_proxy.store.sqlite import SqliteStore
from heim_runtime.logs import configure

__all__ = ["audit", "end", "revoked", "state_of", "when", "with_store"]


def with_store(config_path: str, work: Callable[[Store, Config], Awaitable[int]]) -> int:
    """Run `work` on the state of a configuration; what cannot be is said, and is 1 or 2."""
    # Sessions and tokens must be revocable although there is no document.
    config = load_or_complain(config_path, check_files=False, whole=False)
    if isinstance(config, int):
        return config
    path = config.state.path
    if not path.exists():
        print(f"{path}: there is no state yet; has the proxy run?", file=sys.stderr)
        return 1

    async def run() -> int:
        store = SqliteStore(path)
        try:
            await store.open()
            return await work(store, config)
        except StoreUnavailable as error:
            print(f"heim-proxy: {error}", file=sys.stderr)
            return 1
        finally:
            await store.close()

    return asyncio.run(run())


def audit(event: str, facts: Mapping[str, str | int | bool]) -> None:
    """Say on standard error who did it, which a running proxy does not see."""
    configure()
    Audit().emit(event, **facts)


async def end(store: Store, rows: Iterable[SessionRow], told: Callable[[SessionRow], None]) -> int:
    """Revoke sessions; `told` hears of each that there was to end. How many those were."""
    ended = 0
    for row in rows:
        if await store.end_session(row.sid, reason=EndReason.REVOKED.value, now=time.time()):
            told(row)
            ended += 1
    return ended


def revoked(ended: int, what: str) -> int:
    """Say how many were revoked; the exit status, 1 when there was none."""
    print(f"{ended} {what if ended == 1 else f'{what}s'} revoked", file=sys.stderr)
    return 0 if ended else 1


def state_of(row: SessionRow) -> str:
    """Whether a session goes on: live, expired, or ended and why."""
    if row.ended is not None:
        return f"ended: {row.end_reason}"
    return "expired" if row.expires <= time.time() else "live"


def when(at: float) -> str:
    """A time in UTC to the second; "never" for one that does not come."""
    if math.isinf(at):
        return "never"
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
