"""The fake API server and the real one, as one thing that a contract can be checked against."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from heim_controller.kube.client import Client
from heim_controller.kube.errors import AlreadyExists, Busy, NotFound
from heim_controller.kube.exchange import Request
from heim_controller.kube.resources import BACKENDS, CONFIG_MAPS, NAMESPACES, Manifest, Resource
from tests.fakes.kube import FakeKube, Known
from tests.fakes.kube_real import TOKEN, RealKube
from tests.fakes.kube_store import CRDS

__all__ = ["Api", "fake_api", "real_api"]

APPLY = "application/apply-patch+yaml"


@dataclass
class Api:
    """One server, and a namespace of our own in it."""

    client: Client
    namespace: str
    url: str
    ca_file: str | None
    compact: Callable[[], Awaitable[None]]
    restart: Callable[[], Awaitable[None]]

    async def config_map(self, name: str, **data: str) -> Manifest:
        """Create a ConfigMap."""
        return await self.client.create(CONFIG_MAPS, self.manifest(name, data=data))

    def manifest(self, name: str, **parts: Any) -> Manifest:
        """An object in our namespace."""
        return {"metadata": {"name": name, "namespace": self.namespace}, **parts}

    async def apply_as(
        self,
        manager: str,
        resource: Resource,
        manifest: Manifest,
        *,
        force: bool = False,
        sub: str = "",
    ) -> Manifest:
        """Apply as somebody else."""
        path = resource.path(self.namespace, manifest["metadata"]["name"]) + sub
        query = (("fieldManager", manager), ("force", "true" if force else "false"))
        body = {**manifest, "apiVersion": resource.api_version, "kind": resource.kind}
        return await self.client.exchange.ask(Request("PATCH", path, query, body, APPLY))

    def stranger(self) -> Client:
        """A client whose token the server does not know."""
        return Client(Known(self.url, "not-a-token", ca_file=self.ca_file))


async def fake_api(kube: FakeKube) -> Api:
    async def compact() -> None:
        kube.store.compact()

    async def restart() -> None:
        await kube.down()
        await kube.up()

    api = Api(kube.client(), "contract", kube.url, None, compact, restart)
    await api.client.create(NAMESPACES, {"metadata": {"name": api.namespace}})
    return api


async def real_api(kube: RealKube) -> Api:
    client = Client(Known(kube.url, TOKEN, ca_file=kube.ca_file))
    api = Api(
        client, f"contract-{uuid.uuid4().hex[:8]}", kube.url, kube.ca_file, kube.compact,
        kube.restart,
    )  # fmt: skip
    await client.create(NAMESPACES, {"metadata": {"name": api.namespace}})
    await _define_backends(client)
    return api


async def _define_backends(client: Client) -> None:
    """Define our kind as loosely as the fake does; the chart's schema has tests of its own."""
    condition = {
        "type": "object",
        "required": ["type"],
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {"type": {"type": "string"}},
    }
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "status": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                "properties": {
                    "conditions": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["type"],
                        "items": condition,
                    }
                },
            },
        },
    }
    version = {
        "name": BACKENDS.version, "served": True, "storage": True,
        "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}},
    }  # fmt: skip
    names = {"plural": BACKENDS.plural, "kind": BACKENDS.kind, "singular": "backend"}
    crd = {
        "metadata": {"name": str(BACKENDS)},
        "spec": {
            "group": BACKENDS.group, "scope": "Namespaced", "names": names, "versions": [version],
        },
    }  # fmt: skip
    try:
        await client.create(CRDS, crd)
    except AlreadyExists:
        return
    while True:
        try:
            await client.list(BACKENDS)
            return
        except (NotFound, Busy):
            continue
