"""A Kubernetes API server on 127.0.0.1, with only the API machinery that Heim relies on.

tests/contracts/test_kube_api.py runs against it and against a real kube-apiserver: what it does is
what that suite says. `faults` makes it misbehave, `store` is the rest of the cluster's hand.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections import Counter
from pathlib import Path
from typing import Any, Self, cast

from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from heim_controller.kube.client import Client
from heim_controller.kube.exchange import Deadlines
from heim_controller.kube.resources import Resource
from tests.fakes import kube_rules
from tests.fakes.kube_faults import Asked, Faults
from tests.fakes.kube_store import Denied, Record, Store

__all__ = ["FakeKube", "Known", "kubeconfig"]

Manifest = dict[str, Any]

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Known:
    """Credentials that a test knows, and may change."""

    proxied = False
    namespace = "default"

    def __init__(self, url: str, token: str, *, ca_file: str | None = None) -> None:
        self.url = url
        self.token = token
        self.ca_file = ca_file
        self.loads = 0

    async def load(self) -> Configuration:
        self.loads += 1
        configuration = Configuration(host=self.url, ssl_ca_cert=self.ca_file)
        configuration.api_key["BearerToken"] = f"Bearer {self.token}"
        return configuration


def kubeconfig(
    path: Path, url: str, *, token_file: Path | None = None, token: str = "", ca: str = ""
) -> Path:
    """Write a kubeconfig with one context in namespace heim."""
    user: Manifest = {"tokenFile": str(token_file)} if token_file else {"token": token}
    cluster: Manifest = {"server": url} | ({"certificate-authority": ca} if ca else {})
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "here", "cluster": cluster}],
                "users": [{"name": "me", "user": user}],
                "contexts": [
                    {
                        "name": "test",
                        "context": {"cluster": "here", "user": "me", "namespace": "heim"},
                    }
                ],
            }
        )
    )
    return path


class FakeKube:
    """`async with FakeKube() as kube:`; `kube.client()` speaks to it.

    Attributes:
        store: The objects.
        faults: What is wrong.
        tokens: Bearer tokens that are accepted.
        asked: Every request that got as far as authorisation.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.store = Store()
        self.faults = Faults()
        self.tokens = {"secret-token"}
        self.asked: list[Asked] = []
        self._tls = tls
        self._port = 0
        self._pages: dict[str, tuple[int, list[Manifest]]] = {}
        self._transports: set[asyncio.Transport] = set()
        self._watchers: set[_Watcher] = set()
        self._writes: set[asyncio.Future[web.Response]] = set()
        self._clients: list[Client] = []
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.up()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for client in self._clients:
            await client.close()
        for write in tuple(self._writes):
            write.cancel()
        await asyncio.gather(*self._writes, return_exceptions=True)
        await self.down()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def client(self, *, token: str = "secret-token", deadlines: Deadlines | None = None) -> Client:
        """A client; closed with the server."""
        client = Client(Known(self.url, token), deadlines=deadlines)
        self._clients.append(client)
        return client

    def counted(self) -> Counter[tuple[str, str]]:
        """How many requests there were of each verb and plural."""
        return Counter((asked.verb, asked.plural) for asked in self.asked)

    # Faults that act on connections.

    async def down(self) -> None:
        """Stop listening, and cut every connection."""
        runner, self._runner = self._runner, None
        if runner is not None:
            self.cut()
            for site in list(runner.sites):
                await site.stop()
            self.cut()
            await runner.cleanup()

    async def up(self) -> None:
        """Listen, on the same port as before."""
        app = web.Application(client_max_size=3 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            app,
            shutdown_timeout=0.1,  # 0 would be for ever
            access_log=None,
            handler_cancellation=True,
        )
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, "127.0.0.1", self._port, ssl_context=self._tls, reuse_address=True
        )
        await site.start()
        self._port = self._runner.addresses[0][1]

    def cut(self) -> None:
        """Reset every connection."""
        for transport in tuple(self._transports):
            transport.abort()

    def end_watches(self) -> None:
        """End every watch as if its time were up."""
        for watcher in tuple(self._watchers):
            watcher.end.set()

    async def say(self, line: bytes) -> None:
        """Write bytes into every watch."""
        for watcher in tuple(self._watchers):
            with contextlib.suppress(ConnectionError):  # cut a moment ago
                await watcher.response.write(line)

    @property
    def watching(self) -> int:
        """Watches that are open."""
        return len(self._watchers)

    # Requests.

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        transport = cast(asyncio.Transport, request.transport)
        self._transports.add(transport)
        try:
            return await self._answer(request)
        except Denied as e:
            return web.json_response(e.status(), status=e.code)
        finally:
            self._transports.discard(transport)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path in ("/readyz", "/livez"):
            return web.Response(text="ok")
        resource, namespace, name, sub = self._placed(request)
        query = dict(request.query)
        asked = Asked(
            self._verb(request, name),
            resource.plural + (f"/{sub}" if sub else ""),
            request.headers.get("Authorization", "").partition(" ")[2],
            query,
            namespace,
            name,
        )
        if asked.token not in self.tokens:
            raise Denied(401, "Unauthorized", "Unauthorized")
        self.asked.append(asked)
        if (burst := self.faults.due(asked)) is not None:
            headers = {"Retry-After": str(burst.retry_after)} if burst.retry_after else {}
            denied = Denied(burst.status, "Planned", f"planned {burst.status}")
            return web.json_response(denied.status(), status=burst.status, headers=headers)
        if self.faults.denies(asked):
            raise Denied(
                403,
                "Forbidden",
                f'{resource} is forbidden: User "test" cannot {asked.verb} resource '
                f'"{resource.plural}" in API group "{resource.group}" at the cluster scope',
            )
        if asked.verb == "watch":
            return await self._watch(request, resource, namespace)
        if asked.verb == "list":
            await asyncio.sleep(self.faults.slow_s)
            return web.json_response(self._list(resource, namespace, query))
        if asked.verb == "get":
            return web.json_response(self.store.read(resource, (namespace, name)))
        # A write that has begun goes on when its client goes away, as in the real one.
        write = asyncio.ensure_future(
            self._write(request, resource, (namespace, name), sub, asked.verb)
        )
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)
        return await asyncio.shield(write)

    def _placed(self, request: web.Request) -> tuple[Resource, str, str, str]:
        """The resource, namespace, name and subresource of a path."""
        parts = request.path.strip("/").split("/")
        if parts[:2] == ["api", "v1"]:
            group, version, rest = "", "v1", parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            raise Denied(404, "NotFound", "the server could not find the requested resource")
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] != "status":
            namespace, rest = rest[1], rest[2:]
        plural, name, sub = (*rest, "", "")[:3]
        for resource, kind in self.store.kinds.items():
            if (resource.group, resource.version, resource.plural) == (group, version, plural):
                known = sub in ("", "status") and not (sub and not kind.status)
                if known and bool(namespace) <= resource.namespaced:
                    return resource, namespace, name, sub
        raise Denied(404, "NotFound", "the server could not find the requested resource")

    def _verb(self, request: web.Request, name: str) -> str:
        if request.method != "GET":
            if "apply-patch" in request.headers.get("Content-Type", ""):
                return "apply"
            return VERBS[request.method]
        if name:
            return "get"
        return "watch" if request.query.get("watch") in ("true", "1") else "list"

    async def _write(
        self, request: web.Request, resource: Resource, key: tuple[str, str], sub: str, verb: str
    ) -> web.Response:
        try:
            body = await request.json() if request.can_read_body else {}
        except ValueError as e:
            raise Denied(400, "BadRequest", f"cannot read the body: {e}") from e
        if self.faults.stall_writes is not None:
            await self.faults.stall_writes.wait()
        store, who = self.store, request.query.get("fieldManager", "unknown")
        code, made = 200, cast(Manifest, {"kind": "Status", "status": "Success"})
        if verb == "create":
            code, made = 201, store.create(resource, key[0], body, who)
        elif verb == "update":
            made = store.replace(resource, key, body, who, sub)
        elif verb == "patch":
            if "merge-patch" not in request.headers["Content-Type"]:
                raise Denied(
                    415, "UnsupportedMediaType", "the body of the request was in an unknown format"
                )
            made = store.patch(resource, key, body, who, sub)
        elif verb == "apply":
            if "fieldManager" not in request.query:
                raise Denied(400, "BadRequest", "fieldManager is required for apply patch")
            code = 200 if key in store.objects[resource] else 201
            forced = request.query.get("force") == "true"
            made = store.apply(resource, key, body, who, force=forced, sub=sub)
        else:
            store.delete(resource, key, body)
        if self.faults.stall_answers is not None:
            await self.faults.stall_answers.wait()
        return web.json_response(made, status=code)

    def _list(self, resource: Resource, namespace: str, query: dict[str, str]) -> Manifest:
        self._check_selectors(resource, query)
        limit = int(query.get("limit") or 0)
        version = query.get("resourceVersion", "")
        if token := query.get("continue"):
            if version:
                raise Denied(400, "BadRequest", "resourceVersion is not allowed with continue")
            revision, items = self._pages.get(token, (0, []))
            if revision < self.store.compacted:
                raise Denied(410, "Expired", "The provided continue parameter is too old")
        else:
            revision, items = self.store.revision, self.store.all(resource)
            if version.isdigit() and int(version) > revision:
                raise Denied(
                    504, "Timeout", f"Too large resource version: {version}, current: {revision}"
                )
            items = [item for item in items if self._selected(item, namespace, query)]
        metadata: Manifest = {"resourceVersion": str(revision)}
        # The watch cache, which answers version 0, has no pages.
        if limit and len(items) > limit and version != "0":
            following = base64.urlsafe_b64encode(f"{len(self._pages)} {revision}".encode()).decode()
            self._pages[following] = (revision, items[limit:])
            metadata |= {"continue": following, "remainingItemCount": len(items) - limit}
            items = items[:limit]
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": metadata,
            # Items of lists do not say what they are.
            "items": [
                {key: value for key, value in item.items() if key not in ("kind", "apiVersion")}
                for item in items
            ],
        }

    def _check_selectors(self, resource: Resource, query: dict[str, str]) -> None:
        """Refuse selectors that cannot be read, whatever there is to select from."""
        probe: Manifest = {"kind": resource.kind, "metadata": {"name": "x"}}
        self._selected(probe, "", query)

    def _selected(self, item: Manifest, namespace: str, query: dict[str, str]) -> bool:
        metadata = item["metadata"]
        if namespace and metadata.get("namespace") != namespace:
            return False
        try:
            return kube_rules.label_selected(
                metadata.get("labels") or {}, query.get("labelSelector", "")
            ) and kube_rules.field_selected(item, query.get("fieldSelector", ""))
        except kube_rules.BadSelector as e:
            raise Denied(400, "BadRequest", str(e)) from e

    # Watches.

    async def _watch(
        self, request: web.Request, resource: Resource, namespace: str
    ) -> web.StreamResponse:
        query = dict(request.query)
        version = query.get("resourceVersion") or "0"
        if not version.isdigit():
            raise Denied(400, "BadRequest", f"resourceVersion: Invalid value: {version!r}")
        if int(version) > self.store.revision:
            raise Denied(504, "Timeout", f"Too large resource version: {version}")
        self._check_selectors(resource, query)
        gone = 0 < int(version) < self.store.compacted
        expired = Denied(410, "Expired", f"too old resource version: {version}")
        if gone and self.faults.gone_by_status:
            raise expired
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        watcher = _Watcher(self, resource, response, int(version))
        watcher.selected = lambda item: self._selected(item, namespace, query)
        if gone:
            await watcher.write("ERROR", expired.status())
            return response
        duration = float(query.get("timeoutSeconds") or 1800)
        if self.faults.duration_s is not None:
            duration = self.faults.duration_s
        self._watchers.add(watcher)
        try:
            with contextlib.suppress(ConnectionError):
                await watcher.run(duration, bookmarks=query.get("allowWatchBookmarks") == "true")
        finally:
            self._watchers.discard(watcher)
        return response


