from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heim_runtime.complaints import AUTH, Complaint, UsageError
from heim_tunnel import credentials
from heim_tunnel.credentials import (
    Login,
    for_host,
    forget,
    known,
    load,
    locked,
    save,
    service_token,
    stored,
)


def login(host: str = "auth.example.com", **more: Any) -> Login:
    return Login(
        **{
            "login_url": f"https://{host}",
            "user": "alice",
            "domains": ["example.com"],
            "access_token": "a",
            "access_expires": 1.0,
            "refresh_token": "r",
            "session_expires": 2.0,
            **more,
        }
    )


def test_what_is_saved_is_loaded_and_nobody_else_may_read_it(home: Path) -> None:
    saved = login("auth.example.com:8443", ca_file="/ca.pem")
    save(saved)
    found = load("auth.example.com:8443")
    assert found is not None
    assert found.to_file() == saved.to_file()
    path = home / "heim" / "logins" / "auth.example.com_8443.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


PEM = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"


def test_authorities_are_copied_so_that_their_file_may_move(home: Path) -> None:
    named = home / "company.pem"
    named.write_text(PEM)
    saved = login(ca_file=str(named))
    save(saved)
    copy = home / "heim" / "logins" / "auth.example.com.ca.pem"
    assert saved.authorities == str(copy)
    named.unlink()
    found = load("auth.example.com")
    assert found is not None
    assert (found.ca_file, found.authorities) == (str(named), str(copy))
    assert copy.read_text() == PEM
    # A renewal while the file is away keeps the copy, and logout leaves nothing.
    save(found)
    assert copy.exists()
    assert forget("auth.example.com")
    assert [entry.name for entry in copy.parent.iterdir()] == []


@pytest.mark.parametrize("text", ["no certificate", PEM + "x" * 1024 * 1024], ids=["DER", "long"])
def test_what_is_no_bundle_of_authorities_is_not_copied(text: str, home: Path) -> None:
    named = home / "company.pem"
    named.write_text(PEM)
    save(login(ca_file=str(named)))
    named.write_text(text)
    saved = login(ca_file=str(named))
    save(saved)
    assert saved.authorities == str(named)
    assert not (home / "heim" / "logins" / "auth.example.com.ca.pem").exists()


def test_a_login_without_authorities_leaves_no_copy_of_earlier_ones(home: Path) -> None:
    named = home / "company.pem"
    named.write_text(PEM)
    save(login(ca_file=str(named)))
    save(login())
    assert not (home / "heim" / "logins" / "auth.example.com.ca.pem").exists()


def test_saving_replaces_the_file_whole(home: Path) -> None:
    save(login())
    with (home / "heim" / "logins" / "auth.example.com.json").open() as before:
        save(login(access_token="b"))
        assert '"a"' in before.read()
    found = load("auth.example.com")
    assert found is not None
    assert found.access_token == "b"


def test_nobody_who_waits_under_the_name_of_the_new_file_reads_along(home: Path) -> None:
    save(login())
    path = home / "heim" / "logins" / "auth.example.com.json"
    planted = path.with_name(f"{path.name}.{os.getpid()}.new")
    planted.touch()
    planted.chmod(0o666)
    with planted.open() as spy:
        save(login(access_token="b"))
        assert spy.read() == ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HEIM_TUNNEL_HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/h"),
        ({"XDG_CONFIG_HOME": "/x"}, "/x/heim"),
        ({"HOME": "/u"}, "/u/.config/heim"),
    ],
)
def test_the_directory_is_where_the_environment_says(
    home: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], expected: str
) -> None:
    monkeypatch.delenv("HEIM_TUNNEL_HOME")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert credentials.home() == expected


def test_without_a_directory_nothing_is_known(home: Path) -> None:
    assert (known(), stored(), load("auth.example.com"), for_host("x")) == ([], [], None, None)
    assert forget("auth.example.com") is False


@pytest.mark.parametrize("host", ["../evil", "a/b", ".hidden", "a_b"])
def test_a_login_host_is_no_path(home: Path, host: str) -> None:
    with pytest.raises(UsageError):
        load(host)


