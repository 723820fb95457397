"""What the arguments of several commands have in common; no work is imported here."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

__all__ = ["Commands", "add_config", "lazy"]

Commands = argparse._SubParsersAction


def add_config(parser: argparse.ArgumentParser) -> None:
    """The flag that names the configuration."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=os.environ.get("HEIM_CONFIG", "heim.yaml"),
        help="the configuration [HEIM_CONFIG; heim.yaml]",
    )


def lazy(module: str, name: str) -> Callable[[argparse.Namespace], int]:
    """A command that imports its module when it runs, so that --help stays instant."""

    def command(args: argparse.Namespace) -> int:
        from importlib import import_module

        run: Callable[[argparse.Namespace], int] = getattr(import_module(module), name)
        return run(args)

    return command
