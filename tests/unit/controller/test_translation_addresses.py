"""What may not be dialled, whoever writes it down."""

from __future__ import annotations

import pytest

from heim_controller.translation.addresses import joined, usable_address, usable_name


@pytest.mark.parametrize(
    "text", ["10.0.0.1", "192.168.1.254", "172.16.0.1", "8.8.8.8", "2001:db8::1", "fd00::1"]
)
def test_addresses_of_pods_and_machines_are_usable(text: str) -> None:
    assert usable_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "169.254.169.254", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "2002:7f00:1::", "64:ff9b::zz",
        "2001:0:5ef5:79fb:0:59d:a9fe:a9fe", "fec0::1", "010.0.0.1", "10.1", "2130706433",
        "0x7f.0.0.1", "10.0.0.1 ", "10.0.0.1\n", "localhost", "", "10.0.0.256", "10.0.0.1/8",
    ],
)  # fmt: skip
def test_addresses_of_the_proxy_itself_and_worse_are_not(text: str) -> None:
    assert not usable_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "fd00:ec2::254", "FD00:0EC2:0:0::254", "fd20:ce::254", "168.63.129.16", "100.100.100.200",
        "192.0.0.192", "64:ff9b::169.254.169.254", "64:ff9b::7f00:1",
    ],
)  # fmt: skip
def test_metadata_services_of_clouds_are_not_either(text: str) -> None:
    assert not usable_address(text)


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
