"""What a person reads when something went wrong, and the exit status that goes with it.

Talk goes to standard error as `heim-agent: <text>`, one line each, written with one system call.
Text that came from elsewhere passes `clean`, so that no control character reaches a terminal.
"""

from __future__ import annotations

import os

from heim_wire.messages import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["clean", "say", "with_hint"]

LINE_BYTES: Final = 600
"""Longer texts are cut: a captive portal must not fill the terminal."""


def clean(text: str, limit: int = LINE_BYTES) -> str:
    """The text as one line without control characters, `limit` bytes at most."""
    return printable(text, limit)


def with_hint(text: str, hint: str) -> str:
    """What happened and what to do about it, as one line; a question keeps its mark."""
    if not hint:
        return text
    between = " " if text.endswith(("?", "!")) else "; "
    return f"{text.rstrip(' .;')}{between}{hint}"


def say(text: str) -> None:
    """Write one line to standard error; a closed or full standard error is no reason to stop."""
    line = f"heim-agent: {clean(text)}\n".encode("utf-8", "replace")
    try:
        os.write(2, line)
    except OSError:
        return
