"""Commands of a program with argparse: what `--help` of every program shows, and what runs."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable

from heim_runtime.complaints import FAILED, INTERRUPTED, SOFTWARE, Complaint

__all__ = ["Commands", "add_command", "lazy", "run_command"]

Commands = argparse._SubParsersAction


def add_command(
    commands: Commands[argparse.ArgumentParser],
    name: str,
    summary: str,
    description: str = "",
    *examples: str,
) -> argparse.ArgumentParser:
    """A command's parser; `summary` is for the list of commands, the rest for its own help."""
    shown = "\n".join(f"  {example}" for example in examples)
    return commands.add_parser(
        name,
        help=summary,
        # Filled here: the formatter that keeps the examples' lines would keep these as well.
        description=textwrap.fill(description or f"{summary[0].upper()}{summary[1:]}.", 79),
        epilog=f"examples:\n{shown}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def lazy(module: str, name: str = "command") -> Callable[..., int]:
    """A function of a module that is imported when it runs, so that `--help` stays instant."""

    def command(*given: object) -> int:
        from importlib import import_module

        run: Callable[..., int] = getattr(import_module(module), name)
        return run(*given)

    return command


def run_command(
    command: Callable[[], int], say: Callable[[str], None], *, verbose: bool, switch: str
) -> int:
    """Run a command to its exit status; what ends it early is said.

    Args:
        command: Returns the exit status, or raises Complaint.
        say: Writes a line for a person to standard error.
        verbose: Details are said too, and a mistake of ours shows its traceback.
        switch: What makes it verbose.
    """
    try:
        status = command()
        sys.stdout.flush()
    except Complaint as complaint:
        for line in complaint.lines:
            say(line)
        if verbose and complaint.detail:
            say(complaint.detail)
        return complaint.status
    except KeyboardInterrupt:
        # Below the ^C that the terminal shows.
        say("stopped")
        return INTERRUPTED
    except BrokenPipeError:
        # `… | head`: the reader has seen enough. Python would complain again when it flushes
        # standard output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if verbose:
            raise
        say(f"this is a bug: {type(error).__name__}: {error}; {switch} shows where, please report")
        return SOFTWARE
    return status
