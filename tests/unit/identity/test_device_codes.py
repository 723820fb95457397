"""Devices that wait: their codes, their pace, and that there are only so many of them."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from heim_config.secrets import Secret
from heim_proxy.identity.authorization_codes import Consent
from heim_proxy.identity.device_codes import (
    INTERVAL_S,
    LIFETIME_S,
    MAX_WAITING,
    MAX_WAITING_PER_CLIENT,
    DeviceCodes,
    DeviceProblem,
    DeviceStart,
    SlowDown,
    user_code_of,
)
from heim_proxy.store.base import StoreUnavailable
from heim_proxy.store.sqlite import SqliteStore
from tests.fakes.sessions import NOW, ManualClock
from tests.fakes.store import MemoryStore
from tests.fakes.thorough import THOROUGH

PENDING, DENIED, EXPIRED = DeviceProblem.PENDING, DeviceProblem.DENIED, DeviceProblem.EXPIRED


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def store() -> MemoryStore:
    made = MemoryStore()
    await made.open()
    return made


@pytest.fixture
def devices(store: MemoryStore, clock: ManualClock) -> DeviceCodes:
    return DeviceCodes(store, clock)


async def wait(
    devices: DeviceCodes, client: str = "192.0.2.1", now: float = NOW, *, network: str = ""
) -> DeviceStart | None:
    return await devices.start(
        "build host", client, now, client_key=client, network=network or client
    )


async def begin(devices: DeviceCodes, client: str = "192.0.2.1", now: float = NOW) -> DeviceStart:
    start = await wait(devices, client, now)
    assert start is not None
    return start


async def ask(devices: DeviceCodes, start: DeviceStart, now: float = NOW) -> object:
    return await devices.poll(start.device_code.reveal(), now)


async def test_a_code_is_eight_letters_that_spell_nothing(devices: DeviceCodes) -> None:
    codes = [(await begin(devices, str(n))).user_code for n in range(40)]
    letters = "".join(codes).replace("-", "")
    assert all(re.fullmatch(r"[A-Z]{4}-[A-Z]{4}", code) for code in codes)
    assert not set(letters) & set("AEIOUY01")
    assert len(set(codes)) == 40


async def test_a_device_waits_until_somebody_approves_it(
    devices: DeviceCodes, clock: ManualClock
) -> None:
    start = await begin(devices)
    assert await ask(devices, start) is PENDING
    device = await devices.find(start.user_code, NOW)
    assert device is not None
    assert (device.label, device.client, device.created) == ("build host", "192.0.2.1", NOW)
    assert await devices.decide(start.user_code, sid="s1", now=NOW)
    assert await ask(devices, start) == Consent("s1", "build host")


async def test_an_approval_is_given_once(devices: DeviceCodes) -> None:
    start = await begin(devices)
    await devices.decide(start.user_code, sid="s1", now=NOW)
    answers = await asyncio.gather(*(ask(devices, start) for _ in range(10)))
    assert answers.count(EXPIRED) == 9
    assert await ask(devices, start) is EXPIRED


async def test_a_refusal_is_told(devices: DeviceCodes) -> None:
    start = await begin(devices)
    assert await devices.decide(start.user_code, sid="", now=NOW)
    assert await ask(devices, start) is DENIED


async def test_a_code_is_typed_once(devices: DeviceCodes) -> None:
    start = await begin(devices)
    await devices.decide(start.user_code, sid="", now=NOW)
    assert await devices.find(start.user_code, NOW) is None
    assert not await devices.decide(start.user_code, sid="s1", now=NOW)
    assert await ask(devices, start) is DENIED


async def test_a_code_lives_for_ten_minutes(devices: DeviceCodes) -> None:
    start = await begin(devices)
    late = NOW + LIFETIME_S
    assert await devices.find(start.user_code, late) is None
    assert not await devices.decide(start.user_code, sid="s1", now=late)
    assert await ask(devices, start, late) is EXPIRED


async def test_an_approval_that_is_not_fetched_in_time_is_lost(devices: DeviceCodes) -> None:
    start = await begin(devices)
    await devices.decide(start.user_code, sid="s1", now=NOW + LIFETIME_S - 1)
    assert await ask(devices, start, NOW + LIFETIME_S) is EXPIRED


async def test_whoever_asks_too_often_must_slow_down(
    devices: DeviceCodes, clock: ManualClock
) -> None:
    """RFC 8628, 3.5: five seconds more each time."""
    start = await begin(devices)
    assert await ask(devices, start) is PENDING
    clock.time += INTERVAL_S
    assert await ask(devices, start) is PENDING
    clock.time += 1
    assert await ask(devices, start) == SlowDown(10.0)
    clock.time += 5
    assert await ask(devices, start) == SlowDown(15.0)
    clock.time += 15
    assert await ask(devices, start) is PENDING


async def test_hurry_has_an_upper_bound(devices: DeviceCodes) -> None:
    start = await begin(devices)
    answers = [await ask(devices, start) for _ in range(50)]
    assert answers[-1] == SlowDown(60.0)


async def test_hurry_does_not_keep_an_approval_back(devices: DeviceCodes) -> None:
    start = await begin(devices)
    for _ in range(3):
        await ask(devices, start)
    await devices.decide(start.user_code, sid="s1", now=NOW)
    assert isinstance(await ask(devices, start), Consent)


async def test_the_pace_of_one_device_is_not_anothers(devices: DeviceCodes) -> None:
    one, other = await begin(devices), await begin(devices)
    await ask(devices, one)
    assert await ask(devices, other) is PENDING


async def test_another_process_knows_the_devices(store: MemoryStore, clock: ManualClock) -> None:
    start = await begin(DeviceCodes(store, clock))
    other = DeviceCodes(store, clock)
    assert await ask(other, start) is PENDING
    await other.decide(start.user_code, sid="s1", now=NOW)
    assert isinstance(await ask(DeviceCodes(store, clock), start), Consent)


@pytest.mark.parametrize(
    "code", ["", "x", "heim_dc_", "heim_dc_" + "A" * 43, "é" * 51, "heim_dc_" + "A" * 5000]
)
async def test_a_code_that_is_none_is_expired(devices: DeviceCodes, code: str) -> None:
    assert await devices.poll(code, NOW) is EXPIRED


@pytest.mark.parametrize(
    "typed",
    ["BCDF-GHJK", "bcdf-ghjk", "BCDFGHJK", " bcdf ghjk ", "BC DF-GH\tJK", "bCdF--gHjK"],
)
def test_people_type_codes_in_many_ways(typed: str) -> None:
    assert user_code_of(typed) == "BCDF-GHJK"


@pytest.mark.parametrize(
    "typed",
    ["", "BCDF", "BCDF-GHJ", "BCDF-GHJKL", "ABCD-EFGH", "BCDF-GHJ0", "BCDF_GHJK", "ＢCDF-GHJK",
     "BCDF-GHJ\u212a", "BCDF-GHJK\0", "BCDF-GHJK" + " " * 100, "*" * 8, "BCDF-GHJK;"],
    ids=range(13),
)  # fmt: skip
def test_what_cannot_be_a_code_is_none(typed: str) -> None:
    assert user_code_of(typed) is None


async def test_the_store_has_hashes_only(devices: DeviceCodes, store: MemoryStore) -> None:
    start = await begin(devices)
    (row,) = store.devices.values()
    assert start.user_code.encode() not in row.user_code + row.code
    assert start.device_code.reveal().encode() not in row.user_code + row.code


async def test_an_address_has_room_for_a_class_and_no_more(devices: DeviceCodes) -> None:
    for _ in range(MAX_WAITING_PER_CLIENT):
        await begin(devices, "192.0.2.1")
    assert await wait(devices, "192.0.2.1") is None
    await begin(devices, "192.0.2.2")
    await begin(devices, "192.0.2.1", NOW + LIFETIME_S)


async def test_thousands_of_devices_that_nobody_approves_stay_bounded(
    devices: DeviceCodes, store: MemoryStore
) -> None:
    answers = [
        await wait(devices, f"192.0.{n % 250}.{n // 250}", NOW + n / 1000)
        for n in range(MAX_WAITING)
    ]
    assert None not in answers
    more = [
        await wait(devices, f"198.51.{n % 250}.1", NOW + 2)
        for n in range(8000 if THOROUGH else 800)
    ]
    assert set(more) == {None}
    assert len(store.devices) == MAX_WAITING
    first = answers[0]
    assert first is not None
    assert await devices.find(first.user_code, NOW + 10), "those who came first were pushed out"
    await begin(devices, "203.0.113.1", NOW + 1000)
    assert len(store.devices) == 1, "what expired is still there"


async def test_a_48_that_took_every_place_gives_some_back(
    devices: DeviceCodes, store: MemoryStore
) -> None:
    flood = [
        await wait(devices, f"2001:db8:0:{n:x}::/64", NOW + n / 1000, network="2001:db8::/48")
        for n in range(MAX_WAITING)
    ]
    people = [await begin(devices, f"192.0.2.{n}", NOW + 3) for n in range(100)]
    assert len(store.devices) == MAX_WAITING
    more = await wait(devices, "2001:db8:0:ffff::/64", NOW + 4, network="2001:db8::/48")
    assert more is None
    for start in people:
        assert await devices.find(start.user_code, NOW + 5), "somebody was pushed out"
    oldest, newest = flood[0], flood[-1]
    assert oldest is not None
    assert newest is not None
    assert await ask(devices, oldest, NOW + 5) is EXPIRED
    assert await ask(devices, newest, NOW + 5) is PENDING


async def test_the_memory_of_polls_is_bounded(devices: DeviceCodes, store: MemoryStore) -> None:
    started = [await begin(devices, f"192.0.2.{n}") for n in range(200)]
    for start in started:
        await ask(devices, start)
    assert len(devices._polls) == 200
    for start in started:
        await ask(devices, start, NOW + LIFETIME_S)
    assert len(devices._polls) == 0
    for n in range(200):
        await devices.poll(f"heim_dc_{n:043d}", NOW)
    assert len(devices._polls) == 0


@pytest.mark.parametrize("call", ["start", "find", "decide", "poll"])
async def test_without_a_store_nothing_is_granted(
    devices: DeviceCodes, store: MemoryStore, call: str
) -> None:
    start = await begin(devices)
    store.down = "gone"
    calls = {
        "start": lambda: wait(devices),
        "find": lambda: devices.find(start.user_code, NOW),
        "decide": lambda: devices.decide(start.user_code, sid="s1", now=NOW),
        "poll": lambda: devices.poll(start.device_code.reveal(), NOW),
    }
    with pytest.raises(StoreUnavailable):
        await calls[call]()


async def test_the_bound_holds_in_the_file_too(tmp_path: Path, clock: ManualClock) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    try:
        await store._write(
            lambda db: db.executemany(
                "INSERT INTO devices VALUES (?, ?, 'x', ?, ?, ?, 0, '', ?, ?, '', x'', '')",
                [
                    (
                        b"c%d" % n,
                        b"u%d" % n,
                        f"2001:db8:0:{n:x}::1",
                        NOW,
                        NOW + 600,
                        f"2001:db8:0:{n:x}::/64",
                        "2001:db8::/48",
                    )
                    for n in range(MAX_WAITING)
                ],
            )
        )
        devices = DeviceCodes(store, clock)
        start = await begin(devices, "203.0.113.9")
        assert await wait(devices, "2001:db8::/64", network="2001:db8::/48") is None
        assert await devices.find(start.user_code, NOW) is not None
        with closing(sqlite3.connect(store.path)) as db:
            count = db.execute("SELECT count(*) FROM devices").fetchone()
        assert count == (MAX_WAITING,)
    finally:
        await store.close()


def test_nothing_shows_a_code() -> None:
    start = DeviceStart(Secret("heim_dc_x"), "BCDF-GHJK")
    assert "BCDF" not in repr(start)
    assert "heim_dc" not in repr(start)
