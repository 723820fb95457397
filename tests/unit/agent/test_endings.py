from __future__ import annotations

import pytest

from heim_agent.endings import Ending, Kind, NotConnected, failed, refused, sent_away, untrusted
from heim_runtime.complaints import Complaint
from heim_wire.agents import ANOTHER_AUTHORITY
from heim_wire.errors import Code
from heim_wire.events import GoAway
from heim_wire.problem import Refused


def goaway(code: int, reason: str = "", *, reconnect_in: float = 0.0) -> GoAway:
    return GoAway(code, reconnect_in=reconnect_in, try_for=0.0, drain=0.0, reason=reason)


@pytest.mark.parametrize(
    ("code", "kind", "hint"),
    [
        (Code.UNAUTHENTICATED, Kind.REFUSED, "tunnel.agent_tls_keys"),
        (Code.FORBIDDEN, Kind.REFUSED, "under agents: in its configuration"),
        (Code.REVOKED, Kind.REFUSED, "heim-agent join"),
        (Code.EXPIRED, Kind.REFUSED, "heim-agent join"),
        (Code.SUPERSEDED, Kind.SUPERSEDED, "a copied machine"),
        (Code.GOING_AWAY, Kind.AWAY, ""),
        (Code.BUSY, Kind.BUSY, ""),
        (Code.PROTOCOL, Kind.LOST, ""),
        (Code.INTERNAL, Kind.LOST, ""),
        (999, Kind.LOST, ""),
    ],
)
def test_a_goodbye_has_a_kind_words_and_what_to_do(code: int, kind: Kind, hint: str) -> None:
    ending = sent_away(goaway(code))
    assert ending.kind is kind
    assert ending.text
    assert hint in ending.hint
    assert bool(hint) is bool(ending.hint)


def test_the_proxys_own_words_are_kept_and_its_timing() -> None:
    ending = sent_away(goaway(Code.GOING_AWAY, "upgrade to 2.0", reconnect_in=3.5))
    assert (ending.text, ending.wait_s, ending.code) == ("upgrade to 2.0", 3.5, "going_away")


def test_a_certificate_of_another_authority_is_no_load_balancers() -> None:
    ending = sent_away(goaway(Code.UNAUTHENTICATED, ANOTHER_AUTHORITY))
    assert ending.kind is Kind.REFUSED
    assert "state was lost: get a join token made with --replace" in ending.hint
    assert "load balancer" not in ending.line


def test_to_join_again_is_said_once() -> None:
    line = sent_away(goaway(Code.REVOKED, "agent a was revoked on this machine; join again")).line
    assert line.startswith("agent a was revoked on this machine; if it shall come back, get a new")
    assert "join again" not in line


def test_a_goodbye_without_timing_asks_for_none() -> None:
    assert sent_away(goaway(Code.GOING_AWAY)).wait_s is None


@pytest.mark.parametrize(
    ("answer", "kind", "wait_s"),
    [
        (Refused(503, "busy", "full", retry_after=7.0), Kind.BUSY, 7.0),
        (Refused(503, "", "a load balancer's"), Kind.BUSY, None),
        (Refused(429, "", "too many", retry_after=1.0), Kind.BUSY, 1.0),
        (Refused(403, "forbidden", "no"), Kind.REFUSED, None),
        (Refused(401, "unauthenticated", "no"), Kind.REFUSED, None),
        (Refused(403, "", "a web filter's"), Kind.UNREACHABLE, None),
        (Refused(302, "", "a captive portal's"), Kind.UNREACHABLE, None),
        (Refused(404, "", "no tunnel here"), Kind.UNREACHABLE, None),
        (Refused(0, "", "no HTTP"), Kind.UNREACHABLE, None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_answer_that_is_no_101_has_a_kind(
    answer: Refused, kind: Kind, wait_s: float | None
) -> None:
    ending = refused(answer)
    assert (ending.kind, ending.wait_s, ending.text) == (kind, wait_s, answer.detail)


def test_what_failed_on_the_way_is_told_as_it_is() -> None:
    assert failed(Complaint("cannot resolve x")) == Ending(Kind.UNREACHABLE, "cannot resolve x")


def test_a_proxy_that_is_another_is_not_called_by_its_reason_alone() -> None:
    ending = untrusted("auth.example.com", "it made no statement")
    assert ending.kind is Kind.UNTRUSTED
    assert "auth.example.com did not prove" in ending.text
    assert "heim-agent join" in ending.hint


def test_a_line_is_text_and_hint() -> None:
    assert Ending(Kind.LOST, "It broke.", "mend it").line == "It broke; mend it"
    assert Ending(Kind.LOST, "It broke.").line == "It broke."
    assert Ending(Kind.LOST, "x").after(7.0).lived_s == 7.0


def test_an_attempt_that_failed_carries_its_ending() -> None:
    ending = Ending(Kind.LOST, "x")
    assert NotConnected(ending).ending is ending
