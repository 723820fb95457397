"""`heim-controller translate`: what manifests would become, without a cluster.

Also the first step of a migration: Ingresses of another controller are read as though their class
were ours, and every annotation that would not be kept is said.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from heim_controller.certificates import Book
from heim_controller.issuing import with_issued
from heim_controller.options import settings_of
from heim_controller.translation.document import canonical
from heim_controller.translation.objects import Key, Objects, annotations_of, mapping, text
from heim_controller.translation.reasons import REASONS, Severity
from heim_controller.translation.settings import CONTROLLER, Settings
from heim_controller.translation.translate import Translation, translate
from heim_runtime.complaints import FAILED, OK, Complaint

__all__ = ["command", "objects_of"]

_FIELDS: Final[Mapping[str, str]] = {
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
# Kinds that RBAC has too.
_OURS: Final = ("Proxy", "Backend", "Role", "RoleBinding", "Agent")
_CLUSTER: Final = ("IngressClass", "Namespace")
_CLASS: Final = "kubernetes.io/ingress.class"

# What people pipe in is a cluster's export at most.
MAX_BYTES: Final = 256 * 2**20


def command(args: argparse.Namespace) -> int:
    """Print the document; 1 when something would not be served.

    Raises:
        Complaint: A file cannot be read or is no YAML.
    """
    settings = settings_of(args, os.environ, proxy="heim/heim")
    found = [one for name in args.files for one in _manifests(name)]
    objects = objects_of(found, settings, classes=args.ingress_class)
    now = time.time()
    translation = translate(objects, settings, now=now)
    if args.json:
        sys.stdout.write(json.dumps(_as_json(translation), indent=2, sort_keys=True) + "\n")
    else:
        # Through JSON, so that what is shared is written out and not as an alias.
        plain = json.loads(canonical(translation.document))
        sys.stdout.write(yaml.safe_dump(plain, sort_keys=True))
        for line in _lines(translation):
            sys.stderr.write(f"{line}\n")
    errors = (one.severity == Severity.ERROR.value for one in translation.diagnostics)
    return FAILED if any(errors) else OK


def objects_of(
    manifests: Iterable[Mapping[str, Any]],
    settings: Settings,
    *,
    classes: Iterable[str] | None = None,
) -> Objects:
    """Manifests, sorted into what a translation reads; kinds that it does not read are left out.

    Args:
        manifests: As kubectl prints them; without a namespace they are of `default`.
        settings: For whom.
        classes: Classes to take for ours. None: those of ours among the manifests, and if there
            are none every class that an Ingress names.
    """
    kinds: dict[str, dict[Key, Any]] = {name: {} for name in _FIELDS.values()}
    secrets: dict[Key, dict[str, Any]] = {}
    for found in manifests:
        kind, key = text(found.get("kind")), _key(found)
        if kind == "Secret" and key[1]:
            secrets[key] = dict(found)
        if kind in _OURS and not text(found.get("apiVersion")).startswith("heim.dev/"):
            continue
        if kind in _FIELDS and key[1]:
            kinds[_FIELDS[kind]][key] = found
    for name in _adopted(kinds, classes):
        kinds["ingress_classes"]["", name] = {
            "kind": "IngressClass",
            "metadata": {"name": name},
            "spec": {"controller": CONTROLLER},
        }
    known = Book().look(secrets, {}, now=time.time())
    proxies = with_issued(kinds.pop("proxies"), settings)
    return Objects(**kinds, proxies=proxies, certificates=known)


def _adopted(kinds: Mapping[str, Mapping[Key, Any]], classes: Iterable[str] | None) -> set[str]:
    if classes is not None:
        return set(classes)
    there = kinds["ingress_classes"].values()
    if any(mapping(one.get("spec")).get("controller") == CONTROLLER for one in there):
        return set()
    named = {
        text(mapping(one.get("spec")).get("ingressClassName"))
        or text(annotations_of(one).get(_CLASS))
        for one in kinds["ingresses"].values()
    }
    return named - {""}


def _key(found: Mapping[str, Any]) -> Key:
    metadata = mapping(found.get("metadata"))
    name = text(metadata.get("name"))
    if found.get("kind") in _CLUSTER:
        return "", name
    return text(metadata.get("namespace")) or "default", name


def _manifests(name: str) -> Iterator[dict[str, Any]]:
    """Every object in a file, lists opened."""
    try:
        content = sys.stdin.buffer.read(MAX_BYTES) if name == "-" else Path(name).read_bytes()
        documents = list(yaml.load_all(content, Loader=_Loader))
    except OSError as e:
        raise Complaint(f"{name}: {e.strerror or e}", FAILED) from e
    except (yaml.YAMLError, ValueError) as e:
        raise Complaint(f"{name} is no YAML: {' '.join(str(e).split())}", FAILED) from e
    for document in documents:
        yield from _opened(document)


def _opened(document: object) -> Iterator[dict[str, Any]]:
    if not isinstance(document, dict):
        return
    items = document.get("items")
    if text(document.get("kind")).endswith("List") and isinstance(items, list):
        for item in items:
            yield from _opened(item)
    else:
        yield document


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as Kubernetes means it: times stay text."""


_Loader.yaml_implicit_resolvers = {
    first: [one for one in resolvers if one[0] != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _lines(translation: Translation) -> Iterator[str]:
    for one in translation.diagnostics:
        place = f" {one.field}" if one.field else ""
        yield f"{one.severity} {one.ref}{place}: {one.reason}: {one.message}"
        yield f"    {REASONS[one.reason].remedy}"
    yield f"{len(translation.served)} objects, {len(translation.diagnostics)} remarks"


def _as_json(translation: Translation) -> dict[str, Any]:
    return {
        "document": translation.document,
        "diagnostics": [
            {
                "object": {"kind": one.kind, "namespace": one.namespace, "name": one.name},
                "severity": one.severity,
                "reason": one.reason,
                "message": one.message,
                "field": one.field,
                "remedy": REASONS[one.reason].remedy,
            }
            for one in translation.diagnostics
        ],
        "secrets": ["/".join(key) for key in sorted(translation.secrets)],
    }
