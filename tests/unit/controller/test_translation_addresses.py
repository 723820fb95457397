"""What may not be dialled, whoever writes it down."""

from __future__ import annotations

import pytest

from heim_controller.translation.addresses import joined, usable_name


@pytest.mark.parametrize("text", ["api.example.com", "API.Example.com", "db.corp.internal"])
def test_names_from_outside_are_usable(text: str) -> None:
    assert usable_name(text, "cluster.local")


@pytest.mark.parametrize(
    "text",
    [
        "localhost", "LOCALHOST.", "a.localhost", "localhost.localdomain", "x.localhost.example",
        "printer.local", "web", "web.shop.svc", "web.shop.svc.cluster.local", "cluster.local",
        "kubernetes.default.svc.cluster.local.", "a.svc.example.com", "metadata.google.internal",
        "METADATA.google.internal", "instance-data.ec2.internal", "x.instance-data.ec2.internal",
        "metadata.goog", "127.0.0.1", "169.254.169.254", "0x7f.1", "*.example.com", "", "a..b",
        "evil.example.com\n", "user@example.com", "::1",
    ],
)  # fmt: skip
def test_names_that_lead_inside_are_not(text: str) -> None:
    assert not usable_name(text, "cluster.local")


def test_a_name_that_ends_in_a_namespace_may_be_a_services() -> None:
    assert usable_name("db.bank", "cluster.local")
    assert not usable_name("db.bank", "cluster.local", {"bank"})
    assert not usable_name("pod-0.db.bank.", "cluster.local", {"bank"})
    assert not usable_name("10-0-0-1.bank.pod", "cluster.local")


def test_the_cluster_may_have_another_domain() -> None:
    assert not usable_name("web.shop.k8s.corp", "k8s.corp.")
    assert usable_name("web.notk8s.corp", "k8s.corp")


def test_ipv6_is_in_brackets() -> None:
    assert joined("10.0.0.1", 80) == "10.0.0.1:80"
    assert joined("fd00::1", 80) == "[fd00::1]:80"
