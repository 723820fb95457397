"""Annotations of ingress-nginx on an Ingress: read where their meaning is safe and the same.

ingress-nginx is retired, and its Ingresses come as they are. What they say about upstreams is read;
what asked somebody else to sign people in is replaced; what restricted who may come, or sent
requests elsewhere, and cannot be kept closes the Ingress; the rest is a warning. Nothing of a
snippet is ever looked into.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from heim_controller.translation.annotations import Options, seconds_text
from heim_controller.translation.diagnostics import quoted
from heim_controller.translation.hosts import canonical_host

__all__ = ["PREFIX", "READ", "REPLACED", "RESTRICTING", "ROUTING", "Nginx", "read_nginx"]

PREFIX: Final = "nginx.ingress.kubernetes.io/"

# A week: longer is a typing error, and ingress-nginx users write large numbers for "never".
_MOST_SECONDS: Final = 7 * 86400

# Read, with what becomes of them.
READ: Final[Mapping[str, str]] = {
    "backend-protocol": "HTTP and HTTPS as `heim.dev/backend-protocol`; others answer 503",
    "proxy-connect-timeout": "`heim.dev/connect-timeout`",
    "proxy-read-timeout": "`heim.dev/read-timeout` and `heim.dev/idle-timeout`",
    "proxy-ssl-name": "`heim.dev/backend-server-name`",
    "proxy-ssl-verify": "`on` is what is done anyway",
    "service-upstream": "`heim.dev/upstream: service`",
    "ssl-redirect": "`heim.dev/ssl-redirect`",
    "force-ssl-redirect": "`heim.dev/ssl-redirect: true`",
    "rewrite-target": "`/` on paths that are `/`, and `/$2` on paths like `/app(/|$)(.*)`, which "
    "strips the prefix; others answer 503",
    "use-regex": "only together with that",
}
# Signing people in is done here.
REPLACED: Final = frozenset(
    (
        "auth-url", "auth-signin", "auth-signin-redirect-param", "auth-response-headers",
        "auth-method", "auth-cache-key", "auth-cache-duration", "auth-always-set-cookie",
        "auth-proxy-set-headers", "auth-request-redirect", "auth-keepalive",
        "auth-type", "auth-secret", "auth-secret-type", "auth-realm", "enable-global-auth",
    )
)  # fmt: skip
# Who was let in before is not known to us any more.
RESTRICTING: Final = frozenset(
    (
        "whitelist-source-range", "allowlist-source-range", "denylist-source-range",
        "auth-tls-secret", "auth-tls-verify-client", "auth-tls-match-cn", "satisfy",
    )
)  # fmt: skip
# Where requests went was said here, not in the rules.
ROUTING: Final = frozenset(
    (
        "app-root", "canary", "custom-http-errors", "default-backend", "from-to-www-redirect",
        "mirror-target", "permanent-redirect", "server-alias", "temporal-redirect",
        "upstream-vhost", "x-forwarded-prefix", "fastcgi-index", "fastcgi-params-configmap",
    )
)  # fmt: skip
# Say nothing that could be missed: sizes of buffers that do not exist here, or what is done anyway.
_HARMLESS: Final = frozenset(
    (
        "proxy-body-size", "proxy-buffer-size", "proxy-buffering", "proxy-buffers-number",
        "proxy-request-buffering", "proxy-max-temp-file-size", "client-body-buffer-size",
        "proxy-send-timeout", "proxy-http-version", "connection-proxy-header",
        "preserve-trailing-slash", "enable-access-log", "proxy-next-upstream",
        "proxy-next-upstream-timeout", "proxy-next-upstream-tries",
    )
)  # fmt: skip
_ON: Final = ("true", "on")


@dataclass(frozen=True, slots=True)
class Nginx:
    """What ingress-nginx's annotations come to: options, and what to say (reason, message)."""

    options: Options
    findings: tuple[tuple[str, str], ...] = ()


