"""What a provider does badly is remembered by step, until the step works again (H10)."""

from __future__ import annotations

import pytest

from heim_proxy.identity.login_errors import LoginError, LoginRejected, ProviderDown, ProviderFault
from heim_proxy.identity.troubles import Troubles
from tests.fakes.sessions import ManualClock


def ends(troubles: Troubles, step: str, error: LoginError | None = None) -> None:
    """One request for `step`."""
    if error is None:
        with troubles.watch(step):
            return
    with pytest.raises(type(error)), troubles.watch(step):
        raise error


@pytest.fixture
def clock() -> ManualClock:
    clock = ManualClock()
    clock.time = 1_800_000_000.0
    return clock


def test_what_works_has_nothing_to_say(clock: ManualClock) -> None:
    troubles = Troubles(clock)
    ends(troubles, "discovery")
    assert troubles.words() == ""


@pytest.mark.parametrize("kind", [ProviderDown, ProviderFault])
def test_the_first_and_the_latest_failure_are_told(
    clock: ManualClock, kind: type[LoginError]
) -> None:
    troubles = Troubles(clock)
    ends(troubles, "discovery", kind("discovery", "a.test/x: timed out after 5s"))
    clock.time += 60
    ends(troubles, "discovery", kind("discovery", "a.test/x: HTTP 503"))
    assert troubles.words() == (
        "discovery: a.test/x: HTTP 503, since 2027-01-15T08:00:00Z, last tried 2027-01-15T08:01:00Z"
    )


def test_one_step_that_works_does_not_excuse_another(clock: ManualClock) -> None:
    troubles = Troubles(clock)
    ends(troubles, "token exchange", ProviderDown("token exchange", "a.test/t: HTTP 502"))
    ends(troubles, "discovery")
    assert troubles.words().startswith("token exchange: ")
    ends(troubles, "token exchange")
    assert troubles.words() == ""


def test_since_is_counted_anew_after_it_worked(clock: ManualClock) -> None:
    troubles = Troubles(clock)
    down = ProviderDown("discovery", "x")
    ends(troubles, "discovery", down)
    ends(troubles, "discovery")
    clock.time += 60
    ends(troubles, "discovery", down)
    assert "since 2027-01-15T08:01:00Z" in troubles.words()


def test_what_one_person_s_attempt_proves_says_nothing_about_the_provider(
    clock: ManualClock,
) -> None:
    troubles = Troubles(clock)
    ends(troubles, "token exchange", LoginRejected("token exchange", "the code was refused"))
    assert troubles.words() == ""
