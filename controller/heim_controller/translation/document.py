"""Shares of hosts to backends of the configuration document, and the document to bytes.

The document is canonical: equal content is equal bytes, so that what did not change is not written
again, and its hash names a generation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from heim_controller.translation.context import Context
from heim_controller.translation.diagnostics import one_line
from heim_controller.translation.memory import Made
from heim_controller.translation.merging import Share
from heim_controller.translation.names import ingress_name
from heim_controller.translation.sites import Rule, Site
from heim_runtime.kept import Kept

__all__ = ["backends_of", "canonical", "compact", "digest", "remembered"]

_Place = tuple[str, str, int, bool]
_NONE: Final[frozenset[str]] = frozenset()
# Made once: `json.dumps` with these arguments makes one for every part.
_ENCODER: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
)


def canonical(
    document: Mapping[str, Any], texts: Kept[int, tuple[object, str]] | None = None
) -> bytes:
    """The document as JSON (a subset of YAML), the same bytes for the same content.

    Every item of its lists has a line of its own. JSON has no line end inside of anything, so that
    a reader knows again what it has read before, and people see in a diff what changed.

    Args:
        document: Plain data.
        texts: JSON of parts that were written before, by their `id`; it learns.
    """
    known_texts: Kept[int, tuple[object, str]] = Kept() if texts is None else texts

    def line(part: Any) -> str:
        known = known_texts.before.get(id(part))
        if known is None or known[0] is not part:
            known = (part, compact(part))
        known_texts.now[id(part)] = known
        return known[1]

    content = _spread(document, line).encode("ascii")
    known_texts.turn()
    return content


def compact(part: object) -> str:
    """One part of a document as it stands in its line, without the comma."""
    return _ENCODER.encode(part)


def _spread(value: object, line: Callable[[Any], str]) -> str:
    if isinstance(value, Mapping):
        items = [f"{compact(key)}:{_spread(value[key], line)}" for key in sorted(value)]
        return f"{{{','.join(items)}}}"
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(map(line, value)) + "\n]"
    return compact(value)


def digest(content: bytes) -> str:
    """What names a document's content: SHA-256 of its canonical bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def remembered(share: Share, with_tls: frozenset[str], context: Context) -> list[dict[str, Any]]:
    """`backends_of`, or what that gave for the same share last time: the very same objects."""
    site, known = share.site, context.memory.made
    mine = with_tls.intersection(share.rules) if site.public else _NONE
    made = known.before.get(site.ref)
    if (
        made is None
        or made.site is not site
        or made.with_tls != mine
        or made.rules != share.rules
        or made.streams != share.streams
    ):
        backends = backends_of(share, mine, plain_http=context.settings.plain_http)
        made = Made(site, share.rules, share.streams, mine, backends)
    known.now[site.ref] = made
    return made.backends


def backends_of(
    share: Share, with_tls: frozenset[str], *, plain_http: bool
) -> list[dict[str, Any]]:
    """The backends that a site's share makes: none if it got nothing, two at most.

    What needs no login is also served without TLS, on hosts that have none; an own backend says so,
    because the configuration says it of a backend and not of a host.

    Args:
        share: What the site got.
        with_tls: Hosts of TLS sections, which redirect to https.
        plain_http: Whether there is a plain listener at all.
    """
    site = share.site
    if not (site.public and plain_http and site.ref.kind == "Ingress"):
        found = _backend(site, site.name, share.rules, share.streams)
        return [] if found is None else [found]
    redirect = site.options.ssl_redirect
    plain = {
        host for host in share.rules if (host not in with_tls if redirect is None else not redirect)
    }
    secured = {host: rules for host, rules in share.rules.items() if host not in plain}
    name = ingress_name(site.ref.namespace, site.ref.name, plain=True)
    opened = {host: rules for host, rules in share.rules.items() if host in plain}
    backends = (
        _backend(site, site.name, secured, ()),
        _backend(site, name, opened, (), allow_http=True),
    )
    return [found for found in backends if found is not None]


def _backend(
    site: Site,
    name: str,
    rules: Mapping[str, list[Rule]],
    streams: Iterable[str],
    *,
    allow_http: bool = False,
) -> dict[str, Any] | None:
    hosts = sorted({*rules, *streams})
    if not hosts:
        return None
    backend: dict[str, Any] = {"name": name, "hosts": hosts}
    if site.settings:
        backend |= site.settings
    http = _routes(rules, len(hosts))
    if http:
        backend["http"] = http
    else:
        _only_streams(backend)
    if streams and site.tcp is not None:
        backend["tcp"] = site.tcp
    if site.public:
        backend["public"] = True
    if allow_http:
        backend["allow_http"] = True
    if http and site.permissions:
        backend["permissions"] = site.permissions
    if site.upstream_tls and any(rule.target.is_https for some in rules.values() for rule in some):
        backend["upstream_tls"] = site.upstream_tls
    return backend


def _only_streams(backend: dict[str, Any]) -> None:
    """Take out what is about requests: the configuration refuses keys that mean nothing."""
    backend.pop("identity_headers", None)
    timeouts = backend.pop("timeouts", {})
    if "connect" in timeouts:
        backend["timeouts"] = {"connect": timeouts["connect"]}


def _routes(rules: Mapping[str, list[Rule]], hosts: int) -> list[dict[str, Any]]:
    """Routes by path; one that every host of the backend has is written once, without a host."""
    if hosts == 1:
        found = [_route(rule) for some in rules.values() for rule in some]
        if len(found) > 1:
            found.sort(key=_order)
        return found
    grouped: dict[_Place, list[Rule]] = {}
    for some in rules.values():
        for rule in some:
            place = (rule.path, rule.match, id(rule.target), rule.strip)
            grouped.setdefault(place, []).append(rule)
    routes: list[dict[str, Any]] = []
    for same in grouped.values():
        if len(same) == hosts:
            routes.append(_route(same[0]))
        else:
            routes.extend({"host": rule.host, **_route(rule)} for rule in same)
    return sorted(routes, key=_order)


def _order(route: Mapping[str, Any]) -> tuple[str, str, str]:
    return route["path"], route.get("match", ""), route.get("host", "")


def _route(rule: Rule) -> dict[str, Any]:
    target = rule.target
    route: dict[str, Any] = {"path": rule.path}
    if rule.match == "exact":
        route["match"] = "exact"
    if target.unavailable:
        route["unavailable"] = one_line(target.unavailable)
        return route
    if target.agent is not None:
        route["agent"], route["target"], scheme = target.agent
        if scheme == "https":
            route["scheme"] = scheme
    else:
        route["upstreams"] = target.upstreams
    if rule.strip and rule.path != "/":
        route["strip_prefix"] = True
    return route
