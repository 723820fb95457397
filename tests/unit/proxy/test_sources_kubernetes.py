from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from heim_controller.kube.resources import CONFIG_MAPS, SECRETS
from heim_controller.translation.document import canonical
from heim_proxy.sources.account import Account
from heim_proxy.sources.api import Api, Pace
from heim_proxy.sources.kubernetes import MAX_FURTHER, KubernetesFeed, _pair
from heim_proxy.sources.secrets import SecretFolder
from heim_runtime.tasks import cancel, spawn
from tests.fakes.kube import FakeKube
from tests.fakes.kube_document import NAME, NAMESPACE, Published, account_folder, api_tls, index
from tests.fakes.waiting import until

QUICK = Pace(connect=1.0, answer=1.0, first=0.01, ceiling=0.05, healthy=0.0, denied=0.05)
PAIR = {"tls.crt": b"certificate", "tls.key": b"key"}
ONE = {"backends": [], "roles": []}
OTHER = {"backends": [], "roles": [], "agents": []}


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube(tls=api_tls()) as started:
        yield started


@pytest.fixture
def published(kube: FakeKube) -> Published:
    return Published(kube)


class Following:
    """A feed that runs, and how often it told of a change."""

    def __init__(self, kube: FakeKube, directory: Path) -> None:
        environment = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": kube.url.rpartition(":")[2],
        }
        api = Api(Account(account_folder(directory / "account"), environment), pace=QUICK)
        self.folder = SecretFolder(directory / "secrets")
        self.feed = KubernetesFeed(api, NAMESPACE, NAME, self.folder)
        self.changes = 0
        self.task = spawn("feed", self.feed.run(self.changed))

    def changed(self) -> None:
        self.changes += 1

    async def holds(self, content: bytes) -> None:
        await until(lambda: self.feed.sheet is not None and self.feed.sheet.content == content)

    def file(self, secret: str, key: str = "tls.crt") -> bytes | None:
        path = self.folder.path / secret / key
        return path.read_bytes() if path.exists() else None


@pytest.fixture
async def following(kube: FakeKube, tmp_path: Path) -> AsyncIterator[Following]:
    found = Following(kube, tmp_path)
    yield found
    await cancel([found.task])


async def test_a_document_and_its_changes_arrive(
    published: Published, following: Following
) -> None:
    await following.holds(published.document(ONE))
    await following.holds(published.document(OTHER))
    assert following.changes == 2
    assert following.feed.trouble == ""


async def test_the_same_document_again_is_no_change(
    published: Published, following: Following
) -> None:
    await following.holds(published.document(ONE))
    published.document(ONE)
    await following.holds(published.document(OTHER))
    assert following.changes == 2


@pytest.mark.parametrize("shards", [2, 5, MAX_FURTHER + 1])
async def test_a_document_in_several_config_maps_is_put_together(
    published: Published, following: Following, shards: int
) -> None:
    await following.holds(published.sharded(ONE, shards))
    await following.holds(published.document(OTHER))
    await following.holds(published.sharded(ONE, shards))


async def test_only_config_maps_of_its_names_are_asked_for(
    kube: FakeKube, published: Published, following: Following
) -> None:
    await following.holds(published.sharded(ONE, 3))
    fields = {one.query.get("fieldSelector") for one in kube.asked if one.plural == "configmaps"}
    assert fields == {f"metadata.name={NAME}{end}" for end in ("", "-1", "-2")}
    labels = {one.query.get("labelSelector") for one in kube.asked if one.plural == "secrets"}
    assert labels == {f"heim.dev/part-of={NAME}"}
    assert {one.verb for one in kube.asked} == {"list", "watch"}


async def test_half_of_a_change_is_waited_for(published: Published, following: Following) -> None:
    first = published.document(ONE)
    await following.holds(first)
    content = canonical(OTHER)
    names = ["document-0", "document-1"]
    published.pieces({"index.json": index(content, names), "document-0": content[:9].decode()})
    await until(lambda: len(following.feed._maps) == 2)
    published.pieces({"document-1": "something else"}, 1)
    await until(lambda: "document-1" in following.feed._pieces())
    assert following.feed.sheet is not None
    assert following.feed.sheet.content == first
    published.pieces({"document-1": content[9:].decode()}, 1)
    await following.holds(content)
    assert following.changes == 2


async def test_a_missing_config_map_is_said_and_a_deleted_one_leaves_the_document(
    kube: FakeKube, published: Published, following: Following
) -> None:
    missing = f"there is no ConfigMap {NAMESPACE}/{NAME}; the controller writes it"
    await until(lambda: following.feed.trouble == missing)
    content = published.document(ONE)
    await following.holds(content)
    await until(lambda: following.feed.trouble == "")
    kube.store.remove(CONFIG_MAPS, NAME, NAMESPACE)
    await until(lambda: following.feed.trouble == missing)
    assert following.feed.sheet is not None
    assert following.feed.sheet.content == content


