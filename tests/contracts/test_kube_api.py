"""What Heim relies on of the Kubernetes API, checked on the fake and on a real kube-apiserver.

The fake is what the rest of the tests run on, so it is worth what this suite says. The real one
runs when KUBEBUILDER_ASSETS names a folder with `etcd` and `kube-apiserver`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from heim_controller.kube.apply import condition, conditions
from heim_controller.kube.client import Page
from heim_controller.kube.errors import (
    AlreadyExists,
    ApiError,
    Busy,
    Conflict,
    Gone,
    Invalid,
    NotFound,
    Unauthorized,
)
from heim_controller.kube.events import Rates, Recorder
from heim_controller.kube.exchange import Request
from heim_controller.kube.informer import Change, Informer, Pace
from heim_controller.kube.lease import Election, Terms
from heim_controller.kube.resources import (
    BACKENDS,
    CONFIG_MAPS,
    EVENTS,
    INGRESS_CLASSES,
    INGRESSES,
    LEASES,
    SECRETS,
    Manifest,
    Resource,
    version_of,
)
from heim_controller.kube.watch import WatchEvent
from tests.fakes.kube import FakeKube
from tests.fakes.kube_real import RealKube, missing
from tests.fakes.kube_servers import Api, fake_api, real_api

WHY_NOT = missing()
SERVERS = ["fake"] if WHY_NOT else ["fake", "real"]

# Starting a real API server takes seconds, and half a minute on a busy machine.
pytestmark = pytest.mark.timeout(30 if WHY_NOT else 90)

MOMENT = "2026-01-02T03:04:05.000006Z"


@pytest.fixture(scope="module")
def real() -> Iterator[RealKube]:
    kube = RealKube()
    try:
        kube.start()
        yield kube
    finally:
        kube.stop()


@pytest.fixture(params=SERVERS)
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    if request.param == "fake":
        async with FakeKube() as kube:
            yield await fake_api(kube)
    else:
        found = await real_api(request.getfixturevalue("real"))
        async with found.client:
            yield found


def test_a_real_api_server_was_asked_as_well() -> None:
    if WHY_NOT:
        print(WHY_NOT)
        pytest.skip(WHY_NOT)
    assert "real" in SERVERS


# One object.


async def test_what_is_created_has_an_identity_and_a_version(api: Api) -> None:
    made = await api.config_map("a", key="value")
    metadata = made["metadata"]
    assert metadata["uid"]
    assert metadata["creationTimestamp"].endswith("Z")
    assert version_of(made)
    assert (made["apiVersion"], made["kind"]) == ("v1", "ConfigMap")


async def test_what_was_created_is_read(api: Api) -> None:
    made = await api.config_map("a", key="value")
    assert await api.client.get(CONFIG_MAPS, "a", namespace=api.namespace) == made


async def test_a_name_is_taken_once(api: Api) -> None:
    await api.config_map("a")
    with pytest.raises(AlreadyExists):
        await api.config_map("a")


async def test_a_namespace_must_exist(api: Api) -> None:
    with pytest.raises(NotFound):
        await api.client.create(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "nowhere"}})


async def test_an_object_to_create_has_no_version(api: Api) -> None:
    manifest = api.manifest("a")
    manifest["metadata"]["resourceVersion"] = "1"
    with pytest.raises(ApiError):  # 500 on old servers
        await api.client.create(CONFIG_MAPS, manifest)


@pytest.mark.parametrize("name", ["A", "a_b", "-a", "a..b", "x" * 254])
async def test_a_name_is_a_subdomain(api: Api, name: str) -> None:
    with pytest.raises(Invalid):
        await api.config_map(name)


async def test_what_is_not_there_is_not_found(api: Api) -> None:
    with pytest.raises(NotFound):
        await api.client.get(CONFIG_MAPS, "a", namespace=api.namespace)


async def test_a_kind_that_is_not_installed_is_not_found(api: Api) -> None:
    nothing = Resource("nothing.example", "v1", "nothings", "Nothing")
    with pytest.raises(NotFound):
        await api.client.list(nothing)


async def test_a_replacement_has_a_new_version(api: Api) -> None:
    made = await api.config_map("a", key="old")
    done = await api.client.replace(CONFIG_MAPS, {**made, "data": {"key": "new"}})
    assert done["data"] == {"key": "new"}
    assert version_of(done) != version_of(made)
    assert done["metadata"]["uid"] == made["metadata"]["uid"]


async def test_a_replacement_of_an_old_version_is_a_conflict(api: Api) -> None:
    made = await api.config_map("a", key="old")
    await api.client.replace(CONFIG_MAPS, {**made, "data": {"key": "new"}})
    with pytest.raises(Conflict):
        await api.client.replace(CONFIG_MAPS, {**made, "data": {"key": "late"}})


async def test_a_replacement_by_the_same_keeps_the_version(api: Api) -> None:
    made = await api.config_map("a", key="value")
    assert version_of(await api.client.replace(CONFIG_MAPS, made)) == version_of(made)


async def test_a_replacement_without_a_version_overwrites(api: Api) -> None:
    await api.config_map("a", key="old")
    done = await api.client.replace(CONFIG_MAPS, api.manifest("a", data={"key": "new"}))
    assert done["data"] == {"key": "new"}


async def test_a_replacement_of_a_lease_needs_a_version(api: Api) -> None:
    await api.client.create(LEASES, api.manifest("a", spec={"holderIdentity": "x"}))
    with pytest.raises(Invalid):
        await api.client.replace(LEASES, api.manifest("a", spec={"holderIdentity": "y"}))


async def test_a_replacement_of_another_object_of_that_name_is_a_conflict(api: Api) -> None:
    made = await api.config_map("a")
    made["metadata"]["uid"] = "5d3e5d2e-0000-4000-8000-000000000000"
    with pytest.raises(Conflict):
        await api.client.replace(CONFIG_MAPS, made)


async def test_a_replacement_of_nothing_is_not_found(api: Api) -> None:
    with pytest.raises(NotFound):
        await api.client.replace(CONFIG_MAPS, api.manifest("a"))


async def test_of_two_replacements_of_a_version_one_wins(api: Api) -> None:
    made = await api.client.create(LEASES, api.manifest("a", spec={"holderIdentity": "x"}))
    done = await asyncio.gather(
        *(
            api.client.replace(LEASES, {**made, "spec": {"holderIdentity": who}})
            for who in ("one", "two")
        ),
        return_exceptions=True,
    )
    assert sorted(isinstance(answer, Conflict) for answer in done) == [False, True]


async def test_a_patch_adds_replaces_and_deletes(api: Api) -> None:
    await api.config_map("a", kept="1", changed="1", gone="1")
    body: Manifest = {"data": {"changed": "2", "gone": None, "new": "2"}}
    done = await api.client.patch(CONFIG_MAPS, "a", body, namespace=api.namespace)
    assert done["data"] == {"kept": "1", "changed": "2", "new": "2"}


async def test_a_patch_of_nothing_is_not_found(api: Api) -> None:
    with pytest.raises(NotFound):
        await api.client.patch(CONFIG_MAPS, "a", {"data": {}}, namespace=api.namespace)


async def test_a_patch_of_an_old_version_is_a_conflict(api: Api) -> None:
    made = await api.config_map("a", key="1")
    await api.client.patch(CONFIG_MAPS, "a", {"data": {"key": "2"}}, namespace=api.namespace)
    body = {"metadata": {"resourceVersion": version_of(made)}, "data": {"key": "3"}}
    with pytest.raises(Conflict):
        await api.client.patch(CONFIG_MAPS, "a", body, namespace=api.namespace)


async def test_what_is_deleted_is_gone(api: Api) -> None:
    await api.config_map("a")
    await api.client.delete(CONFIG_MAPS, "a", namespace=api.namespace)
    with pytest.raises(NotFound):
        await api.client.delete(CONFIG_MAPS, "a", namespace=api.namespace)


async def test_a_deletion_can_be_meant_for_one_object_only(api: Api) -> None:
    made = await api.config_map("a")
    with pytest.raises(Conflict):
        await api.client.delete(CONFIG_MAPS, "a", namespace=api.namespace, uid="another")
    uid = made["metadata"]["uid"]
    await api.client.delete(CONFIG_MAPS, "a", namespace=api.namespace, uid=uid)


async def test_a_stranger_is_not_let_in(api: Api) -> None:
    async with api.stranger() as client:
        with pytest.raises(Unauthorized):
            await client.list(CONFIG_MAPS, namespace=api.namespace)


@pytest.mark.parametrize(
    ("size", "error"), [(2**20 + 1, Invalid), (4 * 2**20, Invalid)], ids=["data", "body"]
)
async def test_an_object_has_a_size(api: Api, size: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        await api.config_map("a", key="x" * size)


# Lists.


def names(items: Any) -> list[str]:
    return [item["metadata"]["name"] for item in items]


async def test_an_empty_list_has_a_version(api: Api) -> None:
    listing = await api.client.list(LEASES, namespace=api.namespace)
    assert listing.items == ()
    assert int(listing.version) > 0


async def test_items_say_what_they_are(api: Api) -> None:
    made = await api.config_map("zz", key="value")
    listing = await api.client.list(CONFIG_MAPS, namespace=api.namespace, fields="metadata.name=zz")
    assert listing.items == (made,)


async def test_a_list_is_of_one_namespace_or_of_all(api: Api) -> None:
    await api.client.create(LEASES, api.manifest("a"))
    await api.client.create(LEASES, {"metadata": {"name": "b", "namespace": "default"}})
    try:
        everywhere = await api.client.list(LEASES)
        assert {"a", "b"} <= set(names(everywhere.items))
        assert names((await api.client.list(LEASES, namespace=api.namespace)).items) == ["a"]
    finally:
        await api.client.delete(LEASES, "b", namespace="default")


async def make_leases(api: Api, count: int) -> None:
    for number in range(count):
        await api.client.create(LEASES, api.manifest(f"lease-{number}"))


async def test_a_list_comes_in_pages_of_one_version(api: Api) -> None:
    await make_leases(api, 5)
    pages: list[Page] = []
    more = ""
    while more or not pages:
        query = [("limit", "2"), *([("continue", more)] if more else [])]
        page = await api.client.page(LEASES, namespace=api.namespace, query=query)
        pages.append(page)
        more = page.more
    assert [names(page.items) for page in pages] == [
        ["lease-0", "lease-1"], ["lease-2", "lease-3"], ["lease-4"],
    ]  # fmt: skip
    assert len({page.version for page in pages}) == 1


async def test_pages_do_not_show_what_was_written_since(api: Api) -> None:
    await make_leases(api, 4)
    query = [("limit", "2")]
    page = await api.client.page(LEASES, namespace=api.namespace, query=query)
    await api.client.create(LEASES, api.manifest("lease-9"))
    await api.client.delete(LEASES, "lease-3", namespace=api.namespace)
    rest = await api.client.page(
        LEASES, namespace=api.namespace, query=[*query, ("continue", page.more)]
    )
    assert names(rest.items) == ["lease-2", "lease-3"]


async def test_a_page_that_was_compacted_is_gone(api: Api) -> None:
    await make_leases(api, 3)
    query = [("limit", "2")]
    page = await api.client.page(LEASES, namespace=api.namespace, query=query)
    await api.client.create(LEASES, api.manifest("later"))
    await api.compact()
    with pytest.raises(Gone):
        await api.client.page(
            LEASES, namespace=api.namespace, query=[*query, ("continue", page.more)]
        )


async def test_a_token_for_a_page_names_no_version(api: Api) -> None:
    await make_leases(api, 3)
    page = await api.client.page(LEASES, namespace=api.namespace, query=[("limit", "2")])
    query = [("limit", "2"), ("continue", page.more), ("resourceVersion", page.version)]
    with pytest.raises(Invalid):
        await api.client.page(LEASES, namespace=api.namespace, query=query)


async def test_a_list_of_version_0_comes_from_the_cache_in_one_page(api: Api) -> None:
    await make_leases(api, 3)
    query = [("limit", "2"), ("resourceVersion", "0")]
    async with asyncio.timeout(4):  # the cache lags
        while True:
            page = await api.client.page(LEASES, namespace=api.namespace, query=query)
            if len(page.items) == 3:
                break
    assert not page.more
    assert int(page.version) > 0


async def test_a_list_of_the_future_is_not_answered(api: Api) -> None:
    with pytest.raises(Busy):
        await api.client.list(LEASES, namespace=api.namespace, version="999999999")


@pytest.mark.parametrize(
    ("selector", "picked"),
    [
        ("app=web", ["both", "web"]),
        ("app==web", ["both", "web"]),
        ("app!=web", ["db", "none"]),
        ("app=web,tier=front", ["both"]),
        ("tier", ["both", "db"]),
        ("!app", ["none"]),
        ("app in (web,db)", ["both", "db", "web"]),
        ("app notin (web)", ["db", "none"]),
        ("app=nothing", []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_labels_select(api: Api, selector: str, picked: list[str]) -> None:
    labels = {
        "both": {"app": "web", "tier": "front"}, "web": {"app": "web"},
        "db": {"app": "db", "tier": "back"}, "none": {},
    }  # fmt: skip
    for name, own in labels.items():
        manifest = api.manifest(name)
        manifest["metadata"]["labels"] = own
        await api.client.create(LEASES, manifest)
    listing = await api.client.list(LEASES, namespace=api.namespace, selector=selector)
    assert names(listing.items) == picked


async def test_a_label_selector_that_is_none_is_refused(api: Api) -> None:
    with pytest.raises(Invalid):
        await api.client.list(LEASES, namespace=api.namespace, selector="app=(")


def secret(api: Api, name: str, kind: str, **data: str) -> Manifest:
    return api.manifest(name, type=kind, data=data)


async def test_fields_select_by_name_and_type(api: Api) -> None:
    await api.client.create(
        SECRETS, secret(api, "cert", "kubernetes.io/tls", **{"tls.crt": "", "tls.key": ""})
    )
    await api.client.create(SECRETS, secret(api, "other", "Opaque"))
    where = {"namespace": api.namespace}
    by_type = await api.client.list(SECRETS, **where, fields="type=kubernetes.io/tls")
    assert names(by_type.items) == ["cert"]
    by_name = await api.client.list(SECRETS, **where, fields="metadata.name=other")
    assert names(by_name.items) == ["other"]


async def test_a_field_that_nobody_indexes_does_not_select(api: Api) -> None:
    with pytest.raises(Invalid):
        await api.client.list(SECRETS, namespace=api.namespace, fields="data.key=x")


# Watches.


class Followed:
    """A watch that is read in the background."""

    def __init__(self) -> None:
        self.events: list[WatchEvent] = []
        self.ended = asyncio.Event()
        self.error: BaseException | None = None
        self.news = asyncio.Event()

    async def told(self, count: int) -> list[tuple[str, str]]:
        async with asyncio.timeout(4):
            while len(self.events) < count:
                self.news.clear()
                await self.news.wait()
        return [(event.type, event.object["metadata"]["name"]) for event in self.events]


@contextlib.asynccontextmanager
async def follow(api: Api, resource: Resource = LEASES, **options: Any) -> AsyncIterator[Followed]:
    if "version" not in options:
        listing = await api.client.list(resource, namespace=api.namespace)
        options["version"] = listing.version
    followed = Followed()

    async def read(events: AsyncIterator[WatchEvent]) -> None:
        try:
            async for event in events:
                followed.events.append(event)
                followed.news.set()
        except Exception as e:
            followed.error = e
        finally:
            followed.ended.set()

    async with api.client.watch(resource, namespace=api.namespace, **options) as events:
        task = asyncio.ensure_future(read(events))
        try:
            yield followed
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_a_watch_tells_what_happens(api: Api) -> None:
    async with follow(api) as watch:
        made = await api.client.create(LEASES, api.manifest("a"))
        changed = await api.client.replace(LEASES, {**made, "spec": {"holderIdentity": "x"}})
        await api.client.delete(LEASES, "a", namespace=api.namespace)
        assert await watch.told(3) == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
    added, modified, deleted = (event.object for event in watch.events)
    assert added == made
    assert modified == changed
    assert deleted["spec"] == changed["spec"]
    versions = [int(version_of(event.object)) for event in watch.events]
    assert versions == sorted(set(versions))


async def test_a_watch_begins_after_its_version(api: Api) -> None:
    await api.client.create(LEASES, api.manifest("before"))
    listing = await api.client.list(LEASES, namespace=api.namespace)
    await api.client.create(LEASES, api.manifest("after"))
    async with follow(api, version=listing.version) as watch:
        assert await watch.told(1) == [("ADDED", "after")]


async def test_a_watch_from_0_begins_with_what_is_there(api: Api) -> None:
    made = await api.client.create(LEASES, api.manifest("a"))
    async with asyncio.timeout(4):
        while True:  # the cache lags
            page = await api.client.page(
                LEASES, namespace=api.namespace, query=[("resourceVersion", "0")]
            )
            if page.items:
                break
    async with follow(api, version="0") as watch:
        assert await watch.told(1) == [("ADDED", "a")]
        assert watch.events[0].object == made


async def test_a_watch_is_of_one_kind_and_namespace(api: Api) -> None:
    async with follow(api) as watch:
        await api.config_map("other-kind")
        await api.client.create(LEASES, {"metadata": {"name": "other", "namespace": "default"}})
        await api.client.delete(LEASES, "other", namespace="default")
        await api.client.create(LEASES, api.manifest("a"))
        assert await watch.told(1) == [("ADDED", "a")]


async def test_what_leaves_a_selection_is_deleted_from_it(api: Api) -> None:
    async with follow(api, selector="app=web") as watch:
        made = await api.client.create(LEASES, api.manifest("a"))
        made["metadata"]["labels"] = {"app": "web"}
        made = await api.client.replace(LEASES, made)
        made["metadata"]["labels"] = {"app": "db"}
        last = await api.client.replace(LEASES, made)
        assert await watch.told(2) == [("ADDED", "a"), ("DELETED", "a")]
    assert version_of(watch.events[1].object) == version_of(last)


async def test_a_watch_of_one_name(api: Api) -> None:
    async with follow(api, fields="metadata.name=b") as watch:
        for name in ("a", "b", "c"):
            await api.client.create(LEASES, api.manifest(name))
        assert await watch.told(1) == [("ADDED", "b")]


async def test_a_watch_ends_when_its_time_is_up(api: Api) -> None:
    async with follow(api, duration_s=1) as watch, asyncio.timeout(4):
        await watch.ended.wait()
    assert watch.error is None


async def test_a_bookmark_tells_how_far_it_is_before_the_end(api: Api) -> None:
    async with follow(api, duration_s=3) as watch:
        made = await api.client.create(LEASES, api.manifest("a"))
        async with asyncio.timeout(4.5):
            await watch.ended.wait()
    assert watch.events[-1].type == "BOOKMARK"
    assert int(version_of(watch.events[-1].object)) >= int(version_of(made))


async def test_a_watch_of_a_version_that_was_compacted_is_gone(api: Api) -> None:
    # Events, since the server keeps the latest changes of other kinds in its own memory.
    before = await api.client.list(EVENTS, namespace=api.namespace)
    await api.client.create(EVENTS, event(api))
    await api.config_map("later")
    await api.compact()
    async with follow(api, EVENTS, version=before.version) as watch, asyncio.timeout(4):
        await watch.ended.wait()
    assert isinstance(watch.error, Gone)


async def test_a_version_that_is_none_is_refused(api: Api) -> None:
    with pytest.raises(ApiError):  # 500 on old servers
        async with follow(api, version="yesterday"):
            pass


async def test_large_objects_come_through_a_watch(api: Api) -> None:
    async with follow(api, CONFIG_MAPS) as watch:
        await api.config_map("large", key="x" * 1_000_000)
        assert ("ADDED", "large") in await watch.told(1)
    large = [event.object for event in watch.events if event.object["metadata"]["name"] == "large"]
    assert len(large[0]["data"]["key"]) == 1_000_000


# Status.


def ingress(
    api: Api, name: str = "web", *, path: str = "/", kind: str | None = "Prefix"
) -> Manifest:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    entry = {"path": path, "backend": backend} | ({"pathType": kind} if kind else {})
    rule = {"host": "web.example.com", "http": {"paths": [entry]}}
    return api.manifest(name, spec={"rules": [rule]})


def balancer(*addresses: str) -> Manifest:
    return {"loadBalancer": {"ingress": [{"ip": address} for address in addresses]}}


def addresses(manifest: Manifest) -> list[str]:
    found = manifest.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    return [entry["ip"] for entry in found]


async def test_status_is_not_created(api: Api) -> None:
    made = await api.client.create(INGRESSES, {**ingress(api), "status": balancer("192.0.2.1")})
    assert addresses(made) == []


async def test_status_is_not_replaced_with_the_rest(api: Api) -> None:
    await api.client.create(INGRESSES, ingress(api))
    made = await api.client.apply_status(
        INGRESSES, api.manifest("web", status=balancer("192.0.2.1"))
    )
    done = await api.client.replace(INGRESSES, {**made, "status": balancer("192.0.2.9")})
    assert addresses(done) == ["192.0.2.1"]


async def test_status_is_applied_and_nothing_else(api: Api) -> None:
    made = await api.client.create(INGRESSES, ingress(api))
    done = await api.client.apply_status(
        INGRESSES, {**ingress(api, path="/other"), "status": balancer("192.0.2.1")}
    )
    assert addresses(done) == ["192.0.2.1"]
    assert done["spec"] == made["spec"]


async def test_status_is_patched(api: Api) -> None:
    await api.client.create(INGRESSES, ingress(api))
    done = await api.client.patch(
        INGRESSES, "web", {"status": balancer("192.0.2.1")},
        namespace=api.namespace, subresource="status",
    )  # fmt: skip
    assert addresses(done) == ["192.0.2.1"]


async def test_addresses_are_replaced_as_a_whole(api: Api) -> None:
    await api.client.create(INGRESSES, ingress(api))
    for found in (["192.0.2.1", "192.0.2.2"], ["192.0.2.2"], ["192.0.2.3"]):
        status = balancer(*found)
        done = await api.client.apply_status(INGRESSES, api.manifest("web", status=status))
        assert addresses(done) == found


async def test_an_empty_status_gives_ours_up(api: Api) -> None:
    await api.client.create(INGRESSES, ingress(api))
    await api.client.apply_status(INGRESSES, api.manifest("web", status=balancer("192.0.2.1")))
    done = await api.client.apply_status(INGRESSES, api.manifest("web", status={}))
    assert addresses(done) == []


async def test_status_of_nothing_is_not_found(api: Api) -> None:
    with pytest.raises(NotFound):
        await api.client.apply_status(INGRESSES, api.manifest("web", status=balancer()))


async def test_a_generation_counts_changes_of_the_spec(api: Api) -> None:
    made = await api.client.create(INGRESSES, ingress(api))
    assert made["metadata"]["generation"] == 1
    told = await api.client.apply_status(
        INGRESSES, api.manifest("web", status=balancer("192.0.2.1"))
    )
    assert told["metadata"]["generation"] == 1
    done = await api.client.replace(INGRESSES, {**told, "spec": ingress(api, path="/x")["spec"]})
    assert done["metadata"]["generation"] == 2


async def test_a_kind_without_status_has_none(api: Api) -> None:
    await api.config_map("a")
    with pytest.raises(NotFound):
        await api.client.apply_status(CONFIG_MAPS, api.manifest("a", status={}))


# Server-side apply.


async def apply(api: Api, *, force: bool = True, **data: str) -> Manifest:
    return await api.client.apply(CONFIG_MAPS, api.manifest("a", data=data), force=force)


async def test_what_is_applied_is_created(api: Api) -> None:
    made = await apply(api, key="value")
    assert made["data"] == {"key": "value"}
    managers = [
        (entry["manager"], entry["operation"]) for entry in made["metadata"]["managedFields"]
    ]
    assert managers == [("heim-controller", "Apply")]


async def test_the_same_applied_again_is_no_change(api: Api) -> None:
    made = await apply(api, key="value")
    assert version_of(await apply(api, key="value")) == version_of(made)


async def test_what_is_applied_differently_changes(api: Api) -> None:
    await apply(api, key="old")
    assert (await apply(api, key="new"))["data"] == {"key": "new"}


async def test_what_is_left_out_is_removed(api: Api) -> None:
    await apply(api, key="value", other="value")
    assert (await apply(api, key="value"))["data"] == {"key": "value"}


async def test_what_others_wrote_stays(api: Api) -> None:
    await api.apply_as("kubectl", CONFIG_MAPS, api.manifest("a", data={"theirs": "1"}))
    await apply(api, ours="1")
    assert (await apply(api, ours="2"))["data"] == {"theirs": "1", "ours": "2"}


async def test_what_others_own_is_a_conflict(api: Api) -> None:
    await api.apply_as("somebody", CONFIG_MAPS, api.manifest("a", data={"key": "theirs"}))
    with pytest.raises(Conflict, match="somebody"):
        await apply(api, force=False, key="ours")


async def test_force_takes_it_over(api: Api) -> None:
    await api.apply_as("somebody", CONFIG_MAPS, api.manifest("a", data={"key": "theirs"}))
    assert (await apply(api, key="ours"))["data"] == {"key": "ours"}
    with pytest.raises(Conflict, match="heim-controller"):
        await api.apply_as("somebody", CONFIG_MAPS, api.manifest("a", data={"key": "theirs"}))


async def test_two_may_own_the_same_value(api: Api) -> None:
    await api.apply_as("somebody", CONFIG_MAPS, api.manifest("a", data={"key": "same"}))
    await apply(api, force=False, key="same", ours="1")
    assert (await apply(api, ours="1"))["data"] == {"key": "same", "ours": "1"}


async def test_who_writes_a_field_owns_it(api: Api) -> None:
    made = await apply(api, key="ours")
    path = CONFIG_MAPS.path(api.namespace, "a")
    body = {**made, "data": {"key": "theirs"}}
    await api.client.exchange.ask(Request("PUT", path, (("fieldManager", "editor"),), body))
    with pytest.raises(Conflict, match="editor"):
        await apply(api, force=False, key="ours")


async def test_an_apply_on_an_old_version_is_a_conflict(api: Api) -> None:
    made = await apply(api, key="1")
    await apply(api, key="2")
    late = api.manifest("a", data={"key": "3"})
    late["metadata"]["resourceVersion"] = version_of(made)
    with pytest.raises(Conflict):
        await api.client.apply(CONFIG_MAPS, late)


async def test_managed_fields_are_not_applied(api: Api) -> None:
    made = await apply(api, key="value")
    with pytest.raises(Invalid):
        await api.client.apply(CONFIG_MAPS, made)


async def test_labels_of_others_stay(api: Api) -> None:
    theirs = api.manifest("a")
    theirs["metadata"]["labels"] = {"theirs": "1"}
    await api.apply_as("somebody", CONFIG_MAPS, theirs)
    ours = api.manifest("a")
    ours["metadata"]["labels"] = {"ours": "1"}
    done = await api.client.apply(CONFIG_MAPS, ours)
    assert done["metadata"]["labels"] == {"theirs": "1", "ours": "1"}


async def told_conditions(api: Api, manager: str, *kinds: str) -> list[str]:
    current = await api.client.get(BACKENDS, "web", namespace=api.namespace)
    wanted = [condition(kind, "True", reason="Fine") for kind in kinds]
    status = {"conditions": conditions(wanted, current, now=0)}
    done = await api.apply_as(
        manager, BACKENDS, api.manifest("web", status=status), force=True, sub="/status"
    )
    return sorted(entry["type"] for entry in done["status"].get("conditions", ()))


async def test_conditions_are_merged_by_type(api: Api) -> None:
    await api.client.create(BACKENDS, api.manifest("web", spec={"host": "web.example.com"}))
    assert await told_conditions(api, "somebody", "Theirs") == ["Theirs"]
    assert await told_conditions(api, "heim", "Accepted", "Ready") == [
        "Accepted", "Ready", "Theirs",
    ]  # fmt: skip
    assert await told_conditions(api, "heim", "Accepted") == ["Accepted", "Theirs"]


async def test_our_own_kinds_have_generations_and_status(api: Api) -> None:
    made = await api.client.create(BACKENDS, api.manifest("web", spec={"host": "a.example.com"}))
    assert made["metadata"]["generation"] == 1
    done = await api.client.apply(BACKENDS, api.manifest("web", spec={"host": "b.example.com"}))
    assert done["metadata"]["generation"] == 2
    assert "status" not in done


# Validation.

PATHS = [
    ("/", "Prefix", True), ("/a/b", "Exact", True), ("", "ImplementationSpecific", True),
    ("/a//b", "ImplementationSpecific", True), ("/", None, False), ("/", "Regex", False),
    ("", "Prefix", False), ("a", "Exact", False), ("/a//b", "Prefix", False),
    ("/a/./b", "Exact", False), ("/a/../b", "Prefix", False), ("/a%2fb", "Prefix", False),
    ("/a%2Fb", "Exact", False), ("/a/..", "Prefix", False), ("/a/.", "Exact", False),
    ("a", "ImplementationSpecific", False),
]  # fmt: skip


@pytest.mark.parametrize(("path", "kind", "good"), PATHS, ids=[f"{k}:{p}" for p, k, _ in PATHS])
async def test_paths_of_an_ingress(api: Api, path: str, kind: str | None, good: bool) -> None:
    manifest = ingress(api, path=path, kind=kind)
    if good:
        await api.client.create(INGRESSES, manifest)
    else:
        with pytest.raises(Invalid):
            await api.client.create(INGRESSES, manifest)


HOSTS = {
    "web.example.com": True, "*.example.com": True, "": True, "web": True,
    "*": False, "a.*.com": False, "*a.com": False, "192.0.2.1": False, "WEB.example.com": False,
    "web.example.com.": False, "web.example.com:80": False, "a_b.example.com": False,
}  # fmt: skip


@pytest.mark.parametrize(("host", "good"), HOSTS.items(), ids=HOSTS)
async def test_hosts_of_an_ingress(api: Api, host: str, good: bool) -> None:
    manifest = ingress(api)
    manifest["spec"]["rules"][0]["host"] = host
    if good:
        await api.client.create(INGRESSES, manifest)
    else:
        with pytest.raises(Invalid):
            await api.client.create(INGRESSES, manifest)


SERVICE = {"name": "web", "port": {"number": 80}}
BACKENDS_OF_INGRESSES: dict[str, tuple[Manifest, bool]] = {
    "number": ({"service": SERVICE}, True),
    "name": ({"service": {"name": "web", "port": {"name": "http"}}}, True),
    "both": ({"service": {"name": "web", "port": {"name": "http", "number": 80}}}, False),
    "neither": ({"service": {"name": "web"}}, False),
    "beyond": ({"service": {"name": "web", "port": {"number": 65536}}}, False),
    "nothing": ({}, False),
    "resource": ({"resource": {"apiGroup": "x.example", "kind": "B", "name": "b"}}, True),
    "two": ({"service": SERVICE, "resource": {"kind": "B", "name": "b"}}, False),
}


@pytest.mark.parametrize(
    ("backend", "good"), BACKENDS_OF_INGRESSES.values(), ids=BACKENDS_OF_INGRESSES
)
async def test_backends_of_an_ingress(api: Api, backend: Manifest, good: bool) -> None:
    manifest = ingress(api)
    manifest["spec"]["rules"][0]["http"]["paths"][0]["backend"] = backend
    if good:
        await api.client.create(INGRESSES, manifest)
    else:
        with pytest.raises(Invalid):
            await api.client.create(INGRESSES, manifest)


async def test_an_ingress_has_rules_or_a_default_backend(api: Api) -> None:
    await api.client.create(
        INGRESSES, api.manifest("a", spec={"defaultBackend": {"service": SERVICE}})
    )
    with pytest.raises(Invalid):
        await api.client.create(INGRESSES, api.manifest("b", spec={}))


async def test_an_ingress_names_its_class_once(api: Api) -> None:
    manifest = ingress(api)
    manifest["metadata"]["annotations"] = {"kubernetes.io/ingress.class": "heim"}
    manifest["spec"]["ingressClassName"] = "heim"
    with pytest.raises(Invalid):
        await api.client.create(INGRESSES, manifest)


async def test_the_controller_of_a_class_stays(api: Api) -> None:
    name = f"class-of-{api.namespace}"
    made = await api.client.create(
        INGRESS_CLASSES, {"metadata": {"name": name}, "spec": {"controller": "heim.dev/a"}}
    )
    try:
        with pytest.raises(Invalid):
            await api.client.replace(
                INGRESS_CLASSES, {**made, "spec": {"controller": "heim.dev/b"}}
            )
    finally:
        await api.client.delete(INGRESS_CLASSES, name)


@pytest.mark.parametrize("data", [{}, {"tls.crt": ""}, {"tls.key": ""}], ids=["", "crt", "key"])
async def test_a_tls_secret_has_both_keys(api: Api, data: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        await api.client.create(SECRETS, secret(api, "a", "kubernetes.io/tls", **data))


async def test_the_type_of_a_secret_stays(api: Api) -> None:
    made = await api.client.create(SECRETS, secret(api, "a", "Opaque"))
    made |= {"type": "kubernetes.io/tls", "data": {"tls.crt": "", "tls.key": ""}}
    with pytest.raises(Invalid):
        await api.client.replace(SECRETS, made)


async def test_data_of_a_secret_is_base64(api: Api) -> None:
    with pytest.raises(Invalid):
        await api.client.create(SECRETS, secret(api, "a", "Opaque", key="?"))


@pytest.mark.parametrize(
    "spec",
    [{"leaseDurationSeconds": 0}, {"leaseTransitions": -1}, {"renewTime": "yesterday"}],
    ids=["duration", "transitions", "time"],
)
async def test_a_lease_makes_sense(api: Api, spec: Manifest) -> None:
    with pytest.raises(Invalid):
        await api.client.create(LEASES, api.manifest("a", spec=spec))


async def test_a_lease_keeps_microseconds(api: Api) -> None:
    made = await api.client.create(LEASES, api.manifest("a", spec={"renewTime": MOMENT}))
    assert made["spec"]["renewTime"] == MOMENT


def event(api: Api, **changes: Any) -> Manifest:
    return api.manifest(
        "about.1",
        **(
            {
                "eventTime": MOMENT, "type": "Warning", "reason": "Broken", "action": "Sync",
                "note": "it is", "reportingController": "heim.dev/test",
                "reportingInstance": "pod",
                "regarding": {"kind": "Ingress", "name": "web", "namespace": api.namespace},
            }
            | changes
        ),
    )  # fmt: skip


async def test_an_event_is_written(api: Api) -> None:
    made = await api.client.create(EVENTS, event(api))
    assert (made["note"], made["eventTime"]) == ("it is", MOMENT)


@pytest.mark.parametrize(
    "changes",
    [
        {"eventTime": None}, {"reportingController": ""}, {"reportingInstance": "x" * 129},
        {"action": ""}, {"reason": ""}, {"type": "Alarm"}, {"note": "x" * 1025},
        {"regarding": {"kind": "IngressClass", "name": "heim"}},
        {"series": {"count": 1, "lastObservedTime": MOMENT}},
    ],
    ids=["time", "controller", "instance", "action", "reason", "type", "note", "where", "series"],
)  # fmt: skip
async def test_an_event_makes_sense(api: Api, changes: Manifest) -> None:
    with pytest.raises(Invalid):
        await api.client.create(EVENTS, event(api, **changes))


async def test_an_event_counts(api: Api) -> None:
    await api.client.create(EVENTS, event(api))
    body = {"series": {"count": 2, "lastObservedTime": MOMENT}}
    done = await api.client.patch(EVENTS, "about.1", body, namespace=api.namespace)
    assert done["series"]["count"] == 2


# Our own parts, on it.


async def test_what_the_recorder_writes_is_accepted(api: Api) -> None:
    made = await api.client.create(INGRESSES, ingress(api))
    cluster = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": api.namespace}}
    recorder = Recorder(api.client, instance="pod", rates=Rates(repeat_s=0))
    task = asyncio.ensure_future(recorder.run())
    said = {"type": "Warning", "reason": "Broken", "note": "n" * 2000, "action": "Sync"}
    async with asyncio.timeout(4):
        for count, about in ((1, made), (2, made), (3, cluster)):
            recorder.record(about, **said)  # type: ignore[arg-type]
            while recorder.written + recorder.failed < count:
                await asyncio.sleep(0.01)
    task.cancel()
    assert (recorder.written, recorder.failed) == (3, 0)
    written = await api.client.list(EVENTS, namespace=api.namespace)
    about_it = [item for item in written.items if item["regarding"]["name"] == "web"]
    assert [item["series"]["count"] for item in about_it] == [2]


async def test_one_leads_and_then_the_other(api: Api) -> None:
    terms = Terms(lease=15, renew=10, retry=0.1)
    led: list[str] = []

    async def lead(name: str, until: asyncio.Event) -> None:
        led.append(name)
        await until.wait()

    ends = {name: asyncio.Event() for name in ("one", "two")}
    elections = {
        name: Election(
            api.client, name="leader", namespace=api.namespace, identity=name, terms=terms
        )
        for name in ends
    }

    async def stand(name: str) -> None:
        await elections[name].run(lambda: lead(name, ends[name]))

    async with asyncio.timeout(8), asyncio.TaskGroup() as group:
        group.create_task(stand("one"))
        while not led:
            await asyncio.sleep(0.01)
        group.create_task(stand("two"))
        while not elections["two"].holder:
            await asyncio.sleep(0.01)
        assert led == ["one"]
        ends["one"].set()
        while len(led) < 2:
            await asyncio.sleep(0.01)
        ends["two"].set()
    lease = await api.client.get(LEASES, "leader", namespace=api.namespace)
    assert lease["spec"].get("holderIdentity", "") == ""
    assert lease["spec"]["leaseTransitions"] == 1


async def test_an_informer_survives_the_server(api: Api) -> None:
    await api.client.create(LEASES, api.manifest("a"))
    informer = Informer(
        api.client, LEASES, namespace=api.namespace, pace=Pace(first=0.05, ceiling=0.2)
    )
    task = asyncio.ensure_future(informer.run())
    async with asyncio.timeout(60):
        await informer.wait_synced()
        while not informer.last_event_at or informer.problem:
            await asyncio.sleep(0.01)
        await api.restart()
        await api.client.delete(LEASES, "a", namespace=api.namespace)
        await api.client.create(LEASES, api.manifest("b"))
        await api.compact()
        while list(informer.objects) != [(api.namespace, "b")]:
            await asyncio.sleep(0.01)
    assert informer.errors > 0
    assert informer.synced
    task.cancel()


async def test_an_informer_keeps_up(api: Api) -> None:
    changes: asyncio.Queue[Change] = asyncio.Queue()
    await api.client.create(LEASES, api.manifest("a"))
    informer = Informer(api.client, LEASES, namespace=api.namespace, on_change=changes.put_nowait)
    task = asyncio.ensure_future(informer.run())

    async def following() -> tuple[str, str]:
        change = await changes.get()
        return change.type, change.key[1]

    async with asyncio.timeout(4):
        assert await following() == ("ADDED", "a")
        made = await api.client.create(LEASES, api.manifest("b"))
        assert await following() == ("ADDED", "b")
        await api.client.replace(LEASES, {**made, "spec": {"holderIdentity": "x"}})
        assert await following() == ("MODIFIED", "b")
        await api.client.delete(LEASES, "a", namespace=api.namespace)
        assert await following() == ("DELETED", "a")
    task.cancel()
    assert list(informer.objects) == [(api.namespace, "b")]
    assert "managedFields" not in informer.objects[api.namespace, "b"]["metadata"]
