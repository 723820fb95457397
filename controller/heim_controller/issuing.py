"""Certificates of cert-manager for the Proxy itself, when its spec names an issuer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from heim_controller.kube.apply import owner_reference
from heim_controller.kube.client import Client
from heim_controller.kube.errors import NotFound
from heim_controller.kube.resources import CERTIFICATES, Manifest
from heim_controller.options import Options
from heim_controller.translation.hosts import canonical_host
from heim_controller.translation.objects import Key, Object, listed, mapping, text
from heim_controller.translation.settings import Settings

__all__ = ["Issuing", "certificate_of", "issued_secret", "with_issued"]

log = logging.getLogger(__name__)


def issued_secret(proxy: Key) -> str:
    """The Secret, and the Certificate, that we ask for: beside the Proxy, named after it."""
    return f"{proxy[1]}-tls"


def with_issued(proxies: Mapping[Key, Object], settings: Settings) -> Mapping[Key, Object]:
    """The Proxies, ours with the certificate that we ask for among its certificates, as the last.

    Whoever names an issuer need not name its Secret as well.
    """
    found = proxies.get(settings.proxy)
    spec = mapping(found.get("spec")) if found is not None else {}
    if found is None or not _issuer(spec):
        return proxies
    named = f"{settings.proxy[0]}/{issued_secret(settings.proxy)}"
    certificates = [*listed(spec.get("certificates")), named]
    return {**proxies, settings.proxy: {**found, "spec": {**spec, "certificates": certificates}}}


def certificate_of(proxy: Manifest, settings: Settings) -> Manifest | None:
    """The Certificate to apply for a Proxy, or None when it names no issuer.

    It is for the login host, and for the hosts of `certificateIssuer.hosts`: wildcards among them
    need an issuer that answers DNS-01.
    """
    spec = mapping(proxy.get("spec"))
    issuer = _issuer(spec)
    if not issuer:
        return None
    login = canonical_host(text(spec.get("loginHost"))) or settings.login_host
    hosts = [login or f"auth.{text(spec.get('domain')) or settings.domain}"]
    for one in listed(mapping(spec.get("certificateIssuer")).get("hosts")):
        host = canonical_host(text(one))
        if host is not None and host not in hosts:
            hosts.append(host)
    namespace, name = settings.proxy
    return {
        "metadata": {
            "name": issued_secret(settings.proxy),
            "namespace": namespace,
            "ownerReferences": [owner_reference(proxy)],
        },
        "spec": {
            "secretName": issued_secret((namespace, name)),
            "dnsNames": hosts,
            "issuerRef": issuer,
        },
    }


class Issuing:
    """Keeps the Certificate of the Proxy as its spec wants it."""

    def __init__(self, client: Client, options: Options) -> None:
        """Write nothing yet."""
        self._client = client
        self._options = options

    async def ensure(self, proxy: Manifest | None) -> None:
        """Make the Certificate so; one that is no longer wanted goes with its Proxy.

        Raises:
            KubeError: Any of them; `NotFound` when cert-manager is not installed.
        """
        wanted = None if proxy is None else certificate_of(proxy, self._options.settings)
        if wanted is None:
            return
        metadata = wanted["metadata"]
        try:
            found = await self._client.get(
                CERTIFICATES, metadata["name"], namespace=metadata["namespace"]
            )
        except NotFound:
            found = None
        if found is not None and _agrees(wanted, found):
            return
        await self._client.apply(CERTIFICATES, wanted)
        log.info(
            "controller.certificate_requested",
            extra={"certificate": metadata["name"], "hosts": wanted["spec"]["dnsNames"]},
        )


def _issuer(spec: Mapping[str, Any]) -> dict[str, str]:
    told = mapping(spec.get("certificateIssuer"))
    if not text(told.get("name")):
        return {}
    return {
        "name": text(told.get("name")),
        "kind": text(told.get("kind")) or "ClusterIssuer",
        "group": text(told.get("group")) or "cert-manager.io",
    }


def _agrees(wanted: Manifest, found: Manifest) -> bool:
    """Whether every field that we want is so; cert-manager and people may add others."""
    spec = mapping(found.get("spec"))
    owners = mapping(found.get("metadata")).get("ownerReferences")
    return all(spec.get(key) == value for key, value in wanted["spec"].items()) and all(
        any(mapping(one).get("uid") == owner["uid"] for one in listed(owners))
        for owner in wanted["metadata"]["ownerReferences"]
    )
