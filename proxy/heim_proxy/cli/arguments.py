"""What the arguments of several commands have in common; no work is imported here."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from heim_runtime.commands import Commands, add_command

__all__ = ["add_action", "add_config"]


def add_config(parser: argparse.ArgumentParser) -> None:
    """The flag that names the configuration."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=os.environ.get("HEIM_CONFIG", "heim.yaml"),
        help="the configuration [HEIM_CONFIG; heim.yaml]",
    )


def add_action(
    actions: Commands[argparse.ArgumentParser], name: str, summary: str, run: Callable[..., int]
) -> argparse.ArgumentParser:
    """A second word of a command, which works on what a configuration names."""
    action = add_command(actions, name, summary)
    add_config(action)
    action.set_defaults(run=run)
    return action
