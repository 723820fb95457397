"""What one backend says that contradicts itself, or that could only mislead whoever reads it.

Places are those within the backend. A key that means nothing is a mistake and not a warning: it was
written because somebody believes that it protects or permits something.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from heim_config.backends import Backend
from heim_config.model import Config
from heim_config.paths import decoded
from heim_config.problems import Finding, show
from heim_config.routes import HttpRoute

__all__ = ["contradictions"]

# What a default host is made of (RFC 1123, 2.1).
_LABEL: Final = re.compile(r"[a-z0-9-]{1,63}", re.ASCII)
# Keys of a backend that are about requests, which a backend with tcp alone never has.
_HTTP_ONLY: Final = (
    "allow_http",
    "permissions",
    "identity_headers",
    "cors",
    "allowed_origins",
    "upstream_tls",
    "forward_path",
    "upgrades",
)


def contradictions(backend: Backend, config: Config) -> Iterator[Finding]:
    """Everything that does not fit together within `backend`."""
    if backend.tcp is not None and backend.public:
        yield Finding(
            ("public",),
            "is impossible with tcp: its streams always belong to somebody who signed in",
            "give what is public a backend of its own" if backend.http else "remove it",
        )
    yield from _hosts(backend, config)
    if not backend.http:
        yield from _without_http(backend)
        return
    yield from _without_effect(backend, config)
    yield from _routed_twice(backend)


def _without_http(backend: Backend) -> Iterator[Finding]:
    given = backend.model_fields_set
    for key in _HTTP_ONLY:
        if key in given:
            hint = "a binding without permission gives tcp" if key == "permissions" else None
            yield Finding((key,), "means nothing, because the backend has no http", hint)
    given = backend.timeouts.model_fields_set
    for key, hint in (("first_byte", None), ("idle", "write tcp: {idle: ...}")):
        if key in given:
            message = "means nothing, because the backend has no http"
            yield Finding(("timeouts", key), message, hint)


def _without_effect(backend: Backend, config: Config) -> Iterator[Finding]:
    if backend.allow_http and not backend.public:
        yield Finding(
            ("allow_http",),
            "needs public: true, because a session cookie cannot exist on http",
            "remove allow_http",
        )
    if backend.allow_http and config.listeners.http is None:
        yield Finding(("allow_http",), "needs the plain listener", "set listeners.http")
    if backend.public and backend.permissions:
        yield Finding(
            ("permissions",),
            "decide nothing, because the backend is public",
            "remove public: true, or the permissions",
        )
    if backend.public and backend.max_session_age is not None:
        yield Finding(("max_session_age",), "means nothing, because the backend is public")
    if backend.upstream_tls is not None and not any(map(_encrypted, backend.http)):
        yield Finding(("upstream_tls",), "means nothing, because no upstream is https")
    yield from _unverifiable(backend)


def _encrypted(route: HttpRoute) -> bool:
    if route.agent is not None:
        return route.scheme == "https"
    return any(upstream.scheme == "https" for upstream in route.endpoints)


def _unverifiable(backend: Backend) -> Iterator[Finding]:
    """Targets of agents that speak TLS: what they are called is not in the route."""
    tls = backend.upstream_tls
    if tls is not None and (tls.server_name is not None or tls.insecure):
        return
    for i, route in enumerate(backend.http):
        if route.agent is not None and route.scheme == "https":
            yield Finding(
                ("http", i, "scheme"),
                "needs upstream_tls.server_name: a target of an agent has no host name to verify",
                "write upstream_tls: {server_name: app.internal}",
            )


def _routed_twice(backend: Backend) -> Iterator[Finding]:
    seen: dict[tuple[str, str], set[str | None]] = {}
    for i, route in enumerate(backend.http):
        hosts = seen.setdefault((route.match, decoded(route.path)), set())
        if hosts and (route.host is None or not hosts.isdisjoint((None, route.host))):
            yield Finding(
                ("http", i, "path"),
                f"{show(route.path)} is the path of another route already",
                "give a route several upstreams with upstreams: [...]",
            )
        hosts.add(route.host)


def _hosts(backend: Backend, config: Config) -> Iterator[Finding]:
    known = config.backend_hosts(backend)
    if backend.host is None and not backend.hosts and not _LABEL.fullmatch(backend.name):
        message = f"cannot be a host: {show(backend.name)} is not one label"
        yield Finding(("name",), message, "write hosts: [...]")
    for i, route in enumerate(backend.http):
        if route.host is not None and route.host not in known:
            message = f"{route.host} is not a host of the backend"
            yield Finding(("http", i, "host"), message, f"they are {', '.join(known[:8])}")
