"""A cluster in which Heim is installed: API server, heim-controller, heim-proxy, pods that echo.

The API server is the fake, controller and proxy are processes of their own, and a pod is a server
on loopback that tells what it was asked. `Cluster.apply` returns once the proxy serves what follows
from the objects, so that a test may ask for what must not be there.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from aiohttp import web

from heim_controller.kube import resources
from heim_controller.kube.resources import Resource
from tests.fakes import kube_objects
from tests.fakes.heim import DOMAIN, Answer
from tests.fakes.kube import FakeKube
from tests.fakes.kube_cluster import CONFIG_MAP, basics, populate
from tests.fakes.kube_document import account_folder, api_tls, issued
from tests.fakes.kube_store import Denied
from tests.fakes.upstream import Received, Script, Upstream, answer, read_body
from tests.integration import controller
from tests.integration.controller import Controller
from tests.integration.process import HeimProcess, admin

__all__ = ["WITHIN_S", "Cluster", "Pods", "cluster", "comes", "secret", "tls_secret"]

Made = dict[str, Any]

WITHIN_S = 12.0
"""What takes half a second takes this long on a machine that does four things at once."""

CONTROLLER = (sys.executable, str(Path(__file__).with_name("cluster_controller.py")))
PROXY = (sys.executable, str(Path(__file__).with_name("cluster_proxy.py")))

# One network for each process: `make test` runs several at a time.
NET = 8 + os.getpid() % 200


async def comes(ask: Callable[[], Awaitable[object]], within_s: float = WITHIN_S) -> None:
    """Wait until what is asked is true."""
    async with asyncio.timeout(within_s):
        while not await ask():
            await asyncio.sleep(0.02)


def tls_secret(name: str, *hosts: str) -> Made:
    """A TLS Secret of the authority that clients trust."""
    return secret(name, issued(*hosts))


def secret(name: str, data: dict[str, bytes]) -> Made:
    """A Secret of type kubernetes.io/tls, whatever is in it."""
    namespace, _, bare = name.rpartition("/")
    return {
        "kind": "Secret",
        "metadata": {"name": bare, "namespace": namespace},
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


class Pods:
    """Pods behind one Service, on addresses and a port of their own.

    Attributes:
        addresses: As EndpointSlices have them.
        port: Of all of them.
        asked: Every request, by the pod that got it.
    """

    def __init__(self, service: str, numbers: Iterable[int], script: Script | None = None) -> None:
        self.service = service
        self.numbers = list(numbers)
        self.port = 0
        self.asked: list[tuple[str, Received]] = []
        self._script = script
        self._servers: list[Upstream] = []

    @property
    def addresses(self) -> list[str]:
        return [f"10.244.0.{number}" for number in self.numbers]

    async def start(self) -> Self:
        for number in self.numbers:
            server = Upstream(
                script=self._echo(f"10.244.0.{number}"),
                port=self.port,
                address=f"127.{NET}.0.{number}",
            )
            await server.start()
            self.port = server.port
            self._servers.append(server)
        return self

    async def stop(self) -> None:
        for server in self._servers:
            await server.stop()

    def objects(self, port: Made | None = None, **keys: Any) -> list[Made]:
        """The Service, and the EndpointSlice of its pods."""
        own = port or {"port": 8080, "targetPort": 3000, "protocol": "TCP"}
        labels = keys.pop("labels", None)
        return [
            kube_objects.service(self.service, own, labels=labels),
            kube_objects.endpoint_slice(
                self.service, *self.addresses, port=self.port, port_name=own.get("name", ""), **keys
            ),
        ]

    def _echo(self, pod: str) -> Script:
        namespace, _, service = self.service.partition("/")

        async def script(
            received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> bytes | None:
            self.asked.append((pod, received))
            if self._script is not None:
                return await self._script(received, reader, writer)
            await read_body(received, reader)
            method, path, proto = received.line.split(" ")
            told = {
                "path": path, "host": received.get("host"), "method": method, "proto": proto,
                "headers": {name: received.all(name) for name, _ in received.fields},
                "namespace": namespace, "service": service, "pod": pod,
            }  # fmt: skip
            return answer(
                json.dumps(told).encode(),
                headers="Content-Type: application/json\r\nDate: Fri, 20 Nov 2026 12:00:00 GMT\r\n",
            )

        return script


@dataclass(repr=False)
class Cluster:
    """Everything, running; `apply` and `remove` are somebody else's hand.

    Attributes:
        kube: The API server.
        heim: The proxy.
        controller: The replica of the controller that was started last.
        directory: Files of all of them.
        flags: Further ones of the controller.
        replicas: All replicas, to be ended.
        running: All pods.
    """

    kube: FakeKube
    heim: HeimProcess
    directory: Path
    ca: str
    status_url: str
    flags: tuple[str, ...] = ()
    controller: Controller = field(init=False)
    replicas: AsyncExitStack = field(init=False)
    running: list[Pods] = field(default_factory=list)
    _number: int = 0
    _marker: Pods = field(init=False)

    # The cluster's own hand.

    async def pods(self, service: str, *numbers: int, script: Script | None = None) -> Pods:
        """Pods that run, with their last numbers; their objects are not there yet."""
        made = await Pods(service, numbers or [self._free()], script).start()
        self.running.append(made)
        return made

    def _free(self) -> int:
        used = {number for pods in self.running for number in pods.numbers}
        return next(number for number in range(1, 100) if number not in used)

    async def stop_pods(self, *namespaces: str) -> None:
        """End the pods of namespaces."""
        for pods in [one for one in self.running if one.service.partition("/")[0] in namespaces]:
            self.running.remove(pods)
            await pods.stop()

    @contextmanager
    def proxy_with(self, **spec: Any) -> Iterator[None]:
        """Another Proxy for the length of the block; nothing waits for it."""
        before = self.kube.store.get(resources.PROXIES, "main", "heim")
        assert before is not None
        changed = {**before, "spec": {**before["spec"], **spec}}
        self.kube.store.put(resources.PROXIES, changed)
        try:
            yield
        finally:
            self.kube.store.put(resources.PROXIES, before)

    async def echo(self, service: str, **keys: Any) -> Pods:
        """One pod with its Service, which has port 8080."""
        made = await self.pods(service)
        populate(self.kube.store, made.objects(**keys))
        return made

    async def apply(self, *made: Made | Iterable[Made]) -> None:
        """Put objects, and wait until the proxy serves what follows from them."""
        populate(self.kube.store, *made)
        await self.settled()

    async def remove(self, resource: Resource, *names: str) -> None:
        """Delete objects, and wait until the proxy serves what follows."""
        for name in names:
            namespace, _, bare = name.rpartition("/")
            self.kube.store.remove(resource, bare, namespace)
        await self.settled()

    async def clear(self, *namespaces: str) -> None:
        """Delete what is in namespaces."""
        store = self.kube.store
        for resource in (
            resources.INGRESSES, resources.SERVICES, resources.ENDPOINT_SLICES, resources.SECRETS,
            resources.BACKENDS, resources.ROLES, resources.ROLE_BINDINGS,
        ):  # fmt: skip
            for namespace, name in list(store.objects[resource]):
                if namespace in namespaces:
                    store.remove(resource, name, namespace)
        await self.settled()

    def mark(self) -> int:
        """Put an Ingress that only shows up together with everything that was put before.

        One kind's changes come in their order, and the route needs an Ingress, a Service and its
        endpoints.
        """
        self._number += 1
        number, store = self._number, self.kube.store
        name = f"marker/marker-{number}"
        own = {"port": 80, "protocol": "TCP"}
        made = kube_objects.endpoint_slice(name, *self._marker.addresses, port=self._marker.port)
        path = kube_objects.path(f"/{number}", f"marker-{number}")
        rule = kube_objects.rule(f"marker.{DOMAIN}", path)
        populate(
            store,
            kube_objects.service(name, own),
            made,
            kube_objects.ingress("marker/marker", rule, notes={"auth": "none"}),
        )
        if number > 1:
            store.remove(resources.SERVICES, f"marker-{number - 1}", "marker")
            store.remove(resources.ENDPOINT_SLICES, f"marker-{number - 1}-x7k2p", "marker")
        return number

    async def settled(self, within_s: float = WITHIN_S) -> None:
        """Wait until the proxy serves what follows from the objects that are there."""
        number = self.mark()

        async def served() -> bool:
            found = await self.get(f"/{number}", f"marker.{DOMAIN}", plain=True)
            return found.status == 200

        await comes(served, within_s)

    # What people and tests see.

    async def get(self, target: str = "/", host: str = f"app.{DOMAIN}", **keys: Any) -> Answer:
        """One request on a fresh connection."""
        return await self.heim.request(target, host=host, **keys)

    async def leads_to(
        self, host: str, target: str = "/", *, plain: bool = True, **keys: Any
    ) -> str:
        """The Service that answers, as NAMESPACE/NAME, or the status of another answer."""
        found = await self.get(target, host, plain=plain, **keys)
        if found.status != 200:
            return str(found.status)
        told = json.loads(found.body)
        return f"{told['namespace']}/{told['service']}"

    async def certificate(self, host: str) -> bytes:
        """The certificate that is shown for a name, whoever made it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        _, writer = await asyncio.open_connection(
            "127.0.0.1", self.heim.https_port, ssl=context, server_hostname=host
        )
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return found

    def told(self, name: str) -> list[str]:
        """Reasons of the Events about an object, sorted."""
        events = self.kube.store.all(resources.EVENTS)
        return sorted(one["reason"] for one in events if one["regarding"]["name"] == name)

    def status(self, resource: Resource, name: str) -> Made:
        """The status of an object."""
        namespace, _, bare = name.rpartition("/")
        found = self.kube.store.get(resource, bare, namespace)
        return dict(found.get("status") or {}) if found else {}

    async def start_controller(self, pod: str) -> Controller:
        """Start a replica of the controller, which is `controller` from now on."""
        flags = ("--secrets=cluster", f"--proxy-status-url={self.status_url}", *self.flags)
        started = controller.running(
            self.kube, self.directory, *flags, pod=pod, program=CONTROLLER, ca=self.ca
        )
        self.controller = found = await self.replicas.enter_async_context(started)
        kubelet = asyncio.ensure_future(self._kubelet(found))
        self.replicas.callback(kubelet.cancel)
        return found

    async def _kubelet(self, replica: Controller) -> None:
        """Start a replica anew that ended by itself, as one does that lost its Lease."""
        if await replica.process.wait() == 1:
            self._end_lease()
            await self.start_controller(f"{replica.pod}-again")

    async def kill(self, replica: Controller) -> None:
        """Kill a replica."""
        await replica.end(signal.SIGKILL)
        self._end_lease()

    def _end_lease(self) -> None:
        """Nobody waits until a Lease runs out: that is test_controller's."""
        with contextlib.suppress(Denied):
            self.kube.store.remove(resources.LEASES, "main-controller", "heim")


