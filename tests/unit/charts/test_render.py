from __future__ import annotations

import json
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from tests.unit.charts.render import (
    CASES,
    CHART,
    NAMESPACE,
    Values,
    manifests,
    objects,
    only,
    values_of,
)

OURS = ("heim.dev/", "monitoring.coreos.com/", "apiextensions.k8s.io/")
OLDEST, NEWEST = "1.28", "1.37"
# Kinds that the oldest version does not have; values turn them on.
NEWER = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
CLUSTER_WIDE = ("Cluster", "ValidatingAdmission", "IngressClass", "CustomResourceDefinition")


def workloads(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in found if one["kind"] == "Deployment"]


@pytest.mark.parametrize("case", CASES)
def test_lint_has_nothing_to_say(case: str) -> None:
    found = helm_python.lint(CHART, values=values_of(case), namespace=NAMESPACE)
    assert found["errors"] == []
    assert [one for one in found["messages"] if "icon" not in one["error"]] == []


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("case", CASES)
def test_every_object_is_one_that_kubernetes_takes(case: str, version: str) -> None:
    for one in objects(values_of(case)):
        if one["apiVersion"].startswith(OURS) or (version == OLDEST and one["kind"] in NEWER):
            continue
        kubernetes_validate.validate(one, version, strict=True)


def test_an_object_that_kubernetes_refuses_would_be_noticed() -> None:
    one = only(objects(values_of("minimal")), "Service", "heim")
    one["spec"]["portz"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one, NEWEST, strict=True)


@pytest.mark.parametrize("case", CASES)
def test_rendering_twice_is_the_same_to_the_byte(case: str) -> None:
    """Argo CD and Flux render again and again, and what differs is drift."""
    assert manifests(values_of(case)) == manifests(values_of(case))


@pytest.mark.parametrize("case", CASES)
def test_every_namespaced_object_says_its_namespace(case: str) -> None:
    for one in objects(values_of(case)):
        metadata = one["metadata"]
        cluster_wide = one["kind"].startswith(CLUSTER_WIDE)
        assert ("namespace" in metadata) is not cluster_wide, (one["kind"], metadata["name"])


@pytest.mark.parametrize("case", CASES)
def test_no_two_objects_are_the_same(case: str) -> None:
    names = [
        (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"])
        for one in objects(values_of(case))
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", CASES)
def test_pods_are_restricted(case: str) -> None:
    """Pod Security Standards, restricted; a hostPort is asked for by name and needs more."""
    for one in workloads(objects(values_of(case))):
        pod = one["spec"]["template"]["spec"]
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= {
            "configMap", "secret", "emptyDir", "persistentVolumeClaim",
        }  # fmt: skip
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            ports = [port.get("hostPort") for port in container["ports"]]
            assert (case == "home") or not any(ports)


def test_nothing_random_and_nothing_looked_up_is_in_the_templates() -> None:
    for path in (CHART / "templates").rglob("*"):
        if path.is_file():
            text = path.read_text()
            for word in ("rand", "genCA", "genSigned", "uuidv4", "now |", "lookup"):
                assert word not in text, f"{path.name}: {word}"


class TestBootFile:
    def boot(self, case: str) -> dict[str, Any]:
        text = only(objects(values_of(case)), "ConfigMap", "heim-boot")["data"]["heim.yaml"]
        found: dict[str, Any] = yaml.safe_load(text)
        return found

    def test_secrets_are_files_that_are_mounted(self) -> None:
        found = objects(values_of("everything"))
        pod = only(found, "Deployment", "heim-proxy")["spec"]["template"]["spec"]
        mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        providers = self.boot("everything")["identity"]["providers"]
        assert [one["client_secret_file"] for one in providers] == [
            "/etc/heim/secrets/google/secret",
            "/etc/heim/secrets/keycloak/client-secret",
        ]
        for one in providers:
            assert one["client_secret_file"].rpartition("/")[0] in mounts
            assert "existingSecret" not in one

    def test_a_change_of_it_restarts_the_proxy_and_nothing_else_does(self) -> None:
        def checksum(**changed: Any) -> str:
            found = objects({**values_of("minimal"), **changed})
            template = only(found, "Deployment", "heim-proxy")["spec"]["template"]
            checksum: str = template["metadata"]["annotations"]["checksum/boot"]
            return checksum

        assert checksum(session={"lifetime": "1h"}) != checksum()
        assert checksum(spec={"defaultRoles": ["staff"]}) == checksum()


def test_the_proxy_has_time_to_drain() -> None:
    pod = only(objects(values_of("everything")), "Deployment", "heim-proxy")["spec"]["template"]
    assert pod["spec"]["terminationGracePeriodSeconds"] == 5 * 60 + 15


def test_notes_say_the_redirect_uri() -> None:
    (notes,) = (t for n, t in manifests(values_of("everything")).items() if n.endswith("NOTES.txt"))
    assert "https://login.x.example.com:8443/.heim/callback" in notes


BAD: dict[str, tuple[Values, str]] = {
    "no domain": ({}, "/domain"),
    "a domain that is none": ({"domain": "not a domain"}, "/domain"),
    "an unknown key": ({"domain": "x.example.com", "imagee": {}}, "imagee"),
    "a secret in values": (
        {
            "domain": "x.example.com",
            "identity": {"providers": [{"name": "g", "type": "google", "client_secret": "s3cret"}]},
        },
        "/identity/providers/0/client_secret",
    ),
    "a drain without unit": (
        {"domain": "x.example.com", "proxy": {"drain": "300"}}, "/proxy/drain",
    ),
    "a mode that is none": (
        {"domain": "x.example.com", "rbac": {"secrets": {"mode": "all"}}}, "/rbac/secrets/mode",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_value_is_named(case: str) -> None:
    values, place = BAD[case]
    with pytest.raises(helm_python.HelmValuesError) as caught:
        manifests(values)
    assert place in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_every_value_is_in_the_schema_and_explained() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(value: dict[str, Any], part: dict[str, Any], path: str) -> None:
        known = part.get("properties", {})
        for key, inner in value.items():
            assert key in known, f"{path}.{key}"
            if isinstance(inner, dict) and known[key].get("properties"):
                compare(inner, known[key], f"{path}.{key}")

    compare(values, schema, "")
    assert set(schema["properties"]) - set(values) == {"global"}
    assert NAMESPACE not in json.dumps(values)
