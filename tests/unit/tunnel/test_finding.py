"""What the doctor knows while it looks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from heim_runtime.webproxy import WebProxy
from heim_tunnel.dial import Endpoint, Way
from heim_tunnel.finding import Case, milliseconds
from heim_tunnel.invocation import Invocation
from tests.unit.tunnel.test_status import store


@pytest.mark.parametrize(
    ("way", "proxied", "hop"),
    [
        (Way(), None, ("web.test", 443)),
        (Way(connect_to=Endpoint("127.0.0.1", 8443)), None, ("127.0.0.1", 8443)),
        (Way(), WebProxy("http", "proxy.test", 3128, None), ("proxy.test", 3128)),
        (Way(connect_to=Endpoint("127.0.0.1", 8443)), WebProxy("http", "proxy.test", 3128, None),
         ("proxy.test", 3128)),
    ],
    ids=["directly", "detour", "web proxy", "detour through a web proxy"],
)  # fmt: skip
def test_the_first_hop_is_where_our_connection_goes(
    way: Way, proxied: WebProxy | None, hop: tuple[str, int]
) -> None:
    case = Case(Invocation("web.test", way, environ={}), "web.test", proxied=proxied)
    assert case.first_hop == hop
    assert case.host == "web.test"


def test_authorities_of_the_login_are_used(home: Path) -> None:
    named = home / "ca.pem"
    named.write_text("-----BEGIN CERTIFICATE-----")
    login = store(ca_file=str(named))
    case = Case(Invocation("web.test", Way(), environ={}), "web.test", login=login)
    assert case.way.ca_file == login.authorities
    assert case.way.ca_remembered == str(named)


def test_times_are_in_milliseconds() -> None:
    assert milliseconds(time.monotonic() - 1.5).startswith("150")
