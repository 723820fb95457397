"""`heim-tunnel proxy` and its tokens: which goes where, its renewal, when people are asked."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from heim_wire.events import Auth
from tests.fakes.certificates import make_pair
from tests.fakes.login_host import Canned, LoginHost, browser_script, login_host
from tests.fakes.tunnel_cli import Cli, write_login
from tests.fakes.tunnel_server import TARGET, Peer, TunnelServer

TOKEN = "/.heim/cli/token"


def hello(peer: Peer) -> None:
    peer.request()
    peer.upgrade()
    peer.stream.send(b"hello")
    peer.goodbye()


class Place:
    """A login host, a backend and a person's browser."""

    def __init__(self, directory: Path, auth: LoginHost, server: TunnelServer) -> None:
        self.home = directory / "home"
        self.home.mkdir()
        self.auth = auth
        self.server = server
        self.directory = directory
        self.env = {
            "HEIM_CA_FILE": str(server.ca_file),
            "BROWSER": str(browser_script(directory, server.ca_file)),
        }
        self.target = f"ssh.localhost:{server.port}"

    def login(self, **more: Any) -> Path:
        """Store a login that the login host knows."""
        granted = self.auth.grant()
        return write_login(
            self.home,
            login_host=self.auth.name,
            access_token=granted["access_token"],
            refresh_token=granted["refresh_token"],
            **{"domains": ["localhost"], **more},
        )

    def stored(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.read_text())
        return found

    @property
    def file(self) -> Path:
        return self.home / "logins" / f"{self.auth.name.replace(':', '_')}.json"

    def cli(self, *arguments: str, **more: Any) -> Cli:
        env = self.env | more.pop("env", {})
        more = {"stdin": subprocess.DEVNULL, "start_new_session": True, **more}
        return Cli(self.home, *arguments, self.target, env=env, **more)

    def opened(self) -> list[str]:
        """What the browser was asked to open."""
        path = self.directory / "opened"
        return path.read_text().splitlines() if path.exists() else []

    def bearers(self) -> list[str | None]:
        return [peer.fields.get("authorization") for peer in self.server.peers]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with (
        login_host(tmp_path) as auth,
        TunnelServer(hello, pair=make_pair("ssh.localhost")) as server,
    ):
        yield Place(tmp_path, auth, server)


# A token that is good.


@pytest.mark.parametrize("stored", [True, False], ids=["the session ended", "nobody signed in"])
def test_who_is_not_there_is_not_waited_for(stored: bool, place: Place) -> None:
    """ssh from cron: no terminal and no display, so nobody would ever sign in."""
    if stored:
        place.login(session_expires=1.0, access_expires=1.0)
    began = time.monotonic()
    detour = {} if stored else {"HEIM_PROXY": place.auth.name}
    with place.cli(env={"BROWSER": "", **detour}) as cli:
        status, _, err = cli.finish()
    assert time.monotonic() - began < 4
    why = "the session has ended" if stored else "not signed in"
    assert (status, err) == (
        77, f"heim-tunnel: {place.target}: {why}; run: heim-tunnel login {place.auth.name}\n"
    )  # fmt: skip
    assert place.auth.asked == []


def test_a_stored_token_is_used_without_asking_anybody(place: Place) -> None:
    place.login()
    with place.cli() as cli:
        assert cli.finish() == (0, b"hello", "")
    assert place.bearers() == [f"Bearer {place.stored()['access_token']}"]
    assert place.auth.asked == []


def test_51_no_token_is_said_or_passed_in_arguments(place: Place) -> None:
    place.login(access_expires=time.time() - 1)
    with place.cli("-v") as cli:
        arguments = Path(f"/proc/{cli.process.pid}/cmdline").read_bytes()
        status, _, err = cli.finish()
    assert status == 0
    secrets = [place.stored()["access_token"], place.stored()["refresh_token"], "heim_rt_"]
    assert not [secret for secret in secrets if secret in err or secret.encode() in arguments]


# A token that is over.