@asynccontextmanager
async def cluster(
    directory: Path, *args: str, proxy: Made | None = None, **boot: Any
) -> AsyncIterator[Cluster]:
    """A cluster with one replica of the controller and the proxy.

    Args:
        directory: For files.
        args: Further flags of the controller.
        proxy: Keys of the Proxy's spec.
        boot: Top-level keys of the boot file.
    """
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(FakeKube(tls=api_tls()))
        stack.enter_context(_environment(kube, directory))
        account = account_folder(directory / "account")
        heim = _boot(directory, account, boot)
        url = await stack.enter_async_context(_status_listener(directory))
        made = Cluster(kube, heim, directory, str(account / "ca.crt"), url, args)
        made._marker = await made.pods("marker/marker")
        stack.push_async_callback(_stopped, made)
        populate(
            kube.store,
            basics(**(proxy or {})),
            tls_secret("heim/default", f"*.{DOMAIN}", DOMAIN),
        )
        made.mark()
        # The proxy waits for the controller's first document.
        launching = asyncio.ensure_future(heim.launch())
        stack.callback(launching.cancel)
        made.replicas = await stack.enter_async_context(AsyncExitStack())
        await made.start_controller("pod-1")
        await launching
        await made.settled()
        yield made


async def _stopped(made: Cluster) -> None:
    if hasattr(made.heim, "process"):
        await made.heim.stop()
    for pods in made.running:
        await pods.stop()


