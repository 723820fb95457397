"""`heim-proxy session` and `heim-proxy subject`: the operator's hand on the store.

They write the same database as a running proxy, which notices within half a second.
"""

from __future__ import annotations

import argparse
import sys
import time

from heim_config.model import Config
from heim_proxy.cli.stored import revoked, state_of, when, with_store
from heim_proxy.live import EndReason
from heim_proxy.store.base import SessionRow, Store

__all__ = ["list_sessions", "list_subjects", "revoke_sessions", "unpin_subject"]


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
        return revoked(ended, "session")

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