def test_an_ended_token_is_renewed_and_kept(place: Place) -> None:
    place.login(access_expires=time.time() + 50)
    before = place.stored()
    with place.cli() as cli:
        assert cli.finish() == (0, b"hello", "")
    after = place.stored()
    assert [asked.form["refresh_token"] for asked in place.auth.of(TOKEN)] == [
        before["refresh_token"]
    ]
    assert after["refresh_token"] != before["refresh_token"]
    assert after["access_expires"] > time.time() + 800
    assert after["ca_file"] == str(place.server.ca_file)
    assert place.bearers() == [f"Bearer {after['access_token']}"]
    assert stat.S_IMODE(place.file.stat().st_mode) == 0o600


def test_parallel_processes_share_one_renewal(place: Place) -> None:
    place.login(access_expires=time.time() - 1)
    assert at_once(place, 5) == [(0, "")] * 5
    assert len(place.auth.of(TOKEN)) == 1
    assert len(set(place.bearers())) == 1


def at_once(place: Place, number: int) -> list[tuple[int, str]]:
    """Exit status and standard error of some that start together."""
    with ExitStack() as stack:
        running = [stack.enter_context(place.cli()) for _ in range(number)]
        ended = [cli.finish() for cli in running]
    return [(status, err) for status, _, err in ended]


def test_a_login_host_that_is_away_does_not_stop_a_token_that_still_holds(place: Place) -> None:
    place.login(access_expires=time.time() + 30)
    place.auth.script(TOKEN, Canned(503, b"busy"))
    with place.cli() as cli:
        assert cli.finish() == (0, b"hello", "")


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (Canned(503, b"busy"), 76, "is not a Heim login host, or something in between"),
        (Canned(400, {"error": "slow_down"}), 75, "does not renew the login (status 400, slow"),
        (Canned(200, {"access_token": "a"}), 69, "gave a token answer without a valid login_url"),
    ],
    ids=["away", "error", "nonsense"],
)
def test_a_renewal_that_fails_is_told(place: Place, answer: Canned, status: int, text: str) -> None:
    place.login(access_expires=time.time() - 1)
    place.auth.script(TOKEN, answer)
    with place.cli() as cli:
        found, _, err = cli.finish()
    assert found == status
    assert text in err
    assert place.bearers() == []


def test_a_token_that_the_proxy_refuses_is_renewed_once(place: Place, tmp_path: Path) -> None:
    """Its time is not over, but its keys are other ones now."""
    seen: list[str] = []

    def script(peer: Peer) -> None:
        peer.request()
        seen.append(peer.fields["authorization"])
        if len(seen) == 1:
            peer.problem(401, "unauthenticated", "the token is not ours")
        else:
            peer.upgrade()
            peer.goodbye()

    with TunnelServer(script, pair=make_pair("ssh.localhost")) as server:
        place.login()
        place.target = f"ssh.localhost:{server.port}"
        with place.cli() as cli:
            assert cli.finish() == (0, b"", "")
    assert len(seen) == len(set(seen)) == 2


def test_42_a_token_is_renewed_in_band_before_it_ends(place: Place) -> None:
    """Several times in the life of one stream; each is sent inside it, to the proxy alone."""
    offered: list[object] = []

    def auths(peer: Peer) -> list[object]:
        return [event.message for event in peer.events if isinstance(event, Auth)]

    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade(ready={"expires": time.time() + 1})
        peer.until(lambda: len(auths(peer)) == 2)
        offered.extend(auths(peer))
        peer.goodbye()

    place.server._script = script
    place.auth.access_s = 1
    place.login(access_expires=time.time() - 1)
    with place.cli() as cli:
        assert cli.finish() == (0, b"", "")
    granted = list(place.auth.tokens.values())
    assert place.bearers() == [f"Bearer {granted[1]}"]
    assert offered == [{"kind": "bearer", "token": token} for token in granted[2:4]]


# Signing in on the way.


def test_53_five_at_once_open_one_browser_and_all_proceed(place: Place) -> None:
    place.login(session_expires=time.time() - 1, access_expires=time.time() - 1)
    ended = at_once(place, 5)
    said = [err for _, err in ended]
    assert [status for status, _ in ended] == [0] * 5, said
    assert len(place.opened()) == 1
    waiting = (
        f"heim-tunnel: waiting for another heim-tunnel that is signing in at {place.auth.name}"
    )
    assert sum(waiting in err for err in said) <= 4
    assert sum("the session has ended; signing in at" in err for err in said) == 1


