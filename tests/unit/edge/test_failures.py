from __future__ import annotations

import pytest

from heim_proxy.edge import failures
from heim_proxy.edge.responses import Refusal
from heim_proxy.live import EndReason
from heim_proxy.routing import Backend, Timeouts

BACKEND = Backend("grafana", timeouts=Timeouts(connect=2.5, first_byte=60.0, idle=900.0))


@pytest.mark.parametrize(
    ("answer", "status", "code", "words"),
    [
        pytest.param(
            failures.connect_timeout(BACKEND), 504, "upstream_connect_timeout",
            ("2.5s", "timeouts.connect"), id="connect",
        ),
        pytest.param(
            failures.unreachable(BACKEND, "connection refused"), 502, "upstream_unreachable",
            ("connection refused",), id="unreachable",
        ),
        pytest.param(failures.closed_early(BACKEND), 502, "upstream_closed", (), id="closed"),
        pytest.param(failures.bad_answer(BACKEND), 502, "upstream_bad_answer", (), id="bad"),
        pytest.param(
            failures.first_byte_timeout(BACKEND), 504, "upstream_timeout",
            ("60s", "timeouts.first_byte"), id="first byte",
        ),
        pytest.param(failures.upstream_stalled(BACKEND), 504, "upstream_stalled", (), id="stalled"),
        pytest.param(failures.body_timeout(BACKEND), 408, "request_body_timeout", (), id="body"),
        pytest.param(
            failures.bad_body(BACKEND, "chunk size"), 400, "bad_request", ("chunk size",),
            id="bad body",
        ),
    ],
)  # fmt: skip
def test_a_failure_names_the_backend_and_the_setting(
    answer: Refusal, status: int, code: str, words: tuple[str, ...]
) -> None:
    assert (answer.status, answer.code, answer.backend) == (status, code, "grafana")
    text = f"{answer.detail} {answer.hint}"
    for word in words:
        assert word in text
    if status >= 500:
        assert "grafana" in text


ENDS = {
    EndReason.SHUTDOWN: 503,
    EndReason.POLICY_CHANGED: 403,
    EndReason.BACKEND_REMOVED: 404,
    EndReason.BACKEND_MOVED: 503,
}


@pytest.mark.parametrize("reason", list(EndReason))
def test_every_reason_to_end_has_words_and_a_status(reason: EndReason) -> None:
    answer = failures.ended(BACKEND, reason)
    assert answer.detail
    assert answer.hint
    assert (answer.code, answer.status) == (reason.value, ENDS.get(reason, 401))
    # RFC 9110, 11.6.1: a 401 names a challenge.
    challenged = any(line.startswith("WWW-Authenticate:") for line in answer.headers)
    assert challenged is (answer.status == 401)


def test_a_broken_body_ends_the_connection() -> None:
    assert failures.bad_body(BACKEND, "x").close
