"""Our annotations on an Ingress: what it asks for, or why it cannot be had.

There are few. What is unknown or cannot be read closes the whole Ingress: a misspelt
`heim.dev/auth` may have been what protected it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from heim_config.units import format_duration, parse_duration
from heim_controller.translation.diagnostics import quoted
from heim_controller.translation.hosts import canonical_host
from heim_controller.translation.names import is_label
from heim_controller.translation.objects import Key
from heim_controller.translation.settings import GROUP

__all__ = ["ANNOTATIONS", "PREFIX", "Options", "read_options", "role_key", "seconds_text"]

PREFIX: Final = f"{GROUP}/"

# A list of roles of every team fits; a bound because each is looked up.
_MAX_VALUE_CHARS: Final = 4096
_MAX_ROLES: Final = 64


class Options(NamedTuple):
    """What annotations say. None stands for "not said".

    `roles` are Roles by namespace and name. Durations are as the configuration writes them.
    `upstream_service` sends requests to the Service's own name instead of its endpoints. `closed`
    is a reason of `REASONS` with a message, when everything must answer 503.
    """

    auth: str | None = None
    roles: tuple[Key, ...] | None = None
    tcp: bool = False
    max_session_age: str | None = None
    identity_headers: tuple[str, ...] | None = None
    scheme: str | None = None
    upstream_service: bool = False
    server_name: str | None = None
    insecure: bool = False
    connect_timeout: str | None = None
    read_timeout: str | None = None
    idle_timeout: str | None = None
    ssl_redirect: bool | None = None
    strip_regex: bool = False
    closed: tuple[str, str] | None = None

    def closing(self, reason: str, message: str) -> Options:
        """The same, closed; the first reason stays."""
        return self if self.closed is not None else self._replace(closed=(reason, message))


NONE: Final = Options()


class _Unreadable(ValueError):  # noqa: N818 - reads as what it is at the raise
    """A value that cannot be read; the message says what would be."""


def _flag(value: str) -> bool:
    if value not in ("true", "false"):
        raise _Unreadable('is "true" or "false"')
    return value == "true"


def _word(*words: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        found = value.strip().lower()
        if found not in words:
            raise _Unreadable(f"is one of {', '.join(words)}")
        return found

    return read


def _duration(value: str) -> str:
    try:
        return format_duration(parse_duration(value.strip()))
    except ValueError:
        raise _Unreadable("is a duration: 15s, 5m, 8h") from None


def seconds_text(value: str, *, most: int) -> str | None:
    """A whole number of seconds, up to `most`, as a duration; None when it is none."""
    text = value.strip().removesuffix("s")
    if not text.isascii() or not text.isdigit() or not 0 < len(text) <= 9:
        return None
    count = int(text)
    return f"{count}s" if 0 < count <= most else None


def role_key(value: str, namespace: str) -> Key | None:
    """A reference to a Role: ``name`` within `namespace`, or ``namespace/name``."""
    first, slash, second = value.partition("/")
    key = (first, second) if slash else (namespace, first)
    return key if is_label(key[0]) and is_label(key[1]) else None


def _roles(value: str, namespace: str) -> tuple[Key, ...]:
    names = [one.strip() for one in value.split(",")]
    keys = [role_key(one, namespace) for one in names]
    if len(keys) > _MAX_ROLES:
        raise _Unreadable(f"is a list of at most {_MAX_ROLES} roles")
    found = [key for key in keys if key is not None]
    if len(found) != len(keys):
        raise _Unreadable("is a list of roles: viewers, team-a/editors")
    return tuple(sorted(set(found)))


def _headers(value: str) -> tuple[str, ...]:
    names = [one.strip().lower() for one in value.split(",")]
    if names == ["none"]:
        return ()
    if not set(names) <= {"heimdallr", "forwarded"}:
        raise _Unreadable("is heimdallr, forwarded, both with a comma, or none")
    return tuple(dict.fromkeys(names))


def _host(value: str) -> str:
    host = canonical_host(value.strip())
    if host is None or host.startswith("*"):
        raise _Unreadable("is a host name")
    return host


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation: the option that it sets, how it is read, what the reference says of it."""

    option: str
    read: Callable[[str], object]
    values: str
    means: str


