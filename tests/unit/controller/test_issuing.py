"""Certificates of cert-manager for the Proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from heim_controller.issuing import Issuing, certificate_of, issued_secret, with_issued
from heim_controller.kube import resources
from heim_controller.kube.errors import Forbidden
from heim_controller.options import Options
from tests.fakes import kube_objects
from tests.fakes.kube import FakeKube
from tests.fakes.kube_cluster import populate

SETTINGS = kube_objects.SETTINGS
OPTIONS = Options(SETTINGS)
ISSUER: dict[str, Any] = {"certificateIssuer": {"name": "letsencrypt"}}


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube() as found:
        yield found


def proxy(kube: FakeKube, **spec: Any) -> dict[str, Any]:
    populate(kube.store, kube_objects.proxy(**spec))
    found = kube.store.get(resources.PROXIES, "main", "heim")
    assert found is not None
    return found


def made(**spec: Any) -> Any:
    found = kube_objects.proxy(**spec)
    found |= {"apiVersion": "heim.dev/v1alpha1"}
    found["metadata"]["uid"] = "u"
    certificate = certificate_of(found, SETTINGS)
    return certificate and certificate["spec"]


def test_an_issuer_gets_the_login_host() -> None:
    assert made(**ISSUER) == {
        "secretName": "main-tls",
        "dnsNames": ["auth.example.test"],
        "issuerRef": {
            "name": "letsencrypt", "kind": "ClusterIssuer", "group": "cert-manager.io",
        },
    }  # fmt: skip


def test_what_the_proxy_says_is_asked_for() -> None:
    issuer = {"name": "own", "kind": "Issuer", "group": "x", "hosts": ["*.Example.test", "-", 7]}
    found = made(certificateIssuer=issuer, loginHost="login.example.test")
    assert found["dnsNames"] == ["login.example.test", "*.example.test"]
    assert found["issuerRef"] == {"name": "own", "kind": "Issuer", "group": "x"}


@pytest.mark.parametrize("spec", [{}, {"certificateIssuer": {}}, {"certificateIssuer": "x"}])
def test_without_an_issuer_nothing_is_asked_for(spec: dict[str, Any]) -> None:
    assert made(**spec) is None
    proxies = {SETTINGS.proxy: kube_objects.proxy(**spec)}
    assert with_issued(proxies, SETTINGS) is proxies


def test_the_secret_need_not_be_named() -> None:
    other = kube_objects.proxy("other/main", **ISSUER)
    proxies = {
        SETTINGS.proxy: kube_objects.proxy(certificates=["first"], **ISSUER),
        ("other", "main"): other,
    }
    found = with_issued(proxies, SETTINGS)
    named = f"heim/{issued_secret(SETTINGS.proxy)}"
    assert found[SETTINGS.proxy]["spec"]["certificates"] == ["first", named]
    assert proxies[SETTINGS.proxy]["spec"]["certificates"] == ["first"]
    assert found["other", "main"] is other


async def test_a_certificate_is_made_once_and_corrected(kube: FakeKube) -> None:
    issuing = Issuing(kube.client(), OPTIONS)
    found = proxy(kube, **ISSUER)
    await issuing.ensure(found)
    certificate = kube.store.get(resources.CERTIFICATES, "main-tls", "heim")
    assert certificate is not None
    assert certificate["metadata"]["ownerReferences"][0]["name"] == "main"
    kube.asked.clear()
    # What people add to it stays, and is no reason to write.
    kube.store.patch(
        resources.CERTIFICATES, ("heim", "main-tls"), {"spec": {"duration": "1h"}}, "kubectl", ""
    )
    await issuing.ensure(found)
    assert [asked.verb for asked in kube.asked] == ["get"]
    await issuing.ensure(proxy(kube, certificateIssuer={"name": "other"}))
    certificate = kube.store.get(resources.CERTIFICATES, "main-tls", "heim")
    assert certificate is not None
    assert certificate["spec"]["issuerRef"]["name"] == "other"
    assert certificate["spec"]["duration"] == "1h"


async def test_nothing_is_asked_without_an_issuer(kube: FakeKube) -> None:
    issuing = Issuing(kube.client(), OPTIONS)
    await issuing.ensure(None)
    await issuing.ensure(proxy(kube))
    assert kube.asked == []


async def test_a_missing_permission_is_told(kube: FakeKube) -> None:
    kube.faults.forbidden.add(("apply", "certificates"))
    with pytest.raises(Forbidden):
        await Issuing(kube.client(), OPTIONS).ensure(proxy(kube, **ISSUER))
