from __future__ import annotations

import logging
from pathlib import Path

import pytest

from heim_agent.identity import Identity
from heim_agent.key import AgentKey
from heim_agent.renewed import Watch
from heim_runtime.tasks import cancel, spawn
from tests.fakes.lane_host import AGENT, LaneHost, honest
from tests.fakes.loops import run_on
from tests.fakes.waiting import until


@pytest.fixture
def host(tmp_path: Path) -> LaneHost:
    return LaneHost(tmp_path, honest)


def another_program(identity: Identity) -> Identity:
    """The same files, in another process."""
    return Identity.load(identity.places)


def test_nothing_new_is_nothing(host: LaneHost) -> None:
    assert not Watch(host.identity()).check()


def test_a_certificate_that_somebody_else_renewed_is_taken(host: LaneHost) -> None:
    identity = host.identity()
    watch = Watch(identity)
    fresh = host.certificate(begins=3600.0)
    another_program(identity).renew(fresh)
    assert watch.check()
    assert identity.certificate == fresh
    assert not watch.check()


def test_an_older_certificate_is_not(host: LaneHost) -> None:
    identity = host.identity()
    watch, before = Watch(identity), identity.certificate
    another_program(identity).renew(host.certificate(begins=-3600.0))
    assert not watch.check()
    assert identity.certificate == before


def test_half_of_a_file_is_left_alone_until_it_is_whole(
    host: LaneHost, caplog: pytest.LogCaptureFixture
) -> None:
    identity = host.identity()
    watch = Watch(identity)
    path = Path(identity.places.state) / "certificate.pem"
    whole = path.read_text()
    path.write_text(whole[:100])
    with caplog.at_level(logging.WARNING):
        assert not watch.check()
    assert [record.message for record in caplog.records] == ["identity.unreadable"]
    another_program_certificate = host.certificate(begins=3600.0)
    path.write_text(whole)
    another_program(identity).renew(another_program_certificate)
    assert watch.check()


def test_another_key_needs_a_restart_and_says_so(
    host: LaneHost, caplog: pytest.LogCaptureFixture
) -> None:
    identity = host.identity()
    watch, before = Watch(identity), identity.certificate
    host.key = AgentKey.generate()
    host.identity()
    with caplog.at_level(logging.ERROR):
        assert not watch.check()
    assert [record.message for record in caplog.records] == ["identity.replaced"]
    assert identity.certificate == before
    assert identity.agent == AGENT


def test_what_a_full_disk_did_not_take_is_saved_later(
    host: LaneHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heim_agent.renewed.LOOK_S", 0.001)
    identity = host.identity()
    identity.unsaved = "cannot save: no space left on device"

    async def scenario() -> None:
        watching = spawn("watch", Watch(identity).run())
        await until(lambda: identity.unsaved is None)
        await cancel((watching,))

    run_on("asyncio", scenario())
