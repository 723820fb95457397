"""A failure that has its line for a person; what the light programs raise, and their exit statuses.

The line says what happened, at which step and what to do. It holds nothing secret.
"""

from __future__ import annotations

__all__ = ["NO_HOST", "UNAVAILABLE", "USAGE", "Complaint", "UsageError"]

USAGE = 2
NO_HOST = 68
"""sysexits EX_NOHOST: no such target, or a name that does not resolve."""
UNAVAILABLE = 69
"""sysexits EX_UNAVAILABLE: something on the way does not answer or is not trusted."""


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


class UsageError(Complaint):
    """The command line, a file or an environment variable cannot be understood."""

    def __init__(self, text: str) -> None:
        super().__init__(text, USAGE)
