"""`heim-proxy token`: what programs prove with that they act for a service account.

The token, with the domains it may be sent to, is the only thing on standard output, and nowhere
else: the state keeps a hash.
Creating and revoking are audit events on standard error, because a running proxy does not see who
did it.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time

from heim_config.model import Config
from heim_config.units import parse_duration
from heim_proxy.cli.stored import audit, end, revoked, state_of, when, with_store
from heim_proxy.identity import service_tokens
from heim_proxy.portal.reachable import service_domains
from heim_proxy.store.base import SessionKind, SessionRow, Store

__all__ = ["create_token", "list_tokens", "revoke_tokens"]


def create_token(args: argparse.Namespace) -> int:
    """Print a new token of a configured service account; 2 when there is no such account."""
    try:
        lifetime = math.inf if args.expires == "never" else parse_duration(args.expires)
    except ValueError as error:
        print(f"heim-proxy: --expires: {error}, or never", file=sys.stderr)
        return 2

    async def work(store: Store, config: Config) -> int:
        known = [one.name for one in config.service_accounts]
        if args.account not in known:
            there = ", ".join(known) or "none"
            print(
                f"heim-proxy: there is no service account {args.account!r} in {args.config} "
                f"(there is: {there}); add it under service_accounts and to a role",
                file=sys.stderr,
            )
            return 2
        now = time.time()
        row, token = service_tokens.issue(args.account, now=now, expires=now + lifetime)
        await store.create_session(row)
        audit("token.created", _facts(row))
        print("this is shown once; keep it in a file that only the program reads", file=sys.stderr)
        print(service_tokens.bound(token, service_domains(config)).reveal())
        return 0

    return with_store(args.config, work)


def list_tokens(args: argparse.Namespace) -> int:
    """Print tokens, newest first: id, account, created, last used, expires, state."""

    async def work(store: Store, config: Config) -> int:
        known = {one.name for one in config.service_accounts}
        rows = await store.list_sessions(kind=SessionKind.SERVICE, include_ended=args.all)
        for row in rows:
            print("\t".join(_columns(row, known)))
        if not rows:
            print("there are no tokens", file=sys.stderr)
        return 0

    return with_store(args.config, work)


def revoke_tokens(args: argparse.Namespace) -> int:
    """End a token, or all of an account; 1 when there was none to end."""

    async def work(store: Store, _: Config) -> int:
        rows = await store.list_sessions(kind=SessionKind.SERVICE)
        found = [row for row in rows if args.id == row.sid or args.account == row.subject]
        return revoked(
            await end(store, found, lambda row: audit("token.revoked", _facts(row))), "token"
        )

    return with_store(args.config, work)


def _columns(row: SessionRow, known: set[str]) -> tuple[str, ...]:
    state = state_of(row)
    return (
        row.sid,
        row.subject,
        when(row.created),
        "never" if row.last_seen <= row.created else when(row.last_seen),
        when(row.expires),
        "account not configured" if state == "live" and row.subject not in known else state,
    )


def _facts(row: SessionRow) -> dict[str, str | int]:
    return {
        "sid": row.sid,
        "account": row.subject,
        "expires": when(row.expires),
        "uid": os.getuid(),
    }
