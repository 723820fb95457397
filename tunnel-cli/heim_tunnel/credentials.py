"""The logins on this machine: one file per login host, read without locks, written atomically.

Directory: `$HEIM_TUNNEL_HOME`, else `$XDG_CONFIG_HOME/heim`, else `~/.config/heim`; mode 0700.
`logins/<login host>[_<port>].json` is mode 0600 and refused when others may read it. A bearer goes
only to the login host it came from and to the domains that host advertised (`Login.covers`).
"""

from __future__ import annotations


__all__ = ["Login", "Secret", "for_host", "forget", "home", "load", "locked", "save", "stored"]


class Secret(str):
    """A token; its repr hides it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<secret>"


class Login:
    """A stored login. Times are seconds since the epoch.

    Attributes:
        login_url: `https://host[:port]`, without a path.
        user: Who is signed in, for people.
        domains: Suffixes of hosts that the tokens may be sent to, as the login host said.
        access_token, access_expires: The bearer and when it ends.
        refresh_token: For the login host only.
        session_expires: When the session behind it all ends.
        ca_file: Authorities to trust for this login's hosts instead of the system's, or None.
    """

    __slots__ = (
        "access_expires",
        "access_token",
        "ca_file",
        "domains",
        "login_url",
        "refresh_token",
        "session_expires",
        "user",
    )

    def __init__(
        self,
        *,
        login_url: str,
        user: str,
        domains: list[str],
        access_token: str,
        access_expires: float,
        refresh_token: str,
        session_expires: float,
        ca_file: str | None = None,
    ) -> None:
        self.login_url = login_url
        self.user = user
        self.domains = domains
        self.access_token = Secret(access_token)
        self.access_expires = access_expires
        self.refresh_token = Secret(refresh_token)
        self.session_expires = session_expires
        self.ca_file = ca_file

    @classmethod
    def from_answer(
        cls, answer: dict[str, object], *, login_host: str, now: float, ca_file: str | None = None
    ) -> Login:
        """Read the answer of `/.heim/cli/token`.

        Raises:
            Complaint: A field is missing or wrong, or `login_url` is not the host that was asked.
        """
        raise NotImplementedError

    @property
    def login_host(self) -> str:
        """`host` or `host:port`, as people type it."""
        raise NotImplementedError

    def covers(self, host: str) -> bool:
        """Whether the token may be sent to a host."""
        raise NotImplementedError


def home() -> str:
    """The directory of everything kept; it need not exist."""
    raise NotImplementedError


def load(login_host: str) -> Login | None:
    """The stored login of a login host (`host` or `host:port`); None when there is none.

    Raises:
        Complaint: The file cannot be read, is not ours, or others may read it.
    """
    raise NotImplementedError


def stored() -> list[Login]:
    """Every stored login, ordered by login host. Raises Complaint as `load` does."""
    raise NotImplementedError


def for_host(host: str) -> Login | None:
    """The login whose tokens may be sent to a host; of several, the most specific domain's."""
    raise NotImplementedError


def save(login: Login) -> None:
    """Write a login; others see the old file or the new one. Hold `locked` around read and save."""
    raise NotImplementedError


def forget(login_host: str) -> bool:
    """Remove a login's file; False when there was none. Hold `locked`."""
    raise NotImplementedError


class locked:  # noqa: N801 - used as a statement: `with locked(login_host):`
    """Only one process at a time changes a login: `with locked(login_host): …`.

    An flock on a file beside the login's, so it ends with the process however that ends. While
    another process holds it, `waiting` is said once on standard error.
    """

    def __init__(self, login_host: str, *, waiting: str | None = None) -> None:
        raise NotImplementedError

    def __enter__(self) -> None:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError
