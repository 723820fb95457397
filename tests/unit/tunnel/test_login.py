"""`login`: one sign-in at a time, stored whole or not at all."""

from __future__ import annotations

import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from heim_runtime.complaints import UsageError
from heim_tunnel import credentials, login
from heim_tunnel.dial import Way
from tests.fakes.login_host import Canned, LoginHost, browser_script
from tests.unit.tunnel.conftest import Run

TOKEN = "/.heim/cli/token"


@pytest.fixture
def browser(host: LoginHost, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BROWSER", str(browser_script(home, host.ca_file)))
    return home


_STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def nothing_is_left_running() -> Iterator[None]:
    """Whatever a test stumbled over: a sign-in waits for five minutes."""
    yield
    while _STARTED:
        with _STARTED.pop() as one:
            one.kill()


def process(*words: str) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-m", "heim_tunnel", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _STARTED.append(started)
    return started


def test_a_login_is_stored_for_its_owner_alone(host: LoginHost, browser: Path, run: Run) -> None:
    done = run("login", host.name)
    assert done.status == 0
    assert done.out == ""
    assert f"{host.name}: signed in as alice@example.com until 20" in done.err
    stored = credentials.load(host.name)
    assert stored is not None
    assert stored.access_token in host.tokens.values()
    (path,) = (browser / "heim" / "logins").glob("*.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stored.access_token not in done.err


def test_a_code_on_another_machine_signs_in_too(host: LoginHost, browser: Path, run: Run) -> None:
    done = run("login", "--device", host.name)
    assert done.status == 0
    assert "type the code BCDF-GHJK" in done.err
    assert credentials.load(host.name) is not None
    assert not (browser / "opened").exists()


def test_the_only_login_host_need_not_be_named(host: LoginHost, browser: Path, run: Run) -> None:
    assert run("login", host.name).status == 0
    assert run("login").status == 0
    assert len((browser / "opened").read_text().splitlines()) == 2


def test_a_new_login_of_the_same_person_leaves_open_tunnels_alone(
    host: LoginHost, browser: Path, run: Run
) -> None:
    for _ in range(2):
        assert run("login", host.name).status == 0
    assert host.revoked == []


def test_a_login_ends_somebody_elses_before(host: LoginHost, browser: Path, run: Run) -> None:
    assert run("login", host.name).status == 0
    before = credentials.load(host.name)
    host.user = "bob@example.com"
    done = run("login", host.name)
    after = credentials.load(host.name)
    assert before is not None
    assert after is not None
    assert host.revoked == [before.refresh_token]
    assert after.refresh_token in host.tokens
    assert done.err.splitlines()[-1].startswith(f"heim-tunnel: {host.name}: signed in as")
    assert "before" not in done.err


def test_a_session_that_is_over_is_not_ended_again(
    host: LoginHost, browser: Path, run: Run
) -> None:
    assert run("login", host.name).status == 0
    with credentials.locked(host.name):
        over = credentials.load(host.name)
        assert over is not None
        over.session_expires = time.time() - 1
        credentials.save(over)
    host.user = "bob@example.com"
    assert run("login", host.name).status == 0
    assert host.revoked == []


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Canned(500), "the login before this one was not ended: "),
        (Canned(400, {"error": "invalid_request"}), "the login before this one was not ended: "),
        (Canned(200, {}), "the login before this one has ended"),
        (None, "the login before this one may not have ended: no answer yet"),
    ],
    ids=["500", "400", "200", "no answer"],
)
def test_what_becomes_of_the_login_before_is_for_who_asks(
    answer: Canned | None,
    told: str,
    host: LoginHost,
    browser: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run("login", host.name).status == 0
    assert login.GOODBYE_S <= 3
    if answer is None:
        monkeypatch.setattr(login, "GOODBYE_S", 0.3)
        host.revokes.clear()
    for name, options in (("bob", []), ("carol", ["-v"])):
        host.user = f"{name}@example.com"
        if answer is not None:
            host.script("/.heim/cli/revoke", answer)
        began = time.monotonic()
        done = run("login", *options, host.name)
        assert done.status == 0
        assert time.monotonic() - began < 3
        assert (told in done.err) is bool(options)
    host.revokes.set()


def test_authorities_of_the_first_time_hold_for_the_next(
    host: LoginHost, browser: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEIM_CA_FILE")
    assert run("login", host.name).status == 69
    assert run("login", "--ca-file", str(host.ca_file), host.name).status == 0
    assert run("login").status == 0


def test_five_at_once_need_one_browser(host: LoginHost, browser: Path) -> None:
    """tunnel.md §6, 53."""
    host.decided.clear()
    running = [process("login", host.name) for _ in range(5)]
    first = [one.stderr.readline() for one in running if one.stderr is not None]
    assert sum("signing in with your browser" in line for line in first) == 1
    assert sum("waiting for another heim-tunnel" in line for line in first) == 4
    host.decided.set()
    for one in running:
        out, err = one.communicate(timeout=20)
        assert one.returncode == 0, err
        assert out == ""
        assert "signed in as alice@example.com" in err
    assert len((browser / "opened").read_text().splitlines()) == 1
    assert len(host.of(TOKEN)) == 1


@pytest.mark.parametrize("command", ["login", "list"])
def test_who_waited_for_a_refused_sign_in_is_not_asked_again(
    command: str, host: LoginHost, browser: Path, run: Run
) -> None:
    host.approves = False
    host.decided.clear()
    running = [process(command, host.name) for _ in range(3)]
    for one in running:
        assert one.stderr is not None
        assert "sign" in one.stderr.readline()
    host.decided.set()
    told = []
    for one in running:
        _, err = one.communicate(timeout=20)
        assert one.returncode == 77
        told.append(err.splitlines()[-1])
    assert sum("heim-tunnel: the sign-in was refused in the browser" in line for line in told) == 1
    assert sum("that this waited for failed: the sign-in was refused" in line for line in told) == 2
    assert len((browser / "opened").read_text().splitlines()) == 1
    # Later, it is asked anew.
    host.approves = True
    assert run(command, host.name).status == 0


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"]
)
def test_being_stopped_leaves_nothing(
    number: signal.Signals, status: int, host: LoginHost, home: Path
) -> None:
    """tunnel.md §6, 61."""
    running = process("login", "--no-browser", host.name)
    assert running.stderr is not None
    line = running.stderr.readline()
    assert "to sign in, open https://" in line
    port = re.search(r"127\.0\.0\.1%3A(\d+)", line)
    assert port is not None
    running.send_signal(number)
    out, err = running.communicate(timeout=5)
    assert running.returncode == status
    assert out == ""
    assert "Traceback" not in err
    assert list((home / "heim" / "logins").glob("*.json*")) == []
    # The next one is not kept waiting by a lock.
    began = time.monotonic()
    with credentials.locked(host.name):
        assert time.monotonic() - began < 1


def test_a_failed_sign_in_keeps_the_login_there_was(
    host: LoginHost, browser: Path, run: Run
) -> None:
    assert run("login", host.name).status == 0
    before = credentials.load(host.name)
    host.approves = False
    assert run("login", host.name).status == 77
    after = credentials.load(host.name)
    assert before is not None
    assert after is not None
    assert after.refresh_token == before.refresh_token


def test_a_home_that_cannot_be_written_says_so(
    host: LoginHost, browser: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (browser / "file").write_text("")
    monkeypatch.setenv("HEIM_TUNNEL_HOME", str(browser / "file" / "heim"))
    done = run("login", host.name)
    assert done.status == 1
    assert str(browser / "file") in done.err
    assert done.err.count("\n") == 1


def test_a_damaged_login_is_replaced(host: LoginHost, browser: Path, run: Run) -> None:
    logins = browser / "heim" / "logins"
    logins.mkdir(parents=True)
    (logins / f"{host.name.replace(':', '_')}.json").write_text("{")
    assert run("login", host.name).status == 0
    assert credentials.load(host.name) is not None


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Canned(200, {}), 69),
        (Canned(200, b"<html>Welcome to our WiFi</html>"), 76),
        (Canned(200, b"x" * 3_000_000), 69),
        (Canned(302, headers={"Location": "https://evil.test/"}), 76),
        (Canned(500), 69),
    ],
    ids=["nothing in it", "HTML", "huge", "redirect", "500"],
)
def test_a_wrong_token_answer_stores_nothing(
    answer: Canned, status: int, host: LoginHost, browser: Path, run: Run
) -> None:
    host.script(TOKEN, answer)
    done = run("login", host.name)
    assert done.status == status
    assert credentials.load(host.name) is None
    assert done.err.isascii()
    assert "Traceback" not in done.err


