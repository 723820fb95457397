"""What is left out of a document that is too large, so that one namespace stops nobody else.

The namespace that takes the most bytes goes first, with everything it has in the document. Nothing
of what others have is written differently for it. Where somebody else's broader rule could answer
for what went, it answers 503 instead; its hosts stay its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from heim_controller.translation.certificates import mirror_name
from heim_controller.translation.diagnostics import Diagnostic
from heim_controller.translation.document import canonical, compact
from heim_controller.translation.hosts import CATCH_ALL, parent_wildcard
from heim_controller.translation.objects import Key, Ref
from heim_controller.translation.reasons import REASONS
from heim_controller.translation.translate import Served, Translation

__all__ = ["shed", "weigh"]

_Part = Mapping[str, Any]

# Three labels, the first of which no object's name has: see `names`.
_CLOSED: Final = "closed.too-large"
_WHY: Final = "TooLarge: what this namespace asks for does not fit"
# More than this part of the limit is not spent on what is closed: others would have to go for it.
_MOST_CLOSED: Final = 8
# After an entry: a comma; and the end of its line, if it has one of its own.
_COMMA: Final = 1
_NEXT: Final = 2


def shed(translation: Translation, *, limit: int, proxy: Key) -> Translation:
    """A translation whose document has `limit` bytes at most.

    The Proxy's own namespace is never left out. Where that is not enough, or what has to answer 503
    is itself too large, the translation comes back as it is: what was published stays in force.

    Args:
        translation: Of everything.
        limit: Of the document's canonical bytes.
        proxy: The Proxy object, which is told as well.
    """
    document, left = translation.document, dict[str, int]()
    while (size := len(canonical(document))) > limit:
        sizes = weigh(replace(translation, document=document))
        closed = sum(sizes.pop(name) for name in [one for one in sizes if one.startswith(_CLOSED)])
        sizes.pop(proxy[0], None)
        ranked = sorted(sizes.items(), key=lambda one: (-one[1], one[0]))
        if not ranked or closed * _MOST_CLOSED > limit:
            return translation
        for namespace, weight in ranked:
            left[namespace] = weight
            size -= weight
            if size <= limit:
                break
        document = _without(translation, frozenset(left))
    return _told(translation, document, left, limit, proxy) if left else translation


def weigh(translation: Translation) -> Counter[str]:
    """How many bytes of a document each namespace takes."""
    document, secrets = translation.document, _secrets(translation)
    sizes: Counter[str] = Counter()
    for challenge in document["acme_challenges"]:
        solver = translation.solvers[challenge["host"], challenge["token"]]
        sizes[solver] += len(compact(challenge)) + _NEXT
    for backend in document["backends"]:
        sizes[_namespace(backend["name"])] += len(compact(backend)) + _NEXT
    for agent in document["agents"]:
        sizes[_namespace(agent["name"])] += len(compact(agent)) + _NEXT
    for role in document["roles"]:
        rest = dict(role)
        # What a Role opens was asked for by whoever names it.
        for binding in rest.pop("bindings"):
            sizes[_namespace(binding["backend"])] += len(compact(binding)) + _COMMA
        sizes[_namespace(role["name"])] += len(compact(rest)) + _NEXT
    for entry in document["tls"]["certificates"]:
        if "hosts" in entry:
            sizes[secrets[entry["secret"]]] += len(compact(entry)) + _NEXT
    return sizes


def _secrets(translation: Translation) -> dict[str, str]:
    """The namespace of each copied Secret: a copy's name alone may not tell."""
    return {mirror_name(key): key[0] for key in translation.secrets}


def _namespace(name: str) -> str:
    """Whose a name of the configuration is: ingress.NAMESPACE.NAME, or NAMESPACE.NAME."""
    first, *rest = name.split(".")
    if first == _CLOSED.partition(".")[0] and name.startswith(f"{_CLOSED}."):
        return name
    is_ingress = len(rest) > 1 and first.startswith("ingress")
    return rest[0] if is_ingress else first


