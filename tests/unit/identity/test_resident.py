"""Sessions in memory: bounded, and none that can still be ended is let go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heim_proxy.access.subject import SubjectKind
from heim_proxy.identity.resident import ResidentSessions, Session
from heim_proxy.live import EndReason
from heim_proxy.store.base import SessionKind, SessionRow
from tests.fakes.sessions import Exchange

ROW = SessionRow(
    sid="s0", issuer="i", subject="1", email=None, domain=None, groups=(), provider="idp",
    auth_time=0.0, created=0.0, expires=1000.0, last_seen=0.0,
)  # fmt: skip


def session(sid: str = "s0", *, seen: float = 0.0, lifetime: float = 1000.0) -> Session:
    return Session(replace(ROW, sid=sid, last_seen=seen), lifetime=lifetime)


def full_table(limit: int) -> ResidentSessions:
    table = ResidentSessions(limit)
    for number in range(limit):
        table.add(session(f"s{number}", seen=float(number)))
    return table


def test_a_session_is_usable_while_it_is_in_the_table() -> None:
    table, one = ResidentSessions(), session()
    assert not one.usable
    table.add(one)
    assert one.usable
    assert table.get("s0") is one
    table.drop(one)
    assert not one.usable
    assert table.get("s0") is None
    table.drop(one)


@pytest.mark.parametrize("kind", [SessionKind.SERVICE, SessionKind.AGENT])
def test_what_is_nobodys_login_neither_falls_idle_nor_takes_the_lifetime_of_people(
    kind: SessionKind,
) -> None:
    table = ResidentSessions()
    service = replace(ROW, sid="t1", kind=kind, expires=float("inf"))
    for row in (ROW, service, replace(service, sid="t2", expires=5000.0)):
        table.add(Session(row, lifetime=100.0))
    late = table.overdue(5000.0, idle=50.0)
    assert [(one.sid, reason) for one, reason in late] == [
        ("s0", EndReason.EXPIRED),
        ("t2", EndReason.EXPIRED),
    ]
    for one in table:
        one.limit(10.0)
    found = table.get("t1")
    assert found is not None
    assert found.expires == float("inf")


def test_an_agent_is_no_user_and_no_service_account() -> None:
    row = replace(ROW, kind=SessionKind.AGENT, issuer="heim", subject="backup", provider="heim")
    assert Session(row, lifetime=1.0).subject.kind is SubjectKind.AGENT


def test_a_full_table_lets_the_least_recently_seen_go() -> None:
    table = full_table(20)
    table.add(session("new", seen=99.0))
    assert len(table) == 19
    assert [sid for sid in ("s0", "s1", "s2", "new") if table.get(sid)] == ["s2", "new"]


def test_a_session_with_a_live_exchange_is_never_let_go() -> None:
    """It must stay where a revocation finds it."""
    table = full_table(20)
    oldest = table.get("s0")
    assert oldest is not None
    oldest.live.add(Exchange(oldest))
    for number in range(100):
        table.add(session(f"n{number}", seen=100.0 + number))
    assert table.get("s0") is oldest
    assert oldest.usable


def test_a_table_of_nothing_but_live_sessions_grows_rather_than_forgets() -> None:
    table = full_table(10)
    for one in table:
        one.live.add(Exchange(one))
    table.add(session("new"))
    assert len(table) == 11


def test_what_an_evicted_session_has_seen_is_not_lost() -> None:
    table = full_table(10)
    oldest = table.get("s0")
    assert oldest is not None
    oldest.last_seen = 0.5
    table.add(session("new", seen=50.0))
    assert table.get("s0") is None
    seen = table.unsaved(60.0)
    assert seen == {"s0": 0.5}

    back = session("s0", seen=0.0)
    table.add(back)
    assert back.last_seen == 0.5, "the store has an older time"

    table.saved(seen)
    assert table.unsaved(60.0) == {}


def test_an_ended_session_is_not_written_back() -> None:
    table, one = ResidentSessions(), session()
    table.add(one)
    one.last_seen = 5.0
    one.ended = "logout"
    table.drop(one)
    assert table.unsaved(60.0) == {}


def test_only_what_changed_is_written_back() -> None:
    table = full_table(3)
    two = table.get("s2")
    assert two is not None
    two.last_seen = 50.0
    seen = table.unsaved(60.0)
    assert seen == {"s2": 50.0}
    two.last_seen = 55.0
    table.saved(seen)
    assert table.unsaved(60.0) == {"s2": 55.0}


def test_sessions_run_out_by_age_and_by_idleness() -> None:
    table = ResidentSessions()
    busy, idle, old = session("busy", seen=90.0), session("idle"), session("old", lifetime=95.0)
    old.last_seen = 94.0
    for one in (busy, idle, old):
        table.add(one)
    assert table.overdue(94.9, 95.0) == []
    assert set(table.overdue(95.0, 95.0)) == {(idle, EndReason.IDLE), (old, EndReason.EXPIRED)}


def test_header_blocks_of_the_absent_are_dropped() -> None:
    table, one = ResidentSessions(), session(seen=100.0)
    table.add(one)
    one.blocks["host"] = object()  # type: ignore[assignment]
    table.unsaved(700.0)
    assert one.blocks
    table.unsaved(701.0)
    assert not one.blocks


def test_a_lifetime_can_be_shortened_only() -> None:
    one = session()
    one.limit(5000.0)
    assert one.expires == 1000.0
    one.limit(10.0)
    assert one.expires == 10.0


def test_walking_the_table_allows_dropping() -> None:
    table = full_table(5)
    for one in table:
        table.drop(one)
    assert len(table) == 0


def test_a_row_that_ended_makes_an_ended_session() -> None:
    ended = Session(replace(ROW, ended=5.0, end_reason="logout"), lifetime=10.0)
    assert ended.ended == "logout"
    assert "logout" in repr(ended)
