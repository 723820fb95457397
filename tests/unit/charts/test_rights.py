"""Who may do what in the cluster, verb by verb: a change here is a decision, not a diff."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.charts.render import CASES, NAMESPACE, objects, values_of

PROXY = {
    "configmaps named": {"get", "list", "watch"},
    "secrets": {"get", "list", "watch"},
}
CONTROLLER_CLUSTER = {
    "networking.k8s.io/ingresses": {"get", "list", "watch"},
    "networking.k8s.io/ingressclasses": {"get", "list", "watch"},
    "services": {"get", "list", "watch"},
    "namespaces": {"get", "list", "watch"},
    "discovery.k8s.io/endpointslices": {"get", "list", "watch"},
    **{
        f"heim.dev/{kind}": {"get", "list", "watch"}
        for kind in ("proxies", "backends", "roles", "rolebindings", "agents")
    },
    "networking.k8s.io/ingresses/status": {"patch", "update"},
    **{
        f"heim.dev/{kind}/status": {"patch", "update"}
        for kind in ("proxies", "backends", "roles", "rolebindings", "agents")
    },
    "events.k8s.io/events": {"create", "patch"},
}
CONTROLLER_OWN = {
    "coordination.k8s.io/leases": {"create"},
    "coordination.k8s.io/leases named": {"get", "update"},
    "configmaps": {"create"},
    "configmaps named": {"get", "patch", "delete"},
    "secrets": {"get", "list", "watch", "create", "patch", "delete"},
}
READ_SECRETS = {"secrets": {"get", "list", "watch"}}

Rights = dict[str, set[str]]


def rights(rules: list[dict[str, Any]]) -> Rights:
    found: Rights = {}
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                name = f"{group}/{resource}" if group else resource
                if "resourceNames" in rule:
                    name += " named"
                found.setdefault(name, set()).update(rule["verbs"])
    return found


def granted(case: str, account: str, **changed: Any) -> dict[str, Rights]:
    """What a service account may do, by namespace; "*" is everywhere."""
    found = objects({**values_of(case), **changed})
    roles = {
        (one["kind"], one["metadata"].get("namespace", "*"), one["metadata"]["name"]): one["rules"]
        for one in found
        if one["kind"] in ("Role", "ClusterRole")
        and one["apiVersion"].startswith("rbac.authorization.k8s.io/")
    }
    rights_of: dict[str, Rights] = {}
    for one in found:
        if not one["apiVersion"].startswith("rbac.") or not one["kind"].endswith("Binding"):
            continue
        subject = {"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}
        if subject in one["subjects"]:
            where = one["metadata"].get("namespace", "*")
            ref = one["roleRef"]
            rights_of[where] = rights(roles[ref["kind"], where, ref["name"]])
    return rights_of


@pytest.mark.parametrize("case", CASES)
def test_the_proxy_reads_its_own_namespace_and_nothing_else(case: str) -> None:
    assert granted(case, "heim-proxy") == {NAMESPACE: PROXY}


def test_the_controller_reads_the_cluster_and_writes_what_people_look_at() -> None:
    assert granted("minimal", "heim-controller") == {
        "*": CONTROLLER_CLUSTER,
        NAMESPACE: CONTROLLER_OWN,
    }


def test_secrets_of_other_namespaces_are_read_where_values_say_so() -> None:
    found = granted("everything", "heim-controller", spec={})
    assert found == {
        "*": CONTROLLER_CLUSTER,
        NAMESPACE: CONTROLLER_OWN,
        "grafana": READ_SECRETS,
        "wiki": READ_SECRETS,
    }


def test_secrets_of_the_cluster_are_read_when_values_say_so() -> None:
    assert granted("home", "heim-controller")["*"] == {**CONTROLLER_CLUSTER, **READ_SECRETS}


def test_certificates_are_made_when_an_issuer_is_named() -> None:
    found = granted("minimal", "heim-controller", spec={"certificateIssuer": {"name": "le"}})
    assert found[NAMESPACE] == {
        **CONTROLLER_OWN,
        "cert-manager.io/certificates": {"get", "create", "patch"},
    }


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_a_wildcard_and_nobody_touches_pods_or_nodes(case: str) -> None:
    for one in objects(values_of(case)):
        for rule in one.get("rules", []) if one["apiVersion"].startswith("rbac.") else []:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert not {"pods", "nodes", "pods/exec"} & set(rule["resources"])


def test_rights_that_grow_would_be_noticed() -> None:
    assert rights([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]) != PROXY
