"""The protected things people reach: hosts, routes, permissions and how to talk to upstreams."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from pydantic import (
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from heim_config.fields import (
    AnyHost,
    Duration,
    FilePath,
    Filled,
    Flag,
    HeaderName,
    Host,
    Name,
    Origin,
    QualifiedName,
    Section,
    Text,
    WildcardHost,
)
from heim_config.paths import parse_pattern
from heim_config.problems import mistake, show
from heim_config.routes import HttpRoute
from heim_config.tunnel import TcpService

__all__ = [
    "DIALECTS",
    "METHODS",
    "Backend",
    "Cors",
    "Location",
    "Permission",
    "Timeouts",
    "UpstreamTls",
]

METHODS: Final = ("any", "get", "head", "post", "put", "patch", "delete", "options", "trace")
DIALECTS: Final = ("heimdallr", "forwarded")

_CORS_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
# Each would hand the connection to a protocol in which we no longer see requests.
_REFUSED_UPGRADES: Final = ("h2c", "h2", "http", "tls")


@dataclass(frozen=True, slots=True)
class Location:
    """A method word and a path pattern, written as a one-key mapping: ``{get: /reports}``."""

    method: str
    pattern: str


def _location(value: object) -> Location:
    if isinstance(value, Location):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise mistake("is not a location", "write one method and one path: {get: /reports}")
    method, pattern = next(iter(value.items()))
    if method not in METHODS:
        found = difflib.get_close_matches(str(method)[:32].lower(), METHODS, n=1)
        hint = f"did you mean {found[0]}?" if found else f"methods are {', '.join(METHODS)}"
        raise mistake(f"{show(method)} is not a method", hint, at=(str(method),))
    try:
        return Location(method, parse_pattern(pattern))
    except ValueError as error:
        context = getattr(error, "context", None) or {}
        raise mistake(
            str(context.get("message", error)), context.get("hint"), at=(method,)
        ) from None


LocationItem = Annotated[
    Location,
    PlainValidator(_location),
    PlainSerializer(lambda location: {location.method: location.pattern}),
    WithJsonSchema(
        {
            "type": "object",
            "x-kind": "{method: pattern}",
            "properties": {method: {"type": "string"} for method in METHODS},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
            "examples": [{"any": "/"}, {"get": "/users/*/profile"}, {"post": "=/login"}],
        }
    ),
]


class Permission(Section):
    """A named set of locations: what a binding allows."""

    name: Name
    """How bindings and logs call it. Required, unique within the backend."""

    locations: Annotated[tuple[LocationItem, ...], Filled]
    """What it covers, each as {method: pattern}. Methods: any, get (which covers HEAD too), head,
    post, put, patch, delete, options, trace; any covers all but trace. Patterns: /admin is that
    path and everything below it, =/admin exactly that path, * one whole segment. Required."""


class Timeouts(Section):
    """Deadlines towards a backend's upstreams. There is no limit on a whole exchange."""

    connect: Duration = Field(default="5s", validate_default=True)
    """To connect, over http TLS included. Default 5s: an upstream that needs longer is down."""

    first_byte: Duration = Field(default="60s", validate_default=True)
    """From the request's end to the answer's first byte. Default 60s, for slow reports."""

    idle: Duration = Field(default="15m", validate_default=True)
    """Without a byte in either direction once the answer has begun. Default 15m; WebSockets and
    event streams that are silent for longer need more."""


class UpstreamTls(Section):
    """How the certificates of https upstreams are verified."""

    ca_file: FilePath | None = None
    """PEM file with the authorities to trust instead of the system's. Re-read when it changes."""

    server_name: Host | None = None
    """The name to ask for (SNI) and to verify. Default: the upstream's host."""

    insecure: Flag = False
    """Accept any certificate. Default: false; true gives the traffic to whoever is on the way."""

    @model_validator(mode="after")
    def _check_insecure(self) -> UpstreamTls:
        if self.insecure and self.ca_file is not None:
            raise mistake("insecure: true would ignore ca_file", "remove one of them")
        return self


