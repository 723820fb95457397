from __future__ import annotations

import base64
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from heim_agent import cli
from heim_agent.files import Lock
from heim_agent.identity import Identity
from heim_agent.key import AgentKey
from heim_agent.places import Places
from heim_runtime.complaints import AUTH, FAILED, OK, PROTOCOL, UNAVAILABLE, USAGE, Complaint
from heim_wire.agents import ENROL_PATH, JOIN_PATH
from tests.fakes.joining import Canned, JoinHost, join_host, problem

TOKEN = "heim_jt_abcdefgh_canarycanarycanary"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JoinHost]:
    for name in ("HEIM_JOIN_TOKEN", "HEIM_CA_FILE", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    with join_host(tmp_path) as found:
        yield found


def join(host: JoinHost, *more: str) -> int:
    """Run the command; its state is beside the host's files."""
    where = host.ca_file.parent
    return cli.main(
        ["join", host.url, "--ca-file", str(host.ca_file), "--state", str(where / "state"),
         "--config", str(where / "agent.toml"), *more]
    )  # fmt: skip


def places(host: JoinHost) -> Places:
    where = host.ca_file.parent
    return Places(config=str(where / "agent.toml"), state=str(where / "state"))


def token_file(host: JoinHost, text: str = f"{TOKEN}\n") -> str:
    path = host.ca_file.parent / "token"
    path.write_text(text)
    return str(path)


def test_a_token_of_a_file_makes_an_agent(
    host: JoinHost, capfd: pytest.CaptureFixture[str]
) -> None:
    assert join(host, "--token-file", token_file(host)) == OK
    ((path, asked),) = host.asked
    assert (path, asked["token"]) == (JOIN_PATH, TOKEN)
    assert set(asked) == {"token", "csr", "device", "version"}
    identity = Identity.load(places(host))
    assert (identity.agent, identity.login_url) == ("desktop", host.url)
    assert identity.roots == (host.root.jwk,)
    assert identity.ca_file == f"{places(host).seed}/authorities.pem"
    said = capfd.readouterr()
    assert said.out == ""
    assert f"joined {host.url} as agent desktop; key {identity.key.fingerprint}" in said.err
    assert "canary" not in said.err


def test_the_end_says_what_to_do_next(host: JoinHost, capfd: pytest.CaptureFixture[str]) -> None:
    join(host, "--token-file", token_file(host))
    said = capfd.readouterr().err
    assert f"next: write into {places(host).config}" in said
    assert '    [targets.ssh]\n    address = "127.0.0.1:22"\n' in said
    where = f"--config {places(host).config} --state {places(host).state}"
    assert (
        f"then: heim-agent run {where}, or as a service: heim-agent install --write {where}" in said
    )
    Path(places(host).config).write_text("")
    join(host, "--token-file", token_file(host))
    assert f"next: heim-agent run {where}, or as a service" in capfd.readouterr().err


def test_a_token_comes_from_standard_input(host: JoinHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"  {TOKEN}\n"))
    assert join(host, "--token-file", "-") == OK
    assert host.asked[0][1]["token"] == TOKEN


def test_a_token_comes_from_the_environment(
    host: JoinHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEIM_JOIN_TOKEN", TOKEN)
    assert join(host) == OK
    assert host.asked[0][1]["token"] == TOKEN


@pytest.mark.parametrize(
    "text",
    ["", "\n", "heim_st_abc_canary", "canary", f"{TOKEN} {TOKEN}", f"{TOKEN}\x00", "x" * 9999],
)
def test_what_is_no_join_token_is_sent_to_nobody(
    host: JoinHost, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    assert join(host, "--token-file", token_file(host, text)) == USAGE
    assert host.asked == []
    said = capfd.readouterr().err
    assert "holds no join token (heim_jt_...)" in said
    assert "canary" not in said


def test_a_token_on_the_command_line_is_no_option(host: JoinHost) -> None:
    with pytest.raises(SystemExit) as caught:
        join(host, "--token", TOKEN)
    assert caught.value.code == USAGE


@pytest.mark.parametrize(
    ("code", "detail", "hint"),
    [
        ("token_used", "the join token was used already", "make another one"),
        ("name_taken", "desktop is enrolled already", "heim-proxy agent revoke desktop"),
    ],
)
def test_a_refusal_is_told_and_changes_nothing(
    host: JoinHost, capfd: pytest.CaptureFixture[str], code: str, detail: str, hint: str
) -> None:
    assert join(host, "--token-file", token_file(host)) == OK
    before = Identity.load(places(host)).key.thumbprint
    capfd.readouterr()
    host.script(JOIN_PATH, problem(403, code, detail, hint))
    assert join(host, "--token-file", token_file(host)) == AUTH
    said = capfd.readouterr().err
    assert said == (f"heim-agent: auth.localhost:{host.port}: {detail}; {hint} (request 01JX)\n")
    assert Identity.load(places(host)).key.thumbprint == before


@pytest.mark.parametrize("lost", ["the answer", "the disk's last block"])
def test_a_join_that_broke_off_goes_on_with_the_same_key(
    host: JoinHost, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """The proxy has enrolled it: with another one the name would be taken."""
    if lost == "the answer":
        host.script(JOIN_PATH, Canned(200, drop=True))
        assert join(host, "--token-file", token_file(host)) == UNAVAILABLE
    else:
        with monkeypatch.context() as patch:
            patch.setattr(Identity, "save_joined", full)
            assert join(host, "--token-file", token_file(host)) == FAILED
        assert "No space left" in capfd.readouterr().err
    assert os.listdir(places(host).seed).count("key.pem") == 0
    assert join(host, "--token-file", token_file(host)) == OK
    first, second = (asked["csr"] for _, asked in host.asked)
    assert public_key(first) == public_key(second)
    assert "joining.pem" not in os.listdir(places(host).seed)


def full(*_: object) -> None:
    raise Complaint("cannot write: No space left on device; nothing was changed", FAILED)


def public_key(csr: str) -> object:
    return x509.load_der_x509_csr(base64.b64decode(csr)).public_key()


def test_half_a_key_of_a_join_that_broke_off_is_forgotten(host: JoinHost) -> None:
    (host.ca_file.parent / "state").mkdir(mode=0o700)
    path = host.ca_file.parent / "state" / "joining.pem"
    path.touch(mode=0o600)
    path.write_text("-----BEGIN PRIV")
    assert join(host, "--token-file", token_file(host)) == OK


def test_joining_again_makes_another_key(host: JoinHost) -> None:
    join(host, "--token-file", token_file(host))
    first = Identity.load(places(host))
    join(host, "--token-file", token_file(host))
    again = Identity.load(places(host))
    assert again.key.thumbprint != first.key.thumbprint
    assert again.certificate != first.certificate
    assert stat.S_IMODE(os.stat(f"{places(host).seed}/key.pem").st_mode) == 0o600


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"agent": None}, "no agent"),
        ({"agent": "../../etc"}, "a name that is none"),
        ({"certificate": "!"}, "not as a Heim login host"),
        ({"certificate": "AAAA"}, "not as a Heim login host"),
        ({"roots": None}, "without a root"),
        ({"roots": []}, "without a root"),
        ({"login_url": None}, "no login_url"),
    ],
)
def test_an_answer_that_is_none_joins_nothing(
    host: JoinHost, capfd: pytest.CaptureFixture[str], changed: dict[str, object], told: str
) -> None:
    host.changed = changed
    assert join(host, "--token-file", token_file(host)) == PROTOCOL
    assert told in capfd.readouterr().err
    assert not os.path.exists(f"{places(host).seed}/key.pem")


