from __future__ import annotations

import resource

import pytest

from heim_proxy.edge.admission import Admission, Limits, Place, Tally


def entered(admission: Admission, tally: Tally) -> Place:
    place = admission.enter(tally)
    assert place is not None
    return place


def test_places_are_limited_and_come_back() -> None:
    admission, tally = Admission(Limits(connections=2)), Tally()
    first = entered(admission, tally)
    entered(admission, tally)
    assert admission.enter(tally) is None
    assert admission.refused.read() == {"total_limit": 1}
    first.leave()
    assert (admission.connections, tally.open) == (1, 1)
    assert admission.enter(tally) is not None


def test_a_place_is_given_back_once() -> None:
    admission, tally = Admission(), Tally()
    place = entered(admission, tally)
    entered(admission, tally)
    assert place.claim("192.0.2.1")
    place.leave()
    place.leave()
    assert (admission.connections, tally.open, admission.clients) == (1, 1, 0)


def test_one_client_cannot_take_everybody_elses_places() -> None:
    admission, tally = Admission(Limits(connections=10, per_client=2)), Tally()
    places = [entered(admission, tally) for _ in range(4)]
    assert [place.claim("192.0.2.1") for place in places] == [True, True, False, False]
    assert admission.refused.read() == {"client_limit": 2}
    assert entered(admission, tally).claim("192.0.2.2")
    places[0].leave()
    assert entered(admission, tally).claim("192.0.2.1")


def test_leaving_without_a_claim_gives_back_no_clients_place() -> None:
    admission, tally = Admission(Limits(per_client=1)), Tally()
    holder, refused = entered(admission, tally), entered(admission, tally)
    assert holder.claim("192.0.2.1")
    assert not refused.claim("192.0.2.1")
    refused.leave()
    assert admission.clients == 1
    assert not entered(admission, tally).claim("192.0.2.1")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True, id="same-64"),
        pytest.param("2001:db8:1:2::1", "2001:db8:1:3::1", False, id="next-64"),
        pytest.param("192.0.2.1", "192.0.2.2", False, id="ipv4-neighbours"),
    ],
)
def test_an_ipv6_client_is_its_64(one: str, other: str, same: bool) -> None:
    admission, tally = Admission(Limits(per_client=1)), Tally()
    assert entered(admission, tally).claim(one)
    assert entered(admission, tally).claim(other) is not same


def test_clients_that_left_are_forgotten() -> None:
    admission, tally = Admission(), Tally()
    for number in range(300):
        place = entered(admission, tally)
        assert place.claim(f"192.0.{number // 250}.{number % 250}")
        place.leave()
    assert admission.clients == 0


def test_the_limits_leave_descriptors_for_upstreams_and_for_ourselves() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        assert Limits.for_process().connections == (1024 - 256) // 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