def test_the_address_to_sign_in_is_printed_before_anything_happens(place: Place) -> None:
    """An editor without a terminal shows standard error, and people copy from it."""
    place.login(session_expires=time.time() - 1, access_expires=time.time() - 1)
    place.auth.approves = False
    with place.cli() as cli:
        status, out, err = cli.finish()
    assert (status, out) == (77, b"")
    assert f"open {place.auth.url}/.heim/cli/authorize?" in err
    assert place.bearers() == []


# Whom a token is for.


def test_a_token_never_goes_to_a_host_that_its_login_host_did_not_name(place: Place) -> None:
    place.login(domains=["x.example.com"])
    place.server._script = refuse(place.auth.url)
    with place.cli() as cli:
        status, _, err = cli.finish()
    assert status == 77
    assert "does not vouch for ssh.localhost (only for x.example.com); nothing was sent" in err
    assert place.bearers() == [None]


def refuse(login_url: str) -> Any:
    def script(peer: Peer) -> None:
        peer.request()
        peer.problem(401, "unauthenticated", "sign in first", login_url=login_url)

    return script


def test_an_unknown_host_fails_without_a_terminal_and_says_what_to_run(place: Place) -> None:
    place.server._script = refuse(place.auth.url)
    with place.cli() as cli:
        status, _, err = cli.finish()
    assert status == 77
    assert err == (
        f"heim-tunnel: {place.target}: not signed in; run: heim-tunnel login {place.auth.name}\n"
    )
    assert (place.opened(), place.auth.asked) == ([], [])


@pytest.mark.parametrize("answer", ["y", "", "n"])
def test_an_unknown_host_is_asked_about_on_the_terminal(place: Place, answer: str) -> None:
    attempts = [refuse(place.auth.url), hello]
    place.server._script = lambda peer: attempts.pop(0)(peer)
    person, program = pty.openpty()
    # Standard input is a stream: the question goes to the terminal of the session.
    with place.cli(start_new_session=False, preexec_fn=lambda: own_terminal(program)) as cli:
        question = f"ssh.localhost says its login host is {place.auth.name}. Trust it? [y/N] "
        seen = b""
        while len(seen) < len(question):
            seen += os.read(person, 1024)
        assert seen.decode() == question
        os.write(person, f"{answer}\n".encode())
        status, out, err = cli.finish()
    os.close(program)
    os.close(person)
    if answer == "y":
        assert (status, out) == (0, b"hello"), err
        assert place.stored()["user"] == "alice@example.com"
        assert len(place.opened()) == 1
    else:
        assert status == 77
        assert f"you did not trust {place.auth.name}" in err
        assert place.auth.asked == []


