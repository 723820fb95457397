"""A cluster for the controller: objects in the fake API server, TLS Secrets, a proxy's /status."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any, Self

from aiohttp import web

from heim_controller.kube import resources
from heim_controller.kube.resources import Resource
from tests.fakes import kube_objects
from tests.fakes.certificates import Pair, make_pair
from tests.fakes.kube_store import Store

__all__ = [
    "CONFIG_MAP",
    "NAMESPACE",
    "FakeProxy",
    "basics",
    "document",
    "ingress",
    "populate",
    "tls_secret",
]

Made = dict[str, Any]

NAMESPACE = "heim"
CONFIG_MAP = "heim-configuration"

_RESOURCES: dict[str, Resource] = {
    one.kind: one
    for one in (
        resources.INGRESSES,
        resources.INGRESS_CLASSES,
        resources.SERVICES,
        resources.ENDPOINT_SLICES,
        resources.SECRETS,
        resources.NAMESPACES,
        resources.PROXIES,
        resources.BACKENDS,
        resources.ROLES,
        resources.ROLE_BINDINGS,
        resources.AGENTS,
    )
}


def populate(store: Store, *made: Made | Iterable[Made]) -> None:
    """Put objects of `kube_objects` into a store, as somebody else in the cluster would."""
    for one in made:
        for each in [one] if isinstance(one, dict) else one:
            store.put(_RESOURCES[each["kind"]], each)


def basics(**proxy: Any) -> list[Made]:
    """What every installation has: a class, the Proxy, the Service with an address, a role."""
    balancer = kube_objects.service("heim/heim", type="LoadBalancer")
    balancer["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}}
    return [
        kube_objects.ingress_class(),
        kube_objects.proxy(**{"defaultRoles": ["staff"], **proxy}),
        balancer,
        kube_objects.role("heim/staff"),
        kube_objects.binding("heim/staff", "staff", {"group": "staff"}),
    ]


def ingress(name: str, host: str = "", **keys: Any) -> Made:
    """An Ingress for `host`, NAME.example.test unless given, that leads to Service `web`."""
    host = host or f"{name.rpartition('/')[2]}.example.test"
    return kube_objects.ingress(name, kube_objects.rule(host, "/"), **keys)


def tls_secret(name: str, pair: Pair | None = None, **data: bytes) -> Made:
    """A TLS Secret; `data` replaces what the pair says, with underscores for dots."""
    namespace, _, bare = name.rpartition("/")
    made = pair or make_pair(f"{bare}.example.test")
    whole = {"tls.crt": made.cert, "tls.key": made.key}
    whole |= {key.replace("_", "."): value for key, value in data.items()}
    return {
        "kind": "Secret",
        "metadata": {"name": bare, "namespace": namespace},
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(value).decode() for key, value in whole.items()},
    }


def document(store: Store) -> Made | None:
    """The published document, None when there is none that is whole."""
    first = store.get(resources.CONFIG_MAPS, CONFIG_MAP, NAMESPACE)
    if first is None:
        return None
    data = dict(first["data"])
    for number in range(1, 9):
        further = store.get(resources.CONFIG_MAPS, f"{CONFIG_MAP}-{number}", NAMESPACE)
        data |= further["data"] if further else {}
    shards = json.loads(data["index.json"])["shards"]
    found: Made = json.loads("".join(data[name] for name in shards))
    return found


class FakeProxy:
    """The admin listener of a proxy that applies what it is told to have applied.

    Attributes:
        store: Where it looks for the document, when it follows.
        digest: What /status says when it does not.
        status: HTTP status of its answers.
    """

    def __init__(self, store: Store | None = None) -> None:
        self.store = store
        self.digest = ""
        self.status = 200
        self.body: bytes | None = None
        self.asked = 0
        self.url = ""
        app = web.Application()
        app.router.add_get("/status", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/status"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.body is not None:
            return web.Response(body=self.body, status=self.status)
        return web.json_response({"document_hash": self._current()}, status=self.status)

    def _current(self) -> str:
        if self.store is None:
            return self.digest
        found = self.store.get(resources.CONFIG_MAPS, CONFIG_MAP, NAMESPACE)
        return str(json.loads(found["data"]["index.json"])["sha256"]) if found else ""
