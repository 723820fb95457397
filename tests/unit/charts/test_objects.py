"""What the chart installs agrees with the programs: flags, metrics, rights, kinds."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from heim_controller.arguments import build_parser
from heim_controller.crds.manifests import with_proxy_spec
from heim_controller.kube import resources
from heim_controller.metrics import FAMILIES as CONTROLLER_FAMILIES
from heim_controller.options import Options
from heim_proxy.observe.metrics import FAMILIES
from tests.docs.chart import explained
from tests.fakes.kube_schema import complaints
from tests.unit.charts.render import CASES, CHART, manifests, objects, only, values_of


def options(case: str, **changed: Any) -> Options:
    """What the controller understands of the arguments in its Deployment."""
    found = objects({**values_of(case), **changed})
    pod = only(found, "Deployment", "heim-controller")["spec"]["template"]["spec"]
    program, *arguments = pod["containers"][0]["args"]
    assert program == "heim-controller"
    return Options.of(build_parser().parse_args(arguments), {"POD_NAME": "heim-controller-x"})


class TestController:
    @pytest.mark.parametrize("case", CASES)
    def test_takes_its_arguments(self, case: str) -> None:
        found = options(case)
        assert found.settings.proxy == ("heim-system", "heim")
        assert found.config_map == "heim-configuration"
        assert found.settings.domain == "x.example.com"

    def test_knows_the_providers_and_what_they_are_authoritative_for(self) -> None:
        assert options("everything").settings.providers == {
            "google": frozenset({"example.com"}),
            "keycloak": frozenset({"example.org"}),
        }

    def test_knows_the_service_accounts_of_the_boot_file(self) -> None:
        boot = only(objects(values_of("everything")), "ConfigMap", "heim-boot")
        told = yaml.safe_load(boot["data"]["heim.yaml"])["service_accounts"]
        assert {one["name"] for one in told} == options("everything").settings.service_accounts

    def test_reads_secrets_where_it_may(self) -> None:
        found = options("everything")
        assert (found.secrets, found.secrets_namespaces) == ("namespaces", ("grafana", "wiki"))
        assert options("home").secrets == "cluster"

    def test_namespaces_mean_nothing_in_other_modes(self) -> None:
        found = options("everything", rbac={"secrets": {"mode": "none"}})
        assert (found.secrets, found.secrets_namespaces) == ("none", ())

    def test_stands_for_the_lease_that_it_may_have(self) -> None:
        role = only(objects(values_of("minimal")), "Role", "heim-controller")
        [named] = [
            rule for rule in role["rules"]
            if rule["resources"] == ["leases"] and "resourceNames" in rule
        ]  # fmt: skip
        assert named["resourceNames"] == [options("minimal").lease]

    def test_asks_the_proxy_where_it_answers(self) -> None:
        found = objects(values_of("minimal"))
        service = only(found, "Service", "heim-admin")
        [port] = service["spec"]["ports"]
        url = f"http://heim-admin.heim-system.svc:{port['port']}/status"
        assert options("minimal").status_url == url

    def test_may_read_what_it_follows(self) -> None:
        rules = only(objects(values_of("home")), "ClusterRole", "heim-system-heim-controller")
        may = {(group, one) for rule in rules["rules"] if "list" in rule["verbs"]
               for group in rule["apiGroups"] for one in rule["resources"]}  # fmt: skip
        followed = (
            resources.INGRESSES, resources.INGRESS_CLASSES, resources.SERVICES,
            resources.ENDPOINT_SLICES, resources.NAMESPACES, resources.SECRETS, resources.PROXIES,
            resources.BACKENDS, resources.ROLES, resources.ROLE_BINDINGS, resources.AGENTS,
        )  # fmt: skip
        assert may == {(one.group, one.plural) for one in followed}


class TestProxyObject:
    """Helm looks up the kind of every object first, and the kinds come with the chart."""

    def made(self, *, upgrade: bool = False, **values: Any) -> list[dict[str, Any]]:
        found = objects({**values_of("minimal"), **values}, upgrade=upgrade)
        return [one for one in found if one["kind"] == "Proxy"]

    def test_is_not_in_the_installation_that_brings_its_kind(self) -> None:
        assert self.made() == []

    def test_is_in_every_later_one(self) -> None:
        [made] = self.made(upgrade=True)
        assert made["metadata"]["name"] == "heim"

    def test_is_in_the_first_one_when_the_kinds_are_there_already(self) -> None:
        assert self.made(crds={"enabled": False})
        assert self.made(proxyObject="always")

    def test_is_left_to_others(self) -> None:
        assert self.made(upgrade=True, proxyObject="never") == []

    def test_notes_say_what_is_left_to_do(self) -> None:
        def notes(**how: bool) -> str:
            found = manifests(values_of("minimal"), **how)
            return next(text for name, text in found.items() if name.endswith("NOTES.txt"))

        assert "Run the same command once more" in notes()
        assert "once more" not in notes(upgrade=True)

    @pytest.mark.parametrize("case", CASES)
    def test_is_one_that_its_kind_allows(self, case: str) -> None:
        [made] = [
            one for one in objects(values_of(case), upgrade=True) if one["kind"] == "Proxy"
        ]  # fmt: skip
        assert complaints(made) == []

    def test_says_what_values_say(self) -> None:
        made = only(objects(values_of("everything")), "Proxy", "heim")
        assert made["spec"]["loginHost"] == "login.x.example.com"
        assert made["spec"]["defaultRoles"] == ["staff"]

    def test_classes_lead_to_it(self) -> None:
        made = only(objects(values_of("minimal")), "IngressClass", "heim")
        assert made["spec"]["parameters"] == {
            "apiGroup": "heim.dev", "kind": "Proxy", "scope": "Namespace",
            "namespace": "heim-system", "name": "heim",
        }  # fmt: skip


def test_values_of_the_spec_are_checked_like_the_object() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema == with_proxy_spec(schema), "run: python -m heim_controller.crds"


def test_alerts_ask_for_metrics_and_labels_that_exist() -> None:
    known = {one.name: one.labels for one in (*FAMILIES, *CONTROLLER_FAMILIES)}
    [rule] = [
        one for one in objects(values_of("everything")) if one["kind"] == "PrometheusRule"
    ]  # fmt: skip
    for alert in rule["spec"]["groups"][0]["rules"]:
        asked = re.findall(r"\bheim_\w+", alert["expr"])
        assert asked
        assert set(asked) <= known.keys()
        labels = re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"])
        assert set(labels) <= set(known[asked[0]])


def test_the_test_of_the_release_is_restricted_and_has_no_rights() -> None:
    pod = only(objects(values_of("minimal")), "Pod", "heim-test")
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod["spec"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    [container] = pod["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["command"][2] == (CHART / "files" / "signing_in.py").read_text()


def test_no_pod_is_taken_for_the_proxy() -> None:
    found = objects(values_of("minimal"))
    selector = only(found, "Service", "heim")["spec"]["selector"]
    for name in ("heim-test",):
        labels = only(found, "Pod", name)["metadata"]["labels"]
        assert not selector.items() <= labels.items()
    labels = only(found, "Deployment", "heim-proxy")["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()


def test_every_value_is_explained() -> None:
    told = {path for path, _ in explained()}

    def leaves(value: dict[str, Any], path: str) -> None:
        for key, inner in value.items():
            below = f"{path}.{key}" if path else key
            if below in told:
                continue
            assert isinstance(inner, dict), f"{below} is not explained"
            leaves(inner, below)

    leaves(yaml.safe_load((CHART / "values.yaml").read_text()), "")


def test_ports_say_their_protocol() -> None:
    """It is a part of what tells ports apart, for Helm 4 and others that apply on the server."""
    for one in objects(values_of("everything")):
        if one["kind"] == "Service":
            assert all("protocol" in port for port in one["spec"]["ports"])
        if one["kind"] == "Deployment":
            for container in one["spec"]["template"]["spec"]["containers"]:
                assert all("protocol" in port for port in container["ports"])