class _Watcher:
    """One watch that is open."""

    def __init__(
        self, kube: FakeKube, resource: Resource, response: web.StreamResponse, version: int
    ) -> None:
        self.kube = kube
        self.resource = resource
        self.response = response
        self.version = version
        self.end = asyncio.Event()
        self.selected: Any = None

    async def run(self, duration_s: float, *, bookmarks: bool) -> None:
        loop = asyncio.get_running_loop()
        store, until = self.kube.store, loop.time() + duration_s
        if self.version == 0:
            for item in store.all(self.resource):
                if self.selected(item):
                    await self.write("ADDED", item)
            self.version = store.revision
        bookmark_at = loop.time() + self.kube.faults.bookmark_s
        while not self.end.is_set() and loop.time() < until:
            changed = store.changed
            for record in store.since(self.version):
                self.version = record.revision
                if record.resource == self.resource:
                    await self._tell(record)
            if bookmarks and loop.time() >= bookmark_at:
                bookmark_at = loop.time() + self.kube.faults.bookmark_s
                await self._bookmark()
            waits = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(self.end.wait())]
            patience = min(until, bookmark_at) - loop.time()
            try:
                await asyncio.wait(
                    waits, timeout=max(0.0, patience), return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                for wait in waits:
                    wait.cancel()
        if bookmarks and not self.end.is_set():
            await self._bookmark()

    async def _tell(self, record: Record) -> None:
        """A change as this watch sees it: what leaves the selection is deleted from it."""
        before = record.before is not None and self.selected(record.before)
        after = record.type != "DELETED" and self.selected(record.object)
        if after:
            await self.write("MODIFIED" if before else "ADDED", record.object)
        elif before:
            last = record.object if record.type == "DELETED" else record.before
            version = {**last["metadata"], "resourceVersion": str(record.revision)}  # type: ignore[index]
            await self.write("DELETED", {**last, "metadata": version})  # type: ignore[dict-item]

    async def _bookmark(self) -> None:
        await self.write(
            "BOOKMARK",
            {
                "kind": self.resource.kind,
                "apiVersion": self.resource.api_version,
                "metadata": {"resourceVersion": str(self.version), "creationTimestamp": None},
            },
        )

    async def write(self, kind: str, manifest: Manifest) -> None:
        if self.kube.faults.silent:
            return
        line = json.dumps({"type": kind, "object": manifest}).encode() + b"\n"
        size = self.kube.faults.chunk or len(line)
        for start in range(0, len(line), size):
            await self.response.write(line[start : start + size])
            if size < len(line):
                await asyncio.sleep(0)
