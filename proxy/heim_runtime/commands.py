"""Commands of a program with argparse, as `--help` of all our light programs shows them."""

from __future__ import annotations

import argparse
import textwrap

__all__ = ["Commands", "add_command"]

Commands = argparse._SubParsersAction


def add_command(
    commands: Commands[argparse.ArgumentParser],
    name: str,
    summary: str,
    description: str,
    *examples: str,
) -> argparse.ArgumentParser:
    """A command's parser; `summary` is for the list of commands, the rest for its own help."""
    shown = "\n".join(f"  {example}" for example in examples)
    return commands.add_parser(
        name,
        help=summary,
        # Filled here: the formatter that keeps the examples' lines would keep these as well.
        description=textwrap.fill(description, 79),
        epilog=f"examples:\n{shown}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
