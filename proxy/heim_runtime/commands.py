"""Commands of a program with argparse: what `--help` of every program shows, and what runs."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable

__all__ = ["Commands", "add_command", "lazy"]

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