def _without(translation: Translation, left: frozenset[str]) -> dict[str, Any]:
    """The document without what some namespaces have in it."""
    document, secrets, solvers = translation.document, _secrets(translation), translation.solvers

    def stays(name: str) -> bool:
        return _namespace(name) not in left

    kept = [one for one in document["backends"] if stays(one["name"])]
    gone = [one for one in document["backends"] if not stays(one["name"])]
    roles = []
    for role in document["roles"]:
        bindings = [one for one in role["bindings"] if stays(one["backend"])]
        # One that gives nothing is not in a document, as in `access`.
        is_flagged = not role.keys() <= {"name", "members", "bindings"}
        if stays(role["name"]) and (bindings or is_flagged):
            roles.append({**role, "bindings": bindings})
    tls = document["tls"]
    shown = [
        one
        for one in tls["certificates"]
        if "hosts" not in one or secrets[one["secret"]] not in left
    ]
    challenges = [
        one for one in document["acme_challenges"] if solvers[one["host"], one["token"]] not in left
    ]
    return {
        **document,
        "acme_challenges": challenges,
        "agents": [one for one in document["agents"] if stays(one["name"])],
        "backends": sorted([*kept, *_closed(kept, gone)], key=lambda one: str(one["name"])),
        "roles": roles,
        "tls": {**tls, "certificates": shown},
    }


def _closed(kept: list[_Part], gone: list[_Part]) -> Iterator[dict[str, Any]]:
    """What answers 503 instead of what is gone, where otherwise somebody else would answer."""
    served = frozenset([host for one in kept for host in one["hosts"]])
    covered: set[str] = set()
    places: set[tuple[str, str, str]] = set()
    for backend in gone:
        for host in backend["hosts"]:
            if host not in served:
                if CATCH_ALL in served or parent_wildcard(host) in served:
                    covered.add(host)
                continue
            for route in backend.get("http", ()):
                if route.get("host", host) == host:
                    places.add((host, route["path"], route.get("match", "")))
    if covered:
        route = {"path": "/", "unavailable": _WHY}
        yield {"name": f"{_CLOSED}.hosts", "hosts": sorted(covered), "public": True,
               "http": [route]}  # fmt: skip
    if places:
        routes = [
            {"host": host, "path": path, "unavailable": _WHY} | ({"match": match} if match else {})
            for host, path, match in sorted(places)
        ]
        hosts = sorted({place[0] for place in places})
        yield {"name": f"{_CLOSED}.paths", "hosts": hosts, "public": True, "http": routes}


def _told(
    translation: Translation, document: _Part, left: Mapping[str, int], limit: int, proxy: Key
) -> Translation:
    diagnostics = set(translation.diagnostics)
    served = []
    for one in translation.served:
        size = left.get(one.ref.namespace)
        if size is not None:
            message = (
                f"namespace {one.ref.namespace} takes {size} bytes of the configuration, which may "
                f"have {limit} in all: nothing of the namespace is served until it takes less"
            )
            diagnostics.add(_diagnostic(one.ref, "TooLarge", message))
            one = Served(one.ref, one.generation, (), False, one.resolved)
        served.append(one)
    for namespace, size in left.items():
        message = (
            f"namespace {namespace} is left out: it takes {size} bytes of the configuration, which "
            f"may have {limit} in all"
        )
        diagnostics.add(_diagnostic(Ref("Proxy", *proxy), "NamespaceLeftOut", message))
    shown = {entry["secret"] for entry in document["tls"]["certificates"]}
    return replace(
        translation,
        document=document,
        secrets=frozenset(one for one in translation.secrets if mirror_name(one) in shown),
        diagnostics=tuple(sorted(diagnostics)),
        served=tuple(served),
    )


def _diagnostic(ref: Ref, reason: str, message: str) -> Diagnostic:
    severity = REASONS[reason].severity.value
    return Diagnostic(ref.kind, ref.namespace, ref.name, reason, message, severity)
