"""Flags and their environment twins."""

from __future__ import annotations

import socket
from collections.abc import Mapping

import pytest

from heim_controller.arguments import build_parser
from heim_controller.options import Options, settings_of
from heim_runtime.complaints import UsageError

BASE = ("--proxy=heim/main", "--domain=example.test")


def options(
    *flags: str, base: tuple[str, ...] = BASE, environ: Mapping[str, str] | None = None
) -> Options:
    named = {
        name if name.startswith("POD") else f"HEIM_CONTROLLER_{name}": value
        for name, value in (environ or {}).items()
    }
    return Options.of(build_parser().parse_args(["run", *base, *flags]), named)


def test_what_is_not_said_has_a_default() -> None:
    found = options()
    assert found.settings.proxy == ("heim", "main")
    assert found.settings.domain == "example.test"
    assert found.settings.without_class
    assert found.settings.cluster_domain == "cluster.local"
    assert (found.namespace, found.lease) == ("heim", "main-controller")
    assert found.config_map == "heim-configuration"
    assert found.secrets == "namespaces"
    assert found.secrets_namespaces == ()
    assert found.health == ("127.0.0.1", 9441)
    assert found.lease_s == 15
    assert found.pod == socket.gethostname()
    assert found.publish_service is None


def test_the_flags_of_the_chart_are_understood() -> None:
    found = options(
        "--login-host=Login.Example.Test", "--config-map=x-configuration",
        "--proxy-status-url=http://x-admin.heim.svc:9440/status", "--publish-service=heim/x",
        "--publish-address=192.0.2.1", "--publish-address=lb.example.test",
        "--no-ingress-without-class", "--secrets=namespaces", "--secrets-namespace=shop",
        "--secrets-namespace=docs", "--log-level=info", "--health-address=0.0.0.0:9441",
        "--provider=google=example.test,example.org", "--provider=dex", "--service-account=ci",
        environ={"POD_NAME": "pod-1"},
    )  # fmt: skip
    assert found.settings.login_host == "login.example.test"
    assert not found.settings.without_class
    assert found.settings.providers == {
        "google": {"example.test", "example.org"},
        "dex": frozenset(),
    }
    assert found.settings.service_accounts == {"ci"}
    assert found.publish_service == ("heim", "x")
    assert found.publish_addresses == ("192.0.2.1", "lb.example.test")
    assert found.secrets_namespaces == ("shop", "docs")
    assert found.health == ("0.0.0.0", 9441)
    assert found.pod == "pod-1"


def test_every_flag_has_an_environment_twin_that_it_wins_over() -> None:
    twins = {
        "PROXY": "heim/main",
        "DOMAIN": "example.test",
        "LOGIN_HOST": "login.example.test",
        "CONFIG_MAP": "x",
        "PROXY_STATUS_URL": "http://x/status",
        "PUBLISH_SERVICE": "heim/x",
        "PUBLISH_ADDRESSES": "192.0.2.1, 192.0.2.2",
        "INGRESS_WITHOUT_CLASS": "false",
        "SECRETS": "namespaces",
        "SECRETS_NAMESPACES": "shop,docs",
        "HEALTH_ADDRESS": "[::1]:80",
        "LEASE_DURATION": "30",
        "PROVIDERS": "google=a.test,b.test dex",
        "SERVICE_ACCOUNTS": "ci,cd",
        "CLUSTER_DOMAIN": "cluster.test",
    }
    found = options(base=(), environ=twins)
    assert found == options(
        "--login-host=login.example.test", "--config-map=x", "--proxy-status-url=http://x/status",
        "--publish-service=heim/x", "--publish-address=192.0.2.1", "--publish-address=192.0.2.2",
        "--no-ingress-without-class", "--secrets=namespaces", "--secrets-namespace=shop",
        "--secrets-namespace=docs", "--health-address=[::1]:80", "--lease-duration=30",
        "--provider=google=a.test,b.test", "--provider=dex", "--service-account=ci",
        "--service-account=cd", "--cluster-domain=cluster.test",
    )  # fmt: skip
    assert found.health == ("::1", 80)
    assert options("--config-map=y", environ=twins).config_map == "y"


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--proxy=main",), "--proxy 'main' is not NAMESPACE/NAME"),
        (("--proxy=heim/../x",), "is not NAMESPACE/NAME"),
        (("--domain=*.test",), "is not a host name"),
        (("--domain=",), "--domain is missing"),
        (("--proxy=",), "--proxy is missing"),
        (("--login-host=-",), "--login-host '-' is not a host name"),
        (("--config-map=Upper",), "--config-map"),
        ((f"--config-map={'x' * 62}",), "at most 61"),
        (("--proxy-status-url=file:///etc/passwd",), "not an http or https URL"),
        (("--proxy-status-url=http://[",), "not an http or https URL"),
        (("--publish-service=x",), "--publish-service"),
        (("--publish-address=not an address",), "--publish-address"),
        (("--secrets=cluster", "--secrets-namespace=x"), "means nothing with --secrets cluster"),
        (("--secrets-namespace=A/B",), "is not a namespace"),
        (("--health-address=9441",), "is not HOST:PORT"),
        (("--health-address=x:99999",), "is not HOST:PORT"),
        (("--lease-duration=0",), "from 1 to 300"),
        (("--lease-duration=²",), "from 1 to 300"),
        (("--provider=A B",), "is not NAME or NAME=DOMAIN"),
        (("--provider=a=*",), "is not a host name"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_flag(
    flags: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(UsageError) as raised:
        options(*flags)
    assert complaint in raised.value.text


@pytest.mark.parametrize(
    "environ", [{"SECRETS": "all"}, {"INGRESS_WITHOUT_CLASS": "no"}], ids=lambda one: str(one)
)
def test_the_environment_is_checked_too(environ: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        options(environ=environ)


def test_a_translation_needs_no_proxy() -> None:
    args = build_parser().parse_args(["translate", "--from", "x", "--domain", "example.test"])
    assert settings_of(args, {}, proxy="heim/heim").proxy == ("heim", "heim")
