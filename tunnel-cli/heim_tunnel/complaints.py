"""What a person reads when something went wrong, and the exit status that goes with it.

Everything human goes to standard error as `heim-tunnel: <target>: <text>`, one line each, written
with one system call so that the lines of parallel ssh processes do not mix. Text that came from
elsewhere passes `clean` on its way, so that no control character reaches a terminal.
"""

from __future__ import annotations

import os

__all__ = [
    "AUTH",
    "FAILED",
    "INTERRUPTED",
    "NO_HOST",
    "OK",
    "PROTOCOL",
    "TRY_LATER",
    "UNAVAILABLE",
    "USAGE",
    "Complaint",
    "UsageError",
    "clean",
    "say",
]

OK = 0
FAILED = 1
USAGE = 2
NO_HOST = 68
"""sysexits EX_NOHOST: no such target, or a name that does not resolve."""
UNAVAILABLE = 69
"""sysexits EX_UNAVAILABLE: something on the way does not answer or is not trusted."""
SOFTWARE = 70
TRY_LATER = 75
PROTOCOL = 76
AUTH = 77
"""sysexits EX_NOPERM: not signed in, or not allowed."""
INTERRUPTED = 130

LINE_CHARACTERS = 600
"""Longer texts are cut: a captive portal must not fill the terminal."""


class Complaint(Exception):
    """A failure that has its line for the person; `main` prints it and exits with `status`.

    Attributes:
        text: One line: what happened, at which step, what to do.
        status: The exit status, one of this module's constants.
        detail: More for `-v`, never needed to act; None when there is none.
    """

    def __init__(self, text: str, status: int = UNAVAILABLE, *, detail: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.detail = detail


class UsageError(Complaint):
    """The command line or an environment variable cannot be understood."""

    def __init__(self, text: str) -> None:
        super().__init__(text, USAGE)


def clean(text: str, limit: int = LINE_CHARACTERS) -> str:
    """The text as one printable line: what is not printable becomes `?`, runs of blanks one."""
    line = " ".join(text[: 4 * limit].split())
    if not line.isprintable():
        line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def say(target: str | None, text: str) -> None:
    """Write one line to standard error; a closed or full standard error is no reason to stop."""
    about = f"{clean(target, 255)}: " if target else ""
    line = f"heim-tunnel: {about}{clean(text)}\n".encode("utf-8", "replace")
    try:
        os.write(2, line)
    except OSError:
        return
