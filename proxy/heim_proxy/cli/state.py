"""`heim-proxy session` and `heim-proxy subject`: the operator's hand on the store.

They write the same database as a running proxy, which notices within half a second.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from collections.abc import Awaitable, Callable

from heim_config.model import Config
from heim_proxy.cli.complain import load_or_complain
from heim_proxy.live import EndReason
from heim_proxy.store.base import SessionRow, Store, StoreUnavailable
from heim_proxy.store.sqlite import SqliteStore

__all__ = [
    "list_sessions",
    "list_subjects",
    "revoke_sessions",
    "state_of",
    "unpin_subject",
    "when",
    "with_store",
]


def list_sessions(args: argparse.Namespace) -> int:
    """Print sessions, newest first, in the order of `_columns`."""

    async def work(store: Store, _: Config) -> int:
        rows = await store.list_sessions(email=_address(args.user), include_ended=args.all)
        for row in rows:
            print("\t".join(_columns(row)))
        if not rows:
            print("nobody is signed in", file=sys.stderr)
        return 0

    return with_store(args.config, work)


def revoke_sessions(args: argparse.Namespace) -> int:
    """End sessions; 1 when there was none to end."""

    async def work(store: Store, _: Config) -> int:
        now, reason = time.time(), EndReason.REVOKED.value
        if args.id:
            ended = int(await store.end_session(args.id, reason=reason, now=now))
        else:
            ended = await store.end_sessions_of(now=now, reason=reason, email=_address(args.user))
        print(f"{ended} {'session' if ended == 1 else 'sessions'} revoked", file=sys.stderr)
        return 0 if ended else 1

    return with_store(args.config, work)


def list_subjects(args: argparse.Namespace) -> int:
    """Print which account each e-mail address is pinned to."""

    async def work(store: Store, _: Config) -> int:
        pins = await store.list_pins()
        for email, issuer, subject, since in pins:
            print("\t".join((email, issuer, subject, when(since))))
        if not pins:
            print("no address is pinned to an account", file=sys.stderr)
        return 0

    return with_store(args.config, work)


def unpin_subject(args: argparse.Namespace) -> int:
    """Forget the account behind an address; 1 when there is none."""

    async def work(store: Store, _: Config) -> int:
        if await store.unpin(args.email.lower()):
            print(f"{args.email}: the next account with this address is let in", file=sys.stderr)
            return 0
        print(f"{args.email}: not pinned to any account", file=sys.stderr)
        return 1

    return with_store(args.config, work)


def _address(email: str | None) -> str | None:
    """An address as the state holds it; None for everybody's."""
    return None if email is None else email.lower()


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


def _columns(row: SessionRow) -> tuple[str, ...]:
    return (
        row.sid,
        row.email or row.subject,
        row.provider,
        when(row.auth_time),
        when(row.last_seen),
        state_of(row),
        row.kind.value,
        row.label or "-",
    )


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
