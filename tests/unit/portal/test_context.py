"""Settings of one configuration, as the portal asks them."""

from __future__ import annotations

import pytest

from heim_proxy.portal.context import PortalSettings
from tests.fakes.portal import APP1, LOGIN, STRICT, PortalStand


@pytest.fixture
def settings(stand: PortalStand) -> PortalSettings:
    return stand.settings()


async def test_an_origin_exists_for_backends_only(settings: PortalSettings) -> None:
    assert settings.origin_of(APP1) == f"https://{APP1}"
    assert settings.origin_of(LOGIN) is None
    assert settings.origin_of("evil.test") is None
    assert settings.login_url == f"https://{LOGIN}"


async def test_an_age_limit_is_the_backends(settings: PortalSettings) -> None:
    assert settings.age_limit(STRICT) == 600.0
    assert settings.age_limit(APP1) is None
    assert settings.age_limit("evil.test") is None
    assert settings.age_limit(None) is None


async def test_a_provider_is_found_by_its_exact_name(settings: PortalSettings) -> None:
    assert settings.provider("idp") is settings.providers[0]
    assert settings.provider("IDP") is None
