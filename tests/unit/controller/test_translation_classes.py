"""Which Ingresses are ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from heim_controller.translation.classes import Classes
from heim_controller.translation.settings import Settings
from tests.fakes.kube_objects import PROXY, SETTINGS, cluster, ingress, ingress_class

OURS = {"apiGroup": "heim.dev", "kind": "Proxy", "scope": "Namespace",
        "namespace": "heim", "name": "main"}  # fmt: skip


def ours(*classes: Any, settings: Settings = SETTINGS, notes: Any = None, **spec: Any) -> bool:
    made = ingress("shop/web", notes=notes, **spec)
    if spec.get("ingressClassName", "") is None:
        del made["spec"]["ingressClassName"]
    return Classes(cluster(*classes, bare=True), settings).ours(made)


def test_an_ingress_of_our_class_is_ours() -> None:
    assert ours(ingress_class("heim"))
    assert PROXY == ("heim", "main")


def test_a_class_that_does_not_exist_is_nobodys() -> None:
    assert not ours(ingress_class("other"))
    assert not ours()


def test_what_is_no_class_is_nobodys() -> None:
    assert not ours(ingress_class("heim"), ingressClassName=["heim"])


def test_a_class_of_another_controller_is_not_ours() -> None:
    assert not ours(ingress_class("heim", controller="k8s.io/ingress-nginx"))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"name": "other"}, False),
        ({"namespace": "shop"}, False),
        ({"kind": "ConfigMap"}, False),
        ({"scope": "Cluster"}, False),
        ({"apiGroup": None}, False),
    ],
)
def test_parameters_name_the_proxy(change: dict[str, Any], expected: bool) -> None:
    assert ours(ingress_class("heim", parameters={**OURS, **change})) is expected


def test_the_old_annotation_is_honoured_without_the_field() -> None:
    old = {"kubernetes.io/ingress.class": "heim"}
    assert ours(ingress_class("heim"), notes=old, ingressClassName=None)
    assert not ours(ingress_class("heim"), notes=old, ingressClassName="other")
    other = {"kubernetes.io/ingress.class": "nginx"}
    assert not ours(ingress_class("heim", default=True), notes=other, ingressClassName=None)


def test_an_ingress_without_class_is_adopted_if_one_of_ours_is_the_default() -> None:
    default = ingress_class("heim", default=True)
    assert ours(default, ingressClassName=None)
    assert not ours(ingress_class("heim"), ingressClassName=None)
    assert not ours(default, ingress_class("two", default=True), ingressClassName=None)
    foreign = ingress_class("nginx", default=True, controller="k8s.io/ingress-nginx")
    assert ours(default, foreign, ingressClassName=None)
    assert not ours(foreign, ingressClassName=None)
    never = replace(SETTINGS, without_class=False)
    assert not ours(default, settings=never, ingressClassName=None)
