"""A host that no stored login vouches for: who says it is its login host, and is that believed?

A token never goes to such a host, and a login address that a server names is opened only when the
person has said so (decision 29): otherwise any server could send people to its own sign-in page.
"""

from __future__ import annotations

import os

from heim_runtime.complaints import AUTH, PROTOCOL, Complaint, UsageError
from heim_tunnel.credentials import known, load
from heim_tunnel.dial import Endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from heim_wire.problem import Refused

__all__ = ["introduced", "meant", "on_terminal"]


def introduced(
    host: str, refused: Refused, *, ask: Callable[[str], bool | None] | None = None
) -> str:
    """The login host to sign in at for a host, after the person agreed to it.

    Args:
        host: The host that is to be reached.
        refused: Its answer to a request without a token.
        ask: Puts a question to the person: the answer, or None without a terminal.

    Raises:
        Complaint: It names no login host, or the person did not agree or could not be asked.
    """
    if not refused.login_url:
        raise Complaint(f"{host} does not say where to sign in; is it a Heim proxy?", PROTOCOL)
    address = refused.login_url.partition("://")[2].partition("/")[0].partition("?")[0]
    try:
        login_host = str(Endpoint.parse(address))
    except UsageError as e:
        raise Complaint(f"{host} names no usable login host", PROTOCOL) from e
    stored = load(login_host)
    if stored is not None:
        raise Complaint(
            f"its login host is {login_host}, where you are signed in, but that does not "
            f"vouch for {host} (only for {', '.join(stored.domains) or 'itself'}); "
            "nothing was sent to it",
            AUTH,
        )
    agreed = (ask or on_terminal)(f"{host} says its login host is {login_host}. Trust it? [y/N] ")
    if agreed is None:
        raise Complaint(f"not signed in; run: heim-tunnel login {login_host}", AUTH)
    if not agreed:
        raise Complaint(f"not signed in: you did not trust {login_host}", AUTH)
    return login_host


def meant(host: str) -> str:
    """A question about a host without a dot that has no address; "" when nothing comes to mind."""
    domains = set()
    for login_host in known():
        try:
            login = load(login_host)
        except Complaint:
            continue
        if login is not None and login.domains:
            domains.add(login.domains[0].removeprefix("*."))
    if "." in host or len(domains) != 1:
        return ""
    return f"did you mean {host}.{domains.pop()}?"


def on_terminal(question: str) -> bool | None:
    """Ask on the controlling terminal; None when there is none.

    Standard input is the stream of whoever started us, so it is never read for this.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        os.write(terminal, question.encode())
        answer = os.read(terminal, 256)
    except OSError:
        # A background job may not read from its terminal.
        return None
    finally:
        os.close(terminal)
    return answer.strip().lower() in (b"y", b"yes")
