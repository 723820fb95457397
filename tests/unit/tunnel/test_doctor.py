"""`doctor`: the steps in order, an end at the first failure, and never a secret."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from heim_tunnel.dial import Way
from heim_tunnel.doctor import _tls_advice
from heim_tunnel.finding import Case
from heim_tunnel.invocation import Invocation
from tests.fakes.certificates import make_pair
from tests.fakes.honest import Honest
from tests.fakes.tunnel_cli import write_login
from tests.fakes.tunnel_server import LOGIN_HOST, TARGET, Peer, TunnelServer
from tests.unit.tunnel.conftest import Outcome, Run

ALL = ["settings", "names", "tcp", "tls", "http", "clock", "upgrade", "identity", "rights"]


def examined(run: Run, server: TunnelServer, *words: str) -> Outcome:
    done = run(
        "doctor", "--ca-file", str(server.ca_file), "--connect-to", f"127.0.0.1:{server.port}",
        *words,
    )  # fmt: skip
    assert "token-one" not in done.out + done.err
    assert "heim_rt" not in done.out + done.err
    return done


def steps(done: Outcome) -> list[str]:
    return [line.split()[1] for line in done.out.splitlines() if not line.startswith(" ")]


def test_everything_is_well(home: Path, run: Run) -> None:
    write_login(home / "heim")
    with TunnelServer(Honest()) as server:
        done = examined(run, server, "--idle", "1", TARGET)
    assert steps(done) == [*ALL, "tunnel", "idle"]
    assert {line.split()[0] for line in done.out.splitlines()} == {"ok"}
    assert done.status == 0
    assert done.err == f"heim-tunnel: {TARGET}: everything works\n"


def test_the_login_host_alone(home: Path, run: Run) -> None:
    write_login(home / "heim")
    with TunnelServer(Honest()) as server:
        for words in ((), (LOGIN_HOST,)):
            done = examined(run, server, *words)
            assert (done.status, steps(done)) == (0, ALL)
            assert done.err == f"heim-tunnel: {LOGIN_HOST}: nothing is wrong on the way\n"


def test_a_detour_looks_at_the_login_host(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_login(home / "heim")
    monkeypatch.setenv("HEIM_PROXY", LOGIN_HOST)
    with TunnelServer(Honest()) as server:
        done = examined(run, server, TARGET)
        assert done.status == 0
        assert server.peers[-1].fields["heim-backend"] == TARGET
    assert f"Heim answers at {LOGIN_HOST}" in done.out


def test_a_service_token_for_another_proxy_is_not_sent(home: Path, run: Run) -> None:
    token = home / "token"
    token.write_text("heim_st_1_secret@example.org")
    token.chmod(0o600)
    with TunnelServer(Honest()) as server:
        done = examined(run, server, "--token-file", str(token), TARGET)
        assert not any(peer.fields.get("authorization") for peer in server.peers)
    assert done.status == 1
    *_, failure, advice = done.out.splitlines()
    assert failure.startswith("fail  identity  the service token in ")
    assert f"is not for {TARGET} (only for example.org); nothing was sent" in failure
    assert "heim-proxy token create" in advice
    assert "heim_st" not in done.out + done.err


def hung_up(peer: Peer) -> None:
    with contextlib.suppress(ConnectionResetError):
        peer.request()


@pytest.mark.parametrize(
    ("script", "last"),
    [(hung_up, "http"), (lambda peer: peer.sock.close(), "http")],
    ids=["hangs up after the request", "hangs up at once"],
)
def test_the_first_failure_is_the_last_step(
    script: Callable[[Peer], None], last: str, home: Path, run: Run
) -> None:
    write_login(home / "heim")
    with TunnelServer(script) as server:
        done = examined(run, server, TARGET)
    assert done.status == 1
    assert steps(done)[-1] == last
    *_, failure, advice = done.out.splitlines()
    assert failure.startswith("fail")
    assert advice.strip().startswith("-> ")


def test_a_name_that_the_certificate_misses_gets_advice(home: Path, run: Run) -> None:
    write_login(home / "heim")
    with TunnelServer(Honest(), pair=make_pair("*.test")) as server:
        done = examined(run, server, TARGET)
    assert done.status == 1
    assert "needs a certificate for *.example.test" in done.out
    assert f"HEIM_PROXY={LOGIN_HOST}" in done.out


def test_who_is_not_signed_in_learns_where(home: Path, run: Run) -> None:
    with TunnelServer(Honest()) as server:
        done = examined(run, server, TARGET)
    assert done.status == 1
    assert f"run: heim-tunnel login {LOGIN_HOST} (the proxy names it" in done.out


def test_a_backend_may_be_called_by_its_name(home: Path, run: Run) -> None:
    write_login(home / "heim")
    with TunnelServer(Honest()) as server:
        done = examined(run, server, "ssh")
        assert done.status == 0
        assert steps(done) == [*ALL, "tunnel"]
        assert examined(run, server, "nobody").status == 68


def test_what_keeps_the_name_from_being_asked_for_is_looked_for(home: Path, run: Run) -> None:
    write_login(home / "heim")
    with TunnelServer(hung_up) as server:
        done = examined(run, server, "ssh")
    assert done.status == 1
    assert steps(done)[-1] == "http"
    assert done.err.startswith("heim-tunnel: ssh: ")


def test_authorities_that_are_gone_are_the_settings_failure(home: Path, run: Run) -> None:
    write_login(home / "heim", ca_file=str(home / "gone.pem"))
    done = run("doctor", TARGET)
    assert done.status == 1
    assert done.out.startswith(f"fail  settings  the authority remembered for {LOGIN_HOST} is gone")
    assert f"-> run: heim-tunnel login --ca-file FILE {LOGIN_HOST}\n" in done.out


def test_nothing_at_all_to_look_at_is_usage(run: Run) -> None:
    assert run("doctor").status == 2


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("the certificate of x is for another name", "needs a certificate for"),
        ("the certificate of x has expired (or this machine's clock is wrong)", "the right time?"),
        ("the certificate of x is not trusted by the system: self-signed", "your company"),
        ("cannot read the CA file /x: No such file or directory", "--ca-file or HEIM_CA_FILE"),
        ("no TLS with x: it speaks plain HTTP on this port", "address and port"),
    ],
)
def test_advice_fits_what_is_wrong_with_tls(text: str, advice: str, home: Path) -> None:
    case = Case(Invocation(TARGET, Way(), environ={}), TARGET)
    assert advice in _tls_advice(case, text)
