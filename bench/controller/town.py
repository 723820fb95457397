"""A cluster full of Ingresses, all of its parts real programs but the API server and the pods.

It is the cluster of the integration tests: `heim-controller run` and `heim-proxy run` as processes,
the fake API server and the pods in this one. Ten namespaces have two Services each, and every
Ingress has a host of its own that leads to one of both.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.fakes.heim import DOMAIN, Wire
from tests.fakes.kube_cluster import populate
from tests.fakes.kube_objects import ingress, path, rule
from tests.integration.cluster import Cluster, cluster

from heim_controller.kube import resources

__all__ = ["NAMESPACES", "SERVICES", "Asker", "Town", "town"]

NAMESPACES: Final = 10
SERVICES: Final = ("one", "two")
# Puts between which the API server and the watches get their turn.
_AT_ONCE: Final = 50
_SETTLE_S: Final = 180.0

Made = dict[str, Any]


class Town:
    """The cluster, and the hand that changes its Ingresses."""

    def __init__(self, kube: Cluster, count: int) -> None:
        self.kube = kube
        self.count = count

    @staticmethod
    def name(number: int) -> str:
        """Namespace and name of an Ingress."""
        return f"team-{number % NAMESPACES}/app{number}"

    @staticmethod
    def host(number: int) -> str:
        """Its host."""
        return f"app{number}.{DOMAIN}"

    def leads_to(self, number: int, service: str) -> str:
        """What a pod of its Service answers."""
        return f"team-{number % NAMESPACES}/{service}"

    def made(self, number: int, service: str = SERVICES[0]) -> Made:
        """An Ingress as somebody applies it first."""
        return ingress(
            self.name(number),
            rule(self.host(number), path("/", service, port=8080)),
            notes={"auth": "none"},
        )

    async def fill(self) -> None:
        """Apply all of them, and wait until they are served and say so."""
        for number in range(self.count):
            populate(self.kube.kube.store, self.made(number))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        await self.kube.settled(_SETTLE_S)
        async with asyncio.timeout(_SETTLE_S):
            while not all(self._has_address(number) for number in range(self.count)):
                await asyncio.sleep(0.2)

    def _has_address(self, number: int) -> bool:
        found = self._found(number)
        return bool(((found or {}).get("status") or {}).get("loadBalancer"))

    def _found(self, number: int) -> Made | None:
        namespace, _, name = self.name(number).partition("/")
        return self.kube.kube.store.get(resources.INGRESSES, name, namespace)

    def lead(self, number: int, service: str, *, target: str = "/") -> None:
        """Edit an Ingress, or apply it anew when it is gone: `target` leads to `service`."""
        before = self._found(number)
        if before is None:
            populate(self.kube.kube.store, self.made(number, service))
            return
        after = copy.deepcopy(before)
        paths = [path("/", SERVICES[0], port=8080)] if target != "/" else []
        after["spec"]["rules"] = [rule(self.host(number), *paths, path(target, service, port=8080))]
        self.kube.kube.store.put(resources.INGRESSES, after)

    def delete(self, number: int) -> None:
        """Delete an Ingress."""
        namespace, _, name = self.name(number).partition("/")
        self.kube.kube.store.remove(resources.INGRESSES, name, namespace)


class Asker:
    """A connection over plain http that asks one thing after the other."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    @classmethod
    async def connect(cls, kube: Cluster) -> Asker:
        return cls(await kube.heim.connect(plain=True))

    async def ask(self, host: str, target: str = "/") -> str:
        """Who answered, as NAMESPACE/SERVICE, or the status of another answer."""
        self._wire.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        async with asyncio.timeout(30):
            found = await self._wire.answer()
        if found.status != 200:
            return str(found.status)
        told = json.loads(found.body)
        return f"{told['namespace']}/{told['service']}"


@asynccontextmanager
async def town(directory: Path, count: int) -> AsyncIterator[Town]:
    """A cluster with `count` Ingresses that are all served."""
    directory.mkdir(parents=True, exist_ok=True)
    spec: Made = {"ingress": {"allowPublic": {}}}
    async with cluster(directory, proxy=spec) as kube:
        for number in range(NAMESPACES):
            for service in SERVICES:
                await kube.echo(f"team-{number}/{service}")
        made = Town(kube, count)
        await made.fill()
        yield made
