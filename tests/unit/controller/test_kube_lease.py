from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from heim_controller.kube.errors import LeadershipLost
from heim_controller.kube.lease import Election, Terms, identity_for
from heim_controller.kube.resources import LEASES
from heim_runtime.clock import SystemClock
from tests.fakes.kube import FakeKube
from tests.fakes.waiting import until

QUICK = Terms(lease=1.0, renew=0.7, retry=0.05)


class Candidate:
    """An election that runs, and what became of it."""

    def __init__(self, kube: FakeKube, identity: str, **options: Any) -> None:
        self.election = Election(
            kube.client(), name="heim", namespace="default", identity=identity,
            **{"terms": QUICK, **options},
        )  # fmt: skip
        self.led = 0
        self.ended = 0
        self.enough = asyncio.Event()
        self.task: asyncio.Task[None] = asyncio.ensure_future(self.election.run(self.lead))

    async def lead(self) -> None:
        self.led += 1
        try:
            await self.enough.wait()
        finally:
            self.ended += 1

    async def over(self) -> None:
        """Wait until it stands no more, and raise why."""
        async with asyncio.timeout(4):
            await self.task


@asynccontextmanager
async def candidate(kube: FakeKube, identity: str, **options: Any) -> AsyncIterator[Candidate]:
    found = Candidate(kube, identity, **options)
    try:
        yield found
    finally:
        found.task.cancel()
        await asyncio.gather(found.task, return_exceptions=True)


def spec(kube: FakeKube) -> dict[str, Any]:
    lease = kube.store.get(LEASES, "heim")
    assert lease is not None
    found: dict[str, Any] = lease["spec"]
    return found


def held_by(kube: FakeKube, who: str, *, seconds: int = 1, renewed: str = "00") -> None:
    """Somebody else's lease; another `renewed` is another renewal."""
    kube.store.put(
        LEASES,
        {
            "metadata": {"name": "heim"},
            "spec": {
                "holderIdentity": who, "leaseDurationSeconds": seconds, "leaseTransitions": 4,
                "renewTime": f"2020-01-01T00:00:{renewed}.000000Z",
            },
        },
    )  # fmt: skip


async def test_the_first_one_leads_and_says_so() -> None:
    async with FakeKube() as kube, candidate(kube, "one") as one:
        await until(lambda: one.led)
        assert one.election.leading
        assert one.election.holder == "one"
        written = spec(kube)
        assert written["holderIdentity"] == "one"
        assert written["leaseTransitions"] == 0
        assert written["leaseDurationSeconds"] == 1
        assert written["acquireTime"] == written["renewTime"]


async def test_the_leader_renews() -> None:
    async with FakeKube() as kube, candidate(kube, "one") as one:
        await until(lambda: one.election.renewals > 3)
        written = spec(kube)
        assert written["renewTime"] > written["acquireTime"]
        assert (one.led, one.ended) == (1, 0)


async def test_the_second_one_waits() -> None:
    async with FakeKube() as kube, candidate(kube, "one") as one:
        await until(lambda: one.led)
        async with candidate(kube, "two") as two:
            await until(lambda: one.election.renewals > 15)
            assert two.election.holder == "one"
            assert not two.led
            assert not two.election.leading


async def test_a_lease_that_is_given_back_is_taken_at_once() -> None:
    long = Terms(lease=60, renew=40, retry=0.05)
    async with FakeKube() as kube, candidate(kube, "one", terms=long) as one:
        await until(lambda: one.led)
        async with candidate(kube, "two", terms=long) as two:
            one.enough.set()
            await until(lambda: two.led)
            assert one.task.done()
            assert spec(kube)["leaseTransitions"] == 1


async def test_a_lease_is_given_back_with_what_the_api_takes() -> None:
    async with FakeKube() as kube, candidate(kube, "one") as one:
        await until(lambda: one.led)
        one.task.cancel()
        await asyncio.gather(one.task, return_exceptions=True)
        assert one.ended == 1
        assert spec(kube)["holderIdentity"] == ""
        assert spec(kube)["leaseDurationSeconds"] == 1


async def test_a_lease_is_given_back_although_a_renewal_was_on_its_way() -> None:
    async with FakeKube() as kube, candidate(kube, "one") as one:
        await until(lambda: one.led)
        kube.faults.stall_answers = asyncio.Event()
        before = spec(kube)["renewTime"]
        # It is done, and the candidate does not know.
        await until(lambda: spec(kube)["renewTime"] != before)
        kube.faults.stall_answers = None
        one.task.cancel()
        await asyncio.gather(one.task, return_exceptions=True)
        assert spec(kube)["holderIdentity"] == ""


async def test_a_holder_that_is_dead_is_succeeded() -> None:
    async with FakeKube() as kube:
        held_by(kube, "dead")
        async with candidate(kube, "one") as one:
            await until(lambda: one.led)
            assert spec(kube)["leaseTransitions"] == 5