def test_a_person_who_is_named_with_control_characters_is_shown_clean(
    host: LoginHost, browser: Path, run: Run
) -> None:
    host.user = "al\x1b[31mice"
    done = run("login", host.name)
    assert "\x1b" not in done.err


def test_run_neither_locks_nor_saves(host: LoginHost, browser: Path) -> None:
    """`proxy` calls it with the lock in its hands."""
    with credentials.locked(host.name):
        found = login.run(host.name, Way(ca_file=str(host.ca_file)))
    assert found.user == "alice@example.com"
    assert credentials.load(host.name) is None


@pytest.mark.parametrize(
    ("typed", "environ", "stored", "chosen"),
    [
        ("Auth.X.example.com", {}, [], "auth.x.example.com"),
        ("https://auth.x.example.com/", {}, [], "auth.x.example.com"),
        ("auth.test:8443", {"HEIM_LOGIN": "other.test"}, [], "auth.test:8443"),
        (None, {"HEIM_LOGIN": "one.test", "HEIM_PROXY": "two.test"}, ["three.test"], "one.test"),
        (None, {"HEIM_PROXY": "two.test"}, ["three.test"], "two.test"),
        (None, {}, ["three.test:8443"], "three.test:8443"),
    ],
)
def test_which_login_host_is_meant(
    typed: str | None,
    environ: dict[str, str],
    stored: list[str],
    chosen: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    logins = home / "heim" / "logins"
    logins.mkdir(parents=True)
    for name in stored:
        (logins / f"{name.replace(':', '_')}.json").touch()
    assert login.chosen_host(typed) == chosen


@pytest.mark.parametrize(
    ("typed", "environ", "stored", "text"),
    [
        (None, {}, [], "which login host? Name it once"),
        (None, {}, ["a.test", "b.test"], "There are logins at a.test, b.test"),
        ("a b", {}, [], "LOGIN_HOST"),
        (None, {"HEIM_LOGIN": "a/../b"}, [], "HEIM_LOGIN"),
    ],
)
def test_no_login_host_is_guessed(
    typed: str | None,
    environ: dict[str, str],
    stored: list[str],
    text: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    logins = home / "heim" / "logins"
    logins.mkdir(parents=True)
    for name in stored:
        (logins / f"{name}.json").touch()
    with pytest.raises(UsageError) as caught:
        login.chosen_host(typed)
    assert text in caught.value.text


@pytest.mark.parametrize(
    ("when", "shown"),
    [
        (1_800_000_000 + 60, "08:01"),
        (1_800_000_000 + 3 * 86400, "2027-01-18 08:00"),
        (float("1e30"), "the end of time"),
    ],
)
def test_times_are_for_people(when: float, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        assert login.until(when, 1_800_000_000) == shown
    finally:
        monkeypatch.undo()
        time.tzset()
