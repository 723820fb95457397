"""What is asked of a login host over HTTPS: tokens, device codes, what I may reach, the end.

Answers come from a host that people typed, but may be a captive portal's, an older Heim's or a
liar's: every field is checked here and nothing of it is believed further than its type.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urlsplit

from heim_runtime.complaints import AUTH, PROTOCOL, UNAVAILABLE, Complaint, UsageError
from heim_tunnel.complaints import UNAUTHENTICATED, clean
from heim_tunnel.credentials import Login
from heim_tunnel.dial import Endpoint, Way
from heim_tunnel.request import Reply, get, post

__all__ = [
    "Backend",
    "DeviceCode",
    "NotTaken",
    "OAuthError",
    "address",
    "authorize_url",
    "backends",
    "device_code",
    "recognise",
    "redeem",
    "revoke",
]

_AUTHORIZE: Final = "/.heim/cli/authorize"
_TOKEN: Final = "/.heim/cli/token"  # noqa: S105 - a path
_DEVICE: Final = "/.heim/cli/device"
_REVOKE: Final = "/.heim/cli/revoke"
_BACKENDS: Final = "/.heim/cli/backends"

# More would not be a list that people read; it bounds what a wrong answer makes us hold.
_MAX_BACKENDS: Final = 10_000
# RFC 8628, 3.2: 5 s when the answer does not say. A code lives at most this long with us.
_DEFAULT_INTERVAL_S: Final = 5.0
_MAX_INTERVAL_S: Final = 60.0
_MAX_CODE_LIFE_S: Final = 30 * 60.0


class OAuthError(Exception):
    """The login host said no in OAuth's words (RFC 6749, 5.2); `error` is one of its codes."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(error)
        self.error = error
        self.description = description


class NotTaken(Complaint):
    """A token whose time is not over, but whose session is: revoked, or another proxy's."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One backend that the caller may reach; one that is tcp and http is there twice.

    `host` is what to call it by; for `tcp` it may be a wildcard for one label (`*.example.com`).
    `url` is the origin that carries tcp, or the page to begin with.
    """

    name: str
    kind: str
    host: str
    url: str

    @property
    def is_wildcard(self) -> bool:
        """Whether `host` stands for many."""
        return self.host.startswith("*.")

    @property
    def example(self) -> str:
        """A host to show to people, who put a name of theirs into a wildcard."""
        return self.host.replace("*", "NAME", 1)

    def served(self, login_host: str) -> Endpoint:
        """Where a tunnel to it begins: its host, on the port that its `url` or login host has."""
        try:
            port = Endpoint.parse(self.url or login_host).port
        except UsageError:
            port = Endpoint.parse(login_host).port
        return Endpoint(self.example.lower(), port)

    def is_called(self, word: str) -> bool:
        """Whether somebody who says `word`, a name or a host, may mean this one."""
        if word in (self.name, self.host):
            return True
        label, _, parent = word.partition(".")
        return self.is_wildcard and bool(label) and parent == self.host[2:]


@dataclass(frozen=True, slots=True, repr=False)
class DeviceCode:
    """A device code (RFC 8628, 3.2); times are seconds."""

    device_code: str
    user_code: str
    verification_uri: str
    expires_in: float
    interval: float

    def __repr__(self) -> str:
        return "<DeviceCode <sealed>>"


def authorize_url(login_host: str, query: dict[str, str]) -> str:
    """The address that a browser opens to sign in."""
    return f"{address(login_host)}{_AUTHORIZE}?{urlencode(query)}"


def redeem(login_host: str, way: Way, form: dict[str, str]) -> Login:
    """Turn a code into a login.

    Raises:
        OAuthError: The login host refuses (for a device code: or is not ready yet).
        Complaint: It cannot be reached, or its answer is none.
    """
    answer = _json(login_host, post(address(login_host) + _TOKEN, form, way))
    return Login.from_answer(
        answer, login_host=login_host, now=time.time(), ca_file=way.ca_remembered
    )


def device_code(login_host: str, way: Way, label: str) -> DeviceCode:
    """Ask for a device code; `label` is shown to whoever approves it.

    Raises:
        Complaint: It cannot be reached, refuses, or names an address that is not its own.
    """
    try:
        answer = _json(login_host, post(address(login_host) + _DEVICE, {"device": label}, way))
    except OAuthError as error:
        raise Complaint(
            f"{login_host} gives no device code: {clean(error.description or error.error)}", AUTH
        ) from error
    uri = _text(login_host, answer, "verification_uri")
    if not _is_of(uri, login_host):
        # A login host that sends people elsewhere to sign in is not believed (decision 29).
        raise Complaint(
            f"{login_host} wants you to sign in at {clean(uri, 200)}, which is another host; "
            "nothing was opened",
            AUTH,
        )
    return DeviceCode(
        _text(login_host, answer, "device_code"),
        clean(_text(login_host, answer, "user_code"), 32),
        clean(uri),
        min(_number(login_host, answer, "expires_in", 600.0), _MAX_CODE_LIFE_S),
        min(
            max(1.0, _number(login_host, answer, "interval", _DEFAULT_INTERVAL_S)), _MAX_INTERVAL_S
        ),
    )


