"""What a Proxy permits."""

from __future__ import annotations

from typing import Any

from heim_controller.translation.diagnostics import Findings
from heim_controller.translation.policy import Policy
from heim_controller.translation.settings import Settings
from tests.fakes.kube_objects import PROXY, SETTINGS, cluster, namespace, proxy


def policy(*made: Any, settings: Settings = SETTINGS, **spec: Any) -> tuple[Policy, list[str]]:
    findings = Findings()
    found = Policy(cluster(proxy(**spec), *made), settings, findings)
    return found, [one.reason for one in findings.sorted()]


def test_without_a_proxy_as_little_as_there_is() -> None:
    findings = Findings()
    found = Policy(cluster(bare=True), SETTINGS, findings)
    assert [one.reason for one in findings.sorted()] == ["ProxyNotFound"]
    assert found.strict
    assert not found.catch_all
    assert not found.external_names
    assert not found.default_public
    assert not found.may_be_public("shop")
    assert found.default_roles == ()
    assert found.login_hosts == {"auth.example.test"}


def test_what_is_misspelt_permits_nothing() -> None:
    found, _ = policy(
        ingress={
            "allowCatchAll": "true",
            "hostOwnership": "none",
            "externalName": "allowed",
            "allowPublic": True,
        },
        defaultAuth="none",
    )
    assert found.strict
    assert not found.catch_all
    assert not found.external_names
    assert not found.default_public
    assert not found.may_be_public("shop")


def test_namespaces_may_be_public_by_their_labels() -> None:
    found, _ = policy(
        namespace("shop", public="yes"),
        namespace("bank"),
        ingress={"allowPublic": {"matchLabels": {"public": "yes"}}},
    )
    assert found.may_be_public("shop")
    assert not found.may_be_public("bank")
    assert not found.may_be_public("gone")


def test_both_login_hosts_are_protected() -> None:
    settings = Settings(PROXY, "example.test", login_host="Sign.example.test")
    found, _ = policy(settings=settings, loginHost="auth.other.test")
    assert found.login_hosts == {"sign.example.test", "auth.other.test"}


def test_suffixes_are_those_of_the_proxy_and_of_the_namespace() -> None:
    rules = [
        {"suffixes": ["*.shared.test"]},
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}},
            "suffixes": [".shop.test"],
        },
    ]
    found, _ = policy(
        namespace("shop"),
        namespace("bank"),
        namespace("zoo", notes={"heim.dev/host-suffixes": "zoo.shared.test"}),
        ingress={"hostSuffixes": rules},
    )
    assert found.may_use("shop", "a.shop.test")
    assert found.may_use("shop", "a.shared.test")
    assert not found.may_use("bank", "a.shop.test")
    assert not found.may_use("bank", "a.else.test")
    assert found.may_use("zoo", "a.zoo.shared.test")
    assert not found.may_use("zoo", "a.shared.test")
    assert found.suffixes("bank") == "shared.test"


def test_an_empty_list_of_suffixes_permits_no_host() -> None:
    found, _ = policy(namespace("shop"), ingress={"hostSuffixes": []})
    assert not found.may_use("shop", "a.test")
    assert found.suffixes("shop") == "none"


def test_a_namespace_alone_may_restrict_itself() -> None:
    found, _ = policy(namespace("shop", notes={"heim.dev/host-suffixes": " a.test, .b.test "}))
    assert found.may_use("shop", "x.b.test")
    assert not found.may_use("shop", "x.c.test")
    assert found.may_use("bank", "x.c.test")


def test_references_are_of_its_own_namespace_unless_they_say_so() -> None:
    found, said = policy(
        certificates=["wild", "edge/wild.example.test", "a/b/c", 7], defaultRoles=["staff", "UP"]
    )
    assert found.certificates == (("heim", "wild"), ("edge", "wild.example.test"))
    assert found.default_roles == (("heim", "staff"),)
    assert said == ["InvalidSpec"] * 3


def test_a_domain_that_is_none_is_said() -> None:
    found, said = policy(domain="no domain")
    assert said == ["InvalidSpec"]
    assert found.domain == "example.test"
