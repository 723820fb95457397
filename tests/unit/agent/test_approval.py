from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from heim_agent.approval import ask_to_be_let_in
from heim_agent.exchange import Host, Reply
from heim_agent.key import AgentKey
from heim_runtime.complaints import AUTH, PROTOCOL, Complaint
from heim_wire.agents import ENROL_PATH, ENROLLED_PATH
from tests.fakes.joining import Canned, JoinHost, join_host, problem


class Patience:
    """Time that passes by sleeping only."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


@pytest.fixture
def host(tmp_path: Path) -> Iterator[JoinHost]:
    with join_host(tmp_path) as found:
        yield found


def ask(host: JoinHost, patience: Patience, key: AgentKey | None = None) -> Reply:
    return ask_to_be_let_in(
        Host(host.url, ca_file=str(host.ca_file)),
        "desktop",
        key or AgentKey.generate(),
        device="box",
        sleep=patience.sleep,
        clock=patience.clock,
    )


def test_it_asks_until_somebody_has_typed_the_code(
    host: JoinHost, capfd: pytest.CaptureFixture[str]
) -> None:
    host.pending = 3
    patience = Patience()
    reply = ask(host, patience)
    assert reply.text("agent") == "desktop"
    assert patience.slept == [1, 1, 1, 1]
    (path, first), *polls = host.asked
    assert path == ENROL_PATH
    assert (first["name"], first["device"]) == ("desktop", "box")
    assert polls == [(ENROLLED_PATH, {"device_code": "device-code-canary"})] * 4
    said = capfd.readouterr().err
    assert f"open {host.url}/.heim/agents and type the code BCDF-GHJK (good for 15 minutes)" in said
    assert "whoever approves sees there whether the name desktop is configured (agents:)" in said


def test_it_slows_down_when_it_is_told_to(host: JoinHost) -> None:
    slow = problem(429, "slow_down", "asked too soon", retry_after=2)
    longer = problem(429, "slow_down", "asked too soon")
    longer.headers["Retry-After"] = "30"
    busy = problem(503, "busy", "the store is away")
    busy.headers["Retry-After"] = "40"
    host.script(ENROLLED_PATH, slow, longer, busy)
    patience = Patience()
    ask(host, patience)
    assert patience.slept == [1, 6, 30, 40]


def test_a_network_that_fails_is_no_reason_to_start_over(
    host: JoinHost, capfd: pytest.CaptureFixture[str]
) -> None:
    host.script(ENROLLED_PATH, Canned(502, b"bad gateway"), Canned(504, b""))
    patience = Patience()
    assert ask(host, patience).status == 200
    assert patience.slept == [1, 2, 4]
    assert capfd.readouterr().err.count("trying again") == 2


def test_it_says_now_and_then_that_it_waits(
    host: JoinHost, capfd: pytest.CaptureFixture[str]
) -> None:
    host.pending = 130
    ask(host, Patience())
    said = capfd.readouterr().err
    assert said.count("still waiting for somebody to type the code") == 2
    assert "(14 minutes left)" in said


def test_nobody_typing_it_ends(host: JoinHost) -> None:
    host.changed = {"expires_in": 10}
    host.pending = 100
    patience = Patience()
    with pytest.raises(Complaint, match="nobody typed the code in time") as caught:
        ask(host, patience)
    assert caught.value.status == AUTH
    assert patience.now <= 10


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (problem(403, "denied", "somebody refused to let this machine in"), "somebody refused"),
        (problem(410, "expired", "the code has expired or was used"), "has expired"),
    ],
)
def test_a_refusal_ends_it(host: JoinHost, answer: Canned, told: str) -> None:
    host.script(ENROLLED_PATH, answer)
    with pytest.raises(Complaint, match=told):
        ask(host, Patience())


@pytest.mark.parametrize(
    ("changed", "told", "status"),
    [
        ({"fingerprint": "SHA256:another"}, "another key than this machine's", AUTH),
        ({"verification_uri": "https://evil.test/x"}, "which is another host", AUTH),
        ({"verification_uri": None}, "no verification_uri", PROTOCOL),
        ({"device_code": 7}, "no device_code", PROTOCOL),
        ({"expires_in": 0}, "no usable expires_in", PROTOCOL),
        ({"interval": "x"}, "no usable interval", PROTOCOL),
    ],
    ids=["key", "page", "no page", "code", "life", "interval"],
)
def test_an_answer_that_is_not_right_sends_nobody_anywhere(
    host: JoinHost,
    capfd: pytest.CaptureFixture[str],
    changed: dict[str, object],
    told: str,
    status: int,
) -> None:
    host.changed = changed
    with pytest.raises(Complaint, match=told) as caught:
        ask(host, Patience())
    assert caught.value.status == status
    assert "BCDF-GHJK" not in capfd.readouterr().err


def test_a_host_that_does_not_want_it_is_heard(host: JoinHost) -> None:
    host.script(ENROL_PATH, problem(403, "agent_not_configured", "there is no such agent"))
    with pytest.raises(Complaint, match="there is no such agent"):
        ask(host, Patience())


def test_strange_paces_are_bounded(host: JoinHost) -> None:
    host.changed = {"interval": 1e9, "expires_in": 1e9}
    patience = Patience()
    ask(host, patience)
    assert patience.slept == [60]
