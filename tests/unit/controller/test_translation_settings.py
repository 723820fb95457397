"""Settings: closed unless said otherwise."""

from __future__ import annotations

from heim_controller.translation.settings import CONTROLLER, GROUP, Settings


def test_defaults() -> None:
    found = Settings(("heim", "main"), "example.test")
    assert found.cluster_domain == "cluster.local"
    assert not found.address_map
    assert not found.service_accounts
    assert found.login_host == ""


def test_the_group_is_that_of_our_kinds() -> None:
    assert GROUP == "heim.dev"
    assert CONTROLLER == "heim.dev/ingress-controller"