def read_nginx(
    found: Mapping[str, Any], options: Options, paths: list[str], *, public: bool
) -> Nginx:
    """Add what ingress-nginx's annotations say to `options`, where ours say nothing.

    Args:
        found: All annotations of the Ingress.
        options: What our own say.
        paths: The paths of its rules as written, which rewriting depends on.
        public: Whether it needs no login; then nothing that restricted anybody may be dropped.
    """
    names = {
        key[len(PREFIX) :]: value if isinstance(value, str) else str(value)
        for key, value in sorted(found.items())
        if key.startswith(PREFIX)
    }
    if not names:
        return Nginx(options)
    options = _read(names, options)
    options = _rewriting(names, options, paths)
    findings: list[tuple[str, str]] = []
    replaced = sorted(names.keys() & REPLACED)
    if replaced:
        findings.append(("ReplacedByHeim", f"replaced: {', '.join(replaced)}"))
        if public:
            message = f"{replaced[0]} asked people to sign in, and it needs no login here"
            options = options.closing("RestrictionNotKept", message)
    restricting = sorted(names.keys() & RESTRICTING)
    if restricting:
        message = f"{PREFIX}{restricting[0]}: {quoted(names[restricting[0]])} cannot be kept"
        options = options.closing("RestrictionNotKept", message)
    routing = sorted(name for name in names.keys() & ROUTING if names[name] not in ("", "false"))
    if routing:
        message = f"{PREFIX}{routing[0]}: {quoted(names[routing[0]])} cannot be kept"
        options = options.closing("RoutingNotKept", message)
    known = READ.keys() | REPLACED | RESTRICTING | ROUTING | _HARMLESS
    unknown = sorted(names.keys() - known)
    if unknown:
        findings.append(("UnsupportedAnnotation", f"without effect: {', '.join(unknown)}"))
        # A snippet may have denied what is open without it.
        if public and any("snippet" in name for name in unknown):
            message = "a snippet may have restricted what needs no login here"
            options = options.closing("RestrictionNotKept", message)
    return Nginx(options, tuple(findings))


def _read(names: Mapping[str, str], options: Options) -> Options:
    protocol = names.get("backend-protocol", "").upper()
    if protocol in ("HTTP", "HTTPS", "AUTO_HTTP"):
        if options.scheme is None and protocol != "AUTO_HTTP":
            options = options._replace(scheme=protocol.lower())
    elif protocol:
        message = f"backend-protocol {quoted(protocol)} is not spoken"
        options = options.closing("UnsupportedBackend", message)
    connect = seconds_text(names.get("proxy-connect-timeout", ""), most=_MOST_SECONDS)
    if connect is not None and options.connect_timeout is None:
        options = options._replace(connect_timeout=connect)
    read = seconds_text(names.get("proxy-read-timeout", ""), most=_MOST_SECONDS)
    if read is not None and options.read_timeout is None and options.idle_timeout is None:
        options = options._replace(read_timeout=read, idle_timeout=read)
    server_name = canonical_host(names.get("proxy-ssl-name", ""))
    if server_name is not None and options.server_name is None and not options.insecure:
        options = options._replace(server_name=server_name)
    if names.get("service-upstream") in _ON:
        options = options._replace(upstream_service=True)
    redirect = names.get("ssl-redirect")
    if options.ssl_redirect is None and redirect in ("true", "false"):
        options = options._replace(ssl_redirect=redirect == "true")
    if names.get("force-ssl-redirect") in _ON:
        options = options._replace(ssl_redirect=True)
    return options


def _rewriting(names: Mapping[str, str], options: Options, paths: list[str]) -> Options:
    target = names.get("rewrite-target")
    if target == "/$2":
        return options._replace(strip_regex=True)
    # ingress-nginx sends every request of the path to the target itself, unless they are the same.
    if target and any(path != target for path in paths):
        message = f"rewrite-target {quoted(target)} on other paths than {quoted(target)}"
        return options.closing("RoutingNotKept", message)
    if names.get("use-regex") in _ON and any(_is_pattern(path) for path in paths):
        return options.closing("RoutingNotKept", "use-regex: there are no regular expressions")
    return options


def _is_pattern(path: str) -> bool:
    return any(character in path for character in "()[]{}*+?|^$\\")
