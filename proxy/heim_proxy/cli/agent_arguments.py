"""The arguments of `heim-proxy agent`."""

from __future__ import annotations

import argparse

from heim_proxy.cli.arguments import add_action, add_config
from heim_runtime.commands import Commands, add_command, lazy

__all__ = ["add_agent"]

_MODULE = "heim_proxy.cli.agent"


def add_agent(commands: Commands[argparse.ArgumentParser]) -> None:
    """`agent list`, `agent revoke` and `agent token create|list|revoke`."""
    agent = add_command(
        commands,
        "agent",
        "list or revoke machines that dial out, and let new ones join",
        "Which machines are the agents of the configuration, and the tokens by which a machine "
        "becomes one. A running proxy notices within 2 seconds.",
        "heim-proxy agent token create office --config heim.yaml",
        "heim-proxy agent revoke --config heim.yaml office",
    )
    actions = agent.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = add_action(
        actions,
        "list",
        "which machines joined, and when they were seen",
        lazy(_MODULE, "list_agents"),
    )
    listing.add_argument("--all", action="store_true", help="those that have ended, too")
    revoke = add_action(
        actions,
        "revoke",
        "end an agent: its streams, and its way back",
        lazy(_MODULE, "revoke_agents"),
    )
    which = revoke.add_mutually_exclusive_group(required=True)
    which.add_argument("agent", nargs="?", metavar="NAME", help="every machine of this agent")
    which.add_argument("--id", metavar="ID", help="one machine, by its id as `list` shows it")
    _add_token(actions)


def _add_token(actions: Commands[argparse.ArgumentParser]) -> None:
    token = add_command(actions, "token", "create, list or revoke join tokens")
    steps = token.add_subparsers(title="actions", metavar="ACTION", required=True)
    create = add_command(
        steps,
        "create",
        "print a new join token, once",
        "Print a token that lets one machine become an agent, once. Give it to heim-agent join on "
        "standard input, in a file or in HEIM_JOIN_TOKEN.",
        "heim-proxy agent token create office --config heim.yaml --expires 1d",
    )
    add_config(create)
    create.add_argument("agent", metavar="NAME", help="a name under agents")
    create.add_argument(
        "--expires",
        metavar="TIME",
        default="15m",
        help="how long it is good, such as 5m or 1d, at most 7d [; 15m]",
    )
    create.add_argument(
        "--replace",
        action="store_true",
        help="end the machine that has the name now, when the token is used",
    )
    create.set_defaults(run=lazy(_MODULE, "create_token"))
    listing = add_action(
        steps, "list", "which join tokens wait to be used", lazy(_MODULE, "list_tokens")
    )
    listing.add_argument("--all", action="store_true", help="those used or expired, too")
    revoke = add_action(
        steps, "revoke", "make a join token worthless", lazy(_MODULE, "revoke_token")
    )
    revoke.add_argument("id", metavar="ID", help="a token's id, as `list` shows it")
