"""The command line of `heim-controller`: arguments in, exit status out."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from heim_controller.arguments import build_parser
from heim_runtime.complaints import USAGE, Complaint

__all__ = ["FAILED", "INTERRUPTED", "OK", "SOFTWARE", "main"]

OK: Final = 0
FAILED: Final = 1
# sysexits EX_SOFTWARE: a mistake of ours.
SOFTWARE: Final = 70
# 128 + SIGINT, as shells have it.
INTERRUPTED: Final = 130


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
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except Complaint as complaint:
        _say(complaint.text)
        return complaint.status
    except KeyboardInterrupt:
        _say("stopped")
        return INTERRUPTED
    except BrokenPipeError:
        # `heim-controller translate … | head`: Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        _say(f"this is a bug: {type(error).__name__}: {error}; please report it")
        if os.environ.get("HEIM_LOG_LEVEL") == "debug":
            raise
        return SOFTWARE
    return status


def _say(text: str) -> None:
    """A line for the person: standard error is talk, standard output is data."""
    line = "".join(one if one.isprintable() else "?" for one in " ".join(text.split()))
    sys.stderr.write(f"heim-controller: {line}\n")
