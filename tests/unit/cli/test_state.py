"""`heim-proxy session` and `subject` on a state that holds two people."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from heim_proxy.cli.main import main
from heim_proxy.store.base import SessionRow
from heim_proxy.store.sqlite import SqliteStore


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "heim.yaml"
    path.write_text(
        "domain: x.example.com\n"
        "tls: {certificates: [{cert_file: c, key_file: k}]}\n"
        f'state: {{url: "sqlite://{tmp_path}/state.db"}}\n'
    )
    return str(path)


@pytest.fixture
async def state(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    now = time.time()
    for name in ("alice", "bob"):
        email = f"{name}@example.com"
        row = SessionRow(
            sid=name.ljust(24, "-"), issuer="https://idp", subject=name, email=email,
            domain="example.com", groups=(), provider="idp", auth_time=now, created=now,
            expires=now + 3600, last_seen=now,
        )  # fmt: skip
        await store.create_session(row)
        await store.pin(email, issuer="https://idp", subject=name, now=now)
    await store.close()


def _run(*arguments: str) -> int:
    # Commands run a loop of their own, so they cannot run inside the test's.
    return main(arguments)


@pytest.mark.parametrize("spelling", ["bob@example.com", "Bob@Example.com"])
@pytest.mark.usefixtures("state")
def test_sessions_of_a_person_are_revoked_however_the_address_is_written(
    spelling: str, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("session", "revoke", "--config", config, "--user", spelling) == 0
    assert capsys.readouterr().err == "1 session revoked\n"
    assert _run("session", "list", "--config", config) == 0
    assert [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()] == [
        "alice@example.com"
    ]
    assert _run("session", "list", "--config", config, "--user", spelling, "--all") == 0
    assert capsys.readouterr().out.endswith("\tended: revoked\n")


@pytest.mark.usefixtures("state")
def test_a_revoked_session_cannot_be_revoked_again(config: str) -> None:
    sid = "alice".ljust(24, "-")
    assert _run("session", "revoke", "--config", config, sid) == 0
    assert _run("session", "revoke", "--config", config, sid) == 1


@pytest.mark.usefixtures("state")
def test_everybody_is_everybody(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("session", "revoke", "--config", config, "--everybody") == 0
    assert capsys.readouterr().err == "2 sessions revoked\n"


@pytest.mark.usefixtures("state")
def test_an_address_is_unpinned_once(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("subject", "unpin", "--config", config, "Bob@example.com") == 0
    assert _run("subject", "unpin", "--config", config, "bob@example.com") == 1
    capsys.readouterr()
    assert _run("subject", "list", "--config", config) == 0
    columns = capsys.readouterr().out.split("\t")
    assert columns[:3] == ["alice@example.com", "https://idp", "alice"]


def test_without_a_state_there_is_nothing_to_list(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("session", "list", "--config", config) == 1
    assert "there is no state yet" in capsys.readouterr().err
