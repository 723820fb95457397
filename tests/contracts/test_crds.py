"""Our kinds on a real API server, and our own judge of objects beside it.

`tests.fakes.kube_schema` is only worth something because a real server judges the same objects
alike. Needs `KUBEBUILDER_ASSETS`; servers before 1.29 know no CEL rules, which are left out then.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from heim_controller.crds.manifests import KINDS, definitions
from tests.fakes.kube_objects import agent, backend, proxy
from tests.fakes.kube_real import RealKube, missing
from tests.fakes.kube_schema import complaints
from tests.unit.controller.test_crds_access import BAD as BAD_ACCESS
from tests.unit.controller.test_crds_access import GOOD as GOOD_ACCESS
from tests.unit.controller.test_crds_backend import BAD as BAD_BACKENDS
from tests.unit.controller.test_crds_backend import GOOD as GOOD_BACKENDS
from tests.unit.controller.test_crds_proxy import BAD as BAD_PROXIES
from tests.unit.controller.test_crds_proxy import GOOD as GOOD_PROXIES

WHY_NOT = missing()
pytestmark = [
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
    pytest.mark.timeout(90),
]

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PLURALS = {kind.resource.kind: kind.resource.plural for kind in KINDS}
ESTABLISHED_S = 30.0

SAMPLES: dict[str, dict[str, Any]] = {
    **{f"Backend {name}": backend("default/a", **spec) for name, spec in GOOD_BACKENDS.items()},
    **{f"Backend {name}": backend("default/a", **bad[0]) for name, bad in BAD_BACKENDS.items()},
    **{f"Proxy {name}": proxy("default/a", **spec) for name, spec in GOOD_PROXIES.items()},
    **{f"Proxy {name}": proxy("default/a", **bad[0]) for name, bad in BAD_PROXIES.items()},
    **GOOD_ACCESS,
    **{name: bad[0] for name, bad in BAD_ACCESS.items()},
    "Agent": agent("default/a", "ssh"),
    "Agent without targets": agent("default/a"),
}  # fmt: skip


def rules(schema: Any) -> Iterator[dict[str, str]]:
    if isinstance(schema, dict):
        yield from schema.get("x-kubernetes-validations", ())
        for inner in schema.values():
            yield from rules(inner)


# What an old server cannot find: broken rules, and fields that it drops.
NEWER = {rule["message"] for kind in KINDS for rule in rules(kind.schema)} | {"is not known"}
# 1.20 takes an empty text in a mapping for nothing; newer servers do not.
ODD = {"Proxy hosts by namespace"}


@pytest.fixture(scope="module")
def kube() -> Iterator[RealKube]:
    server = RealKube()
    try:
        server.start()
        for made in definitions():
            status, said = server.ask("POST", CRDS, made)
            assert status == 201, said
        until = time.monotonic() + ESTABLISHED_S
        for kind in KINDS:
            path = f"/apis/heim.dev/v1alpha1/namespaces/default/{kind.resource.plural}"
            while server.ask("GET", path)[0] != 200:
                assert time.monotonic() < until, f"{kind.resource} is not served"
                time.sleep(0.2)
        yield server
    finally:
        server.stop()


def minor(kube: RealKube) -> int:
    """The server's minor version; builds from source may not know theirs, and are old ones."""
    found = re.match(r"v1\.(\d+)", kube.version)
    return int(found[1]) if found else 0


def created(kube: RealKube, made: dict[str, Any]) -> tuple[bool, str]:
    path = f"/apis/heim.dev/v1alpha1/namespaces/default/{PLURALS[made['kind']]}"
    metadata = {"name": made["metadata"]["name"], "namespace": "default"}
    body = {**made, "apiVersion": "heim.dev/v1alpha1", "metadata": metadata}
    status, said = kube.ask("POST", f"{path}?fieldValidation=Strict", body)
    if status == 201:
        kube.ask("DELETE", f"{path}/{metadata['name']}")
    assert status in (201, 400, 422), said
    return status == 201, json.loads(said).get("message", "")


def test_schemas_are_structural_for_a_real_server(kube: RealKube) -> None:
    for made in definitions():
        _, said = kube.ask("GET", f"{CRDS}/{made['metadata']['name']}")
        conditions = {
            one["type"]: one["status"] for one in json.loads(said)["status"]["conditions"]
        }
        assert conditions["Established"] == "True"
        assert conditions.get("NonStructuralSchema", "False") == "False"


def test_objects_are_judged_alike(kube: RealKube) -> None:
    """All in one: a hundred skipped tests would say no more than one."""
    differing = {}
    for name, made in SAMPLES.items():
        ours = complaints(made)
        if minor(kube) < 29:
            ours = [one for one in ours if one.split(": ", 1)[1] not in NEWER]
        taken, said = created(kube, made)
        if taken is bool(ours) and not (minor(kube) < 29 and name in ODD):
            differing[name] = f"{ours}; the server: {said}"
    assert differing == {}
