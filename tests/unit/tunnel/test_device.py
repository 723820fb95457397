"""Signing in with a code on another machine, with the clock in our hands."""

from __future__ import annotations

import pytest

from heim_runtime.complaints import AUTH, PROTOCOL, Complaint
from heim_tunnel import device
from heim_tunnel.dial import Way
from tests.fakes.login_host import Canned, LoginHost, short

TOKEN = "/.heim/cli/token"
PENDING = Canned(400, {"error": "authorization_pending"})
SLOW = Canned(400, {"error": "slow_down"})


class Time:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.naps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def way(host: LoginHost) -> Way:
    return Way(ca_file=str(host.ca_file))


def test_the_code_is_shown_and_waited_for(
    host: LoginHost, way: Way, time: Time, capfd: pytest.CaptureFixture[str]
) -> None:
    host.polls_until_approved = 2
    login = device.sign_in(host.name, way, sleep=time.sleep, clock=time.clock)
    assert login.user == "alice@example.com"
    assert time.naps == [1, 1, 1]
    out, err = capfd.readouterr()
    assert out == ""
    assert f"open {host.url}/.heim/device on any device and type the code BCDF-GHJK" in err
    assert host.of(TOKEN)[0].form["device_code"] not in err


def test_slowing_down_lasts(host: LoginHost, way: Way, time: Time) -> None:
    """RFC 8628, 3.5: by five seconds, for this and all subsequent requests."""
    host.script(TOKEN, SLOW, PENDING, SLOW)
    device.sign_in(host.name, way, sleep=time.sleep, clock=time.clock)
    assert time.naps == [1, 6, 6, 11]


def test_a_login_host_that_is_away_for_a_moment_is_asked_again(
    host: LoginHost, way: Way, time: Time
) -> None:
    host.script(TOKEN, Canned(503), PENDING)
    device.sign_in(host.name, way, sleep=time.sleep, clock=time.clock)
    assert time.naps == [1, 2, 2]


@pytest.mark.parametrize(
    ("answer", "text", "status"),
    [
        (Canned(400, {"error": "access_denied"}), "refused on the other device", AUTH),
        (Canned(400, {"error": "expired_token"}), "nobody typed the code in time", AUTH),
        (Canned(400, {"error": "invalid_grant"}), "the sign-in failed: invalid_grant", AUTH),
        (Canned(200, b"<html>"), "not a Heim login host", PROTOCOL),
    ],
    ids=short,
)
def test_what_ends_it_is_told(
    answer: Canned, text: str, status: int, host: LoginHost, way: Way, time: Time
) -> None:
    host.script(TOKEN, PENDING, answer)
    with pytest.raises(Complaint) as caught:
        device.sign_in(host.name, way, sleep=time.sleep, clock=time.clock)
    assert text in caught.value.text
    assert caught.value.status == status
    assert len(host.of(TOKEN)) == 2


def test_nobody_asks_about_a_code_that_is_over(host: LoginHost, way: Way, time: Time) -> None:
    host.polls_until_approved = 10**6
    host.script(TOKEN, *(SLOW for _ in range(20)))
    with pytest.raises(Complaint, match=f"run: heim-tunnel login --device {host.name}"):
        device.sign_in(host.name, way, sleep=time.sleep, clock=time.clock)
    assert time.now <= 600


def test_a_login_host_that_refuses_device_codes_says_why(host: LoginHost, way: Way) -> None:
    host.script("/.heim/cli/device", Canned(403, {"error": "x", "error_description": "Not here"}))
    with pytest.raises(Complaint, match="gives no device code: Not here"):
        device.sign_in(host.name, way)