@contextmanager
def _environment(kube: FakeKube, directory: Path) -> Iterator[None]:
    """What pods find in their environment."""
    run = directory / "run"
    run.mkdir(mode=0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        patch.setenv("KUBERNETES_SERVICE_PORT", kube.url.rpartition(":")[2])
        patch.setenv("XDG_RUNTIME_DIR", str(run))
        patch.setenv("HEIM_TEST_NET", str(NET))
        yield


def _boot(directory: Path, account: Path, boot: Made) -> HeimProcess:
    """A proxy with its boot file, not started."""
    heim = HeimProcess.prepare(directory, backends=[], **boot)
    assert isinstance(heim, HeimProcess)
    for key in ("backends", "roles", "tls"):
        del heim.document[key]
    heim.document["source"] = {"kubernetes": {"config_map": CONFIG_MAP, "account": str(account)}}
    heim.write()
    heim.within = PROXY
    heim.patience_s = 40.0
    heim.log_file.touch()
    return heim


@asynccontextmanager
async def _status_listener(directory: Path) -> AsyncIterator[str]:
    """The proxy's /status over TCP, as its pod has it; its own is a socket file here."""

    async def status(request: web.Request) -> web.Response:
        try:
            found = await admin(directory, "/status")
        except OSError as e:
            raise web.HTTPBadGateway from e
        return web.Response(body=found.body, status=found.status, content_type="application/json")

    app = web.Application()
    app.router.add_get("/status", status)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/status"
    finally:
        await runner.cleanup()
