"""Every command of `heim-tunnel` but `proxy`: arguments in, exit status out."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from heim_runtime.commands import run_command
from heim_tunnel.arguments import build_parser
from heim_tunnel.complaints import say
from heim_tunnel.dial import Endpoint, Way
from heim_tunnel.stdio import fill_standard

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: What follows the program's name; None for the process's own.

    Returns:
        The exit status; usage errors and `--help` leave by SystemExit, as argparse does it.
    """
    fill_standard()
    if sys.stdout is None:
        # Closed when we were started; whatever is printed goes nowhere, as it was asked for.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the end
    elif isinstance(sys.stdout, io.TextIOWrapper):
        # A name that this terminal cannot show is no reason to fail.
        sys.stdout.reconfigure(errors="replace")
    args = build_parser().parse_args(argv)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return run_command(
            lambda: _run(args),
            lambda text: say(None, text),
            verbose=getattr(args, "verbose", False),
            switch="-v",
        )
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(args: argparse.Namespace) -> int:
    way = Way(
        ca_file=getattr(args, "ca_file", None),
        connect_to=_detour(getattr(args, "connect_to", None)),
        verbose=getattr(args, "verbose", False),
    )
    status: int = args.run(args, way)
    return status


def _detour(text: str | None) -> Endpoint | None:
    return None if text is None else Endpoint.parse(text, what="--connect-to HOST:PORT")


def _terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM unwinds, so that locks and half-written files go; the shell's 128 + 15."""
    sys.exit(128 + number)
