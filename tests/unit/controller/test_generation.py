"""One generation of the configuration."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from heim_controller.caches import Inventory
from heim_controller.certificates import Book
from heim_controller.generation import Generation, count_routes, generate
from heim_controller.kube.resources import Key
from heim_controller.sharding import join
from tests.fakes import kube_objects
from tests.fakes.certificates import NOW, make_pair
from tests.fakes.kube_cluster import ingress, tls_secret

SETTINGS = kube_objects.SETTINGS
SECTION = [{"hosts": ["web.example.test"], "secretName": "web"}]


def inventory(*made: Any, secrets: dict[Key, Any] | None = None) -> Inventory:
    return Inventory(kube_objects.cluster(*made), secrets or {}, {})


def generated(found: Inventory, **more: Any) -> Generation:
    return generate(
        found, SETTINGS, more.pop("book", Book()), owners=more.pop("owners", {}),
        now=NOW.timestamp(), **more,
    )  # fmt: skip


def test_a_generation_is_named_by_its_bytes_and_ready_to_be_published() -> None:
    found = generated(inventory(kube_objects.web("shop"), ingress("shop/web")))
    assert found.digest == hashlib.sha256(found.content).hexdigest()
    assert found.data is not None
    sheet = join(found.data[0])
    assert sheet is not None
    assert (sheet.content, sheet.digest) == (found.content, found.digest)
    assert sheet.owners == {"web.example.test": "shop"}
    assert found.routes == 1
    assert str(len(found.content)) in repr(found)


def test_the_same_cluster_is_the_same_generation() -> None:
    made = (kube_objects.web("shop"), ingress("shop/web"), ingress("shop/wiki"))
    first, second = generated(inventory(*made)), generated(inventory(*reversed(made)))
    assert first.data == second.data


def test_certificates_come_from_secrets() -> None:
    secrets = {("shop", "web"): tls_secret("shop/web", make_pair("web.example.test"))}
    made = (kube_objects.web("shop"), ingress("shop/web", tls=SECTION))
    found = generated(inventory(*made, secrets=secrets))
    assert found.translation.secrets == {("shop", "web")}
    assert not kube_objects.reasons(found.translation, "web") or kube_objects.reasons(
        found.translation, "web"
    ) == ["NoRoles"]
    bare = generated(inventory(*made))
    assert "TLSSecretMissing" in kube_objects.reasons(bare.translation, "web")


def test_secrets_that_cannot_be_seen_are_told_as_that() -> None:
    found = inventory(kube_objects.web("shop"), ingress("shop/web", tls=SECTION))
    told = generated(replace(found, excuses={"": "not read", "heim": None})).translation
    assert [one.message for one in told.diagnostics if one.reason == "TLSSecretInvalid"] == [
        'Secret "shop/web": not read'
    ]


def test_a_host_stays_with_whom_it_was() -> None:
    late = ingress("other/late", "web.example.test", created=kube_objects.at(5))
    found = inventory(ingress("shop/web"), late)
    assert generated(found).translation.owners == {"web.example.test": "shop"}
    owners = {"web.example.test": "other"}
    assert generated(found, owners=owners).translation.owners == owners


def large(namespace: str) -> Inventory:
    paths = [f"/{number:03}{'x' * 1990}" for number in range(100)]
    return inventory(
        kube_objects.web("bank"),
        ingress("bank/app"),
        [
            kube_objects.ingress(
                f"{namespace}/{name:03}", kube_objects.rule(f"{name}.example.test", *paths)
            )
            for name in range(42)
        ],
    )


def test_a_namespace_that_makes_the_document_too_large_is_left_out() -> None:
    found = generated(large("shop"))
    assert found.data is not None
    assert found.complaint == ""
    assert found.routes == 1
    assert "TooLarge" in kube_objects.reasons(found.translation, "000")
    assert found.digest == hashlib.sha256(found.content).hexdigest()


def test_a_document_that_is_too_large_without_anybody_elses_part_is_told() -> None:
    found = generated(large("heim"))
    assert found.data is None
    assert "; namespace heim alone takes 8" in found.complaint
    assert "9 ConfigMaps hold" in found.complaint


@pytest.mark.parametrize(
    ("document", "count"),
    [
        ({}, 0),
        ({"backends": [{"http": [1, 2]}, {"tcp": {}}, {"http": [1], "tcp": {}}]}, 5),
        ({"backends": [7, {"http": None}]}, 0),
        ({"backends": "x"}, 0),
    ],
)
def test_routes_are_counted(document: dict[str, Any], count: int) -> None:
    assert count_routes(document) == count