async def test_nothing_is_taken_before_secrets_were_listed(
    kube: FakeKube, published: Published, tmp_path: Path
) -> None:
    kube.faults.forbidden = {("list", "secrets")}
    content = published.document(ONE)
    following = Following(kube, tmp_path)
    await until(lambda: "403" in following.feed.trouble)
    assert following.feed.sheet is None
    kube.faults.forbidden = set()
    await following.holds(content)
    await cancel([following.task])


async def test_secrets_that_are_named_become_files_and_stay_up_to_date(
    published: Published, following: Following
) -> None:
    published.secret("a", PAIR)
    published.secret("b", PAIR)
    await following.holds(published.document(ONE))
    await following.feed.provide(frozenset(("a", "missing")))
    assert following.file("a") == b"certificate"
    assert following.file("b") is None
    published.secret("a", {**PAIR, "tls.crt": b"renewed"})
    await until(lambda: following.file("a") == b"renewed")
    # One that comes later is there as soon as it is.
    published.secret("missing", PAIR)
    await until(lambda: following.file("missing") == b"certificate")


async def test_a_secret_that_did_not_change_is_decoded_once(
    published: Published, following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[object] = []

    def counting(data: Mapping[str, Any]) -> Mapping[str, bytes]:
        decoded.append(data)
        return _pair(data)

    monkeypatch.setattr("heim_proxy.sources.kubernetes._pair", counting)
    published.secret("a", PAIR)
    await following.holds(published.document(ONE))
    await following.feed.provide(frozenset(("a",)))
    await following.holds(published.document(OTHER))
    assert len(decoded) == 1
    published.secret("a", {**PAIR, "tls.crt": b"renewed"})
    await until(lambda: following.file("a") == b"renewed")
    assert len(decoded) == 2


async def test_a_secret_without_the_label_is_not_ours(
    kube: FakeKube, published: Published, following: Following
) -> None:
    kube.store.put(
        SECRETS,
        {"metadata": {"name": "foreign", "namespace": NAMESPACE}, "data": {"tls.crt": "eA=="}},
    )
    published.secret("a", PAIR)
    await following.holds(published.document(ONE))
    await following.feed.provide(frozenset(("a", "foreign")))
    assert following.file("a") == b"certificate"
    assert following.file("foreign") is None


async def test_a_secret_that_is_deleted_keeps_its_files_until_it_is_not_named_any_more(
    kube: FakeKube,
    published: Published,
    following: Following,
    caplog: pytest.LogCaptureFixture,
) -> None:
    published.secret("a", PAIR)
    await following.holds(published.document(ONE))
    await following.feed.provide(frozenset(("a",)))
    kube.store.remove(SECRETS, "a", NAMESPACE)
    await until(lambda: "config.secret_gone" in caplog.messages)
    assert following.file("a") == b"certificate"
    await following.feed.drop_others(frozenset())
    assert following.file("a") is None


async def test_what_cannot_be_decoded_is_as_if_it_were_missing(
    kube: FakeKube, published: Published, following: Following
) -> None:
    published.secret("a", PAIR)
    found = kube.store.get(SECRETS, "a", NAMESPACE)
    assert found is not None
    kube.store.put(SECRETS, {**found, "data": {"tls.crt": "not base64!", "tls.key": "eA=="}})
    await following.holds(published.document(ONE))
    await following.feed.provide(frozenset(("a",)))
    assert (following.file("a"), following.file("a", "tls.key")) == (None, b"x")


async def test_a_place_that_cannot_be_written_to_is_said(
    published: Published, following: Following, tmp_path: Path
) -> None:
    (tmp_path / "secrets").mkdir(mode=0o755)
    published.secret("a", PAIR)
    await following.holds(published.document(ONE))
    await following.feed.provide(frozenset(("a",)))
    await until(lambda: "Secrets cannot be written" in following.feed.trouble)
    assert "is open to others" in following.feed.trouble
    (tmp_path / "secrets").chmod(0o700)
    await until(lambda: following.file("a") == b"certificate")
    await until(lambda: following.feed.trouble == "")


def test_a_repr_shows_no_secret(tmp_path: Path) -> None:
    feed = KubernetesFeed(
        Api(Account(tmp_path)), NAMESPACE, NAME, SecretFolder(tmp_path / "secrets")
    )
    assert repr(feed) == f"<KubernetesFeed ConfigMap {NAMESPACE}/{NAME}>"
