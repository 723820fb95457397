"""Providers: where secrets come from, what counts as loopback, and Azure's tenant."""

from __future__ import annotations

from pathlib import Path

import pytest

from heim_config.identity import Provider as ProviderConfig
from heim_proxy.identity.login_errors import ProviderFault
from heim_proxy.identity.providers import (
    ClientSecret,
    Provider,
    ProviderType,
    from_config,
    is_loopback_host,
)

TENANT = "11111111-2222-3333-4444-555555555555"


def test_a_secret_file_is_read_each_time_and_loses_its_line_end(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    secret = ClientSecret(file=path)
    path.write_text("first\n")
    assert secret.reveal() == "first"
    path.write_text("second")
    assert secret.reveal() == "second"


def test_a_secret_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEIM_TEST_SECRET", "hush")
    assert ClientSecret(variable="HEIM_TEST_SECRET").reveal() == "hush"


@pytest.mark.parametrize("content", [b"", b"\n", "sécret".encode(), b"x" * 5000])
def test_a_file_that_holds_no_secret_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ProviderFault) as caught:
        ClientSecret(file=path).reveal()
    assert str(path) in caught.value.detail


@pytest.mark.parametrize(
    "secret",
    [ClientSecret(file=Path("/nonexistent/secret")), ClientSecret(variable="HEIM_NOT_SET")],
    ids=["file", "variable"],
)
def test_a_missing_secret_is_a_fault(secret: ClientSecret) -> None:
    with pytest.raises(ProviderFault):
        secret.reveal()


def test_a_secret_never_shows_in_a_repr() -> None:
    provider = Provider(
        "p", ProviderType.OIDC, "https://i.test", "heim", ClientSecret(variable="CANARY")
    )
    assert "CANARY" not in repr(provider)


@pytest.mark.parametrize(
    ("issuer", "loopback"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://127.9.9.9/path", True),
        ("http://[::1]:8080", True),
        ("http://localhost:8080/", True),
        ("http://LOCALHOST", True),
        ("https://localhost", False),
        ("http://localhost.evil.test", False),
        ("http://127.0.0.1.evil.test", False),
        ("http://localhost@evil.test", False),
        ("http://127.0.0.1:80@evil.test", False),
        ("http://10.0.0.1", False),
        ("http://0.0.0.0", False),
        ("http://127.1", False),
        ("http://127.0.0.256", False),
        ("http://127.0.0.１", False),
        ("http://idp.localhost", False),
        ("http://[::ffff:127.0.0.1]", False),
    ],
)
def test_loopback_is_literal(issuer: str, loopback: bool) -> None:
    assert Provider("p", ProviderType.OIDC, issuer, "heim").loopback is loopback


def test_loopback_hosts_are_literal() -> None:
    assert is_loopback_host("127.0.0.1")
    assert not is_loopback_host("example.test")


@pytest.mark.parametrize(
    ("issuer", "tenant"),
    [
        (f"https://login.microsoftonline.com/{TENANT}/v2.0", TENANT),
        (f"https://sts.windows.net/{TENANT}/", TENANT),
        (f"https://login.microsoftonline.com/{TENANT.replace('1', 'A')}/v2.0",
         TENANT.replace("1", "a")),
        ("https://login.microsoftonline.com/common/v2.0", None),
        ("https://login.microsoftonline.com/organizations/v2.0", None),
        (f"https://login.microsoftonline.com/{TENANT}/v2.0/x", None),
    ],
)  # fmt: skip
def test_azure_has_a_tenant_only_when_the_issuer_fixes_one(issuer: str, tenant: str | None) -> None:
    assert Provider("p", ProviderType.AZURE, issuer, "heim").tenant == tenant
    assert Provider("p", ProviderType.OIDC, issuer, "heim").tenant is None


def test_configuration_becomes_providers() -> None:
    configured = ProviderConfig.model_validate(
        {
            "name": "corp",
            "type": "google",
            "client_id": "heim",
            "client_secret_env": "SECRET",
            "hosted_domains": ["Example.test"],
            "display_name": "Corp",
        }
    )
    (provider,) = from_config([configured])
    assert provider.issuer == "https://accounts.google.com"
    assert provider.hosted_domains == {"example.test"}
    assert (provider.title, provider.groups_claim) == ("Corp", "groups")
    assert provider.secret.configured
