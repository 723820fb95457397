"""What a login host granted: who is signed in, with which tokens, for which hosts, until when."""

from __future__ import annotations

import os

from heim_runtime.complaints import AUTH, Complaint
from heim_tunnel.complaints import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

__all__ = ["HTTPS", "Login", "Secret", "ServiceToken", "closeness", "is_token"]

HTTPS: Final = "https://"

_NAME: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


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
        domains: Suffixes of hosts that the tokens may be sent to, as the login host said, and
            wildcards (`*.example.org`) for one label.
        access_token, access_expires: The bearer and when it ends.
        refresh_token: For the login host only.
        session_expires: When the session behind it all ends.
        ca_file: Authorities to trust for this login's hosts instead of the system's, or None: the
            file that the person named.
        authorities: Where they are read, the copy beside the login; None with `ca_file`. It is not
            stored.
    """

    __slots__ = (
        "access_expires",
        "access_token",
        "authorities",
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
        self.authorities = ca_file

    @classmethod
    def from_answer(
        cls, answer: dict[str, object], *, login_host: str, now: float, ca_file: str | None = None
    ) -> Login:
        """Read the answer of `/.heim/cli/token`.

        Raises:
            Complaint: A field is missing or wrong, or `login_url` is not the host that was asked.
        """
        try:
            login = cls(
                login_url=_text(answer, "login_url").rstrip("/"),
                user=_text(answer, "user"),
                domains=_texts(answer, "domains"),
                access_token=_token(answer, "access_token"),
                access_expires=now + _number(answer, "expires_in"),
                refresh_token=_token(answer, "refresh_token"),
                session_expires=_number(answer, "session_expires"),
                # A relative path would mean another file from another directory.
                ca_file=os.path.abspath(os.path.expanduser(ca_file)) if ca_file else None,
            )
        except ValueError as e:
            raise Complaint(f"{login_host} gave a token answer without a valid {e}") from e
        if login.login_url != HTTPS + login_host:
            raise Complaint(
                f"{login_host} calls itself {clean(login.login_url, 200)}; log in there instead",
                AUTH,
            )
        return login

    @classmethod
    def from_file(cls, fields: dict[str, object]) -> Login:
        """Read what `to_file` made. Raises ValueError when it is not that."""
        return cls(
            login_url=_text(fields, "login_url"),
            user=_text(fields, "user"),
            domains=_texts(fields, "domains"),
            access_token=_token(fields, "access_token"),
            access_expires=_number(fields, "access_expires"),
            refresh_token=_token(fields, "refresh_token"),
            session_expires=_number(fields, "session_expires"),
            ca_file=_text(fields, "ca_file") if fields.get("ca_file") else None,
        )

    def to_file(self) -> dict[str, object]:
        """Everything, secrets too, for a file that only its owner may read."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "authorities"}

    def __repr__(self) -> str:
        return f"<Login {self.user!r} at {self.login_host}>"

    @property
    def login_host(self) -> str:
        """`host` or `host:port`, as people type it."""
        return self.login_url.removeprefix(HTTPS)

    def covers(self, host: str) -> bool:
        """Whether the token may be sent to a host."""
        return self.closeness(host) > 0

    def closeness(self, host: str) -> int:
        """How much of a host's name this login vouches for; 0 for nothing."""
        own = _bare(self.login_host)
        if host.lower().rstrip(".") == own:
            return len(own) + 1
        return closeness(host, self.domains)


class ServiceToken:
    """What a program proves itself with, and where that may be sent.

    Attributes:
        bearer: The token, without what follows it in its file.
        domains: Suffixes and wildcards, as in `Login`; they are no secret.
    """

    __slots__ = ("bearer", "domains")

    def __init__(self, bearer: str, domains: list[str]) -> None:
        self.bearer = Secret(bearer)
        self.domains = domains

    @classmethod
    def parse(cls, text: str) -> ServiceToken:
        """Read `TOKEN@DOMAIN[,DOMAIN…]`, as `heim-proxy token create` prints it.

        Raises:
            ValueError: It is something else; the message says what and shows nothing of it.
        """
        bearer, found, rest = text.partition("@")
        if not is_token(text) or not bearer:
            raise ValueError("holds no token")
        if not found:
            raise ValueError("does not say which hosts its token is for")
        domains = rest.lower().split(",")
        if not all(map(_is_domain, domains)):
            raise ValueError("has something else than domains behind the @ of its token")
        return cls(bearer, domains)

    def covers(self, host: str) -> bool:
        """Whether the token may be sent to a host."""
        return closeness(host, self.domains) > 0

    def __repr__(self) -> str:
        return f"<ServiceToken for {','.join(self.domains)}>"


def closeness(host: str, domains: Iterable[str]) -> int:
    """How much of a host's name the domains vouch for; 0 for nothing."""
    host = host.lower().rstrip(".")
    fitting = [
        len(domain)
        for domain in (entry.lower().strip(".") for entry in domains)
        if domain and _within(host, domain)
    ]
    return max(fitting, default=0)


def _is_domain(text: str) -> bool:
    """Whether it is a DNS name or `*.` and one, in lower case, without a port."""
    return all(label and _NAME.issuperset(label) for label in text.removeprefix("*.").split("."))


def _within(host: str, domain: str) -> bool:
    """Whether a host is a domain or below it; of `*.domain`, exactly one label below it."""
    if domain.startswith("*."):
        label, _, parent = host.partition(".")
        return bool(label) and parent == domain[2:]
    return host == domain or host.endswith("." + domain)


def _bare(login_host: str) -> str:
    """The host without its port."""
    host, found, port = login_host.rpartition(":")
    return (host if found and port.isdecimal() else login_host).lower()


def _text(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError(name)
    return value


def _token(fields: dict[str, object], name: str) -> str:
    value = _text(fields, name)
    if not is_token(value):
        raise ValueError(name)
    return value


def is_token(text: str) -> bool:
    """Whether it may stand in a request head; one that smuggles a line would be two requests."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _texts(fields: dict[str, object], name: str) -> list[str]:
    value = fields.get(name)
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise ValueError(name)
    return value


def _number(fields: dict[str, object], name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise ValueError(name)
    return float(value)
