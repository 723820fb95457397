"""The Kubernetes API in a few verbs, over plain dicts; every call has a deadline.

Nothing is tried again here but one thing: an answer of 401 reads the credentials anew and asks
once more. When to try again is what callers differ in; `heim_controller.kube.errors` tells them.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from heim_controller.kube.credentials import Credentials, Kubeconfig, find_credentials
from heim_controller.kube.errors import Garbled, LeadershipLost
from heim_controller.kube.exchange import Deadlines, Exchange, Request, drop
from heim_controller.kube.resources import Manifest, Resource, key_of, version_of
from heim_controller.kube.watch import WatchEvent, events_of

__all__ = ["FIELD_MANAGER", "Client", "Listing", "Page"]

# Under this name the API server remembers which fields are ours.
FIELD_MANAGER: Final = "heim-controller"

# Objects in one page of a list, as client-go asks for.
PAGE: Final = 500

_MERGE: Final = "application/merge-patch+json"
# JSON is YAML; older servers know no other name for this.
_APPLY: Final = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: objects, the version of the whole list, and the token for the next."""

    items: tuple[Manifest, ...]
    version: str
    more: str


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a list, and the version that a watch may go on from."""

    items: tuple[Manifest, ...]
    version: str


class Client:
    """Speaks to one API server. Use it as `async with`, or `close` it yourself."""

    def __init__(self, credentials: Credentials, *, deadlines: Deadlines | None = None) -> None:
        """Connect at the first request, with what `credentials` says then."""
        self._credentials = credentials
        self._deadlines = deadlines or Deadlines()
        self._may_write: Callable[[], bool] | None = None
        self.exchange = Exchange(credentials, self._deadlines)

    @classmethod
    async def from_environment(
        cls, environ: Mapping[str, str] | None = None, *, deadlines: Deadlines | None = None
    ) -> Client:
        """A client for the cluster that we run in, or that kubectl would speak to.

        Raises:
            Unconfigured: There is none, or its files cannot be read.
        """
        return await cls._checked(find_credentials(environ), deadlines)

    @classmethod
    async def from_kubeconfig(
        cls,
        path: Path | None = None,
        *,
        context: str | None = None,
        deadlines: Deadlines | None = None,
    ) -> Client:
        """A client for a context of a kubeconfig; of ~/.kube/config without a path.

        Raises:
            Unconfigured: The file cannot be read or does not name a server.
        """
        return await cls._checked(Kubeconfig(path, context=context), deadlines)

    @classmethod
    async def _checked(cls, credentials: Credentials, deadlines: Deadlines | None) -> Client:
        client = cls(credentials, deadlines=deadlines)
        await client.exchange.connected()  # so that what is missing is said at start
        return client

    @property
    def namespace(self) -> str:
        """The namespace of our pod, or of the kubeconfig's context."""
        return self._credentials.namespace

    def while_leading(self, leading: Callable[[], bool]) -> Client:
        """This client, on the same connections, which writes only while `leading()`.

        A process that was stopped for a minute goes on in the middle of its work: whatever it was
        about to write is refused with `LeadershipLost`, before it is sent.
        """
        found = copy.copy(self)
        found._may_write = leading
        return found

    async def close(self) -> None:
        """Close every connection; watches in flight end with `Unreachable`."""
        await self.exchange.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Manifest:
        """Read one object.

        Raises:
            KubeError: Any of them; `NotFound` when it is not there.
        """
        return await self.exchange.ask(Request("GET", resource.path(namespace, name)))

    async def page(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        query: Iterable[tuple[str, str]] = (),
    ) -> Page:
        """Read a page of a list; `query` holds limit, continue, resourceVersion and selectors.

        Raises:
            KubeError: Any of them.
        """
        request = Request("GET", resource.path(namespace), tuple(query))
        told = await self.exchange.ask(request, deadline_s=self._deadlines.listing)
        items, metadata = told.get("items"), told.get("metadata")
        if not isinstance(items, list | None) or not isinstance(metadata, dict):
            raise Garbled(f"{request}: the answer is not a list")
        return Page(
            tuple(_whole(item, resource) for item in items or ()),
            version_of(told),
            str(metadata.get("continue") or ""),
        )

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        selector: str = "",
        fields: str = "",
        version: str | None = None,
    ) -> Listing:
        """Read all objects, page by page.

        Args:
            resource: Which kind.
            namespace: None for those of all namespaces.
            selector: Label selector ("app=web,tier!=cache").
            fields: Field selector ("metadata.name=x", "type=kubernetes.io/tls").
            version: "0" allows an answer from the server's cache, which may lag; None does not.

        Raises:
            KubeError: Any of them; `Gone` when it took so long that a page was compacted.
        """
        common = (*_selecting(selector, fields), ("limit", str(PAGE)))
        # The token says where to go on and at which version; naming one as well is an error.
        where = () if version is None else (("resourceVersion", version),)
        items: list[Manifest] = []
        while True:
            page = await self.page(resource, namespace=namespace, query=(*common, *where))
            items += page.items
            if not page.more:
                return Listing(tuple(items), page.version)
            where = (("continue", page.more),)

    async def create(self, resource: Resource, manifest: Manifest) -> Manifest:
        """Write a new object.

        Raises:
            KubeError: Any of them; `AlreadyExists` when the name is taken.
        """
        namespace, _ = _place(resource, manifest)
        return await self._write(
            Request("POST", resource.path(namespace), _OURS, _named(manifest, resource))
        )

    async def replace(self, resource: Resource, manifest: Manifest) -> Manifest:
        """Write an object that was read before, unless somebody else wrote it meanwhile.

        Raises:
            KubeError: Any of them; `Conflict` when its resourceVersion is no longer the current.
        """
        path = resource.path(*_place(resource, manifest))
        return await self._write(Request("PUT", path, _OURS, _named(manifest, resource)))

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Manifest,
        *,
        namespace: str | None = None,
        subresource: Literal["", "status"] = "",
    ) -> Manifest:
        """Merge `body` into an object (RFC 7386): None deletes a key, lists are replaced.

        Raises:
            KubeError: Any of them.
        """
        path = resource.path(namespace, name) + (f"/{subresource}" if subresource else "")
        return await self._write(Request("PATCH", path, _OURS, body, _MERGE))

    async def apply(
        self, resource: Resource, manifest: Manifest, *, force: bool = True
    ) -> Manifest:
        """Make the fields in `manifest` so (server-side apply), creating the object if needed.

        Fields that we applied before and that are missing now are removed; those of others stay.

        Args:
            resource: Which kind.
            manifest: Only what we want to own; no managedFields.
            force: Take fields over that others own; without it that is a `Conflict`.

        Raises:
            KubeError: Any of them.
        """
        path = resource.path(*_place(resource, manifest))
        return await self._apply(path, _named(manifest, resource), force=force)

    async def apply_status(
        self, resource: Resource, manifest: Manifest, *, force: bool = True
    ) -> Manifest:
        """As `apply`, for the status only; the object must be there already.

        Raises:
            KubeError: Any of them; `NotFound` when the object is gone.
        """
        path = resource.path(*_place(resource, manifest)) + "/status"
        return await self._apply(path, _named(manifest, resource), force=force)

    async def _apply(self, path: str, body: Manifest, *, force: bool) -> Manifest:
        query = (*_OURS, ("force", "true" if force else "false"))
        return await self._write(Request("PATCH", path, query, body, _APPLY))

    async def _write(self, request: Request) -> Manifest:
        if self._may_write is not None and not self._may_write():
            raise LeadershipLost(f"{request}: not sent, since we do not lead (any more)")
        return await self.exchange.ask(request)

    async def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        uid: str | None = None,
    ) -> None:
        """Delete an object; with `uid` only if it is still that very one.

        Raises:
            KubeError: Any of them; `NotFound` when it is gone already, `Conflict` when the name
                is another object's now.
        """
        body: Manifest = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        await self._write(Request("DELETE", resource.path(namespace, name), (), body))

    @contextlib.asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        *,
        version: str,
        namespace: str | None = None,
        selector: str = "",
        fields: str = "",
        duration_s: float = 300.0,
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Follow changes after `version`; entering means that the server has answered.

        The iterator ends when the server ends the watch, after `duration_s` at the latest.

        Raises:
            KubeError: Any of them, on entering or from the iterator.
        """
        query = (
            *_selecting(selector, fields),
            ("watch", "true"),
            ("resourceVersion", version),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", str(max(1, round(duration_s)))),
        )
        response = await self.exchange.follow(Request("GET", resource.path(namespace), query))
        try:
            async with contextlib.aclosing(events_of(response)) as events:
                yield events
        finally:
            drop(response)

    def __repr__(self) -> str:
        return f"<Client {self._credentials!r}>"


_OURS: Final = (("fieldManager", FIELD_MANAGER),)


def _selecting(selector: str, fields: str) -> tuple[tuple[str, str], ...]:
    pairs = (("labelSelector", selector), ("fieldSelector", fields))
    return tuple(pair for pair in pairs if pair[1])


def _place(resource: Resource, manifest: Manifest) -> tuple[str | None, str]:
    namespace, name = key_of(manifest)
    if resource.namespaced and not namespace:
        raise ValueError(f"{resource.kind} {name!r} has no namespace")
    return (namespace if resource.namespaced else None), name


def _named(manifest: Manifest, resource: Resource) -> Manifest:
    """The manifest with its kind, so that nobody repeats what the resource knows."""
    return {**manifest, "apiVersion": resource.api_version, "kind": resource.kind}


def _whole(item: object, resource: Resource) -> Manifest:
    """An item of a list as it would be in a watch: there the kind is said, in lists it is not."""
    if not isinstance(item, dict):
        raise Garbled(f"a list of {resource} holds something that is no object")
    try:
        key_of(item)
    except ValueError as e:
        raise Garbled(f"a list of {resource} holds {e}") from e
    return _named(item, resource)
