"""The command line of `heim-agent`: arguments in, exit status out."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final

from heim_agent.arguments import build_parser
from heim_agent.complaints import say
from heim_agent.places import Places
from heim_runtime.commands import run_command
from heim_runtime.complaints import OK, USAGE

__all__ = ["main"]

# A whole one, alone or as the value of an option: not a file that is called like one.
_TOKEN: Final = re.compile(r"(?:^|=)heim_jt_[0-9a-f]{16}_[A-Za-z0-9_-]{20,}$")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: What follows the program's name; None for the process's own.

    Returns:
        The exit status; usage errors and `--help` leave by SystemExit, as argparse does it.
    """
    if any(map(_TOKEN.search, sys.argv[1:] if argv is None else argv)):
        # Before argparse, which would print it.
        say(
            "a join token does not go on the command line, where everybody on this machine can "
            "read it; make another one, run: heim-agent join URL --token-file - and paste it"
        )
        return USAGE
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.version or getattr(args, "run", parser) is None:
        from heim_runtime.version import version

        sys.stdout.write(f"heim-agent {version()}\n")
        return OK
    if not hasattr(args, "run"):
        parser.print_help(sys.stderr)
        return USAGE
    places = Places.find(
        os.environ, state=getattr(args, "state", None), config=getattr(args, "config", None)
    )
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return run_command(
            lambda: args.run(args, places),
            say,
            verbose=os.environ.get("HEIM_LOG_LEVEL") == "debug",
            switch="HEIM_LOG_LEVEL=debug",
        )
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM unwinds, so that locks and half-written files go; the shell's 128 + 15."""
    sys.exit(128 + number)