ANNOTATIONS: Final[Mapping[str, Annotation]] = {
    "roles": Annotation(
        "roles",
        str,
        "names with commas",
        "Who may come: Roles of this namespace, or NAMESPACE/NAME. Default: the Proxy's "
        "`defaultRoles`; without those nobody.",
    ),
    "auth": Annotation(
        "auth",
        _word("required", "none"),
        "`required`, `none`",
        "Whether people must sign in. `none` only where the Proxy's `ingress.allowPublic` permits "
        "it. Default: required.",
    ),
    "tcp": Annotation(
        "tcp",
        _flag,
        "`true`, `false`",
        "The Service port is reached as TCP through `heim-tunnel` on the rule's host; the path is "
        "empty or /.",
    ),
    "session-max-age": Annotation(
        "max_session_age",
        _duration,
        "duration",
        "How long ago people may have signed in. Default: as long as the session lasts.",
    ),
    "identity-headers": Annotation(
        "identity_headers",
        _headers,
        "`heimdallr`, `forwarded`, `none`",
        "How the application is told who asks. Default: heimdallr.",
    ),
    "backend-protocol": Annotation(
        "scheme",
        _word("http", "https"),
        "`HTTP`, `HTTPS`",
        "What the Service speaks. Default: the port's `appProtocol`, else HTTP.",
    ),
    "backend-server-name": Annotation(
        "server_name",
        _host,
        "host",
        "The name in the certificates of an HTTPS Service. Default: NAME.NAMESPACE.svc.",
    ),
    "backend-insecure": Annotation(
        "insecure",
        _flag,
        "`true`, `false`",
        "Accept any certificate of an HTTPS Service. Default: false.",
    ),
    "upstream": Annotation(
        "upstream_service",
        lambda value: _word("endpoints", "service")(value) == "service",
        "`endpoints`, `service`",
        "Where connections go: to the pods, or to the Service's own name, for service meshes. "
        "Default: endpoints.",
    ),
    "connect-timeout": Annotation(
        "connect_timeout", _duration, "duration", "To connect. Default: 5s."
    ),
    "read-timeout": Annotation(
        "read_timeout",
        _duration,
        "duration",
        "From a request's end to the answer's first byte. Default: 60s.",
    ),
    "idle-timeout": Annotation(
        "idle_timeout",
        _duration,
        "duration",
        "Without a byte in either direction; for WebSockets and event streams. Default: 15m.",
    ),
    "ssl-redirect": Annotation(
        "ssl_redirect",
        _flag,
        "`true`, `false`",
        "Whether plain http is redirected. Only what needs no login can be served without; there "
        "the default is true for hosts of a TLS section.",
    ),
}


def read_options(found: Mapping[str, Any], namespace: str) -> Options:
    """What the annotations with our prefix say; `closed` when one of them cannot be understood."""
    options = NONE
    for key in sorted([key for key in found if key.startswith(PREFIX)]):
        try:
            options = _with(options, key, found[key], namespace)
        except _Unreadable as error:
            message = f"annotation {quoted(key)} {error}, not {quoted(found[key])}"
            options = options.closing("InvalidAnnotation", message)
        if options.closed is not None:
            # The first reason is the one that is told; there may be thousands.
            return options
    return options if options is NONE else _consistent(options)


def _with(options: Options, key: str, value: object, namespace: str) -> Options:
    known = ANNOTATIONS.get(key[len(PREFIX) :])
    if known is None:
        near = difflib.get_close_matches(key[len(PREFIX) :][:64], ANNOTATIONS, n=1)
        hint = f"did you mean {PREFIX}{near[0]}?" if near else f"known: {', '.join(ANNOTATIONS)}"
        message = f"annotation {quoted(key)} is not known; {hint}"
        return options.closing("InvalidAnnotation", message)
    # Line ends and controls have no business in any value, and would travel far (T2).
    if not isinstance(value, str) or len(value) > _MAX_VALUE_CHARS or not value.isprintable():
        raise _Unreadable("is one line of text")
    read: object = _roles(value, namespace) if known.option == "roles" else known.read(value)
    changed: dict[str, Any] = {known.option: read}
    return options._replace(**changed)


def _consistent(options: Options) -> Options:
    """Annotations that contradict each other close the Ingress too."""
    reason = "InvalidAnnotation"
    if options.auth == "none" and options.roles:
        message = "heim.dev/roles says who may come, and heim.dev/auth: none that everybody may"
        return options.closing(reason, message)
    if options.auth == "none" and options.tcp:
        message = "heim.dev/tcp needs people who signed in: heim.dev/auth: none is impossible"
        return options.closing(reason, message)
    if options.insecure and options.server_name is not None:
        message = "heim.dev/backend-insecure would ignore heim.dev/backend-server-name"
        return options.closing(reason, message)
    return options
