"""Answers that are not what somebody asked for, each in at most four lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = ["PortalError", "TryAgain"]

_CODES: Final = {
    401: "sign_in_required",
    403: "forbidden",
    404: "not_found",
    429: "busy",
    502: "provider_failed",
    503: "sign_in_unavailable",
}


@dataclass(frozen=True, slots=True)
class TryAgain:
    """A link on an error page. `url` is ours or a path; `text` is what it says."""

    url: str
    text: str = "Try again"


@dataclass(eq=False)
class PortalError(Exception):
    """Stops a handler; the application turns it into a page or a problem document.

    Attributes:
        status: The HTTP status.
        title: What happened, one sentence.
        todo: What to do now, one sentence.
        account: Whom the provider vouched for, when that is what was refused; empty otherwise.
        login_url: Where to sign in, when that is the remedy; empty otherwise.
        step: Which step of signing in failed, in a few words; empty when there is none to name.
        link: Offered on pages.
        headers: Added to the answer.
        set_cookies: Set-Cookie values to send with it.
    """

    status: int
    title: str
    todo: str
    account: str = ""
    step: str = ""
    login_url: str = ""
    link: TryAgain | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    set_cookies: tuple[str, ...] = ()

    @property
    def code(self) -> str:
        """The stable word for programs; pages are for people, so that the status decides it."""
        return _CODES.get(self.status, "bad_request" if self.status < 500 else "internal_error")

    def __str__(self) -> str:
        return f"{self.status} {self.title}"