def own_terminal(program: int) -> None:
    """Make a pseudo terminal the one of a new session."""
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(program, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize(
    "login_url", ["", "http://evil.example/", "javascript:alert(1)", "https://a b/"]
)
def test_a_host_that_names_no_usable_login_host_is_no_proxy(place: Place, login_url: str) -> None:
    place.server._script = refuse(login_url)
    with place.cli() as cli:
        status, _, err = cli.finish()
    assert status == 76
    assert "does not say where to sign in" in err
    assert place.opened() == []


# Service tokens.


def service(place: Place, text: str = "heim_st_1_secret@localhost\n", mode: int = 0o600) -> str:
    path = place.directory / "service-token"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_service_token_is_sent_and_no_login_is_looked_at(place: Place, how: str) -> None:
    place.login()
    path = service(place)
    arguments = ("--token-file", path) if how == "option" else ()
    env = {"HEIM_TOKEN_FILE": path} if how == "environment" else {}
    with place.cli(*arguments, env=env) as cli:
        assert cli.finish() == (0, b"hello", "")
    assert place.bearers() == ["Bearer heim_st_1_secret"]


def test_with_a_service_token_no_browser_ever_opens(place: Place) -> None:
    place.server._script = refuse(place.auth.url)
    with place.cli("--token-file", service(place)) as cli:
        status, _, err = cli.finish()
    assert status == 77
    assert err.startswith(f"heim-tunnel: {place.target}: the service token in /")
    assert err.endswith(
        "sign in first; whoever runs the proxy makes a new one with: heim-proxy token create\n"
    )
    assert (place.opened(), place.auth.asked) == ([], [])


@pytest.mark.parametrize(
    ("text", "mode", "expected"),
    [
        ("heim_st_1_x@localhost", 0o644, "others may read"),
        ("heim_st_1_x@localhost", 0o620, "others may read"),
        ("", 0o600, "holds no token"),
        ("two words", 0o600, "holds no token"),
        ("x" * 70_000, 0o600, "is too long to be a token"),
        ("heim_st_1_x", 0o600, "create a new one with: heim-proxy token create"),
        ("heim_st_1_x@localhost:443", 0o600, "something else than domains behind the @"),
        ("heim_st_1_x@localhost, x.test", 0o600, "holds no token"),
    ],
    ids=["world", "group writes", "empty", "words", "long", "no domains", "port", "junk"],
)
def test_a_token_file_that_is_none_is_refused(
    place: Place, text: str, mode: int, expected: str
) -> None:
    with place.cli("--token-file", service(place, text, mode)) as cli:
        status, _, err = cli.finish()
    assert status == 2
    assert expected in err
    assert "heim_st" not in err
    assert place.bearers() == []


@pytest.mark.parametrize(
    ("domains", "sent"),
    [
        ("x.example.com", False),
        ("x.example.com,LocalHost", True),
        ("*.localhost", True),
        ("*.ssh.localhost", False),
        ("h.localhost", False),
    ],
)
def test_a_service_token_goes_to_its_own_domains_alone(
    place: Place, domains: str, sent: bool
) -> None:
    path = service(place, f"heim_st_1_secret@{domains}\n")
    with place.cli("--token-file", path) as cli:
        status, _, err = cli.finish()
    assert place.bearers() == (["Bearer heim_st_1_secret"] if sent else [])
    if not sent:
        assert status == 77
        assert f"is not for ssh.localhost (only for {domains}); nothing was sent" in err
        assert "heim_st" not in err


@pytest.mark.parametrize(
    ("domains", "status"), [("ssh.localhost", 0), ("db.localhost", 77)], ids=["dialled", "backend"]
)
def test_with_a_login_host_to_dial_the_token_must_be_for_that(
    place: Place, domains: str, status: int
) -> None:
    env = {"HEIM_PROXY": place.target, **place.env}
    path = service(place, f"heim_st_1_secret@{domains}")
    with Cli(
        place.home, "--token-file", path, "db.localhost", env=env, stdin=subprocess.DEVNULL
    ) as cli:
        assert cli.finish()[0] == status
    assert place.bearers() == (["Bearer heim_st_1_secret"] if status == 0 else [])


def test_a_service_token_may_be_readable_by_its_group(place: Place) -> None:
    """As a Kubernetes volume with fsGroup has it."""
    with place.cli("--token-file", service(place, mode=0o440)) as cli:
        assert cli.finish() == (0, b"hello", "")


# The file.


@pytest.mark.parametrize(
    ("mode", "text", "expected"),
    [
        (0o644, None, "others may read"),
        (0o600, "{", "is damaged; run: heim-tunnel login auth.example.test"),
        (0o600, '{"login_url": "https://auth.example.test"}', "is damaged"),
        (0o600, "swap", "is another host's login"),
    ],
    ids=["mode", "json", "fields", "copied"],
)
def test_a_login_that_cannot_be_trusted_is_not_used(
    tmp_path: Path, mode: int, text: str | None, expected: str
) -> None:
    path = write_login(tmp_path)
    if text == "swap":
        text = path.read_text().replace("auth.example.test", "auth.example.net")
    if text is not None:
        path.write_text(text)
    path.chmod(mode)
    with TunnelServer(hello) as server, Cli.to(server, tmp_path) as cli:
        status, _, err = cli.finish()
        assert server.peers == []
    assert status == 77
    assert err.startswith(f"heim-tunnel: {TARGET}: ")
    assert expected in err
