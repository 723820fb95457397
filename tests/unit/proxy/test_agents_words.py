from __future__ import annotations

import pytest

from heim_proxy.agents import words
from heim_proxy.agents.opening import Unanswered
from heim_proxy.agents.presence import Offline
from heim_proxy.edge.dial import AgentDialError, Errand
from heim_proxy.routing import Endpoint
from heim_wire.errors import FAILURES, Code, OpenRefused

SSH = Endpoint("agent", "office", 0, target="ssh")
RESET = "target ssh of agent office reset the connection"
NOW = 1_800_000_000.0


def refused(code: int, said: str = "") -> AgentDialError:
    return words.refused(SSH, Unanswered(code, said, again=False))


@pytest.mark.parametrize(
    ("ago", "told"),
    [
        (0, "less than a minute ago"),
        (-5, "less than a minute ago"),
        (59, "less than a minute ago"),
        (60, "1 min ago"),
        (12 * 60 + 30, "12 min ago"),
        (119 * 60, "119 min ago"),
        (2 * 3600, "2 h ago"),
        (47 * 3600, "47 h ago"),
        (48 * 3600, "2 days ago"),
    ],
)
def test_an_offline_agent_was_last_seen_some_time_ago(ago: float, told: str) -> None:
    error = words.offline(SSH, Offline(NOW - ago, joined=True), NOW)
    assert error.detail == f"agent office is offline, last seen {told}"
    assert (error.code, error.retry_after > 0) == (Code.AGENT_OFFLINE, True)


def test_an_agent_that_was_revoked_has_to_join_again() -> None:
    error = words.offline(SSH, Offline(NOW - 180, joined=True, revoked=True), NOW)
    assert error.code == Code.AGENT_OFFLINE
    assert error.detail == "agent office is offline: it was revoked 3 min ago"
    assert "its machine has to join again" in error.hint
    assert not error.retry_after


def test_an_agent_that_nobody_saw_is_offline_without_a_time() -> None:
    error = words.offline(SSH, Offline(None, joined=True), NOW)
    assert error.detail == "agent office is offline"


def test_an_agent_that_nobody_is_needs_a_machine() -> None:
    error = words.offline(SSH, Offline(), NOW)
    assert error.detail == "agent office is offline: no machine has joined as office yet"
    assert "heim-agent join" in error.hint
    assert not error.retry_after


@pytest.mark.parametrize(
    ("code", "said", "told"),
    [
        (Code.DIAL_REFUSED, "no route to host", "cannot be reached: no route to host"),
        (Code.DIAL_REFUSED, "", "cannot be reached: connection refused"),
        (Code.DIAL_TIMEOUT, "", "cannot be reached: no answer"),
        (Code.DNS, "", "cannot be reached: its name does not resolve"),
    ],
)
def test_a_target_that_cannot_be_reached_is_named_with_the_agents_reason(
    code: int, said: str, told: str
) -> None:
    error = refused(code, said)
    assert (error.code, error.detail) == (code, f"target ssh of agent office {told}")


@pytest.mark.parametrize(
    ("code", "told", "detail"),
    [
        (Code.FORBIDDEN, Code.FORBIDDEN, "agent office does not allow this: needs role x"),
        (Code.NO_SUCH_TARGET, Code.NO_SUCH_TARGET, "agent office has no target ssh"),
        (Code.BUSY, Code.BUSY, "agent office is busy: needs role x"),
        (Code.GOING_AWAY, Code.AGENT_LOST, "the connection to agent office was lost"),
        (Code.AGENT_LOST, Code.AGENT_LOST, "the connection to agent office was lost"),
        (Code.INTERNAL, Code.INTERNAL, "agent office failed to open the connection"),
        (Code.UNAUTHENTICATED, Code.INTERNAL, "agent office failed to open the connection"),
        (Code.REVOKED, Code.INTERNAL, "agent office failed to open the connection"),
        (999, Code.INTERNAL, "agent office failed to open the connection"),
    ],
)
def test_a_refusal_is_told_as_what_it_can_be(code: int, told: int, detail: str) -> None:
    error = refused(code, "needs role x")
    assert (error.code, error.detail) == (told, detail)
    assert error.hint


def test_every_code_of_the_wire_becomes_one_that_has_a_status() -> None:
    for code in FAILURES:
        assert refused(code).code in FAILURES


def test_an_agent_that_talks_much_is_cut_short() -> None:
    for code in (Code.DIAL_REFUSED, Code.FORBIDDEN, Code.BUSY):
        assert len(refused(code, "x" * 500).detail) < 200


def test_the_log_has_what_an_unknown_refusal_said() -> None:
    assert "999: ouch" in str(refused(999, "ouch"))
    assert "ouch" not in refused(999, "ouch").detail


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (Code.BUSY, Code.BUSY),
        (Code.GOING_AWAY, Code.AGENT_LOST),
        (Code.AGENT_LOST, Code.AGENT_LOST),
    ],
)
def test_a_lane_that_takes_no_stream_is_busy_or_lost(code: int, told: int) -> None:
    error = words.not_taken(SSH, OpenRefused(code, "why"))
    assert (error.code, error.retry_after > 0) == (told, True)


@pytest.mark.parametrize(
    ("code", "told", "reason"),
    [
        (Code.CONNECTION_RESET, Code.CONNECTION_RESET, RESET),
        (Code.REVOKED, Code.CONNECTION_RESET, RESET),
        (999, Code.CONNECTION_RESET, RESET),
        (Code.FLOW, Code.FLOW, "agent office sent more than it was allowed to"),
        (Code.PROTOCOL, Code.PROTOCOL, "agent office broke the protocol"),
        (Code.GOING_AWAY, Code.AGENT_LOST, "agent office is stopping; connect again"),
    ],
)  # fmt: skip
def test_a_reset_means_what_it_can_mean(code: int, told: int, reason: str) -> None:
    assert words.ended(SSH, code, lost=False) == (told, reason)


@pytest.mark.parametrize("code", sorted(FAILURES))
def test_the_end_of_a_lane_is_a_lost_agent_whatever_ended_it(code: int) -> None:
    told = words.ended(SSH, code, lost=True)
    assert told == (Code.AGENT_LOST, "the connection to agent office was lost")


def test_what_nobody_waits_for_is_not_told_as_a_failure_of_the_agent() -> None:
    error = words.given_up(SSH)
    assert error.code == Code.GOING_AWAY
    assert (
        str(error) == "nobody waits for target ssh of agent office any more: it was not asked for"
    )


def test_too_many_groups_are_told_with_their_number() -> None:
    errand = Errand(None, "b", (), "", "r", "tcp", 1.0)
    assert "public is in too many groups (0)" in words.too_long(SSH, errand).detail


@pytest.mark.parametrize(
    "error", [words.not_configured(SSH), words.closed_at_once(SSH)], ids=["config", "closed"]
)
def test_the_rest_names_agent_and_target(error: AgentDialError) -> None:
    assert "office" in error.detail
    assert "ssh" in error.detail
    assert error.hint
