"""What the API server refuses: validation of the objects that our tests write, and selectors."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["BadSelector", "field_selected", "label_selected", "mistakes"]

Manifest = dict[str, Any]

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
WILDCARD = re.compile(r"\*\." + SUBDOMAIN.pattern)
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
ADDRESS = re.compile(r"[0-9.]+|.*:.*")
DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")

# Of a ConfigMap or Secret.
MAX_DATA = 2**20

CLASS_ANNOTATION = "kubernetes.io/ingress.class"


class BadSelector(Exception):  # noqa: N818 - what it is
    """A selector that cannot be read, or names a field that cannot be selected by."""


def mistakes(manifest: Manifest, before: Manifest | None) -> list[str]:
    """Why an object is refused; nothing when it is not.

    Args:
        manifest: The object as it would be.
        before: As it was, None on create.
    """
    name = str(manifest.get("metadata", {}).get("name", ""))
    found = []
    if not SUBDOMAIN.fullmatch(name) or len(name) > 253:
        found.append(f'metadata.name: Invalid value: "{name}": a lowercase RFC 1123 subdomain')
    rules: dict[str, Callable[[Manifest, Manifest | None], list[str]]] = {
        "Ingress": _ingress,
        "Secret": _secret,
        "Lease": _lease,
        "Event": _event,
        "ConfigMap": _config_map,
        "IngressClass": _ingress_class,
    }
    rule = rules.get(str(manifest.get("kind")))
    return found + (rule(manifest, before) if rule else [])


def _ingress(manifest: Manifest, before: Manifest | None) -> list[str]:
    spec = manifest.get("spec") or {}
    found = []
    annotations = manifest.get("metadata", {}).get("annotations") or {}
    if before is None and CLASS_ANNOTATION in annotations and spec.get("ingressClassName"):
        found.append(
            f"annotations.{CLASS_ANNOTATION}: Invalid value: can not be set when the class "
            "field is also set"
        )
    if not spec.get("rules") and not spec.get("defaultBackend"):
        found.append("spec: Invalid value: either `defaultBackend` or `rules` must be specified")
    if "defaultBackend" in spec:
        found += _backend(spec["defaultBackend"], "spec.defaultBackend")
    for number, rule in enumerate(spec.get("rules") or ()):
        at = f"spec.rules[{number}]"
        host = rule.get("host", "")
        if host and re.fullmatch(r"[0-9.]+|.*:.*", host):
            found.append(f'{at}.host: Invalid value: "{host}": must be a DNS name, not an IP')
        elif host and not (WILDCARD if host.startswith("*") else SUBDOMAIN).fullmatch(host):
            found.append(f'{at}.host: Invalid value: "{host}": a DNS-1123 subdomain')
        if "http" in rule and not rule["http"].get("paths"):
            found.append(f"{at}.http.paths: Required value")
        for place, path in enumerate((rule.get("http") or {}).get("paths") or ()):
            found += _path(path, f"{at}.http.paths[{place}]")
    return found


def _path(entry: Manifest, at: str) -> list[str]:
    found = _backend(entry.get("backend") or {}, f"{at}.backend")
    kind, path = entry.get("pathType"), entry.get("path", "")
    if kind is None:
        found.append(f"{at}.pathType: Required value: pathType must be specified")
    elif kind not in ("Exact", "Prefix", "ImplementationSpecific"):
        found.append(f'{at}.pathType: Unsupported value: "{kind}"')
    if kind == "ImplementationSpecific":
        if path and not path.startswith("/"):
            found.append(f'{at}.path: Invalid value: "{path}": must be an absolute path')
    elif not path.startswith("/"):
        found.append(f'{at}.path: Invalid value: "{path}": must be an absolute path')
    else:
        for part in ("//", "/./", "/../", "%2f", "%2F"):
            if part in path:
                found.append(f"{at}.path: Invalid value: must not contain '{part}'")
        for end in ("/..", "/."):
            if path.endswith(end):
                found.append(f"{at}.path: Invalid value: cannot end with '{end}'")
    return found


def _backend(backend: Manifest, at: str) -> list[str]:
    service, resource = backend.get("service"), backend.get("resource")
    if service and resource:
        return [f"{at}: Invalid value: cannot set both resource and service backends"]
    if resource:
        return []
    if not service:
        return [f"{at}: Required value: resource or service backend is required"]
    port = service.get("port") or {}
    if ("name" in port) == ("number" in port):
        return [f"{at}.service.port: port name or number is required, and not both"]
    if "number" in port and not 0 < port["number"] < 65536:
        return [f"{at}.service.port.number: Invalid value: must be between 1 and 65535"]
    return []


def _secret(manifest: Manifest, before: Manifest | None) -> list[str]:
    data, kind = manifest.get("data") or {}, manifest.get("type", "Opaque")
    found = _keys(data)
    if before is not None and before.get("type", "Opaque") != kind:
        found.append(f'type: Invalid value: "{kind}": field is immutable')
    if before is not None and before.get("immutable") and before.get("data") != data:
        found.append("data: Forbidden: field is immutable when `immutable` is set")
    if kind == "kubernetes.io/tls":
        found += [
            f"data[{key}]: Required value" for key in ("tls.crt", "tls.key") if key not in data
        ]
    for key, value in data.items():
        try:
            base64.b64decode(value or "", validate=True)
        except (binascii.Error, TypeError):
            found.append(f"data[{key}]: illegal base64 data")
    return found


def _config_map(manifest: Manifest, before: Manifest | None) -> list[str]:
    return _keys(manifest.get("data") or {})


def _keys(data: Manifest) -> list[str]:
    found = [f"data[{key}]: Invalid value" for key in data if not DATA_KEY.fullmatch(key)]
    if sum(len(str(value)) for value in data.values()) > MAX_DATA:
        found.append(f": Too long: must have at most {MAX_DATA} bytes")
    return found


def _lease(manifest: Manifest, before: Manifest | None) -> list[str]:
    spec = manifest.get("spec") or {}
    found = []
    if "leaseDurationSeconds" in spec and spec["leaseDurationSeconds"] <= 0:
        found.append("spec.leaseDurationSeconds: Invalid value: must be greater than 0")
    if spec.get("leaseTransitions", 0) < 0:
        found.append("spec.leaseTransitions: Invalid value: must be greater than or equal to 0")
    return found + [
        f"spec.{name}: parsing time as a MicroTime"
        for name in ("acquireTime", "renewTime")
        if spec.get(name) is not None and not MICRO_TIME.fullmatch(spec[name])
    ]


def _ingress_class(manifest: Manifest, before: Manifest | None) -> list[str]:
    spec = manifest.get("spec") or {}
    old = (before or {}).get("spec") or {}
    if before is not None and old.get("controller") != spec.get("controller"):
        return ["spec.controller: Invalid value: field is immutable"]
    if "/" not in str(spec.get("controller", "")):
        return ["spec.controller: Invalid value: must be a domain-prefixed path"]
    return []


def _event(manifest: Manifest, before: Manifest | None) -> list[str]:
    found = []
    regarding = manifest.get("regarding") or {}
    namespace = manifest["metadata"].get("namespace")
    if not regarding.get("namespace") and namespace != "kube-system":
        found.append("involvedObject.namespace: Invalid value: does not match event.namespace")
    if not MICRO_TIME.fullmatch(str(manifest.get("eventTime"))):
        found.append("eventTime: Required value")
    if "/" not in str(manifest.get("reportingController", "")):
        found.append("reportingController: Invalid value: a qualified name")
    for name, limit in (("reportingInstance", 128), ("action", 128), ("reason", 128)):
        if not 0 < len(str(manifest.get(name) or "")) <= limit:
            found.append(f"{name}: Required value, at most {limit} characters")
    if manifest.get("type") not in ("Normal", "Warning"):
        found.append("type: Invalid value: has invalid value")
    if len(str(manifest.get("note", "")).encode()) > 1024:
        found.append("message: Invalid value: can have at most 1024 characters")
    series = manifest.get("series")
    if series is not None and (
        series.get("count", 0) < 2 or not MICRO_TIME.fullmatch(str(series.get("lastObservedTime")))
    ):
        found.append("series: Invalid value: count should be at least 2, with lastObservedTime")
    if before is not None:
        found += [
            f"{name}: Invalid value: field is immutable"
            for name in ("eventTime", "type", "reason", "action", "note", "regarding")
            if before.get(name) != manifest.get(name)
        ]
    return found


def field_selected(manifest: Manifest, selector: str) -> bool:
    """Whether a field selector picks an object.

    Raises:
        BadSelector: A field that is not selectable for its kind.
    """
    metadata = manifest["metadata"]
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata.get("namespace", ""),
    }
    if manifest["kind"] == "Secret":
        fields["type"] = manifest.get("type", "Opaque")
    if manifest["kind"] == "Backend":
        fields["spec.host"] = (manifest.get("spec") or {}).get("host", "")
    # Every term is read, also after one that does not fit: a bad one is refused in any case.
    fits = True
    for term in filter(None, selector.split(",")):
        name, negated, value = _term(term)
        if name not in fields:
            raise BadSelector(f'field label not supported: "{name}"')
        fits &= (fields[name] == value) != negated
    return fits


def _term(term: str) -> tuple[str, bool, str]:
    found = re.fullmatch(r"\s*([^=!\s]+)\s*(!=|==|=)\s*([^()]*?)\s*", term)
    if found is None:
        raise BadSelector(f"invalid selector: '{term}'; can't understand it")
    return found[1], found[2] == "!=", found[3]


def label_selected(labels: Mapping[str, str], selector: str) -> bool:
    """Whether a label selector picks an object with these labels.

    Raises:
        BadSelector: It cannot be read.
    """
    terms = [term for term in re.split(r",(?![^(]*\))", selector) if term.strip()]
    found = [_label(labels, term) for term in terms]  # every term is read, the bad ones too
    return all(found)


def _label(labels: Mapping[str, str], term: str) -> bool:
    term = term.strip()
    of_set = re.fullmatch(r"([^\s!=(),]+)\s+(in|notin)\s+\(([^)]*)\)", term)
    if of_set:
        values = {value.strip() for value in of_set[3].split(",")}
        return (labels.get(of_set[1]) in values) == (of_set[2] == "in")
    if re.fullmatch(r"!?[^\s!=(),]+", term):
        return (term.lstrip("!") in labels) != term.startswith("!")
    name, negated, value = _term(term)
    return (labels.get(name) == value) != negated
