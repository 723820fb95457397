"""The doctor's steps to the proxy: each names what is wrong and what to do."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from heim_runtime.complaints import Complaint
from heim_tunnel import network_steps
from heim_tunnel.dial import Endpoint, Way
from heim_tunnel.finding import Case
from heim_tunnel.invocation import Invocation
from tests.fakes.certificates import make_pair
from tests.fakes.honest import Honest
from tests.fakes.tunnel_server import LOGIN_HOST, TARGET, Peer, TunnelServer

pytestmark = pytest.mark.usefixtures("home")


def case_of(server: TunnelServer, *, backend: str | None = TARGET) -> Case:
    way = Way(ca_file=str(server.ca_file), connect_to=Endpoint("127.0.0.1", server.port))
    return Case(Invocation(TARGET, way, environ={}), backend)


def lines(case: Case, step: Callable[[Case], list[network_steps.Finding]]) -> list[str]:
    return [f"{one.mark} {one.text} {one.advice}".strip() for one in step(case)]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ["ok no web proxy"]),
        ({"HEIM_PROXY": "auth.test"}, ["ok no web proxy, HEIM_PROXY=auth.test"]),
        (
            {"HTTPS_PROXY": "http://alice:hunter2@proxy.test:3128"},
            ["ok through web proxy http://proxy.test:3128"],
        ),
        ({"HTTPS_PROXY": "http://proxy.test", "NO_PROXY": ".test"}, ["ok no web proxy"]),
        (
            {"HTTPS_PROXY": "http://a.test", "https_proxy": "http://b.test"},
            [
                "ok through web proxy http://b.test:80",
                "warn https_proxy and HTTPS_PROXY say different things; https_proxy counts "
                "unset HTTPS_PROXY",
            ],
        ),
    ],
    ids=["nothing", "detour", "web proxy", "exception", "contradiction"],
)
def test_settings(
    environ: dict[str, str], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEIM_TUNNEL_HOME")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    case = Case(Invocation("web.x.test", Way(), environ={}), "web.x.test")
    assert lines(case, network_steps.settings) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("web.localhost", ["ok web.localhost is 127.0.0.1, ::1"]),
        ("127.0.0.1", ["ok 127.0.0.1 needs no name server"]),
    ],
)
def test_names(host: str, expected: list[str]) -> None:
    case = Case(Invocation(host, Way(), environ={}), host)
    assert lines(case, network_steps.names) == expected


def test_a_name_that_does_not_resolve_is_a_complaint() -> None:
    case = Case(Invocation("nowhere.invalid", Way(), environ={}), "nowhere.invalid")
    with pytest.raises(Complaint, match="nowhere"):
        network_steps.names(case)


def test_a_connection_is_timed() -> None:
    with TunnelServer(lambda peer: None) as server:
        (line,) = lines(case_of(server), network_steps.reach)
    assert line.startswith("ok connected in ")


def test_a_family_that_does_not_work_is_told() -> None:
    with TunnelServer(lambda peer: None) as server:
        case = case_of(server)
        case.invocation.way.connect_to = Endpoint("127.0.0.1", server.port)
        dead = socket.create_server(("127.0.0.1", 0))
        # Any address of another family that refuses will do.
        case.addresses = [
            (socket.AF_INET, ("127.0.0.1", server.port)),
            (socket.AF_INET6, ("::1", dead.getsockname()[1], 0, 0)),
        ]
        dead.close()
        found = network_steps.reach(case)
    assert [one.mark for one in found] == ["ok", "warn"]
    assert "IPv6 does not work" in found[1].text
    assert "the address in the DNS" in found[1].advice


def test_nobody_there_is_a_complaint() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    way = Way(connect_to=Endpoint("127.0.0.1", port))
    with pytest.raises(Complaint, match="refused"):
        network_steps.reach(Case(Invocation(TARGET, way, environ={}), TARGET))


@pytest.mark.parametrize(("days", "mark"), [(90, "ok"), (3, "warn")])
def test_a_certificate_is_described(days: float, mark: str) -> None:
    pair = make_pair(TARGET, "*.other.test", end_days=days)
    with TunnelServer(lambda peer: None, pair=pair) as server:
        (found,) = network_steps.certificate(case_of(server))
    assert found.mark == mark
    assert f"certificate for {TARGET}, *.other.test, from test authority, until 2" in found.text
    assert ("that is in" in found.text) is (mark == "warn")


@pytest.mark.parametrize(
    ("pair", "text"),
    [
        (make_pair("other.test"), "for another name"),
        (make_pair(TARGET, end_days=-0.5), "has expired"),
        (make_pair(TARGET, start_days=1), "not valid yet"),
    ],
    ids=["name", "expired", "not yet"],
)
def test_a_certificate_that_is_not_accepted_is_a_complaint(pair: object, text: str) -> None:
    with (
        TunnelServer(lambda peer: None, pair=pair) as server,  # type: ignore[arg-type]
        pytest.raises(Complaint, match=text),
    ):
        network_steps.certificate(case_of(server))


@pytest.mark.parametrize(
    ("off", "mark", "text"),
    [
        (0, "ok", "agrees with the proxy's"),
        (10, "ok", "within"),
        (-600, "warn", "s ahead of the proxy"),
        (600, "warn", "s behind the proxy"),
    ],
)
def test_the_clock_is_compared(off: float, mark: str, text: str) -> None:
    with TunnelServer(Honest(clock_off=off)) as server:
        found = network_steps.http(case_of(server))
    assert [one.step for one in found] == ["http", "clock"]
    assert found[1].mark == mark
    assert text in found[1].text
    assert bool(found[1].advice) is (mark == "warn")


def page(peer: Peer) -> None:
    peer.request()
    peer.answer("200 OK", b"<html>Welcome", "Content-Type: text/html")


def redirect(peer: Peer) -> None:
    peer.request()
    peer.answer("302 Found", b"", "Location: http://wifi.test/\x1b[31mlogin")


def other_problem(peer: Peer) -> None:
    peer.request()
    peer.answer("403 No", b'{"title": "blocked"}', "Content-Type: application/problem+json")


@pytest.mark.parametrize("script", [page, redirect, other_problem])
def test_somebody_else_is_told_from_a_heim(script: Callable[[Peer], None]) -> None:
    with TunnelServer(script) as server:
        (found,) = network_steps.http(case_of(server))
    assert found.mark == "fail"
    assert found.text.startswith(f"something else answers for {TARGET}: status ")
    assert "\x1b" not in found.text
    assert "guest network" in found.advice


def test_an_upgrade_that_gets_through_is_timed() -> None:
    with TunnelServer(Honest()) as server:
        case = case_of(server)
        (found,) = network_steps.passes(case)
        assert "authorization" not in server.peers[0].fields
    assert found.mark == "ok"
    assert found.text.startswith("passes; round trip ")
    assert case.named == LOGIN_HOST


def stripped(peer: Peer) -> None:
    peer.request()
    peer.problem(426, "protocol", "the tunnel is a WebSocket")


def swallowed(peer: Peer) -> None:
    peer.request()
    peer.answer("502 Bad Gateway", b"<html>", "Content-Type: text/html")


def generous(peer: Peer) -> None:
    peer.request()
    peer.upgrade()
    peer.wait_closed()


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (stripped, "takes the Upgrade header out"),
        (swallowed, "502"),
        (generous, "opens tunnels without a token"),
    ],
)
def test_an_upgrade_that_does_not_get_through_is_told(
    script: Callable[[Peer], None], text: str
) -> None:
    with TunnelServer(script) as server:
        (found,) = network_steps.passes(case_of(server))
    assert found.mark == "fail"
    assert text in found.text
    assert found.advice


def test_no_step_writes_a_file(home: Path) -> None:
    with TunnelServer(Honest()) as server:
        case = case_of(server)
        for step in (network_steps.settings, network_steps.http, network_steps.passes):
            step(case)
    assert list(home.iterdir()) == []
