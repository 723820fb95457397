"""Signing in with a browser: one answer, a verifier that stays here, and a page that is true."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from heim_runtime.complaints import AUTH, Complaint
from heim_tunnel import authorize
from heim_tunnel.credentials import Login
from heim_tunnel.dial import Way
from tests.fakes.login_host import Canned, LoginHost, browser_script, short

TOKEN = "/.heim/cli/token"


@pytest.fixture
def way(host: LoginHost) -> Way:
    return Way(ca_file=str(host.ca_file))


@pytest.fixture
def browser(host: LoginHost, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BROWSER", str(browser_script(home, host.ca_file)))
    return home


def eventually(path: Path) -> str:
    """A file's text once it is there: the browser is a process of its own."""
    waiting = threading.Event()
    for _ in range(400):
        if path.exists():
            return path.read_text()
        waiting.wait(0.01)
    raise AssertionError(f"{path} did not appear")


def test_a_person_signs_in(
    host: LoginHost, way: Way, browser: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    login = authorize.sign_in(host.name, way, patience_s=5)
    assert isinstance(login, Login)
    assert login.user == "alice@example.com"
    assert login.ca_file == str(host.ca_file)
    assert "now acts as alice@example.com" in eventually(browser / "page")
    out, err = capfd.readouterr()
    assert out == ""
    assert f"open https://{host.name}/.heim/cli/authorize?" in err


def test_nothing_secret_is_in_the_address(host: LoginHost, way: Way, browser: Path) -> None:
    login = authorize.sign_in(host.name, way, patience_s=5)
    opened = (browser / "opened").read_text()
    sent = host.of(TOKEN)[0].form
    for secret in (sent["code_verifier"], sent["code"], login.access_token, login.refresh_token):
        assert secret not in opened
    query = {name: values[0] for name, values in parse_qs(urlsplit(opened.strip()).query).items()}
    assert query["code_challenge_method"] == "S256"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/callback", query["redirect_uri"])
    assert query["redirect_uri"] == sent["redirect_uri"]
    assert len(query["state"]) >= 22


def test_every_sign_in_has_its_own_state_and_verifier(
    host: LoginHost, way: Way, browser: Path
) -> None:
    for _ in range(2):
        authorize.sign_in(host.name, way, patience_s=5)
    first, second = host.of(TOKEN)
    assert first.form["code_verifier"] != second.form["code_verifier"]
    states = {one.form["state"] for one in host.of("/.heim/cli/authorize")}
    assert len(states) == 2


def test_a_refusal_in_the_browser_ends_it(host: LoginHost, way: Way, browser: Path) -> None:
    host.approves = False
    with pytest.raises(Complaint, match="refused in the browser") as caught:
        authorize.sign_in(host.name, way, patience_s=5)
    assert caught.value.status == AUTH
    assert "Not signed in" in eventually(browser / "page")


@pytest.mark.parametrize("issuer", ["https://auth.honest.test", ""])
@pytest.mark.parametrize("approves", [True, False], ids=["code", "error"])
def test_another_login_hosts_answer_is_not_taken_to_this_one(
    host: LoginHost, way: Way, browser: Path, issuer: str, approves: bool
) -> None:
    host.issuer, host.approves = issuer, approves
    with pytest.raises(Complaint, match="nothing was sent on") as caught:
        authorize.sign_in(host.name, way, patience_s=5)
    assert caught.value.status == AUTH
    assert host.of(TOKEN) == []


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Canned(400, {"error": "invalid_grant"}), "did not take the code of the sign-in"),
        (Canned(500), "answered 500"),
        (Canned(200, b"<html>"), "not a Heim login host"),
        (Canned(200, {}), "without a valid"),
    ],
    ids=short,
)
def test_a_failure_behind_the_browser_is_told_in_both_places(
    answer: Canned, text: str, host: LoginHost, way: Way, browser: Path
) -> None:
    host.script(TOKEN, answer)
    with pytest.raises(Complaint, match=text):
        authorize.sign_in(host.name, way, patience_s=5)
    page = eventually(browser / "page")
    assert "Not signed in" in page
    assert text in page


def test_a_mistyped_login_host_is_told_before_a_browser_opens(
    host: LoginHost, way: Way, browser: Path
) -> None:
    host.script("/.heim/cli/backends", Canned(200, b"<html>"))
    with pytest.raises(Complaint, match="not a Heim login host"):
        authorize.sign_in(host.name, way, patience_s=5)
    with pytest.raises(Complaint, match="nowhere"):
        authorize.sign_in("auth.nowhere.invalid", way, patience_s=5)
    assert not (browser / "opened").exists()


def test_the_patience_ends(host: LoginHost, way: Way) -> None:
    with pytest.raises(Complaint, match=f"run: heim-tunnel login {host.name}") as caught:
        authorize.sign_in(host.name, way, browser=False, patience_s=0.05)
    assert caught.value.status == AUTH
    assert host.of(TOKEN) == []


def test_without_a_display_another_machine_is_offered(
    host: LoginHost, way: Way, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Complaint):
        authorize.sign_in(host.name, way, patience_s=0.05)
    err = capfd.readouterr().err
    assert f"to sign in, open https://{host.name}/" in err
    assert f"heim-tunnel login --device {host.name}" in err


def test_no_browser_opens_when_none_is_wanted(host: LoginHost, way: Way, browser: Path) -> None:
    with pytest.raises(Complaint):
        authorize.sign_in(host.name, way, browser=False, patience_s=0.05)
    assert not (browser / "opened").exists()


def test_the_challenge_is_the_rfcs() -> None:
    """RFC 7636, appendix B."""
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert authorize.challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_the_label_is_short_and_printable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "\x1b[31m" + "x" * 300)
    assert authorize.label().isprintable()
    assert len(authorize.label()) <= 44
