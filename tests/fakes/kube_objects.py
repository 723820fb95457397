"""Builders of Kubernetes objects, as an API server would send them; and of all of them together.

Each builder returns a plain dict. `cluster` sorts any number of them into `Objects` by their kind,
so that a test names the objects it is about and nothing else.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

from heim_config.document import parse
from heim_config.layers import Boot, combine, read_document
from heim_config.load import load_parsed
from heim_config.model import Config
from heim_controller.translation.document import canonical
from heim_controller.translation.objects import CertificateFacts, Key, Objects
from heim_controller.translation.settings import CONTROLLER, Settings
from heim_controller.translation.translate import Translation, translate
from heim_proxy.snapshot import policy_of, routes_of
from tests.fakes.snapshots import FILE, IDP

__all__ = [
    "BOOT",
    "PROXY",
    "SETTINGS",
    "T0",
    "agent",
    "at",
    "backend",
    "backend_named",
    "binding",
    "certificate",
    "challenge",
    "cluster",
    "endpoint_slice",
    "ingress",
    "ingress_class",
    "loaded",
    "namespace",
    "path",
    "proxy",
    "reasons",
    "role",
    "routes",
    "rule",
    "service",
    "solver",
    "translated",
    "web",
]

Made = dict[str, Any]

PROXY: Key = ("heim", "main")
SETTINGS = Settings(PROXY, "example.test", providers={"idp": frozenset()})
T0 = "2026-01-01T00:00:00Z"

# What a boot file says, so that a document can be loaded with it.
BOOT: Made = {
    "version": 1,
    "domain": "example.test",
    "source": {"kubernetes": {"config_map": "heim-configuration"}},
    "session": {"key_file": "session.key"},
    "state": {"url": "sqlite:///var/lib/heim/state.db"},
    "identity": {
        "providers": [
            {
                "name": "idp",
                "type": "oidc",
                "issuer": IDP,
                "client_id": "heim",
                "client_secret_file": "client.secret",
            }
        ]
    },
}


def at(seconds: int) -> str:
    """A time `seconds` after `T0`, less than an hour."""
    return f"2026-01-01T00:{seconds // 60:02}:{seconds % 60:02}Z"


def _made(kind: str, name: str, spec: Mapping[str, Any], **meta: Any) -> Made:
    """An object; `name` is ``namespace/name``, or a name for cluster-wide kinds."""
    namespace_, slash, bare = name.rpartition("/")
    metadata: Made = {"name": bare, "creationTimestamp": T0, "generation": 1, **meta}
    if slash:
        metadata["namespace"] = namespace_
    return {"kind": kind, "metadata": metadata, "spec": dict(spec)}


def path(text: str, service_: str = "web", *, kind: str = "Prefix", port: int | str = 80) -> Made:
    """A path of an Ingress rule."""
    number = {"number": port} if isinstance(port, int) else {"name": port}
    backend_ = {"service": {"name": service_, "port": number}}
    return {"path": text, "pathType": kind, "backend": backend_}


def rule(host: str | None, *paths: Made | str) -> Made:
    """A rule of an Ingress; a path as text is a Prefix to Service `web`."""
    made: Made = {} if host is None else {"host": host}
    if paths:
        made["http"] = {"paths": [path(one) if isinstance(one, str) else one for one in paths]}
    return made


def ingress(name: str, *rules: Made, notes: Mapping[str, str] | None = None, **keys: Any) -> Made:
    """An Ingress of class `heim`. `notes` are annotations: ours without prefix, others whole.

    `keys` are those of the spec; `created` is its creation time, `labels` its labels.
    """
    meta: Made = {"creationTimestamp": keys.pop("created", T0)}
    if "labels" in keys:
        meta["labels"] = keys.pop("labels")
    if notes is not None:
        meta["annotations"] = {
            key if "/" in key else f"heim.dev/{key}": value for key, value in notes.items()
        }
    spec: Made = {"ingressClassName": "heim", **keys}
    if rules:
        spec["rules"] = list(rules)
    return _made("Ingress", name, spec, **meta)


def ingress_class(
    name: str = "heim", *, default: bool = False, parameters: Any = None, **spec: Any
) -> Made:
    """An IngressClass of ours."""
    made = _made("IngressClass", name, {"controller": CONTROLLER, **spec})
    if parameters is not None:
        made["spec"]["parameters"] = parameters
    if default:
        made["metadata"]["annotations"] = {"ingressclass.kubernetes.io/is-default-class": "true"}
    return made


def namespace(name: str, *, notes: Mapping[str, str] | None = None, **labels: str) -> Made:
    """A Namespace with labels (underscores for hyphens), and the one every namespace has."""
    known = {"kubernetes.io/metadata.name": name}
    known |= {key.replace("_", "-"): value for key, value in labels.items()}
    return _made("Namespace", name, {}, labels=known, annotations=dict(notes or {}))


def service(name: str, *ports: Made, labels: Any = None, **spec: Any) -> Made:
    """A Service with a cluster IP and port 80 without a name, unless said otherwise."""
    whole: Made = {"type": "ClusterIP", "clusterIP": "10.96.0.10", **spec}
    whole["ports"] = list(ports) or [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]
    return _made("Service", name, whole, labels=labels or {})


def endpoint_slice(
    name: str, *addresses: str, port: int = 8080, port_name: str = "", **keys: Any
) -> Made:
    """The EndpointSlice of the Service `name`; `conditions` are those of every endpoint."""
    namespace_, _, bare = name.rpartition("/")
    conditions = keys.pop("conditions", {"ready": True})
    made = _made(
        "EndpointSlice",
        f"{namespace_}/{bare}-{keys.pop('suffix', 'x7k2p')}",
        {},
        labels={"kubernetes.io/service-name": bare},
    )
    del made["spec"]
    made["addressType"] = "IPv4"
    made["endpoints"] = [{"addresses": [one], "conditions": conditions} for one in addresses]
    made["ports"] = [{"name": port_name, "port": port, "protocol": "TCP"}]
    return {**made, **keys}


def web(namespace_: str, name: str = "web", address: str = "10.1.0.1") -> list[Made]:
    """A Service with one endpoint: what most rules lead to."""
    whole = f"{namespace_}/{name}"
    return [service(whole), endpoint_slice(whole, address)]


def solver(namespace_: str, name: str = "cm-acme-http-solver-x", **labels: str) -> list[Made]:
    """What cert-manager creates to answer a challenge: the Service and its endpoint."""
    known = labels or {"acme.cert-manager.io/http01-solver": "true"}
    port = {"name": "http", "port": 8089, "targetPort": 8089, "protocol": "TCP"}
    whole = f"{namespace_}/{name}"
    return [
        service(whole, port, labels=known, type="NodePort"),
        endpoint_slice(whole, "10.1.9.9", port=8089, port_name="http"),
    ]


def challenge(token: str, name: str = "cm-acme-http-solver-x", *, kind: str = "Exact") -> Made:
    """The path of a challenge."""
    return path(f"/.well-known/acme-challenge/{token}", name, kind=kind, port=8089)


def proxy(name: str = "heim/main", **spec: Any) -> Made:
    """The Proxy."""
    return _made("Proxy", name, {"domain": "example.test", **spec})


def backend(name: str, **spec: Any) -> Made:
    """A Backend object; `created` is its creation time."""
    created = spec.pop("created", T0)
    return _made("Backend", name, spec, creationTimestamp=created)


def role(name: str, *permissions: Made, **spec: Any) -> Made:
    """A Role."""
    whole = {"permissions": list(permissions), **spec} if permissions else spec
    return _made("Role", name, whole)


def binding(name: str, role_: str, *subjects: Made) -> Made:
    """A RoleBinding."""
    return _made("RoleBinding", name, {"roleRef": {"name": role_}, "subjects": list(subjects)})


def agent(name: str, *targets: str, **spec: Any) -> Made:
    """An Agent."""
    return _made("Agent", name, {"targets": list(targets), **spec})


def certificate(name: str, *names: str, **facts: Any) -> tuple[Key, CertificateFacts]:
    """A TLS Secret whose certificate is for `names`."""
    namespace_, _, bare = name.rpartition("/")
    return (namespace_, bare), CertificateFacts(names, **facts)


_KINDS = {
    "Ingress": "ingresses",
    "IngressClass": "ingress_classes",
    "Service": "services",
    "EndpointSlice": "endpoint_slices",
    "Namespace": "namespaces",
    "Proxy": "proxies",
    "Backend": "backends",
    "Role": "roles",
    "RoleBinding": "role_bindings",
    "Agent": "agents",
}


def cluster(
    *made: Made | tuple[Key, CertificateFacts] | Iterable[Made], bare: bool = False
) -> Objects:
    """Objects by kind; with a class, a Proxy and every namespace that is used, unless `bare`."""
    found: dict[str, dict[Key, Any]] = {field: {} for field in [*_KINDS.values(), "certificates"]}
    flat: list[Any] = []
    for one in made:
        flat.extend([one] if isinstance(one, (dict, tuple)) else one)
    for one in flat:
        if isinstance(one, tuple):
            found["certificates"][one[0]] = one[1]
            continue
        meta = one["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        found[_KINDS[one["kind"]]][key] = copy.deepcopy(one)
    if not bare:
        if not found["ingress_classes"]:
            found["ingress_classes"]["", "heim"] = ingress_class()
        found["proxies"].setdefault(PROXY, proxy())
        for space in {key[0] for field in found.values() for key in field} - {""}:
            found["namespaces"].setdefault(("", space), namespace(space))
    return Objects(**found)


def translated(*made: Any, settings: Settings = SETTINGS, **keys: Any) -> Translation:
    """The translation of objects, or of `Objects`."""
    objects = made[0] if made and isinstance(made[0], Objects) else cluster(*made)
    return translate(objects, settings, **keys)


def reasons(translation: Translation, name: str | None = None) -> list[str]:
    """The reasons that were said, sorted; of one object (by name) or of all."""
    return sorted(one.reason for one in translation.diagnostics if name is None or one.name == name)


def routes(translation: Translation) -> dict[str, list[str]]:
    """For each ``host path`` (= in front of an exact path): upstreams, or why there are none."""
    found: dict[str, list[str]] = {}
    for made in translation.document["backends"]:
        for route in made.get("http", ()):
            for host in [route["host"]] if "host" in route else made["hosts"]:
                mark = "=" if route.get("match") == "exact" else ""
                leads = [route["unavailable"]] if "unavailable" in route else None
                leads = leads or route.get("upstreams") or [f"{route['agent']}/{route['target']}"]
                key = f"{host} {mark}{route['path']}"
                assert key not in found, f"{key} is routed twice"
                found[key] = leads
    return found


def backend_named(translation: Translation, name: str) -> Made:
    """A backend of the document."""
    [found] = [one for one in translation.document["backends"] if one["name"] == name]
    return dict(found)


@functools.cache
def _boot() -> Boot:
    text = json.dumps(BOOT)
    parsed = parse(text)
    return Boot(FILE, text, parsed, load_parsed(parsed, file=FILE, check_files=False))


def loaded(translation: Translation) -> Config:
    """What a proxy makes of the document together with its boot file, up to routes and policy."""
    document = read_document(canonical(translation.document), name="document")
    config = combine(_boot(), document, name="document", check_files=False)
    routes_of(config)
    policy_of(config)
    return config
