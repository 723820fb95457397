"""The kind Backend: a backend of the configuration, with Services in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from heim_config.backends import DIALECTS, METHODS, Backend, Permission, Timeouts, UpstreamTls
from heim_config.paths import MAX_CHARS
from heim_config.routes import HttpRoute
from heim_config.tunnel import TcpService
from heim_controller.crds.definition import ACCEPTED, PROGRAMMED, RESOLVED, Column, Kind
from heim_controller.crds.schema import (
    HOST,
    LABEL,
    LABEL_CHARS,
    NAME_CHARS,
    Rule,
    Schema,
    configured,
    flag,
    listing,
    section,
    text,
    words,
)
from heim_controller.kube.resources import BACKENDS

__all__ = ["BACKEND"]

_MAX_ROUTES: Final = 128
_MAX_PERMISSIONS: Final = 64
_MAX_PATHS: Final = 64
_MAX_URL_CHARS: Final = 512
_METHODS: Final = tuple(word.upper() for word in METHODS if word != "any")

_PATH_RULES: Final = (
    Rule(
        "!self.contains('//') && !self.contains('/./') && !self.contains('/../') "
        "&& !self.endsWith('/.') && !self.endsWith('/..')",
        "no request has an empty segment or a dot segment in its path",
    ),
    Rule(
        "!self.contains('%2f') && !self.contains('%2F') && !self.contains('%5c') "
        "&& !self.contains('%5C')",
        "an encoded slash or backslash is in no request that is served",
    ),
    Rule(
        "self != '/.heim' && !self.startsWith('/.heim/')",
        "paths below /.heim belong to the proxy",
        reason="FieldValueForbidden",
    ),
)

_PORT: Final[Schema] = {
    "description": "The Service's port, by number or name.",
    "x-kubernetes-int-or-string": True,
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "minimum": 1,
    "maximum": 65535,
    "minLength": 1,
    "maxLength": 15,
    "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
}


def _upstream(where: str, *, web: bool) -> Schema:
    """Where something leads; the web's kinds also say what is spoken there."""
    service: dict[str, Schema] = {
        "name": text("A Service of this namespace.", most=LABEL_CHARS, least=1, pattern=LABEL),
        "port": _PORT,
    }
    agent: dict[str, Schema] = {
        "name": text("An Agent of this namespace.", most=LABEL_CHARS, least=1, pattern=LABEL),
        "target": text("One of the Agent's targets.", most=LABEL_CHARS, least=1, pattern=LABEL),
    }
    if web:
        service["scheme"] = words(
            "What it speaks. Default: the port's appProtocol, else HTTP.", "HTTP", "HTTPS"
        )
        agent["scheme"] = words(
            "What the target speaks. Default: HTTP. HTTPS is TLS that the agent cannot read, and "
            "needs upstreamTLS.",
            "HTTP",
            "HTTPS",
        )
    url = (
        text(
            "http://host:port or https://host:port, without a path.",
            most=_MAX_URL_CHARS,
            pattern=r"^https?://[^/?#@\\ ]+/?$",
        )
        if web
        else text(
            "tcp://host:port.", most=_MAX_URL_CHARS, pattern=r"^tcp://[^/?#@\\ ]+:[0-9]{1,5}$"
        )
    )
    url["description"] += (
        " In the Proxy's namespace only, unless the Proxy says ingress.externalName: Allowed."
    )
    return section(
        f"{where} Exactly one of service, url and agent.",
        {
            "service": section(
                "A Service: its ready pods." if web else "A Service: its own address.",
                service,
                required=("name", "port"),
            ),
            "url": url,
            "agent": section("What an Agent reaches.", agent, required=("name", "target")),
        },
        rules=[
            Rule(
                "[has(self.service), has(self.url), has(self.agent)].filter(x, x).size() == 1",
                "needs exactly one of service, url and agent",
            )
        ],
    )


_ROUTE: Final = section(
    "A path and where its requests go.",
    {
        "path": text(
            "The path that is matched. The longest Prefix wins, an Exact path before any Prefix.",
            most=MAX_CHARS,
            least=1,
            pattern=r"^/[^?#\\ ]*$",
            rules=_PATH_RULES,
        ),
        "pathType": words(
            "Prefix covers the path and everything below it, ending at a slash; Exact only the "
            "path itself. Default: Prefix.",
            "Prefix",
            "Exact",
        ),
        "stripPrefix": configured(HttpRoute, "strip_prefix"),
        "upstream": _upstream("Where its requests go.", web=True),
    },
    required=("path", "upstream"),
    rules=[
        Rule(
            "!has(self.stripPrefix) || !self.stripPrefix || !has(self.pathType) "
            "|| self.pathType == 'Prefix'",
            "stripPrefix needs pathType Prefix",
            field=".stripPrefix",
        )
    ],
)