def test_logins_are_listed_and_forgotten(home: Path) -> None:
    save(login("b.example.com:8443"))
    save(login("a.example.com"))
    assert known() == ["a.example.com", "b.example.com:8443"]
    assert [one.login_host for one in stored()] == known()
    assert forget("a.example.com") is True
    assert known() == ["b.example.com:8443"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("db.example.com", "auth.example.com"),
        ("db.prod.example.com", "auth.prod.example.com"),
        ("auth.example.com", "auth.example.com"),
        ("auth.prod.example.com", "auth.prod.example.com"),
        ("example.net", None),
    ],
)
def test_the_login_closest_to_a_host_is_used(home: Path, host: str, expected: str | None) -> None:
    save(login())
    save(login("auth.prod.example.com", domains=["prod.example.com"]))
    found = for_host(host)
    assert (None if found is None else found.login_host) == expected


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_may_touch_is_refused(home: Path, mode: int) -> None:
    save(login())
    path = home / "heim" / "logins" / "auth.example.com.json"
    path.chmod(mode)
    with pytest.raises(Complaint, match="others may read") as caught:
        load("auth.example.com")
    assert caught.value.text.endswith(f"run: chmod 600 {path}")


def test_a_bad_file_is_in_the_way_of_its_own_hosts_only(home: Path) -> None:
    save(login())
    save(login("auth.example.net", domains=["example.net"]))
    (home / "heim" / "logins" / "auth.example.net.json").write_text("{")
    assert for_host("db.example.com") is not None
    with pytest.raises(Complaint, match="is damaged"):
        for_host("db.example.net")


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '"x"', "{}", '{"login_url": 1}', "[" * 100_000, "\xff"]
)
def test_a_damaged_file_says_what_to_do(home: Path, text: str) -> None:
    save(login())
    path = home / "heim" / "logins" / "auth.example.com.json"
    path.write_text(text[:60_000], encoding="latin-1")
    with pytest.raises(Complaint, match=r"is damaged; run: heim-tunnel login auth\.example\.com"):
        load("auth.example.com")


def test_a_directory_that_cannot_be_written_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("HEIM_TUNNEL_HOME", str(home / "file" / "below"))
    with pytest.raises(Complaint, match="cannot write"):
        save(login())
    with pytest.raises(Complaint, match="cannot lock"), locked("auth.example.com"):
        pass


HOLD = """
import sys
from heim_tunnel.credentials import locked
with locked("auth.example.com"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_one_processs_at_a_time_and_ends_with_it(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        waiter = subprocess.Popen(
            [sys.executable, "-c", HOLD.replace('com")', 'com", tells=True)')],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert waiter.stderr is not None
        line = waiter.stderr.readline().decode()
        assert re.fullmatch(
            "heim-tunnel: waiting for another heim-tunnel that is signing in at auth.example.com "
            rf"\(process {holder.pid}, for \d+ s\); finish that sign-in, or end it with: "
            rf"kill {holder.pid}\n",
            line,
        ), line
        holder.kill()
        assert waiter.communicate(timeout=5)[0] == b"held\n"
    with locked("auth.example.com", tells=True):
        pass
    assert capfd.readouterr().err == ""


def token_file(directory: Path, text: str) -> str:
    path = directory / "token"
    path.write_text(text)
    path.chmod(0o400)
    return str(path)


def test_a_service_token_is_read_without_its_line_end_and_domains(tmp_path: Path) -> None:
    path = token_file(tmp_path, "heim_st_1_x@example.com,other.test\r\n")
    found = service_token(path, "db.other.test")
    assert found == "heim_st_1_x"
    assert repr(found) == "<secret>"


def test_a_service_token_is_not_given_out_for_another_host(tmp_path: Path) -> None:
    path = token_file(tmp_path, "heim_st_1_x@example.com,*.other.test")
    with pytest.raises(Complaint) as caught:
        service_token(path, "db.evil.test")
    assert caught.value.status == AUTH
    assert caught.value.text == (
        f"the service token in {path} is not for db.evil.test "
        "(only for example.com, *.other.test); nothing was sent"
    )


@pytest.mark.parametrize("text", ["heim_st_1_x", "heim_st_1_x@", "heim_st_1_x@a.test:443"])
def test_a_service_token_without_domains_is_no_use(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="create a new one with: heim-proxy token create") as told:
        service_token(token_file(tmp_path, text), "a.test")
    assert "heim_st" not in told.value.text


def test_a_service_token_may_come_from_a_pipe() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"heim_st_1_x@example.com\n")
    os.close(writing)
    assert service_token(f"/dev/fd/{reading}", "example.com") == "heim_st_1_x"
    os.close(reading)


def test_a_service_token_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        service_token(str(tmp_path / "gone"), "a.test")
    with pytest.raises(UsageError, match="cannot read"):
        service_token(str(tmp_path), "a.test")
