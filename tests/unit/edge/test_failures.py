from __future__ import annotations

import socket
import ssl

import pytest

from heim_proxy.edge import failures
from heim_proxy.edge.dial import AgentDialError, DialError, WrongNameError
from heim_proxy.edge.responses import Refusal
from heim_proxy.live import EndReason
from heim_proxy.routing import Backend, Endpoint, PathMatch, Route, Timeouts
from heim_wire.aio.transport import StreamReset
from heim_wire.errors import Code

BACKEND = Backend("grafana", timeouts=Timeouts(connect=2.5, first_byte=60.0, idle=900.0))
ROUTE = Route(BACKEND, b"/", PathMatch.PREFIX, (Endpoint("http", "10.0.0.1", 3000),))
THROUGH = Route(BACKEND, b"/", PathMatch.PREFIX, (Endpoint("agent", "desktop", 0, target="web"),))


@pytest.mark.parametrize(
    ("answer", "status", "code", "words"),
    [
        pytest.param(
            failures.connect_timeout(ROUTE), 504, "upstream_connect_timeout",
            ("2.5s", "timeouts.connect"), id="connect",
        ),
        pytest.param(
            failures.not_connected(ROUTE, DialError("connection refused")), 502,
            "upstream_unreachable", ("connection refused",), id="unreachable",
        ),
        pytest.param(failures.closed_early(ROUTE), 502, "upstream_closed", (), id="closed"),
        pytest.param(failures.bad_answer(ROUTE), 502, "upstream_bad_answer", (), id="bad"),
        pytest.param(
            failures.first_byte_timeout(ROUTE), 504, "upstream_timeout",
            ("60s", "timeouts.first_byte"), id="first byte",
        ),
        pytest.param(failures.upstream_stalled(ROUTE), 504, "upstream_stalled", (), id="stalled"),
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


def not_verified(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError()
    error.verify_code = code
    return error


@pytest.mark.parametrize(
    ("error", "cause", "words"),
    [
        (DialError("x"), ConnectionRefusedError(), ("is running",)),
        (DialError("x"), None, ("is running",)),
        (DialError("x"), socket.gaierror(-2, "x"), ("host name", "DNS")),
        (WrongNameError("x"), None, ("host name",)),
        (DialError("x"), not_verified(62), ("upstream_tls.server_name",)),
        (DialError("x"), not_verified(64), ("upstream_tls.server_name",)),
        (DialError("x"), not_verified(10), ("dates of the certificate",)),
        (DialError("x"), not_verified(20), ("upstream_tls.ca_file",)),
        (DialError("x"), ssl.SSLError(1, "x"), ("speaks TLS",)),
    ],
    ids=["refused", "at once", "unresolved", "forbidden", "other name", "other address",
         "expired", "authority", "no TLS"],
)  # fmt: skip
def test_what_to_check_fits_what_happened(
    error: DialError, cause: Exception | None, words: tuple[str, ...]
) -> None:
    error.__cause__ = cause
    hint = failures.not_connected(ROUTE, error).hint
    assert "of backend grafana" in hint
    for word in words:
        assert word in hint
    assert ("is running" in hint) is (words == ("is running",))


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


@pytest.mark.parametrize(
    "answer",
    [
        failures.connect_timeout(THROUGH),
        failures.closed_early(THROUGH),
        failures.bad_answer(THROUGH),
        failures.first_byte_timeout(THROUGH),
        failures.upstream_stalled(THROUGH),
    ],
    ids=lambda answer: answer.code,
)
def test_a_failure_through_an_agent_names_agent_and_target(answer: Refusal) -> None:
    assert "backend grafana (target web of agent desktop) " in answer.detail


def test_an_address_is_not_named() -> None:
    for answer in (failures.connect_timeout(ROUTE), failures.first_byte_timeout(ROUTE)):
        assert answer.detail.startswith("backend grafana did not")
        assert "10.0.0.1" not in answer.detail + answer.hint


@pytest.mark.parametrize(
    ("code", "status", "slug"),
    [
        (Code.AGENT_OFFLINE, 503, "agent_offline"),
        (Code.DIAL_REFUSED, 502, "dial_refused"),
        (Code.DIAL_TIMEOUT, 504, "dial_timeout"),
        (Code.FORBIDDEN, 403, "forbidden"),
        (Code.BUSY, 503, "busy"),
        # 404 would say that the page is not there.
        (Code.NO_SUCH_TARGET, 502, "no_such_target"),
    ],
)
def test_what_an_agent_could_not_do_is_told_with_its_code(
    code: int, status: int, slug: str
) -> None:
    error = AgentDialError(code, "agent desktop is away", hint="wait", retry_after=7, said="secret")
    answer = failures.not_connected(THROUGH, error)
    assert (answer.status, answer.code, answer.hint) == (status, slug, "wait")
    assert answer.detail == "backend grafana cannot be reached: agent desktop is away"
    assert (answer.backend, answer.retry_after) == ("grafana", 7)
    assert "secret" in str(error)


def test_a_dial_that_took_too_long_is_a_timeout() -> None:
    assert failures.not_connected(THROUGH, TimeoutError()).code == "upstream_connect_timeout"


def test_a_lost_agent_is_not_taken_for_a_service_that_closed() -> None:
    lost = StreamReset(Code.AGENT_LOST, "the connection to agent desktop was lost")
    answer = failures.closed_early(THROUGH, lost)
    assert (answer.status, answer.code) == (503, "agent_lost")
    assert "the connection to agent desktop was lost" in answer.detail
    assert answer.retry_after
    reset = StreamReset(Code.CONNECTION_RESET, "reset")
    assert failures.closed_early(THROUGH, reset).code == "upstream_closed"
