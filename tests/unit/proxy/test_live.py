from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import pytest

from heim_proxy.live import EndReason, LiveExchange, LiveRegistry, LiveSession


class Session:
    def __init__(self) -> None:
        self.live: set[LiveExchange] = set()


class Exchange:
    """Ends at once, as the real ones do: it leaves the registry from inside `end`."""

    def __init__(
        self,
        registry: LiveRegistry,
        session: Session | None = None,
        *,
        valid_until: float = math.inf,
        fails: bool = False,
    ) -> None:
        self.live_session: LiveSession | None = session
        self.valid_until = valid_until
        self.ended: list[EndReason] = []
        self.takes_along: list[Exchange] = []
        self._registry = registry
        self._fails = fails
        registry.add(self)

    def end(self, reason: EndReason) -> None:
        self.ended.append(reason)
        if self._fails:
            raise RuntimeError("transport is gone")
        self._registry.discard(self)
        for other in self.takes_along:
            self._registry.discard(other)


@pytest.fixture
def registry() -> LiveRegistry:
    return LiveRegistry()


def test_exchange_is_known_to_the_registry_and_its_session(registry: LiveRegistry) -> None:
    session = Session()
    exchange = Exchange(registry, session)
    assert len(registry) == 1
    assert session.live == {exchange}


def test_finished_exchange_is_forgotten_by_both(registry: LiveRegistry) -> None:
    session = Session()
    exchange = Exchange(registry, session)
    registry.discard(exchange)
    registry.discard(exchange)
    assert len(registry) == 0
    assert session.live == set()


def test_exchange_of_a_public_backend_needs_no_session(registry: LiveRegistry) -> None:
    exchange = Exchange(registry)
    assert len(registry) == 1
    registry.discard(exchange)
    assert len(registry) == 0


def test_discarding_what_was_never_added_is_harmless(registry: LiveRegistry) -> None:
    other = LiveRegistry()
    registry.discard(Exchange(other, Session()))
    assert len(registry) == 0


def test_ended_session_takes_all_of_its_exchanges_and_no_other(registry: LiveRegistry) -> None:
    alice, bob = Session(), Session()
    of_alice = [Exchange(registry, alice) for _ in range(3)]
    spared = [Exchange(registry, bob), Exchange(registry)]
    assert registry.end_session(alice, EndReason.REVOKED) == 3
    assert [exchange.ended for exchange in of_alice] == [[EndReason.REVOKED]] * 3
    assert [exchange.ended for exchange in spared] == [[], []]
    assert len(registry) == 2
    assert alice.live == set()


def test_session_without_exchanges_ends_quietly(registry: LiveRegistry) -> None:
    assert registry.end_session(Session(), EndReason.LOGOUT) == 0


@pytest.mark.parametrize(
    ("valid_until", "ends"),
    [
        pytest.param(99.0, True, id="past"),
        pytest.param(100.0, True, id="now"),
        pytest.param(100.1, False, id="later"),
        pytest.param(math.inf, False, id="never"),
    ],
)
def test_exchange_ends_when_its_decision_runs_out(
    registry: LiveRegistry, valid_until: float, ends: bool
) -> None:
    exchange = Exchange(registry, Session(), valid_until=valid_until)
    assert registry.expire(100.0) == int(ends)
    assert exchange.ended == ([EndReason.EXPIRED] if ends else [])
    assert len(registry) == int(not ends)


def test_review_ends_what_the_judge_condemns(registry: LiveRegistry) -> None:
    reasons = {
        Exchange(registry, Session()): EndReason.POLICY_CHANGED,
        Exchange(registry): EndReason.BACKEND_REMOVED,
        Exchange(registry, Session()): None,
    }

    def judge(exchange: LiveExchange) -> EndReason | None:
        assert isinstance(exchange, Exchange)
        return reasons[exchange]

    assert registry.review(judge) == 2
    for exchange, reason in reasons.items():
        assert exchange.ended == ([] if reason is None else [reason])
    assert len(registry) == 1


def test_review_can_end_everything_for_shutdown(registry: LiveRegistry) -> None:
    exchanges = [Exchange(registry, Session()) for _ in range(100)]
    assert registry.review(lambda _: EndReason.SHUTDOWN) == 100
    assert all(exchange.ended == [EndReason.SHUTDOWN] for exchange in exchanges)
    assert len(registry) == 0


