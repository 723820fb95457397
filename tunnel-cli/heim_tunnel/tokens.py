"""A token that is good now: from the file, refreshed, or by signing in again.

Parallel processes share the work: whoever holds the lock of a login host refreshes or opens the
one browser; the others wait, then find the new token in the file.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from heim_tunnel.credentials import Login
    from heim_tunnel.dial import Way

__all__ = ["LEFT_S", "current", "refreshed"]

LEFT_S = 60.0
"""A token with less than this left is refreshed before it is used."""


def current(login_host: str, way: Way, *, target: str | None, sign_in: bool = True) -> Login:
    """The login of a login host with an access token that has LEFT_S left.

    Reads the file; when that is not enough, takes the lock, reads again, refreshes, and when the
    refresh is refused or nothing is stored, signs in with `heim_tunnel.login.run(login_host, way)`,
    which returns a Login and neither locks nor saves.

    Args:
        target: What the lines on standard error are about; None for none.
        sign_in: False to complain instead of opening a browser.

    Raises:
        Complaint: The login host could not be reached, or signing in failed or is not wanted.
    """
    raise NotImplementedError


def refreshed(login: Login, way: Way) -> Login | None:
    """A new access token for a login; None when the login host refuses. Hold the lock; save it.

    Raises:
        Complaint: The login host could not be reached or answered nonsense.
    """
    raise NotImplementedError
