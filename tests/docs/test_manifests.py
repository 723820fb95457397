"""Manifests and values of the documentation are taken: by Kubernetes, by our kinds, by the chart.

What a page shows is one cluster, with the Proxy that its values make; it is translated, and what
the page only refers to (Services of others, certificates) is made up.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from heim_controller.translation.objects import Key
from heim_controller.translation.settings import Settings
from heim_controller.translation.translate import Translation
from heim_proxy.cli.main import build_parser as proxy_parser
from tests.docs.pages import PAGES, Fence, Page, page
from tests.docs.programs import invocations
from tests.docs.snippets import KUBERNETES, NOT_HEIM, PART_OF_VALUES, VALUES
from tests.fakes.kube_objects import at, certificate, endpoint_slice, service, translated
from tests.fakes.kube_schema import complaints
from tests.unit.charts.render import objects, values_of

Manifest = dict[str, Any]

OLD = f"{KUBERNETES} of ingress-nginx"
SETTINGS = Settings(("heim", "heim"), "x.example.com", providers={"google": frozenset()})
OURS = ("Proxy", "Backend", "Role", "RoleBinding", "Agent")
# Of other projects: their schemas are not here.
FOREIGN = {"cert-manager.io/v1", "metallb.io/v1beta1", "argoproj.io/v1alpha1"}
CLUSTER_WIDE = ("ClusterIssuer", "Namespace", "IngressClass")
OLDEST, NEWEST = "1.28", "1.37"


def fences(marker: str) -> list[tuple[Page, Fence]]:
    return [(one, fence) for one in PAGES for fence in one.of("yaml") if fence.first_line == marker]


def ids(pairs: list[tuple[Page, Fence]]) -> list[str]:
    return [f"{one.name}:{fence.line}" for one, fence in pairs]


def documents(fence: Fence) -> list[Manifest]:
    return list(yaml.safe_load_all(fence.text))


MANIFESTS = [
    pytest.param(made, id=f"{one.name}:{fence.line} {made['kind']} {made['metadata']['name']}")
    for one, fence in [*fences(KUBERNETES), *fences(OLD)]
    for made in documents(fence)
]


@pytest.mark.parametrize("made", MANIFESTS)
def test_manifests_are_taken_by_their_kind(made: Manifest) -> None:
    version = made["apiVersion"]
    if version.startswith("heim.dev/"):
        assert complaints(made) == []
    elif version not in FOREIGN:
        for release in (OLDEST, NEWEST):
            kubernetes_validate.validate(made, release, strict=True)


@pytest.mark.parametrize("made", MANIFESTS)
def test_manifests_say_their_namespace(made: Manifest) -> None:
    assert ("namespace" in made["metadata"]) is (made["kind"] not in CLUSTER_WIDE)


def test_a_manifest_with_a_mistake_would_be_noticed() -> None:
    made = {"apiVersion": "heim.dev/v1alpha1", "kind": "Role", "metadata": {"name": "a"}}
    assert complaints({**made, "spec": {"titel": "A"}}) == ["Role.spec.titel: is not known"]


def test_manifests_of_the_reference_are_taken_too() -> None:
    shown = [
        made
        for _, fence in fences(NOT_HEIM)
        for made in documents(fence)
        if str(made.get("apiVersion", "")).startswith("heim.dev/")
    ]
    assert {made["kind"] for made in shown} >= {"Backend", "Agent", "Role", "RoleBinding"}
    assert [said for made in shown for said in complaints(made)] == []


VALUES_SHOWN = [*fences(VALUES), *fences(PART_OF_VALUES)]


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Values as Helm merges several files of them."""
    made = dict(base)
    for key, value in more.items():
        inner = made.get(key)
        both = isinstance(inner, dict) and isinstance(value, dict)
        made[key] = merged(inner, value) if both else value
    return made


def rendered(fence: Fence) -> list[Manifest]:
    base = {} if fence.first_line == VALUES else values_of("minimal")
    return objects(merged(base, yaml.safe_load(fence.text)), upgrade=True)


@pytest.mark.parametrize(("one", "fence"), VALUES_SHOWN, ids=ids(VALUES_SHOWN))
def test_values_are_taken_by_the_chart(one: Page, fence: Fence) -> None:
    found = rendered(fence)
    assert [said for made in found if made["kind"] == "Proxy" for said in complaints(made)] == []


def test_values_with_a_mistake_would_be_noticed() -> None:
    with pytest.raises(helm_python.HelmValuesError):
        rendered(Fence("yaml", f"{PART_OF_VALUES}\nspec: {{defaultRole: [a]}}\n", 1))


def settings_shown(one: Page) -> Manifest:
    """The spec of the Proxy that all values of a page make together."""
    spec: Manifest = {}
    for fence in one.of("yaml"):
        if fence.first_line in (VALUES, PART_OF_VALUES):
            spec = merged(spec, yaml.safe_load(fence.text).get("spec") or {})
    # One recipe is a cluster of its own: who may name which hosts is not for the others.
    spec.get("ingress", {}).pop("hostSuffixes", None)
    spec.pop("defaultRoles", None)
    return spec