async def test_a_holder_is_dead_by_our_clock_and_not_by_its_own() -> None:
    """A lease renewed "in 2020" is as alive as its next change says."""

    class Moved(SystemClock):
        def now(self) -> float:
            return 4_000_000_000.0  # our wall clock is decades ahead

    async with FakeKube() as kube:
        held_by(kube, "alive")
        async with candidate(kube, "one", clock=Moved()) as one:
            for number in range(8):  # 1.6 s, longer than the lease
                held_by(kube, "alive", renewed=f"{number:02}")
                await asyncio.sleep(0.2)
            assert not one.led
            await until(lambda: one.led)


async def test_a_holder_is_given_the_time_that_it_asked_for() -> None:
    async with FakeKube() as kube:
        held_by(kube, "slow", seconds=60)
        async with candidate(kube, "one") as one:
            await until(lambda: kube.counted()["get", "leases"] > 15)
            assert not one.led


async def test_a_lease_that_cannot_be_renewed_ends_the_lead_in_time() -> None:
    async with FakeKube() as kube, candidate(kube, "one") as one:
        await until(lambda: one.led)
        kube.faults.forbidden.add(("*", "leases"))
        began = asyncio.get_running_loop().time()
        with pytest.raises(LeadershipLost, match="not renewed"):
            await one.over()
        assert asyncio.get_running_loop().time() - began < QUICK.lease
        assert one.ended == 1
        assert not one.election.leading


async def test_a_lease_taken_by_another_ends_the_lead(caplog: pytest.LogCaptureFixture) -> None:
    async with FakeKube() as kube, candidate(kube, "one") as one:
        await until(lambda: one.led)
        held_by(kube, "thief", seconds=60)
        with pytest.raises(LeadershipLost, match="thief"):
            await one.over()
        # Whoever ran the election says so, in one line: it is no failure of a task.
        assert not [record for record in caplog.records if record.exc_info]
        assert spec(kube)["holderIdentity"] == "thief"


async def test_a_lease_that_somebody_deleted_is_made_again() -> None:
    async with FakeKube() as kube, candidate(kube, "one") as one:
        await until(lambda: one.led)
        kube.store.remove(LEASES, "heim")
        await until(lambda: kube.store.get(LEASES, "heim"))
        assert spec(kube)["holderIdentity"] == "one"
        assert (one.led, one.ended) == (1, 0)


async def test_a_lease_that_somebody_touched_is_read_again() -> None:
    async with FakeKube() as kube, candidate(kube, "one") as one:
        await until(lambda: one.led)
        lease = kube.store.get(LEASES, "heim")
        assert lease is not None
        kube.store.put(LEASES, {**lease, "metadata": {**lease["metadata"], "labels": {"a": "b"}}})
        renewals = one.election.renewals
        await until(lambda: one.election.renewals > renewals)
        assert (one.led, one.ended) == (1, 0)


async def test_a_short_failure_is_survived() -> None:
    async with FakeKube() as kube, candidate(kube, "one") as one:
        await until(lambda: one.led)
        kube.faults.answer(500, times=2)
        await until(lambda: one.election.failures == 2)
        renewals = one.election.renewals
        await until(lambda: one.election.renewals > renewals + 2)
        assert (one.led, one.ended) == (1, 0)


async def test_what_the_leader_raises_is_raised_and_the_lease_is_given_back() -> None:
    async def fail() -> None:
        raise KeyError("broken")

    async with FakeKube() as kube:
        election = Election(
            kube.client(), name="heim", namespace="default", identity="one", terms=QUICK
        )
        with pytest.raises(KeyError, match="broken"):
            await election.run(fail)
        assert spec(kube)["holderIdentity"] == ""


async def test_a_leader_that_does_not_end_keeps_the_lease_until_it_runs_out() -> None:
    stuck = asyncio.Event()

    async def lead() -> None:
        while not stuck.is_set():
            try:
                await stuck.wait()
            except asyncio.CancelledError:
                continue

    async with FakeKube() as kube:
        election = Election(
            kube.client(), name="heim", namespace="default", identity="one", terms=QUICK
        )
        task = asyncio.ensure_future(election.run(lead))
        try:
            await until(lambda: election.leading)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert spec(kube)["holderIdentity"] == "one"
            assert not election.leading
        finally:
            stuck.set()


async def test_a_stalled_loop_cannot_overstay() -> None:
    class Stalled(SystemClock):
        offset = 0.0

        def monotonic(self) -> float:
            return SystemClock.monotonic() + self.offset

    clock = Stalled()
    async with FakeKube() as kube, candidate(kube, "one", clock=clock) as one:
        await until(lambda: one.led)
        assert one.election.leading
        clock.offset = 60.0
        assert not one.election.leading
        with pytest.raises(LeadershipLost):
            await one.over()


@pytest.mark.parametrize("terms", [(10, 10, 2), (15, 2, 2), (15, 10, 0), (5, 10, 2)], ids=str)
def test_terms_under_which_two_could_lead_are_refused(terms: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="lease > renew > retry"):
        Terms(*terms)


def test_a_restarted_pod_is_another_candidate() -> None:
    assert identity_for("heim-0") != identity_for("heim-0")
    assert identity_for("heim-0").startswith("heim-0_")


async def test_an_election_tells_how_it_is() -> None:
    async with FakeKube() as kube, candidate(kube, "one") as one:
        await until(lambda: one.led)
        assert repr(one.election) == "<Election default/heim leading>"