_TCP: Final = section(
    "Where TCP streams to its host go; people reach it with heim-tunnel.",
    {
        "upstream": _upstream("Where its streams go.", web=False),
        "idle": configured(TcpService, "idle"),
        "maxDuration": configured(TcpService, "max_duration"),
    },
    required=("upstream",),
    rules=[
        # CEL's durations have no days; those are left to the controller.
        Rule(
            "!has(self.idle) || !has(self.maxDuration) || self.idle.endsWith('d') "
            "|| self.maxDuration.endsWith('d') "
            "|| duration(self.idle) <= duration(self.maxDuration)",
            "idle is longer than maxDuration: a stream has ended by then",
            field=".idle",
        )
    ],
)

_PERMISSION: Final = section(
    "A named set of methods and paths: what a Role can give.",
    {
        "name": configured(Permission, "name"),
        "methods": listing(
            "Methods; GET covers HEAD too. Default: any but TRACE.",
            words("A method.", *_METHODS),
            most=len(_METHODS),
            least=1,
            unique=True,
        ),
        "paths": listing(
            "Patterns of paths, each with every method: /admin is that path and everything below "
            "it, =/admin exactly that path, * one whole segment.",
            text("A pattern.", most=MAX_CHARS, least=1, pattern=r"^=?/[^?#\\ ]*$"),
            most=_MAX_PATHS,
            least=1,
        ),
    },
    required=("name", "paths"),
)

_AUTH: Final = section(
    "Who must have signed in.",
    {
        "mode": words(
            "Required: people sign in and need a permission. None: everybody may reach it; the "
            "Proxy's ingress.allowPublic must permit it. Default: Required.",
            "Required",
            "None",
        ),
        "maxSessionAge": configured(Backend, "max_session_age"),
    },
)

_SPEC: Final[Mapping[str, Schema]] = {
    "host": text(
        "The host people use. Default: NAME.DOMAIN. *.dev.example.com stands for exactly one "
        "label. Never the login host.",
        most=NAME_CHARS,
        least=1,
        pattern=rf"^(\*\.)?{HOST.removeprefix('^')}",
    ),
    "auth": _AUTH,
    "http": listing(
        "Its paths. What none covers is 404. Default: none, which needs tcp.",
        _ROUTE,
        most=_MAX_ROUTES,
        least=1,
    ),
    "tcp": _TCP,
    "permissions": listing(
        "What Roles can give over http. Default: none, so nobody gets in. For tcp there are none: "
        "a Role names the Backend without a permission.",
        _PERMISSION,
        most=_MAX_PERMISSIONS,
        least=1,
        keys=("name",),
    ),
    "identityHeaders": listing(
        " ".join((Backend.model_fields["identity_headers"].description or "").split()),
        words("A dialect.", *DIALECTS),
        most=len(DIALECTS),
        unique=True,
    ),
    "timeouts": section(
        "Deadlines towards its upstreams.",
        {
            "connect": configured(Timeouts, "connect"),
            "firstByte": configured(Timeouts, "first_byte"),
            "idle": configured(Timeouts, "idle"),
        },
    ),
    "upstreamTLS": section(
        "How certificates of HTTPS upstreams are verified. Default: by the Service's name.",
        {
            "serverName": configured(UpstreamTls, "server_name"),
            "insecure": flag(
                "Accept any certificate. Default: false; true gives the traffic to whoever is on "
                "the way."
            ),
        },
    ),
}

_RULES: Final = (
    Rule("has(self.http) || has(self.tcp)", "needs http, tcp or both: there is nothing to reach",
         reason="FieldValueRequired"),
    Rule("has(self.http) || !has(self.permissions)",
         "permissions are for http; a Role gives tcp by naming the Backend without a permission",
         field=".permissions"),
    Rule("!has(self.auth) || !has(self.auth.mode) || self.auth.mode != 'None' "
         "|| (!has(self.permissions) && !has(self.tcp))",
         "mode None needs a Backend without permissions and without tcp", field=".auth.mode"),
    Rule("has(self.upstreamTLS) || !has(self.http) || self.http.all(r, !has(r.upstream.agent) "
         "|| !has(r.upstream.agent.scheme) || r.upstream.agent.scheme == 'HTTP')",
         "HTTPS through an Agent needs upstreamTLS.serverName, for a target has no name of its own",
         reason="FieldValueRequired", field=".upstreamTLS"),
)  # fmt: skip

BACKEND: Final = Kind(
    resource=BACKENDS,
    short="hbe",
    means="A protected thing people reach under its own host: with http, with tcp or with both. "
    "What an Ingress cannot say.",
    spec=section("What is served, and to whom.", _SPEC, rules=_RULES),
    named=True,
    selectable=(".spec.host",),
    conditions=(ACCEPTED, RESOLVED, PROGRAMMED),
    status={"url": text("Where people find it.", most=512)},
    columns=(
        Column("Host", ".spec.host"),
        Column("Auth", ".spec.auth.mode"),
        Column.condition(ACCEPTED),
        Column.condition(PROGRAMMED),
        Column.reason(ACCEPTED),
    ),
)