def surroundings(shown: list[Manifest]) -> Iterator[Any]:
    """Services with a ready pod, and certificates, that manifests refer to."""
    known = {(m["metadata"].get("namespace"), m["metadata"]["name"])
             for m in shown if m["kind"] == "Service"}  # fmt: skip
    for made in shown:
        space = made["metadata"].get("namespace", "")
        for name, port in referred(made.get("spec", {})):
            if (space, name) not in known:
                known.add((space, name))
                yield service(f"{space}/{name}", {"name": "http", "port": port, "protocol": "TCP"})
            # No pod is in two namespaces.
            pod = f"10.1.{zlib.crc32(space.encode()) % 250}.1"
            yield endpoint_slice(
                f"{space}/{name}", pod, port=8080, port_name="http", suffix=str(port)
            )
        for entry in made.get("spec", {}).get("tls", ()) if made["kind"] == "Ingress" else ():
            yield certificate(f"{space}/{entry['secretName']}", *entry["hosts"])


def referred(value: Any) -> Iterator[tuple[str, int]]:
    """The Services that a spec names, with their port."""
    if isinstance(value, list):
        for one in value:
            yield from referred(one)
    elif isinstance(value, dict):
        named = value.get("service")
        if isinstance(named, dict) and "name" in named:
            port = named.get("port", 80)
            port = port.get("number", 80) if isinstance(port, dict) else port
            yield named["name"], port
        for one in value.values():
            yield from referred(one)


def of_cluster(made: Manifest) -> Manifest:
    """A manifest as the API server would keep it; the translation knows no other kinds."""
    kept = {"creationTimestamp": at(0), "generation": 1}
    labels = made["metadata"].get("labels", {})
    if made["kind"] == "Namespace":
        labels = {**labels, "kubernetes.io/metadata.name": made["metadata"]["name"]}
    return {**made, "metadata": {**made["metadata"], **kept, "labels": labels}}


TRANSLATED = (*OURS, "Ingress", "Service", "Namespace")


def translation_of(shown: list[Manifest], spec: Manifest) -> Translation:
    made = [of_cluster(one) for one in shown if one["kind"] in TRANSLATED]
    proxies = [one for one in made if one["kind"] == "Proxy"]
    if not proxies:
        made.append({"kind": "Proxy", "metadata": {"name": "heim", "namespace": "heim"}})
    proxy = made[-1] if not proxies else proxies[0]
    spec = proxy["spec"] = merged(spec, proxy.get("spec", {}))
    issued: list[tuple[Key, Any]] = [
        certificate(f"{name.partition('/')[0]}/{name.partition('/')[2]}", "*.x.example.com")
        for name in spec.get("certificates", ())
    ]
    return translated(made, issued, list(surroundings(shown)), settings=SETTINGS)


SHOWN = {
    one.name: [made for fence in one.of("yaml") if fence.first_line == KUBERNETES
               for made in documents(fence)]
    for one, _ in fences(KUBERNETES)
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_what_a_page_shows_is_served_without_a_complaint(name: str) -> None:
    found = translation_of(SHOWN[name], settings_shown(page(name)))
    assert [str(one) for one in found.diagnostics] == []
    shown = [made for made in SHOWN[name] if made["kind"] in ("Ingress", "Backend")]
    assert len(found.document["backends"]) == len(shown)


def test_everybody_who_is_let_in_has_somewhere_to_go() -> None:
    """Each Role of the quick start gives what its Ingress or Backend is."""
    name = "docs/howto/kubernetes.md"
    [role] = translation_of(SHOWN[name], settings_shown(page(name))).document["roles"]
    assert role == {
        "name": "demo.staff",
        "members": [{"domain": "example.com"}],
        "bindings": [{"backend": "ingress.demo.whoami", "permission": "all"}],
    }


def test_what_stood_before_the_migration_is_read() -> None:
    [(_, fence)] = fences(OLD)
    [made] = documents(fence)
    made["spec"]["ingressClassName"] = "heim"
    found = translation_of([made], {})
    assert sorted(one.reason for one in found.diagnostics) == ["NoRoles", "ReplacedByHeim"]


def in_pods() -> Iterator[tuple[str, str]]:
    """Commands that `kubectl exec` runs: the program's place and its line."""
    for one in PAGES:
        for fence in one.of("sh"):
            text = fence.text.replace("\\\n", " ")
            for line in re.findall(r"^kubectl .* exec .* -- +(heim-\w+ .*)$", text, re.MULTILINE):
                yield f"{one.name}:{fence.line}", line


@pytest.mark.parametrize(("place", "line"), list(in_pods()))
def test_commands_in_pods_are_taken(place: str, line: str) -> None:
    [arguments] = invocations(line, "heim-proxy")
    proxy_parser().parse_args(arguments)


def test_charts_are_installed_from_where_they_are() -> None:
    text = page("docs/howto/kubernetes.md").text
    assert set(re.findall(r"helm upgrade --install heim (\S+)", text)) == {"charts/heim"}
