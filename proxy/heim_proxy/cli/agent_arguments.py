"""The arguments of `heim-proxy agent`."""

from __future__ import annotations

import argparse

from heim_proxy.cli.arguments import Commands, add_config, lazy

__all__ = ["add_agent"]

_MODULE = "heim_proxy.cli.agent"


def add_agent(commands: Commands[argparse.ArgumentParser]) -> None:
    """`agent list`, `agent revoke` and `agent token create|list|revoke`."""
    agent = commands.add_parser(
        "agent",
        help="list or revoke machines that dial out, and let new ones join",
        description="Which machines are the agents of the configuration, and the tokens by which "
        "a machine becomes one. A running proxy notices within 2 seconds.",
    )
    actions = agent.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="which machines joined, and when they were seen")
    add_config(listing)
    listing.add_argument("--all", action="store_true", help="those that have ended, too")
    listing.set_defaults(run=lazy(_MODULE, "list_agents"))
    revoke = actions.add_parser("revoke", help="end an agent: its streams, and its way back")
    add_config(revoke)
    which = revoke.add_mutually_exclusive_group(required=True)
    which.add_argument("agent", nargs="?", metavar="NAME", help="every machine of this agent")
    which.add_argument("--id", metavar="ID", help="one machine, by its id as `list` shows it")
    revoke.set_defaults(run=lazy(_MODULE, "revoke_agents"))
    _add_token(actions)


def _add_token(actions: Commands[argparse.ArgumentParser]) -> None:
    token = actions.add_parser("token", help="create, list or revoke join tokens")
    steps = token.add_subparsers(title="actions", metavar="ACTION", required=True)
    create = steps.add_parser(
        "create",
        help="print a new join token, once",
        description="Print a token that lets one machine become an agent, once. Give it to "
        "heim-agent join on standard input, in a file or in HEIM_JOIN_TOKEN.",
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
    listing = steps.add_parser("list", help="which join tokens wait to be used")
    add_config(listing)
    listing.add_argument("--all", action="store_true", help="those used or expired, too")
    listing.set_defaults(run=lazy(_MODULE, "list_tokens"))
    revoke = steps.add_parser("revoke", help="make a join token worthless")
    add_config(revoke)
    revoke.add_argument("id", metavar="ID", help="a token's id, as `list` shows it")
    revoke.set_defaults(run=lazy(_MODULE, "revoke_token"))
