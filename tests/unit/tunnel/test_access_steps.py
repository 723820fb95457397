"""The doctor's steps behind the door: who I am, what I may, and a real tunnel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from heim_runtime.complaints import AUTH, Complaint
from heim_tunnel import access_steps, network_steps
from heim_tunnel.credentials import for_host
from heim_tunnel.dial import Endpoint, Way
from heim_tunnel.finding import Case
from heim_tunnel.invocation import Invocation
from tests.fakes.honest import Honest
from tests.fakes.tunnel_cli import write_login
from tests.fakes.tunnel_server import LOGIN_HOST, TARGET, Peer, TunnelServer


def case_of(
    server: TunnelServer,
    *,
    backend: str | None = TARGET,
    token_file: str | None = None,
    idle_s: float = 0,
) -> Case:
    way = Way(ca_file=str(server.ca_file), connect_to=Endpoint("127.0.0.1", server.port))
    invocation = Invocation(TARGET, way, token_file=token_file, environ={})
    return Case(invocation, backend, idle_s=idle_s)


def test_who_i_am(home: Path) -> None:
    write_login(home / "heim")
    with TunnelServer(Honest()) as server:
        case = case_of(server)
        (found,) = access_steps.identity(case)
    assert found.mark == "ok"
    assert found.text.startswith(f"alice@example.com at {LOGIN_HOST} until ")
    assert case.login is not None


def test_a_service_token_is_named_and_not_shown(home: Path) -> None:
    token = home / "token"
    token.write_text("heim_st_1_secret@example.test")
    token.chmod(0o600)
    with TunnelServer(Honest()) as server:
        (found,) = access_steps.identity(case_of(server, token_file=str(token)))
    assert found.text == f"the service token in {token}"


def test_a_service_token_for_another_proxy_is_found(home: Path) -> None:
    token = home / "token"
    token.write_text("heim_st_1_secret@example.org")
    token.chmod(0o600)
    with (
        TunnelServer(Honest()) as server,
        pytest.raises(Complaint, match=f"is not for {TARGET}") as caught,
    ):
        access_steps.identity(case_of(server, token_file=str(token)))
    assert caught.value.status == AUTH


@pytest.mark.parametrize(
    ("named", "advice"),
    [
        ("", "run: heim-tunnel login LOGIN_HOST"),
        (LOGIN_HOST, f"run: heim-tunnel login {LOGIN_HOST} (the proxy names it; make sure"),
    ],
)
def test_nobody_is_signed_in(named: str, advice: str, home: Path) -> None:
    with TunnelServer(Honest()) as server:
        case = case_of(server)
        case.named = named
        (found,) = access_steps.identity(case)
    assert found.mark == "fail"
    assert found.advice.startswith(advice)


def test_a_session_that_has_ended_opens_no_browser(home: Path) -> None:
    write_login(home / "heim", access_expires=1, session_expires=1)
    with TunnelServer(Honest()) as server, pytest.raises(Complaint, match="has ended") as caught:
        access_steps.identity(case_of(server))
    assert caught.value.status == AUTH


@pytest.mark.parametrize(
    ("backend", "mark", "text"),
    [
        (TARGET, "ok", f"alice@example.com may reach {TARGET}"),
        ("other.example.test", "warn", "other.example.test is not among what alice@example.com"),
        (None, "ok", "alice@example.com may reach 3 backends, 2 of them by tunnel"),
        ("wiki.example.test", "warn", "wiki.example.test is not among what"),
        ("a.many.example.test", "ok", "may reach a.many.example.test"),
        ("a.b.many.example.test", "warn", "is not among what"),
    ],
)
def test_what_i_may(backend: str | None, mark: str, text: str, home: Path) -> None:
    write_login(home / "heim")
    honest = Honest()
    wiki = {"name": "wiki", "kind": "http", "host": "wiki.example.test", "url": ""}
    many = {"name": "many", "kind": "tcp", "host": "*.many.example.test", "url": ""}
    honest.backends += [wiki, many]
    with TunnelServer(honest) as server:
        case = case_of(server, backend=backend)
        case.login = for_host(TARGET)
        (found,) = access_steps.rights(case)
    assert found.mark == mark
    assert text in found.text


@pytest.mark.parametrize(
    ("named", "told"),
    [(LOGIN_HOST, [f"ci may reach {TARGET}"]), ("", [])],
    ids=["the proxy names its login host", "nobody knows it"],
)
def test_a_service_tokens_own_rights_are_asked_for(named: str, told: list[str], home: Path) -> None:
    """And not those of the person who is signed in on the same machine."""
    write_login(home / "heim", ca_file="/gone.pem")
    token = home / "token"
    token.write_text("heim_st_1_secret@example.test")
    token.chmod(0o600)
    with TunnelServer(Honest(token="heim_st_1_secret", user="ci")) as server:
        case = case_of(server, token_file=str(token))
        network_steps.settings(case)
        assert case.login is None
        case.named = named
        assert [one.text for one in access_steps.rights(case)] == told


def test_a_service_token_that_was_revoked_is_no_reason_to_sign_in(home: Path) -> None:
    token = home / "token"
    token.write_text("heim_st_1_secret@example.test")
    token.chmod(0o600)
    with TunnelServer(Honest()) as server:
        case = case_of(server, token_file=str(token))
        case.named = LOGIN_HOST
        with pytest.raises(Complaint, match=r"token in /.* is not taken.*heim-proxy token create"):
            access_steps.rights(case)
        with pytest.raises(Complaint, match=r"token in /.* is not taken.*heim-proxy token create"):
            access_steps.tunnel(case)


def test_without_a_login_nobody_is_asked_for_rights(home: Path) -> None:
    with TunnelServer(Honest()) as server:
        assert access_steps.rights(case_of(server)) == []
        assert access_steps.tunnel(case_of(server, backend=None)) == []


def cut(peer: Peer) -> None:
    """Cuts the connection shortly after it is open."""
    peer.upgrade()
    peer.step()
    peer.step(0.1)


def busy(peer: Peer) -> None:
    """A backend that talks and talks."""
    peer.upgrade()
    peer.stream.send(b"x" * 50_000)
    peer.until(lambda: peer.websocket.closed is not None or peer.ended)


def leaving(peer: Peer) -> None:
    """A backend that wants to hear something."""
    peer.upgrade()
    peer.stream.end()
    peer.until(lambda: peer.websocket.closed is not None or peer.ended)


@pytest.mark.parametrize(
    ("tunnel", "idle_s", "expected"),
    [
        (None, 0, ["ok tunnel open in"]),
        (None, 0.1, ["ok tunnel open in", "ok idle still open after"]),
        (busy, 0.1, ["ok tunnel open in", "ok idle still open after"]),
        (leaving, 5, ["ok tunnel open in", "warn idle the backend ended it after 0 s"]),
        (cut, 5, ["ok tunnel open in", "fail idle cut after 0 s"]),
    ],
    ids=["open", "idle", "a backend that talks", "a backend that leaves", "cut"],
)
def test_a_real_tunnel(
    tunnel: Callable[[Peer], None] | None, idle_s: float, expected: list[str], home: Path
) -> None:
    write_login(home / "heim")
    honest = Honest()
    if tunnel is not None:
        honest.tunnel = tunnel  # type: ignore[method-assign]
    with TunnelServer(honest) as server:
        found = access_steps.tunnel(case_of(server, idle_s=idle_s))
    told = [f"{one.mark} {one.step} {one.text}" for one in found]
    assert len(told) == len(expected)
    for line, begin in zip(told, expected, strict=True):
        assert line.startswith(begin)


def test_a_tunnel_that_is_refused_is_a_complaint(home: Path) -> None:
    write_login(home / "heim")
    honest = Honest()
    honest.tunnel = lambda peer: peer.problem(502, "dial_refused", "refused")  # type: ignore[method-assign]
    with TunnelServer(honest) as server, pytest.raises(Complaint, match="refused"):
        access_steps.tunnel(case_of(server))
