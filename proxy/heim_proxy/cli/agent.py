"""`heim-proxy agent`: which machines are agents, and the tokens by which one becomes it.

A join token is the only thing on standard output, and nowhere else: the state keeps a hash.
Creating and revoking are audit events on standard error, because a running proxy does not see who
did it.
"""

from __future__ import annotations

import argparse
import base64
import os
import sys
import time
from collections.abc import Sequence

from heim_config.agents import Agent
from heim_config.model import Config
from heim_config.problems import nearest
from heim_config.units import parse_duration
from heim_proxy.agents import join_tokens
from heim_proxy.cli.stored import audit, end, revoked, state_of, when, with_store
from heim_proxy.store.base import JoinTokenRow, SessionKind, SessionRow, Store

__all__ = ["create_token", "list_agents", "list_tokens", "revoke_agents", "revoke_token"]


def create_token(args: argparse.Namespace) -> int:
    """Print a new join token for a configured agent; 2 when there is no such agent."""
    try:
        lifetime = parse_duration(args.expires)
        if lifetime > join_tokens.MAX_LIFETIME_S:
            raise ValueError("a join token is good for at most 7d")
    except ValueError as error:
        print(f"heim-proxy: --expires: {error}", file=sys.stderr)
        return 2

    async def work(store: Store, config: Config) -> int:
        agent = _configured(config, args.agent, args.config)
        if agent is None:
            return 2
        if args.replace and agent.group:
            print(
                f"heim-proxy: agent {agent.name} is a group, whose machines join beside each "
                f"other: end one with heim-proxy agent revoke --id ID",
                file=sys.stderr,
            )
            return 2
        now = time.time()
        row, token = join_tokens.issue(
            agent.name, now=now, lifetime_s=lifetime, replace=args.replace
        )
        await store.add_join_token(row)
        audit("agent.token_created", _token_facts(row))
        taken = not (agent.group or args.replace) and await store.list_enrolments(agent.name)
        _say_how(config, row, taken=bool(taken))
        print(token.reveal())
        return 0

    return with_store(args.config, work)


def list_tokens(args: argparse.Namespace) -> int:
    """Print join tokens, newest first: id, agent, created, expires, state."""

    async def work(store: Store, _: Config) -> int:
        now = time.time()
        rows = [
            row
            for row in await store.list_join_tokens()
            if args.all or (row.used is None and row.expires > now)
        ]
        for row in rows:
            columns = (row.id, row.name, when(row.created), when(row.expires), _token_state(row))
            print("\t".join(columns))
        if not rows:
            print("there are no join tokens", file=sys.stderr)
        return 0

    return with_store(args.config, work)


def revoke_token(args: argparse.Namespace) -> int:
    """Make a join token worthless; 1 when there is none that could be used."""

    async def work(store: Store, _: Config) -> int:
        row = await store.get_join_token(args.id)
        if row is None or not await store.drop_join_token(args.id):
            used = row is not None and row.used is not None
            why = f"was used: heim-proxy agent revoke --id {row.sid}" if row and used else "is none"
            print(f"{args.id}: this join token {why}", file=sys.stderr)
            return 1
        audit("agent.token_revoked", _token_facts(row))
        print("1 join token revoked", file=sys.stderr)
        return 0

    return with_store(args.config, work)


def list_agents(args: argparse.Namespace) -> int:
    """Print enrolments by name, those that nobody joined yet among them; see `_columns`."""

    async def work(store: Store, config: Config) -> int:
        rows = await store.list_sessions(kind=SessionKind.AGENT, include_ended=args.all)
        known = {agent.name for agent in config.agents}
        joined = {row.subject for row in rows if row.ended is None}
        for row in sorted(rows, key=lambda row: row.subject):
            print("\t".join(_columns(row, known)))
        for name in sorted(known - joined):
            print(f"-\t{name}\t-\t-\tnever\tnever\tnot joined")
        if not rows and not known:
            print("there are no agents", file=sys.stderr)
        return 0

    return with_store(args.config, work)


def revoke_agents(args: argparse.Namespace) -> int:
    """End the enrolments of a name, or one of them; 1 when there was none to end."""

    async def work(store: Store, config: Config) -> int:
        rows = await store.list_sessions(kind=SessionKind.AGENT)
        found = [row for row in rows if args.id == row.sid or args.agent == row.subject]
        ended = await end(store, found, lambda row: audit("agent.revoked", _facts(row)))
        status = revoked(ended, "agent")
        if not ended and args.agent is not None:
            _hint(args.agent, [*(row.subject for row in rows), *(a.name for a in config.agents)])
        return status

    return with_store(args.config, work)


def _configured(config: Config, name: str, where: str) -> Agent | None:
    """The agent of that name, or None after it was said that there is none."""
    found = next((agent for agent in config.agents if agent.name == name), None)
    if found is None:
        there = ", ".join(agent.name for agent in config.agents) or "none"
        print(
            f"heim-proxy: there is no agent {name!r} in {where} (there is: {there}); add it under "
            "agents, with its targets",
            file=sys.stderr,
        )
    return found


def _say_how(config: Config, row: JoinTokenRow, *, taken: bool) -> None:
    if taken:
        print(
            f"another machine is agent {row.name} already, and this token does not replace it: "
            f"first heim-proxy agent revoke {row.name}, or create one with --replace",
            file=sys.stderr,
        )
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.expires))
    print(
        f"this is shown once, and good once, until {until}; on the machine: "
        f"heim-agent join {config.public_url(config.login_host)} --token-file -",
        file=sys.stderr,
    )


def _hint(name: str, known: Sequence[str]) -> None:
    guess = nearest(name, dict.fromkeys(known))
    if guess is not None and name not in known:
        print(f"there is no agent {name!r}: {guess}", file=sys.stderr)


def _columns(row: SessionRow, known: set[str]) -> tuple[str, ...]:
    """Id, agent, device, key, joined, last seen, state."""
    state = state_of(row)
    return (
        row.sid,
        row.subject,
        row.label or "-",
        base64.urlsafe_b64encode(row.secret_hash).rstrip(b"=").decode("ascii"),
        when(row.created),
        when(row.last_seen),
        "not configured" if state == "live" and row.subject not in known else state,
    )


def _token_state(row: JoinTokenRow) -> str:
    if row.used is not None:
        return f"used: {row.sid}"
    if row.expires <= time.time():
        return "expired"
    return "replaces" if row.replace else "unused"


def _facts(row: SessionRow) -> dict[str, str | int]:
    return {"agent": row.subject, "sid": row.sid, "device": row.label, "uid": os.getuid()}


def _token_facts(row: JoinTokenRow) -> dict[str, str | int | bool]:
    return {
        "agent": row.name,
        "token_id": row.id,
        "expires": when(row.expires),
        "replace": row.replace,
        "uid": os.getuid(),
    }
