from __future__ import annotations

import json

import pytest

from heim_proxy.access.policy import Deny, DenyReason
from heim_proxy.edge.dial import AgentDialError
from heim_proxy.edge.responses import Refusal, refusal
from heim_proxy.routing import Backend
from heim_proxy.tunnel import refusals
from heim_proxy.tunnel.passage import ENDINGS
from heim_wire.errors import Code, by_slug

LOGIN = "https://auth.example.test"
DENY = Deny("web1", DenyReason.NO_ROLE, "You have no role that gives access to web1.")
BROKEN = Deny("web1", DenyReason.INTERNAL, "The access rules could not be evaluated.")

WEB1 = Backend("web1", max_session_age=28800.0)

OFFLINE = AgentDialError(
    Code.AGENT_OFFLINE, "agent pi is offline", hint="turn it on", retry_after=10, said="secret"
)
NO_TARGET = AgentDialError(Code.NO_SUCH_TARGET, "agent pi has no target ssh", hint="add it")

EVERY = {
    "not an upgrade": (refusals.not_an_upgrade("x"), 426, "protocol"),
    "malformed": (refusals.malformed("x"), 400, "protocol"),
    "other protocol": (refusals.other_protocol("v2"), 400, "protocol"),
    "no token": (
        refusals.unauthenticated("x", LOGIN, presented=False), 401, "unauthenticated",
    ),
    "too old": (
        refusals.sign_in_again(WEB1, "a", LOGIN, program=False), 401, "unauthenticated",
    ),
    "ambiguous": (refusals.ambiguous_backend("x"), 400, "protocol"),
    "no such target": (refusals.no_such_target("x", "y"), 404, "no_such_target"),
    "forbidden": (refusals.forbidden(DENY, "a"), 403, "forbidden"),
    "policy failed": (refusals.forbidden(BROKEN, "a"), 500, "internal"),
    "busy": (refusals.busy("web1", "a", 256), 429, "busy"),
    "going away": (refusals.going_away(), 503, "going_away"),
    "unavailable": (refusals.unavailable(), 503, "busy"),
    "internal": (refusals.internal("x"), 500, "internal"),
    "unreachable": (refusals.unreachable("web1", "a", "connection refused"), 502, "dial_refused"),
    "no answer": (refusals.no_answer("web1", "a", 5.0), 504, "dial_timeout"),
    "no answer of a target": (
        refusals.no_answer("web1", "a", 5.0, via="target ssh of agent pi"), 504, "dial_timeout",
    ),
    "agent offline": (refusals.agent_failed("web1", "a", OFFLINE), 503, "agent_offline"),
    "agent without the target": (
        refusals.agent_failed("web1", "a", NO_TARGET), 404, "no_such_target",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("answer", "status", "code"), EVERY.values(), ids=EVERY)
def test_every_refusal_is_a_problem_that_heim_tunnel_knows(
    answer: Refusal, status: int, code: str
) -> None:
    assert (answer.status, answer.code) == (status, code)
    assert by_slug(code) is not None
    data = refusal(answer, page=False, request_id="r1", head_only=False)
    head, _, body = data.partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert problem["code"] == code
    assert problem["detail"]
    assert problem["hint"]
    assert problem["request_id"] == "r1"
    assert (b"\r\nRetry-After: " in head) is ("retry_after" in problem)
    assert (b"\r\nWWW-Authenticate: Bearer" in head) is (status == 401)
    assert ("login_url" in problem) is (status == 401)


@pytest.mark.parametrize(
    "answer", [refusals.busy("web1", "a", 9), refusals.going_away(), refusals.unavailable()]
)
def test_what_passes_says_when_to_try_again(answer: Refusal) -> None:
    assert 0 < answer.retry_after <= 30


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=lambda ending: ending.end)
def test_an_end_before_the_beginning_is_a_refusal(ending: object) -> None:
    found = refusals.ended(ending, "web1", "a")  # type: ignore[arg-type]
    assert found.status >= 400
    assert found.backend == "web1"


def test_the_limit_of_a_person_is_said() -> None:
    assert "256" in refusals.busy("web1", "alice@example.com", 256).detail


def test_how_old_a_login_may_be_is_said() -> None:
    assert "8h" in refusals.sign_in_again(WEB1, "a", LOGIN, program=False).detail


def test_programs_are_not_sent_to_log_in() -> None:
    for answer in (
        refusals.unauthenticated("x", LOGIN, presented=True, program=True),
        refusals.sign_in_again(WEB1, "ci", LOGIN, program=True),
    ):
        assert answer.status == 401
        assert not answer.login_url
        assert "service token" in answer.hint


def test_what_an_agent_could_not_do_is_told_with_its_name_and_without_the_logs_part() -> None:
    answer = refusals.agent_failed("web1", "alice", OFFLINE)
    assert answer.detail == "web1 cannot be reached: agent pi is offline"
    assert (answer.hint, answer.retry_after) == ("turn it on", 10)
    assert (answer.backend, answer.user) == ("web1", "alice")


def test_a_target_that_does_not_answer_is_named() -> None:
    answer = refusals.no_answer("web1", "alice", 5.0, via="target ssh of agent pi")
    assert answer.detail.endswith("target ssh of agent pi did not answer within 5s")
