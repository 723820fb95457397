"""A failure that has its line for a person; what the light programs raise, and their exit statuses.

The line says what happened, at which step and what to do. It holds nothing secret.
"""

from __future__ import annotations

__all__ = [
    "AUTH",
    "FAILED",
    "INTERRUPTED",
    "NO_HOST",
    "OK",
    "PROTOCOL",
    "SOFTWARE",
    "TRY_LATER",
    "UNAVAILABLE",
    "USAGE",
    "Complaint",
    "UsageError",
]

OK = 0
FAILED = 1
USAGE = 2
NO_HOST = 68
"""sysexits EX_NOHOST: no such target, or a name that does not resolve."""
UNAVAILABLE = 69
"""sysexits EX_UNAVAILABLE: something on the way does not answer or is not trusted."""
SOFTWARE = 70
"""sysexits EX_SOFTWARE: a mistake of ours."""
TRY_LATER = 75
"""sysexits EX_TEMPFAIL: there is no room at the moment."""
PROTOCOL = 76
"""sysexits EX_PROTOCOL: what answers is no Heim proxy."""
AUTH = 77
"""sysexits EX_NOPERM: not signed in, or not allowed."""
INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


class Complaint(Exception):  # noqa: N818 - what it becomes for the person
    """A failure that has its line for the person; `main` prints it and exits with `status`.

    Attributes:
        text: One line: what happened, at which step, what to do.
        status: The exit status (sysexits.h).
        detail: More for `-v`, never needed to act; None when there is none.
    """

    def __init__(self, text: str, status: int = UNAVAILABLE, *, detail: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.detail = detail

    @property
    def lines(self) -> tuple[str, ...]:
        """What is printed."""
        return (self.text,)


class UsageError(Complaint):
    """The command line, a file or an environment variable cannot be understood."""

    def __init__(self, text: str) -> None:
        super().__init__(text, USAGE)
