"""Certificates by ACME HTTP-01, from a real authority that asks through the proxy's plain listener.

pebble is the authority. cert-manager is stood in for by `Manager`, which creates the objects that
it creates: a solver's pod, its Service with label and port 8089, and an Ingress with the one path.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from heim_controller.kube import resources
from tests.fakes import kube_objects
from tests.fakes.acme import AcmeClient, Refused
from tests.fakes.heim import user
from tests.fakes.kube_cluster import populate
from tests.fakes.kube_objects import ingress, path, rule
from tests.fakes.upstream import Received, answer
from tests.integration.cluster import Cluster, Pods, cluster, comes, secret
from tests.integration.pebble import Pebble, pebble

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]

Made = dict[str, Any]

LABEL = {"acme.cert-manager.io/http01-solver": "true"}
PORT = {"name": "http", "port": 8089, "targetPort": 8089, "protocol": "TCP"}
NAME = "cm-acme-http-solver-7x2kq"
LOGIN = "auth.example.test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kube(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with cluster(
        tmp_path_factory.mktemp("cluster"), proxy={"ingress": {"allowPublic": {}}}
    ) as started:
        await started.echo("shop/one")
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def authority(
    kube: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Pebble]:
    async with pebble(tmp_path_factory.mktemp("pebble"), http_port=kube.heim.http_port) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def client(authority: Pebble) -> AsyncIterator[AcmeClient]:
    async with AcmeClient(authority.directory, authority.tls) as made:
        yield made


@dataclass
class Manager:
    """cert-manager, for one namespace; `edited` is an Ingress that gets the path, by edit-in-place.

    Attributes:
        asked: Requests for challenges that came to a solver.
    """

    kube: Cluster
    client: AcmeClient
    namespace: str
    edited: str = ""
    check: bool = True
    asked: list[Received] = field(default_factory=list)

    async def issue(self, host: str, name: str) -> bytes:
        """Have a certificate issued into the Secret `name`; returns it as the wire has it."""
        solvers: list[Pods] = []

        async def solve(host: str, token: str, authorisation: str) -> None:
            solvers.append(await self._solver(host, token, authorisation))

        try:
            data = await self.client.certificate(host, solve)
        finally:
            self._clean(solvers)
        populate(self.kube.kube.store, secret(f"{self.namespace}/{name}", data))
        leaf = x509.load_pem_x509_certificates(data["tls.crt"])[0]
        return leaf.public_bytes(Encoding.DER)

    async def _solver(self, host: str, token: str, authorisation: str) -> Pods:
        where = f"/.well-known/acme-challenge/{token}"

        async def script(
            received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> bytes:
            self.asked.append(received)
            right = (received.path, (received.get("host") or "").partition(":")[0])
            if right != (where, host):
                return answer(b"", status="404 Not Found")
            return answer(authorisation.encode())

        pods = await self.kube.pods(f"{self.namespace}/{NAME}", script=script)
        challenge = path(where, NAME, kind="Exact", port=8089)
        populate(self.kube.kube.store, pods.objects(PORT, labels=LABEL))
        if self.edited:
            self._edit(host, challenge)
        else:
            made = ingress(f"{self.namespace}/{NAME}", rule(host, challenge), labels=LABEL)
            populate(self.kube.kube.store, made)

        async def reachable() -> bool:
            found = await self.kube.get(where, host, plain=True)
            return found.body == authorisation.encode()

        if self.check:  # as cert-manager does before it tells the authority
            await comes(reachable)
        else:
            await self.kube.settled()
        return pods

    def _edit(self, host: str, challenge: Made | None) -> None:
        store = self.kube.kube.store
        found = store.get(resources.INGRESSES, self.edited, self.namespace)
        assert found is not None
        [first, *_] = found["spec"]["rules"]
        paths = [one for one in first["http"]["paths"] if "acme" not in one["path"]]
        whole = [challenge, *paths] if challenge else paths
        spec = {**found["spec"], "rules": [{"host": host, "http": {"paths": whole}}]}
        store.put(resources.INGRESSES, {**found, "spec": spec})
        self._host = host

    def _clean(self, solvers: list[Pods]) -> None:
        store = self.kube.kube.store
        if self.edited:
            self._edit(self._host, None)
        elif solvers:
            store.remove(resources.INGRESSES, NAME, self.namespace)
        if solvers:
            store.remove(resources.SERVICES, NAME, self.namespace)


async def verified(kube: Cluster, host: str, trusting: ssl.SSLContext) -> str:
    """The status line that somebody gets who trusts the authority."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", kube.heim.https_port, ssl=trusting, server_hostname=host
    )
    cookie = await kube.heim.signed_in(user("alice", groups=("staff",)), host)
    writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n".encode())
    async with asyncio.timeout(5):
        line = await reader.readline()
    writer.transport.abort()
    return line.decode().strip()


def site(name: str, host: str) -> Made:
    """An Ingress that needs people to sign in, whose certificate is to be issued."""
    return ingress(
        f"shop/{name}",
        rule(host, path("/", "one", port=8080)),
        tls=[{"hosts": [host], "secretName": name}],
        notes={"roles": "heim/staff"},
    )


@pytest.mark.parametrize("how", ["solver", "edit-in-place"])
async def test_a_first_certificate_is_issued_and_renewed(
    kube: Cluster, authority: Pebble, client: AcmeClient, how: str
) -> None:
    host = f"{how}.example.test"
    await kube.apply(site(how, host))
    manager = Manager(kube, client, "shop", edited=how if how == "edit-in-place" else "")
    trusting = await authority.trusting()
    first = await manager.issue(host, how)
    await comes(lambda: shown(kube, host, first))
    assert await verified(kube, host, trusting) == "HTTP/1.1 200 OK"
    # pebble asks without cookies, and the solver hears of nobody else.
    assert not any(received.get("cookie") for received in manager.asked)

    # The renewal, while the host has a certificate and moves everybody to https.
    assert (await kube.get("/", host, plain=True)).status == 308
    before = len(manager.asked)
    second = await manager.issue(host, how)
    assert second != first
    assert len(manager.asked) > before
    await comes(lambda: shown(kube, host, second))
    assert await verified(kube, host, trusting) == "HTTP/1.1 200 OK"
    await kube.settled()
    assert (await kube.get("/.well-known/acme-challenge/x", host, plain=True)).status == 308


async def shown(kube: Cluster, host: str, certificate: bytes) -> bool:
    return await kube.certificate(host) == certificate


async def test_the_login_host_gets_its_certificate_too(
    kube: Cluster, authority: Pebble, client: AcmeClient
) -> None:
    await kube.apply(
        kube_objects.proxy(
            defaultRoles=["staff"], ingress={"allowPublic": {}}, certificates=["login"]
        )
    )
    made = await Manager(kube, client, "heim").issue(LOGIN, "login")
    await comes(lambda: shown(kube, LOGIN, made))
    line = await verified(kube, LOGIN, await authority.trusting())
    assert line.startswith("HTTP/1.1 ")


async def test_a_namespace_gets_no_certificate_for_a_host_of_another(
    kube: Cluster, client: AcmeClient
) -> None:
    host = "owned.example.test"
    await kube.apply(site("owned", host))
    manager = Manager(kube, client, "bank", check=False)
    with pytest.raises(Refused, match=r"unauthorized|connection"):
        await manager.issue(host, "stolen")
    assert manager.asked == []
