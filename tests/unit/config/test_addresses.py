"""What may not be dialled, whoever chooses it."""

from __future__ import annotations

import pytest

from heim_config.addresses import usable_address


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