def test_exchange_registered_while_judging_does_not_break_the_round(registry: LiveRegistry) -> None:
    first = Exchange(registry)
    later: list[Exchange] = []

    def judge(exchange: LiveExchange) -> EndReason | None:
        if not later:
            later.append(Exchange(registry))
        return EndReason.POLICY_CHANGED if exchange is first else None

    assert registry.review(judge) == 1
    assert first.ended == [EndReason.POLICY_CHANGED]
    assert len(registry) == 1


def test_exchange_that_cannot_be_judged_ends_and_the_others_are_judged(
    registry: LiveRegistry,
) -> None:
    """No answer from policy is a deny; whether the error is reported afterwards is open here."""
    exchanges = [Exchange(registry) for _ in range(9)]

    def judge(exchange: LiveExchange) -> EndReason | None:
        if exchange is exchanges[4]:
            raise KeyError("backend")
        return EndReason.POLICY_CHANGED

    with contextlib.suppress(Exception):
        registry.review(judge)
    assert all(len(exchange.ended) == 1 for exchange in exchanges)


Sweep = Callable[[LiveRegistry, Session], int]


def sweep_session(registry: LiveRegistry, session: Session) -> int:
    return registry.end_session(session, EndReason.REVOKED)


def sweep_expired(registry: LiveRegistry, _: Session) -> int:
    return registry.expire(100.0)


def sweep_review(registry: LiveRegistry, _: Session) -> int:
    return registry.review(lambda _: EndReason.POLICY_CHANGED)


SWEEPS = pytest.mark.parametrize(
    "sweep",
    [
        pytest.param(sweep_session, id="session"),
        pytest.param(sweep_expired, id="expiry"),
        pytest.param(sweep_review, id="review"),
    ],
)


@SWEEPS
def test_one_exchange_that_cannot_end_does_not_save_the_others(
    registry: LiveRegistry, sweep: Sweep
) -> None:
    """An exchange whose `end` raises must not keep the rest of a revoked session alive."""
    session = Session()
    exchanges = [
        Exchange(registry, session, valid_until=1.0, fails=number % 2 == 0) for number in range(9)
    ]
    with contextlib.suppress(Exception):
        sweep(registry, session)
    assert all(len(exchange.ended) == 1 for exchange in exchanges)


@SWEEPS
def test_exchange_that_went_with_another_is_not_ended_again(
    registry: LiveRegistry, sweep: Sweep
) -> None:
    """Ending a connection may take several exchanges along; the sweep holds a list made before."""
    session = Session()
    pair = [Exchange(registry, session, valid_until=1.0) for _ in range(2)]
    for one, other in (pair, pair[::-1]):
        one.takes_along.append(other)
    assert sweep(registry, session) == 1
    assert sum(len(exchange.ended) for exchange in pair) == 1


def test_what_holds_for_long_ends_in_time_all_the_same(registry: LiveRegistry) -> None:
    """It is not looked at with every sweep."""
    exchanges = [Exchange(registry, valid_until=1000.0 + number) for number in range(200)]
    ended = 0
    for tick in range(2000, 2500):
        now = tick / 2
        ended += registry.expire(now)
        assert ended == sum(one.valid_until <= now for one in exchanges)
    assert len(registry) == 0


def test_what_is_renewed_goes_on(registry: LiveRegistry) -> None:
    exchange = Exchange(registry, valid_until=1000.0)
    registry.expire(995.0)
    exchange.valid_until = 5000.0
    assert registry.expire(1001.0) == 0
    assert registry.expire(4999.0) == 0
    assert registry.expire(5000.0) == 1


def test_a_new_configuration_may_bring_an_earlier_end(registry: LiveRegistry) -> None:
    exchange = Exchange(registry, valid_until=5000.0)
    registry.expire(1000.0)
    exchange.valid_until = 1001.0
    registry.review(lambda _: None)
    assert registry.expire(1001.0) == 1


def test_what_came_just_now_may_end_at_once(registry: LiveRegistry) -> None:
    Exchange(registry)
    registry.expire(1000.0)
    Exchange(registry, valid_until=1000.5)
    assert registry.expire(1000.5) == 1
    assert len(registry) == 1
