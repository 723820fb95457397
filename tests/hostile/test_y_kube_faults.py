"""The API server in all its moods: what we serve from stays whole, and comes right by itself."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from heim_controller.kube.apply import same_status
from heim_controller.kube.client import Client
from heim_controller.kube.errors import LeadershipLost
from heim_controller.kube.exchange import Deadlines
from heim_controller.kube.informer import Informer, Pace
from heim_controller.kube.lease import Election, Terms
from heim_controller.kube.queue import WriteQueue
from heim_controller.kube.resources import (
    CONFIG_MAPS,
    INGRESSES,
    LEASES,
    SECRETS,
    Key,
    Manifest,
    version_of,
)
from tests.fakes.kube import FakeKube, kubeconfig
from tests.fakes.kube_raw import serving
from tests.fakes.kube_watched import QUICK, Watched, running, watched
from tests.fakes.waiting import until

IMPATIENT = Deadlines(connect=0.5, answer=0.5, listing=0.5, silence=0.3)


def put(kube: FakeKube, name: str, value: str = "") -> Manifest:
    return kube.store.put(CONFIG_MAPS, {"metadata": {"name": name}, "data": {"v": value}})


def same(kube: FakeKube, found: Watched) -> bool:
    """Whether the copy is what the server has."""
    there = {key: version_of(item) for key, item in kube.store.objects[CONFIG_MAPS].items()}
    return there == {key: version_of(item) for key, item in found.informer.objects.items()}


# Before the first list.


async def test_a_server_that_is_not_there_yet_is_waited_for() -> None:
    async with FakeKube() as kube:
        put(kube, "a")
        await kube.down()
        async with running(kube.client()) as found:
            await until(lambda: found.informer.errors > 2)
            assert not found.informer.synced
            assert "configmaps" in str(found.informer.problem)
            assert not found.changes
            await kube.up()
            await until(lambda: found.informer.synced and kube.watching)
            assert found.told == [("ADDED", "a")]
            assert found.informer.problem is None


async def test_nothing_is_shown_before_the_first_list_is_complete() -> None:
    """A page too few would be an Ingress too few, and a host without its rules."""
    async with FakeKube() as kube:
        for number in range(3):
            put(kube, f"c{number}")
        kube.faults.slow_s = 0.1
        async with running(kube.client(deadlines=IMPATIENT)) as found:
            while not found.informer.synced:
                assert len(found.informer.objects) == 0
                assert not found.changes
                await asyncio.sleep(0)
            assert len(found.informer.objects) == 3


async def test_half_a_list_is_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heim_controller.kube.client.PAGE", 2)
    async with FakeKube() as kube, watched(kube) as found:
        for number in range(5):
            put(kube, f"c{number}")
        await until(lambda: len(found.changes) == 5)
        kube.faults.answer(500, times=3, when=lambda asked: "continue" in asked.query)
        kube.store.compact()
        kube.faults.silent = True
        kube.store.remove(CONFIG_MAPS, "c4")
        put(kube, "d")
        kube.store.compact()
        kube.cut()
        kube.faults.silent = False
        await until(lambda: same(kube, found))
        assert found.informer.errors >= 3
        assert found.told[5:] == [("DELETED", "c4"), ("ADDED", "d")]


async def test_a_list_whose_pages_are_compacted_begins_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("heim_controller.kube.client.PAGE", 2)
    async with FakeKube() as kube:
        for number in range(5):
            put(kube, f"c{number}")
        kube.faults.answer(410, times=1, when=lambda asked: "continue" in asked.query)
        # Version 0 comes in one page: only a list past the cache has a second one.
        kube.faults.answer(
            410, times=1, when=lambda asked: asked.query.get("resourceVersion") == "0"
        )
        async with running(kube.client()) as found:
            await until(lambda: found.informer.synced)
            assert found.informer.gone == 2
            assert same(kube, found)


async def test_a_slow_server_is_given_up_and_asked_again() -> None:
    async with FakeKube() as kube:
        put(kube, "a")
        kube.faults.slow_s = 60
        async with running(kube.client(deadlines=IMPATIENT)) as found:
            await until(lambda: found.informer.errors > 0)
            assert not found.informer.synced
            kube.faults.slow_s = 0
            await until(lambda: found.informer.synced)


# Cut off.


async def test_what_happened_while_we_were_cut_off_is_told_afterwards() -> None:
    async with FakeKube() as kube, watched(kube) as found:
        for name in ("kept", "changed", "deleted"):
            put(kube, name)
        await until(lambda: len(found.changes) == 3)
        await kube.down()
        put(kube, "changed", "anew")
        put(kube, "new")
        kube.store.remove(CONFIG_MAPS, "deleted")
        await until(lambda: found.informer.problem)
        assert len(found.informer.objects) == 3, "the old copy stays in use"
        assert found.informer.synced
        await kube.up()
        await until(lambda: same(kube, found))
        assert sorted(found.told[3:]) == [
            ("ADDED", "new"), ("DELETED", "deleted"), ("MODIFIED", "changed"),
        ]  # fmt: skip


@pytest.mark.parametrize("by_status", [True, False], ids=["HTTP 410", "ERROR event"])
async def test_a_compaction_while_we_were_cut_off_loses_nothing(by_status: bool) -> None:
    async with FakeKube() as kube, watched(kube) as found:
        put(kube, "a")
        put(kube, "b")
        await until(lambda: len(found.changes) == 2)
        kube.faults.gone_by_status = by_status
        await kube.down()
        kube.store.remove(CONFIG_MAPS, "a")
        put(kube, "c")
        kube.store.compact()
        await kube.up()
        await until(lambda: same(kube, found))
        assert found.told[2:] == [("DELETED", "a"), ("ADDED", "c")]
        assert found.informer.lists == 2
        assert kube.counted()["list", "configmaps"] == 2


async def test_an_object_made_anew_while_we_were_cut_off_is_a_change() -> None:
    async with FakeKube() as kube, watched(kube) as found:
        first = put(kube, "a")
        await until(lambda: len(found.changes) == 1)
        await kube.down()
        kube.store.remove(CONFIG_MAPS, "a")
        put(kube, "a")
        kube.store.compact()
        await kube.up()
        await until(lambda: same(kube, found))
        (change,) = found.changes[1:]
        assert change.type == "MODIFIED"
        assert change.object["metadata"]["uid"] != first["metadata"]["uid"]


async def test_a_server_restored_from_a_backup_is_believed() -> None:
    """Its versions are below ours, and a watch from ours is one of the future."""
    async with FakeKube() as kube, watched(kube) as found:
        put(kube, "a")
        await until(lambda: len(found.changes) == 1)
        put(kube, "b")
        await until(lambda: len(found.changes) == 2)
        await kube.down()
        kube.store.history.clear()
        kube.store.remove(CONFIG_MAPS, "b")
        kube.store.history.clear()
        kube.store.revision -= 50
        await kube.up()
        await until(lambda: same(kube, found) and kube.watching)
        assert found.told[2:] == [("DELETED", "b")]


async def test_a_watch_that_says_nothing_is_left() -> None:
    """A peer that a load balancer forgot sends no reset: only silence tells."""
    async with FakeKube() as kube:
        found = Watched(kube.client(deadlines=IMPATIENT))
        kube.faults.bookmark_s = 0.05
        task = asyncio.ensure_future(found.informer.run())
        await until(lambda: kube.watching)
        await asyncio.sleep(0.5)  # bookmarks are a sign of life
        assert found.informer.restarts == 0
        kube.faults.silent = True
        put(kube, "missed")
        await until(lambda: found.informer.errors > 0)
        kube.faults.silent = False
        await until(lambda: same(kube, found))
        assert found.told == [("ADDED", "missed")]
        task.cancel()


# Errors.


@pytest.mark.parametrize("status", [400, 404, 409, 422, 500, 502, 503, 504])
async def test_errors_pass_and_the_copy_stays(status: int) -> None:
    async with FakeKube() as kube, watched(kube) as found:
        put(kube, "a")
        await until(lambda: len(found.changes) == 1)
        kube.faults.answer(status, times=4)
        kube.cut()
        await until(lambda: found.informer.errors >= 4)
        assert found.informer.synced
        assert len(found.informer.objects) == 1
        put(kube, "b")
        await until(lambda: same(kube, found))
        assert found.told == [("ADDED", "a"), ("ADDED", "b")]


async def test_a_server_that_asks_for_time_gets_it() -> None:
    async with FakeKube() as kube, watched(kube) as found:
        kube.faults.answer(429, times=1, retry_after=1)
        began = asyncio.get_running_loop().time()
        kube.cut()
        await until(lambda: found.informer.errors == 2)
        asked = len(kube.asked)
        await until(lambda: len(kube.asked) > asked)
        assert asyncio.get_running_loop().time() - began >= 1.0


async def test_a_server_that_fails_is_not_hammered() -> None:
    """The sync SharedInformer asked 1,529 times in 3 s; ours doubles its delay."""
    async with FakeKube() as kube:
        kube.faults.answer(503, times=10_000)
        async with running(kube.client(), pace=Pace()):
            await asyncio.sleep(1.5)
        assert 1 <= len(kube.asked) <= 40


async def test_a_server_that_ends_every_watch_is_not_hammered() -> None:
    async with FakeKube() as kube:
        kube.faults.duration_s = 0
        async with running(kube.client(), pace=Pace()) as found:
            await asyncio.sleep(1.5)
            assert found.informer.synced
        assert 2 <= kube.counted()["watch", "configmaps"] <= 40
        assert kube.counted()["list", "configmaps"] == 1


async def test_a_token_that_expired_is_read_from_its_file(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret-token")
    async with FakeKube() as kube:
        path = kubeconfig(tmp_path / "config", kube.url, token_file=token)
        async with await Client.from_kubeconfig(path) as client, running(client) as found:
            await until(lambda: kube.watching)
            kube.tokens = {"next-token"}
            token.write_text("next-token")
            kube.cut()
            put(kube, "a")
            await until(lambda: same(kube, found))
            assert client.exchange.reloads == 1
            assert kube.asked[-1].token == "next-token"


async def test_a_token_that_nobody_renews_is_refused_without_a_storm() -> None:
    async with FakeKube() as kube, watched(kube) as found:
        kube.tokens = set()
        kube.cut()
        await until(lambda: found.informer.errors > 3)
        assert "401" in str(found.informer.problem)
        assert found.informer.synced
        kube.tokens = {"secret-token"}
        put(kube, "a")
        await until(lambda: same(kube, found))


async def test_a_permission_that_is_taken_is_asked_for_slowly() -> None:
    slowly = Pace(first=0.001, ceiling=0.001, denied=0.4)
    async with FakeKube() as kube, watched(kube, pace=slowly) as found:
        put(kube, "a")
        await until(lambda: len(found.changes) == 1)
        kube.faults.forbidden.add(("*", "configmaps"))
        kube.cut()
        await until(lambda: "403" in str(found.informer.problem))
        before = len(kube.asked)
        await asyncio.sleep(1)
        assert len(kube.asked) - before <= 5
        assert found.informer.synced
        assert len(found.informer.objects) == 1
        kube.faults.forbidden.clear()
        put(kube, "b")
        await until(lambda: same(kube, found))


async def test_a_permission_that_was_never_given_is_told_and_is_not_synced() -> None:
    async with FakeKube() as kube:
        kube.faults.forbidden.add(("list", "secrets"))
        async with running(kube.client(), SECRETS) as found:
            await until(lambda: found.informer.errors > 1)
            assert not found.informer.synced
            assert "secrets is forbidden" in str(found.informer.problem)


# Strange bytes.


@pytest.mark.parametrize(
    "line",
    [
        b"garbage\n", b"{}\n", b'{"type":"ADDED"}\n', b'{"type":"ADDED","object":{}}\n',
        b'{"type":"ADDED","object":{"metadata":{"name":"x"}}}\n',
        b'{"type":"NEWS","object":{"metadata":{"name":"x"}}}\n', b"\xff\xfe\n",
        b'{"type":"BOOKMARK","object":{"metadata":{}}}\n',
    ],
    ids=["text", "empty", "no object", "bare", "no version", "verb", "bytes", "bookmark"],
)  # fmt: skip
async def test_a_line_that_is_no_event_leads_to_a_list(line: bytes) -> None:
    async with FakeKube() as kube, watched(kube) as found:
        put(kube, "a")
        await until(lambda: len(found.changes) == 1)
        await kube.say(line)
        await until(lambda: found.informer.lists == 2 and kube.watching)
        put(kube, "b")
        await until(lambda: same(kube, found))
        assert found.told == [("ADDED", "a"), ("ADDED", "b")]


@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_events_in_pieces_are_events(size: int) -> None:
    async with FakeKube() as kube, watched(kube) as found:
        kube.faults.chunk = size
        for number in range(5):
            put(kube, "a", str(number))
        await until(lambda: len(found.changes) == 5)
        assert [change.object["data"]["v"] for change in found.changes] == list("01234")


async def test_an_object_of_3_MiB_is_an_object() -> None:
    async with FakeKube() as kube:
        put(kube, "listed", "x" * (3 * 2**20))
        async with watched(kube) as found:
            put(kube, "watched", "y" * (3 * 2**20))
            await until(lambda: len(found.informer.objects) == 2)
            assert same(kube, found)
            assert found.informer.errors == 0


async def test_a_line_without_an_end_is_cut_off() -> None:
    sent = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        if "watch" not in request.query:
            return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 2**20)
            sent += 1

    async with serving(handle) as client:
        informer = Informer(client, CONFIG_MAPS, pace=Pace(first=60, ceiling=60))
        task = asyncio.ensure_future(informer.run())
        await until(lambda: "longer than" in str(informer.problem))
        assert sent < 40
        assert informer.synced
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_page_instead_of_a_list_changes_nothing() -> None:
    pages = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal pages
        pages += 1
        return web.Response(body=b"<html>Sign in to the hotel</html>", content_type="text/html")

    async with serving(handle) as client:
        informer = Informer(client, CONFIG_MAPS, pace=QUICK)
        task = asyncio.ensure_future(informer.run())
        await until(lambda: pages > 2)
        assert not informer.synced
        assert "not JSON" in str(informer.problem)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# All at once.


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_the_copy_comes_right(seed: int) -> None:
    dice = random.Random(seed)
    async with FakeKube() as kube:
        kube.faults.chunk = dice.choice([0, 1, 100])
        async with watched(kube) as found:
            for _ in range(150):
                match dice.randrange(12):
                    case 0:
                        kube.cut()
                    case 1:
                        kube.store.compact()
                    case 2:
                        kube.end_watches()
                    case 3:
                        kube.faults.answer(dice.choice([401, 410, 429, 500, 503]))
                    case 4:
                        await kube.say(b"garbage\n")
                    case 5:
                        await asyncio.sleep(dice.random() / 50)
                    case 6 | 7:
                        names = [key[1] for key in kube.store.objects[CONFIG_MAPS]]
                        if names:
                            kube.store.remove(CONFIG_MAPS, dice.choice(names))
                    case _:
                        put(kube, f"c{dice.randrange(10)}", str(dice.random()))
            kube.faults.heal()
            await until(lambda: same(kube, found))
            rebuilt: dict[Key, Manifest] = {}
            for change in found.changes:  # what is told leads to the same as what is shown
                if change.type == "DELETED":
                    del rebuilt[change.key]
                else:
                    assert (change.key in rebuilt) == (change.type == "MODIFIED")
                    rebuilt[change.key] = change.object
            assert rebuilt == dict(found.informer.objects)


async def test_an_informer_that_is_cancelled_leaves_nothing_behind() -> None:
    async with FakeKube() as kube:
        async with watched(kube):
            assert kube.watching == 1
        await until(lambda: not kube.watching)


# The leader.

WEB: Manifest = {
    "metadata": {"name": "web"},
    "spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}},
}

TERMS = Terms(lease=1.0, renew=0.7, retry=0.05)


class Leader:
    """A replica that writes one status, for as long as it leads."""

    def __init__(
        self, kube: FakeKube, name: str, address: str, *, token: str = "secret-token"
    ) -> None:
        self.client = kube.client(token=token)
        self.address = address
        self.writing = 0
        self.election = Election(
            self.client, name="heim", namespace="default", identity=name, terms=TERMS
        )
        self.task = asyncio.ensure_future(self.election.run(self.lead))

    async def over(self) -> None:
        """Wait until it stands no more, and raise why."""
        async with asyncio.timeout(4):
            await self.task

    async def lead(self) -> None:
        queue: WriteQueue[Key] = WriteQueue(self.write, first_s=0.02, ceiling_s=0.1)
        informer = Informer(
            self.client, INGRESSES, on_change=lambda change: queue.put(change.key), pace=QUICK
        )
        self.informer = informer
        async with asyncio.TaskGroup() as group:
            group.create_task(informer.run())
            group.create_task(queue.run())

    async def write(self, key: Key) -> None:
        status: dict[str, Any] = {"loadBalancer": {"ingress": [{"ip": self.address}]}}
        current = self.informer.objects.get(key)
        if current is None or same_status(status, current) or not self.election.leading:
            return
        self.writing += 1
        where = {"name": key[1], "namespace": key[0]}
        await self.client.apply_status(INGRESSES, {"metadata": where, "status": status})


def address_of(kube: FakeKube) -> str:
    found = kube.store.get(INGRESSES, "web") or {}
    entries = found.get("status", {}).get("loadBalancer", {}).get("ingress") or [{"ip": ""}]
    return str(entries[0]["ip"])


async def test_a_write_of_the_last_leader_that_lands_late_is_put_right() -> None:
    async with FakeKube() as kube:
        kube.store.put(INGRESSES, WEB)
        held = asyncio.Event()
        one = Leader(kube, "one", "192.0.2.1")
        await until(lambda: address_of(kube) == "192.0.2.1")

        # Its next write gets stuck in the server, and nothing else of it gets through.
        kube.faults.stall_writes = held
        kube.store.put(INGRESSES, WEB)
        await until(lambda: one.writing == 2)
        kube.faults.forbidden.add(("*", "leases"))
        with pytest.raises(LeadershipLost):
            await one.over()
        assert not one.election.leading

        late, kube.faults.stall_writes = held, None
        kube.faults.forbidden.clear()
        two = Leader(kube, "two", "192.0.2.2")
        await until(lambda: address_of(kube) == "192.0.2.2")
        writes = two.writing
        late.set()
        await until(lambda: two.writing > writes)
        await until(lambda: address_of(kube) == "192.0.2.2")
        two.task.cancel()
        await asyncio.gather(two.task, return_exceptions=True)


async def test_a_leader_stops_before_another_may_begin() -> None:
    """The server is gone for one of them only, as in a partition."""
    async with FakeKube() as kube:
        kube.store.put(INGRESSES, WEB)
        kube.tokens.add("token-of-two")
        one = Leader(kube, "one", "192.0.2.1")
        await until(lambda: one.election.leading)
        two = Leader(kube, "two", "192.0.2.2", token="token-of-two")
        await until(lambda: two.election.holder == "one")

        both = False

        def examined() -> bool:
            nonlocal both
            both = both or (one.election.leading and two.election.leading)
            return two.election.leading

        kube.tokens = {"token-of-two"}  # from now on `one` is not let in any more
        await until(examined)
        with pytest.raises(LeadershipLost):
            await one.over()
        assert not both
        two.task.cancel()
        await asyncio.gather(two.task, return_exceptions=True)


async def test_a_server_that_is_gone_ends_the_lead_and_comes_back_to_one_leader() -> None:
    async with FakeKube() as kube:
        kube.store.put(INGRESSES, WEB)
        one = Leader(kube, "one", "192.0.2.1")
        await until(lambda: address_of(kube) == "192.0.2.1")
        await kube.down()
        with pytest.raises(LeadershipLost):
            await one.over()
        await kube.up()
        replicas = [Leader(kube, f"r{number}", f"192.0.2.{number}") for number in range(3)]
        await until(lambda: any(replica.election.leading for replica in replicas))
        assert sum(replica.election.leading for replica in replicas) == 1
        lease = kube.store.get(LEASES, "heim")
        assert lease is not None
        assert lease["spec"]["leaseTransitions"] == 1
        for replica in replicas:
            replica.task.cancel()
        await asyncio.gather(*(replica.task for replica in replicas), return_exceptions=True)
