"""A full translation of a large cluster, with its document as bytes: CPU time and memory.

    .venv/bin/python -m bench.controller.translate [--ingresses 5000] [--rounds 9]

Objects are what an API server sends, parsed from JSON, as the controller's caches hold them: every
Ingress has its own Service, EndpointSlice with two endpoints, TLS Secret, two paths and the usual
annotations; ten of them share a namespace and its Role. Time is CPU time of this process; memory is
what it holds more than with the objects alone: at the highest, and after everything but the last
document was let go.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, Final

from heim_controller.translation.document import canonical
from heim_controller.translation.objects import CertificateFacts, Key, Objects
from heim_controller.translation.settings import CONTROLLER, Settings
from heim_controller.translation.translate import Translation, translate

__all__ = ["main", "objects"]

_LIMIT_MS: Final = 300.0
_LIMIT_MIB: Final = 80.0
_PER_NAMESPACE: Final = 10
# Objects of one answer to a list; those share the strings of their keys.
_PAGE: Final = 500
_SETTINGS: Final = Settings(("heim", "main"), "example.test", providers={"idp": frozenset()})


def objects(count: int) -> Objects:
    """A cluster of `count` Ingresses with everything that belongs to them."""
    kinds: dict[str, dict[Key, Any]] = {
        kind: dict(_parsed(kind, count))
        for kind in ("ingresses", "services", "endpoint_slices", "namespaces", "roles")
    }
    kinds["role_bindings"] = dict(_parsed("role_bindings", count))
    classes = {("", "heim"): {"metadata": {"name": "heim"}, "spec": {"controller": CONTROLLER}}}
    proxy = {"metadata": {"name": "main", "namespace": "heim"}, "spec": {"domain": "example.test"}}
    certificates = {
        (_space(i), f"web{i}-tls"): CertificateFacts((f"app{i}.example.com",)) for i in range(count)
    }
    return Objects(
        ingress_classes=classes,
        proxies={("heim", "main"): proxy},
        certificates=certificates,
        **kinds,
    )


def _space(number: int) -> str:
    return f"team-{number // _PER_NAMESPACE}"


def _parsed(kind: str, count: int) -> Iterator[tuple[Key, Any]]:
    """Objects as an informer has them after its first list: parsed by the page."""
    step = 1 if kind in ("ingresses", "services", "endpoint_slices") else _PER_NAMESPACE
    made = []
    for number in range(0, count, step):
        meta, spec = _object(kind, number)
        made.append({"metadata": {**_meta(number), **meta}, **spec})
    for start in range(0, len(made), _PAGE):
        for one in json.loads(json.dumps(made[start : start + _PAGE])):
            namespace = "" if kind == "namespaces" else one["metadata"]["namespace"]
            yield (namespace, one["metadata"]["name"]), one


def _meta(number: int) -> dict[str, Any]:
    return {
        "namespace": _space(number),
        "creationTimestamp": f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:00Z",
        "uid": f"00000000-0000-4000-8000-{number:012}",
        "resourceVersion": str(10_000 + number),
        "generation": 3,
        "labels": {"app.kubernetes.io/name": f"web{number}", "app.kubernetes.io/part-of": "bench"},
    }


def _object(kind: str, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    name = f"web{number}"
    backend = {"service": {"name": name, "port": {"number": 80}}}
    port = {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}
    ready = {"ready": True, "serving": True, "terminating": False}
    match kind:
        case "ingresses":
            notes = {"heim.dev/roles": "viewers", "cert-manager.io/cluster-issuer": "letsencrypt"}
            paths = [
                {"path": path, "pathType": "Prefix", "backend": backend} for path in ("/", "/api")
            ]
            host = f"app{number}.example.com"
            spec = {
                "ingressClassName": "heim",
                "rules": [{"host": host, "http": {"paths": paths}}],
                "tls": [{"hosts": [host], "secretName": f"{name}-tls"}],
            }
            return {"name": name, "annotations": notes}, {"spec": spec}
        case "services":
            return {"name": name}, {"spec": {"clusterIP": "10.96.7.7", "ports": [port]}}
        case "endpoint_slices":
            labels = {"kubernetes.io/service-name": name}
            there = f"10.{number // 65025 + 1}.{number // 255 % 255}.{number % 255}"
            endpoints = [
                {"addresses": [one], "conditions": ready} for one in (there, f"10.2{there[4:]}")
            ]
            slice_port = {"name": "http", "port": 8080, "protocol": "TCP"}
            return (
                {"name": f"{name}-abcde", "labels": labels},
                {"addressType": "IPv4", "endpoints": endpoints, "ports": [slice_port]},
            )
        case "namespaces":
            return {"name": _space(number)}, {}
        case "roles":
            return {"name": "viewers"}, {"spec": {"title": "Viewers"}}
        case _:
            subjects = [{"group": _space(number)}, {"user": f"lead{number}@example.com"}]
            return {"name": "viewers"}, {
                "spec": {"roleRef": {"name": "viewers"}, "subjects": subjects}
            }


def _held_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise OSError("no VmRSS in /proc/self/status")


def main() -> int:
    """Measure, print one line per measure, and say by the exit status whether both are met."""
    parser = argparse.ArgumentParser(description="CPU time and memory of a full translation.")
    parser.add_argument("--ingresses", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    made = objects(options.ingresses)
    small = objects(10)
    translate(small, _SETTINGS)
    gc.collect()
    before = _held_kib()
    times: list[float] = []
    last: Translation | None = None
    content = b""
    for _ in range(options.rounds):
        start = time.process_time()
        last = translate(made, _SETTINGS, owners=last.owners if last is not None else None)
        content = canonical(last.document)
        times.append((time.process_time() - start) * 1000)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gc.collect()
    paths = sum(len(one["http"]) for one in last.document["backends"]) if last else 0
    growth = (peak - before) / 1024
    kept = (_held_kib() - before) / 1024
    spread = f"{min(times):.0f} to {max(times):.0f}"
    print(f"{options.ingresses} Ingresses, {paths} paths, {len(content) / 1e6:.2f} MB of document")
    print(f"CPU: median {median(times):.0f} ms of {options.rounds} ({spread}); limit {_LIMIT_MS:g}")
    print(f"memory: +{growth:.0f} MiB at the highest, +{kept:.0f} MiB kept; limit {_LIMIT_MIB:g}")
    return 0 if median(times) <= _LIMIT_MS and growth <= _LIMIT_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