class Cors(Section):
    """Which other origins' scripts may read answers; preflights are answered by the proxy."""

    allow_origins: Annotated[tuple[Origin, ...], Filled]
    """Origins as https://app.example.com. Required; there is no wildcard, because answers are
    personal."""

    allow_methods: tuple[str, ...] = ("GET", "HEAD", "POST")
    """Methods that scripts may use. Default: GET, HEAD, POST."""

    allow_headers: tuple[HeaderName, ...] = ()
    """Request headers that scripts may set beyond the safelisted ones. Default: none."""

    expose_headers: tuple[HeaderName, ...] = ()
    """Answer headers that scripts may read beyond the safelisted ones. Default: none."""

    allow_credentials: Flag = False
    """Let requests carry the session cookie. Default: false; without it only public backends can
    answer them."""

    max_age: Duration = Field(default="10m", validate_default=True)
    """How long browsers may remember a preflight's answer. Default 10m."""

    @field_validator("allow_methods")
    @classmethod
    def _check_methods(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        for method in methods:
            if method not in _CORS_METHODS:
                raise mistake(f"{show(method)} is not one of {', '.join(sorted(_CORS_METHODS))}")
        return methods

    @field_validator("allow_headers", "expose_headers")
    @classmethod
    def _check_headers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if "".join(filter(str.isalnum, name.lower())).startswith(("xheim", "xauthtoken")):
                raise mistake(f"{show(name)} is reserved for Heim")
        return names


class Backend(Section):
    """A protected thing people reach under its own hosts: with `http`, with `tcp` or with both."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["http"]}, {"required": ["tcp"]}]}
    )

    name: QualifiedName
    """How bindings, logs and metrics call it. Required, unique. With dots in it, hosts are required
    too."""

    host: WildcardHost | None = None
    """The host people use. Default: <name>.<domain>, unless `hosts` names some. *.dev.example.com
    stands for exactly one label. Never the login host."""

    hosts: tuple[AnyHost, ...] = ()
    """All hosts of the backend, instead of the default name; with `host`, further ones. Several
    backends may share a host as long as they share no path of it. * is every host that nobody else
    has, for `public` only: people can sign in on known hosts alone. Default: none."""

    public: Flag = False
    """Everybody may reach it without signing in. Default: false; nothing is public by omission.
    Never together with `tcp`, whose streams always belong to somebody who signed in."""

    allow_http: Flag = False
    """Serve it on the plain listener too instead of redirecting to https. Default: false; only
    with `public`, because a session cookie cannot exist on http."""

    http: Annotated[tuple[HttpRoute, ...], Filled] = ()
    """Its paths and where they go. A path that no route covers is 404. Default: none, which needs
    `tcp`; then browsers get 404 for every path."""

    tcp: TcpService | None = None
    """Where TCP streams to its hosts go. Default: none, which needs `http`."""

    permissions: tuple[Permission, ...] = ()
    """What bindings can give over http. Default: none, so nobody gets in. For `tcp` there are none:
    a binding without permission gives it."""

    identity_headers: tuple[Literal["heimdallr", "forwarded"], ...] = ("heimdallr",)
    """How the upstream is told who asks. heimdallr: X-Auth-Id and the signed X-Auth-Token;
    forwarded: X-Forwarded-User, -Email, -Groups. Default: heimdallr. The headers of every dialect
    are always stripped from clients."""

    max_session_age: Duration | None = None
    """How long ago people may have signed in to use it; older sessions sign in again. A service
    token counts from when it was created. Default: as long as the session lasts."""

    cors: Cors | None = None
    """Cross-origin rules that the proxy answers itself. Default: none; the upstream's own rules
    pass."""

    allowed_origins: tuple[Origin, ...] = ()
    """Other origins whose pages may send unsafe requests and open WebSockets. Default: none,
    because sibling hosts share the cookie's site."""

    timeouts: Timeouts = Timeouts()
    """Deadlines towards its upstreams."""

    upstream_tls: UpstreamTls | None = None
    """How its https upstreams are verified. Default: the system's authorities, the upstream's own
    name."""

    forward_path: Literal["canonical", "raw"] = "canonical"
    """Which spelling of the path upstreams receive. Default: canonical, the one that was judged.
    raw sends the original bytes, for signatures over them, and only when both are allowed."""

    upgrades: tuple[Text, ...] = ("websocket",)
    """Protocols that requests may upgrade to. Default: websocket. Behind an upgrade the proxy
    sees no more requests."""

    @model_validator(mode="after")
    def _check_kinds(self) -> Backend:
        if not self.http and self.tcp is None:
            raise mistake("needs http, tcp or both", "there is nothing to reach")
        return self

    @field_validator("upgrades")
    @classmethod
    def _check_upgrades(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name.lower().partition("/")[0] in _REFUSED_UPGRADES or not name.isascii():
                raise mistake(
                    f"{show(name)} cannot be allowed: its requests would not be judged",
                )
        return tuple(name.lower() for name in names)
