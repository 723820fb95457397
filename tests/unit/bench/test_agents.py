from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from bench.agents import enrolled, fleet, live, report
from bench.agents.beside import BesideSample
from bench.agents.crowd import IdleSample, Quality, names
from bench.agents.pair import LOGIN_HOST
from bench.tunnel.bulk import BULK, BulkResult, BulkSample
from bench.tunnel.codec import CodecError, make
from bench.tunnel.latency import OpenSample
from bench.tunnel.stream import Way

from heim_agent.identity import Identity
from heim_proxy.agents.authority import Authority
from heim_proxy.store.base import SessionRow
from heim_proxy.store.sqlite import SqliteStore


async def enrolments(state: Path, name: str) -> Sequence[SessionRow]:
    store = SqliteStore(state / "state.db")
    await store.open()
    try:
        return await store.list_enrolments(name)
    finally:
        await store.close()


def test_machines_that_are_enrolled_are_what_joining_leaves(tmp_path: Path) -> None:
    state = tmp_path / "state"
    machines = enrolled.enrol(state, ["box", "farm", "farm"], login_host=LOGIN_HOST)
    authority = Authority.load_or_create(state, login_host=LOGIN_HOST)
    assert len(asyncio.run(enrolments(state, "farm"))) == 2
    (row,) = asyncio.run(enrolments(state, "box"))
    verified = authority.verify(machines[0].certificate_der, now=row.created)
    assert (verified.name, verified.thumbprint) == ("box", row.secret_hash)
    enrolled.write(machines, tmp_path / "kept")
    assert enrolled.read(tmp_path / "kept") == machines


def test_a_machine_has_the_files_that_heim_agent_reads(tmp_path: Path) -> None:
    (machine,) = enrolled.enrol(tmp_path / "state", ["box"], login_host=LOGIN_HOST)
    authorities = tmp_path / "ca.pem"
    authorities.write_text("")
    places = enrolled.install(
        machine,
        tmp_path / "agent",
        state=tmp_path / "state",
        login_host=LOGIN_HOST,
        ca=authorities,
    )
    identity = Identity.load(places)
    assert (identity.agent, identity.certificate) == ("box", machine.certificate_der)


@pytest.mark.parametrize("count", [1, 99, 10_000])
def test_half_of_the_machines_share_names_by_fifties(count: int) -> None:
    single, groups, everybody = names(count)
    assert len(everybody) == count
    assert set(everybody) == {*single, *groups}
    assert all(everybody.count(name) <= 50 for name in groups)
    assert len(single) == len(set(single))


def test_machines_come_from_many_addresses_of_loopback() -> None:
    addresses = [fleet.address(number) for number in range(20_000)]
    assert len(set(addresses)) == 400
    assert addresses[0] == "127.0.1.1"
    assert addresses[-1] == "127.0.2.150"


@pytest.mark.parametrize(
    ("seen", "quality"),
    [
        pytest.param(
            [(0.0, 0.001), (1.0, 0.003), (2.0, None)], Quality(2, 1, 1.0, 3.0, 3.0), id="one failed"
        ),
        pytest.param([(0.0, 0.5)], Quality(1, 0, 500.0, 500.0, 500.0), id="one"),
    ],
)
def test_what_visitors_got(seen: list[tuple[float, float | None]], quality: Quality) -> None:
    assert Quality.of(seen) == quality


def test_visitors_who_got_nothing_have_no_times() -> None:
    quality = Quality.of([(0.0, None)])
    assert (quality.answers, quality.failed) == (0, 1)
    assert math.isnan(quality.p50)


def test_an_idle_crowd_costs_parts_of_a_core_and_memory() -> None:
    sample = IdleSample(1000, 50 << 20, 90 << 20, 120.0, 6.0, (0.04, 0.06), 3.0, 2.0)
    assert sample.core == 0.05
    assert sample.kib == 40 * 1024 / 1000
    (target,) = report.idle_targets([sample])
    assert target.line == ("idle: part of a core", "≤ 0.05", "0.05", "yes")
    assert "40.96" not in report.idle_table([sample])
    assert "41.0" in report.idle_table([sample])


def test_a_leg_is_held_against_its_target_and_its_peers() -> None:
    moved = {
        report.AGENT: [BulkSample(10**9, 2.0, 1.0, 1.5)],
        "nginx at both ends": [BulkSample(10**9, 2.0, 1.0, 1.0)],
    }
    result = BulkResult(BULK["up"], moved)
    (target,) = report.leg_targets(result)
    assert target.line[2:] == ("2.50", "NO")
    line = next(line for line in report.leg_table(result).splitlines() if report.AGENT in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["heim agent", "1.00", "1.50", "2.50", "2.50", "1.25", "", "500", "500"]


def test_a_rate_that_is_reached_meets_its_target() -> None:
    samples = {report.AGENT: [OpenSample(2_000.0, 3.5, 0.0, 0.0)]}
    rate, p50 = report.open_targets(samples)
    assert rate.line[1:] == ("≤ 1", "0.75", "yes")
    assert p50.line[2:] == ("3.50", "NO")


def test_others_are_compared_within_the_round() -> None:
    samples = {
        "": [BesideSample(100, 1.0, 2.0, 3.0), BesideSample(100, 1.0, 4.0, 5.0)],
        "stall": [BesideSample(100, 1.0, 3.0, 3.0), BesideSample(100, 1.0, 6.0, 5.0)],
    }
    (target,) = report.beside_targets(samples)
    assert target.line[2:] == ("1.50", "yes")


def test_a_stream_behind_an_upgrade_is_bytes() -> None:
    codec = make("upgraded", b"GET / HTTP/1.1\r\n\r\n")
    assert not codec.answered(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert codec.answered(b"Upgrade: bench\r\n\r\nhello")
    assert codec.got == 5
    assert codec.frame(b"x") == b"x"


def test_an_upgrade_that_is_refused_is_told_in_the_words_of_the_server() -> None:
    codec = make("upgraded", b"")
    with pytest.raises(CodecError, match="502"):
        codec.answered(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")


def test_a_job_of_live_streams_survives_its_command_line() -> None:
    job = live.Job(Way(80, codec="upgraded", head="GET /\r\n\r\n"), 500, 2.0)
    assert live.Job.read(job.dump()) == job