def recognise(login_host: str, way: Way) -> None:
    """Make sure that this is a Heim login host: asked without a token, it wants one.

    Raises:
        Complaint: It cannot be reached, or something else answers there.
    """
    try:
        _json(login_host, get(address(login_host) + _BACKENDS, way))
    except OAuthError:
        return
    raise _nonsense(login_host, "it lists backends for anybody")


def revoke(login: Login, way: Way) -> None:
    """End the session behind a login. Raises Complaint when the login host did not confirm it."""
    try:
        reply = post(address(login.login_host) + _REVOKE, {"token": login.refresh_token}, way)
        # RFC 7009, 2.2: a token that is not known any more is answered with 200, too.
        if reply.status not in (200, 204):
            _json(login.login_host, reply)
    except OAuthError as error:
        raise Complaint(f"{login.login_host} answered {clean(error.error)}", AUTH) from error


def backends(login_host: str, bearer: str, way: Way) -> tuple[str, list[Backend]]:
    """Who the bearer is, and what they may reach, ordered by host.

    Raises:
        NotTaken: It does not take the token (any more).
        Complaint: It cannot be reached, or its answer is none.
    """
    reply = get(address(login_host) + _BACKENDS, way, bearer=bearer)
    if reply.status == UNAUTHENTICATED:
        raise NotTaken(
            f"{login_host} does not take the token any more; run: heim-tunnel login {login_host}",
            AUTH,
        )
    try:
        answer = _json(login_host, reply)
    except OAuthError as error:
        raise Complaint(
            f"{login_host} refused: {clean(error.description or error.error)}", AUTH
        ) from error
    listed = answer.get("backends")
    if not isinstance(listed, list) or len(listed) > _MAX_BACKENDS:
        raise _nonsense(login_host, "no list of backends")
    found = [_backend(login_host, one) for one in listed]
    return clean(_text(login_host, answer, "user"), 255), sorted(found, key=lambda one: one.host)


def _backend(login_host: str, entry: object) -> Backend:
    if not isinstance(entry, dict):
        raise _nonsense(login_host, "a backend that is no object")
    url = entry.get("url")
    return Backend(
        clean(_text(login_host, entry, "name"), 255),
        clean(_text(login_host, entry, "kind"), 16),
        clean(_text(login_host, entry, "host"), 255),
        clean(url, 255) if isinstance(url, str) else "",
    )


def address(login_host: str) -> str:
    """The origin of a login host, as it calls itself."""
    return f"https://{Endpoint.parse(login_host, what='LOGIN_HOST')}"


def _is_of(url: str, login_host: str) -> bool:
    """Whether an address is the login host's own."""
    try:
        parts = urlsplit(url)
        mine = Endpoint.parse(login_host)
        return (
            parts.scheme == "https"
            and parts.username is None
            and parts.password is None
            and (parts.hostname or "") == mine.host.strip("[]").lower()
            and (parts.port or 443) == mine.port
            and url.isascii()
            and url.isprintable()
            and " " not in url
        )
    except ValueError:
        return False


def _json(login_host: str, reply: Reply) -> dict[str, object]:
    """The object of a 200; an OAuth error is raised as one, anything else is no Heim's."""
    if reply.status >= 500 or reply.status == 429:
        raise Complaint(f"{login_host} answered {reply.status}; try again in a moment", UNAVAILABLE)
    if reply.status in (404, 405) or 300 <= reply.status < 400:
        raise Complaint(
            f"{login_host} answered {reply.status} where a Heim login host answers; is this the "
            "login host, and new enough?",
            PROTOCOL,
        )
    answer = reply.json()
    if reply.status == 200:
        return answer
    error, description = answer.get("error"), answer.get("error_description")
    # The proxy's own refusals, such as too many requests, are problem+json.
    code, detail = answer.get("code"), answer.get("detail")
    if isinstance(error, str):
        raise OAuthError(error, description if isinstance(description, str) else "")
    if isinstance(code, str):
        raise OAuthError(code, detail if isinstance(detail, str) else "")
    raise _nonsense(login_host, f"status {reply.status} without a reason")


def _text(login_host: str, answer: dict[str, object], key: str) -> str:
    value = answer.get(key)
    if not isinstance(value, str) or not value:
        raise _nonsense(login_host, f"no `{key}`")
    return value


def _number(login_host: str, answer: dict[str, object], key: str, default: float) -> float:
    value = answer.get(key, default)
    # NaN is not above zero either.
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise _nonsense(login_host, f"no usable `{key}`")
    return float(value)


def _nonsense(login_host: str, what: str) -> Complaint:
    return Complaint(
        f"{login_host} answered, but not as a Heim login host does ({what}); is the address right?",
        PROTOCOL,
    )
