"""A full translation of a large cluster, with its document as bytes: CPU time and memory.

    .venv/bin/python -m bench.controller.translate [--ingresses 5000] [--rounds 9]

Objects are what an API server sends, parsed from JSON, as the controller's caches hold them: every
Ingress has its own Service, EndpointSlice with two endpoints, TLS Secret, two paths and the usual
annotations; ten of them share a namespace and its Role. Time is CPU time of this process; memory is
what it holds more than with the objects alone: at the highest, and after everything but the last
document and what the next translation takes over was let go.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from heim_controller.translation.document import canonical
from heim_controller.translation.memory import Memory
from heim_controller.translation.objects import CertificateFacts, Key, Objects
from heim_controller.translation.settings import CONTROLLER, Settings
from heim_controller.translation.translate import Translation, translate
from heim_runtime.collector import paused

__all__ = ["SETTINGS", "TranslationSample", "held_kib", "highest_kib", "main", "measure", "objects"]

_LIMIT_MS: Final = 300.0
_LIMIT_MIB: Final = 80.0
_PER_NAMESPACE: Final = 10
# Objects of one answer to a list; those share the strings of their keys.
_PAGE: Final = 500
SETTINGS: Final = Settings(("heim", "main"), "example.test", providers={"idp": frozenset()})


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


def held_kib() -> int:
    """What this process holds, in KiB."""
    return _status("VmRSS:")


def highest_kib() -> int:
    """The most that this process ever held, in KiB."""
    return _status("VmHWM:")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    raise OSError(f"no {key} in /proc/self/status")


@dataclass(frozen=True, slots=True)
class TranslationSample:
    """One process: CPU and wall milliseconds of every round, and memory.

    Attributes:
        whole: Rounds from scratch.
        changed: Rounds after a change of one Ingress, with what the round before left.
    """

    ingresses: int
    paths: int
    document_mb: float
    whole: list[tuple[float, float]]
    changed: list[tuple[float, float]]
    high_mib: float
    kept_mib: float

    @property
    def cpu(self) -> float:
        return median(cpu for cpu, _ in self.changed)

    @property
    def wall(self) -> float:
        return median(wall for _, wall in self.changed)

    @property
    def whole_cpu(self) -> float:
        return median(cpu for cpu, _ in self.whole)

    @property
    def whole_wall(self) -> float:
        return median(wall for _, wall in self.whole)


def measure(count: int, *, rounds: int) -> TranslationSample:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "bench.controller.translate", "--json"]
    command += ["--ingresses", str(count), "--rounds", str(rounds)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    return TranslationSample(**json.loads(done.stdout))


def _here(count: int, rounds: int) -> TranslationSample:
    made = objects(count)
    small = objects(10)
    translate(small, SETTINGS)
    gc.collect()
    before = held_kib()
    whole = [_round(made, None)[0] for _ in range(rounds)]
    memory = Memory()
    _, last, content = _round(made, memory)
    changed = []
    for number in range(rounds):
        made = _with_change(made, number)
        took, last, content = _round(made, memory, last)
        changed.append(took)
    high = highest_kib()
    gc.collect()
    return TranslationSample(
        ingresses=count,
        paths=sum(len(one["http"]) for one in last.document["backends"]),
        document_mb=len(content) / 1e6,
        whole=whole,
        changed=changed,
        high_mib=(high - before) / 1024,
        kept_mib=(held_kib() - before) / 1024,
    )


def _round(
    made: Objects, memory: Memory | None, last: Translation | None = None
) -> tuple[tuple[float, float], Translation, bytes]:
    """CPU and wall milliseconds of one translation with its JSON, and both of them."""
    start, began = time.process_time(), time.perf_counter()
    with paused():
        found = translate(made, SETTINGS, owners=last.owners if last else None, memory=memory)
        content = canonical(found.document, None if memory is None else memory.texts)
    took = (time.process_time() - start) * 1000, (time.perf_counter() - began) * 1000
    return took, found, content


def _with_change(made: Objects, number: int) -> Objects:
    """The cluster after the path of one Ingress was edited."""
    key = (_space(7), "web7")
    after = copy.deepcopy(made.ingresses[key])
    after["spec"]["rules"][0]["http"]["paths"][1]["path"] = f"/changed/{number}"
    return replace(made, ingresses={**made.ingresses, key: after})


def main() -> int:
    """Measure, print one line per measure, and say by the exit status whether both are met."""
    parser = argparse.ArgumentParser(description="CPU time and memory of a full translation.")
    parser.add_argument("--ingresses", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    options = parser.parse_args()
    found = _here(options.ingresses, options.rounds)
    if options.json:
        print(json.dumps(asdict(found)))
        return 0
    print(f"{found.ingresses} Ingresses, {found.paths} paths, {found.document_mb:.2f} MB")
    print(
        f"CPU: from scratch {found.whole_cpu:.0f} ms (median of {options.rounds}), after a change "
        f"{found.cpu:.0f} ms; limit {_LIMIT_MS:g}"
    )
    print(
        f"memory: +{found.high_mib:.0f} MiB at the highest, +{found.kept_mib:.0f} MiB kept; "
        f"limit {_LIMIT_MIB:g}"
    )
    return 0 if found.whole_cpu <= _LIMIT_MS and found.high_mib <= _LIMIT_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
