"""How the latest sign-in failed, for the processes that waited for it.

Five parallel ssh wait for one sign-in. When the person says no to it, they have said no to all
five: each of the others reads that here, instead of opening the next window.
"""

from __future__ import annotations

import contextlib
import os

from heim_runtime.complaints import AUTH, Complaint
from heim_tunnel.credentials import home

__all__ = ["failed_since", "remember"]

_TEXT_BYTES = 1024


def remember(login_host: str, complaint: Complaint) -> None:
    """Keep how a sign-in failed. Hold the lock of the login host."""
    path = _path(login_host)
    # Whoever cannot read it asks again, which is no more than a nuisance.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(complaint.text[:_TEXT_BYTES])


def failed_since(login_host: str, since: float) -> Complaint | None:
    """The failure of a sign-in that ended after `since` (epoch seconds), if there was one.

    Hold the lock of the login host.
    """
    try:
        with open(_path(login_host), encoding="utf-8", errors="replace") as file:
            if os.fstat(file.fileno()).st_mtime < since:
                return None
            text = file.read(_TEXT_BYTES)
    except OSError:
        return None
    return Complaint(f"the sign-in that this waited for failed: {text}", AUTH)


def _path(login_host: str) -> str:
    return f"{home()}/logins/{login_host.replace(':', '_')}.failed"
