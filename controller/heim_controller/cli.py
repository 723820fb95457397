"""The command line of `heim-controller`: arguments in, exit status out."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from heim_controller.arguments import build_parser
from heim_runtime.commands import run_command
from heim_runtime.complaints import OK, USAGE

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: What follows the program's name; None for the process's own.

    Returns:
        The exit status; usage errors and `--help` leave by SystemExit, as argparse does it.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.version or getattr(args, "run", parser) is None:
        from heim_runtime.version import version

        sys.stdout.write(f"heim-controller {version()}\n")
        return OK
    if not hasattr(args, "run"):
        parser.print_help(sys.stderr)
        return USAGE
    return run_command(
        lambda: args.run(args),
        _say,
        verbose=os.environ.get("HEIM_LOG_LEVEL") == "debug",
        switch="HEIM_LOG_LEVEL=debug",
    )


def _say(text: str) -> None:
    """A line for the person: standard error is talk, standard output is data."""
    line = "".join(one if one.isprintable() else "?" for one in " ".join(text.split()))
    sys.stderr.write(f"heim-controller: {line}\n")