def test_an_agent_may_have_a_name_of_kubernetes(host: JoinHost) -> None:
    host.changed = {"agent": "default.office"}
    assert join(host, "--token-file", token_file(host)) == OK
    assert Identity.load(places(host)).agent == "default.office"


def test_a_certificate_for_another_key_is_not_kept(
    host: JoinHost, capfd: pytest.CaptureFixture[str]
) -> None:
    other = AgentKey.generate()._private.public_key()
    host.changed = {"certificate": base64.b64encode(host.root.certificate(other)).decode()}
    assert join(host, "--token-file", token_file(host)) == PROTOCOL
    assert "for another key" in capfd.readouterr().err


def test_a_login_host_elsewhere_is_not_taken_on_anothers_word(
    host: JoinHost, capfd: pytest.CaptureFixture[str]
) -> None:
    host.changed = {"login_url": "https://auth.evil.test"}
    assert join(host, "--token-file", token_file(host)) == AUTH
    assert "says that its login host is https://auth.evil.test" in capfd.readouterr().err


def test_what_cannot_be_kept_is_known_before_the_token_is_spent(
    host: JoinHost, capfd: pytest.CaptureFixture[str]
) -> None:
    (host.ca_file.parent / "state").write_text("a file in the place of the directory")
    assert join(host, "--token-file", token_file(host)) == FAILED
    assert host.asked == []


def test_a_running_agent_is_not_pulled_from_under_itself(
    host: JoinHost, capfd: pytest.CaptureFixture[str]
) -> None:
    with Lock(places(host).state):
        assert join(host, "--token-file", token_file(host)) == FAILED
    assert "another heim-agent" in capfd.readouterr().err
    assert host.asked == []


def test_a_name_beside_a_token_is_the_tokens_to_say(
    host: JoinHost, capfd: pytest.CaptureFixture[str]
) -> None:
    assert join(host, "--name", "office", "--token-file", token_file(host)) == OK
    assert "the token is for the name desktop" in capfd.readouterr().err


@pytest.mark.parametrize("more", [["--name", "Office 1"], ["--ca-file", "/nowhere/ca.pem"]])
def test_options_that_cannot_be_used_are_usage_errors(host: JoinHost, more: list[str]) -> None:
    assert join(host, *more) == USAGE
    assert host.asked == []


def test_without_a_token_somebody_lets_it_in(
    host: JoinHost, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.pending = 1
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert join(host, "--name", "desktop") == OK
    assert host.asked[0][0] == ENROL_PATH
    identity = Identity.load(places(host))
    said = capfd.readouterr().err
    assert said.index(identity.key.fingerprint) < said.index("BCDF-GHJK")
    assert f"{host.url}/.heim/agents" in said
    assert "device-code-canary" not in said


def test_without_a_name_the_machines_own_is_asked_for(
    host: JoinHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("socket.gethostname", lambda: "Office_PC.lan")
    assert join(host) == OK
    assert host.asked[0][1]["name"] == "office-pc"


def test_a_machine_without_a_usable_name_has_to_be_given_one(
    host: JoinHost, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "-")
    assert join(host) == USAGE
    assert "--name" in capfd.readouterr().err
