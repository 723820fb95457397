from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from heim_config.model import Config
from heim_proxy.cli.stored import audit, end, revoked, state_of, when, with_store
from heim_proxy.store.base import SessionRow, Store
from tests.fakes.heim import Heim
from tests.fakes.snapshots import app


def row(sid: str, **more: object) -> SessionRow:
    keys = {
        "sid": sid, "issuer": "https://idp.test", "subject": f"sub-{sid}", "provider": "test",
        "email": None, "domain": None, "groups": (), "auth_time": 1.0, "created": 1.0,
        "expires": 4_000_000_000.0, "last_seen": 1.0, "sealed_tokens": b"",
    } | more  # fmt: skip
    return SessionRow(**keys)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return Heim.prepare(tmp_path, backends=[app()]).config_file


def test_the_state_is_made_by_the_proxy(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def work(store: Store, _: Config) -> int:
        raise AssertionError("there is nothing to work on")

    assert with_store(str(config), work) == 1
    assert "there is no state yet; has the proxy run?" in capsys.readouterr().err


def test_a_configuration_that_cannot_be_used_is_2(tmp_path: Path) -> None:
    async def work(store: Store, _: Config) -> int:
        raise AssertionError("there is no configuration")

    assert with_store(str(tmp_path / "nowhere.yaml"), work) == 2


def test_each_that_was_ended_is_an_audit_event(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config.parent / "state").mkdir(exist_ok=True)
    (config.parent / "state" / "state.db").touch(mode=0o600)

    async def work(store: Store, _: Config) -> int:
        await store.create_session(row("a" * 24))
        rows = [row("a" * 24), row("b" * 24)]
        return await end(store, rows, lambda one: audit("token.revoked", {"sid": one.sid}))

    assert with_store(str(config), work) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "token.revoked"
    assert json.loads(line)["sid"] == "a" * 24


@pytest.mark.parametrize(
    ("ended", "status", "said"),
    [(0, 1, "0 tokens revoked\n"), (1, 0, "1 token revoked\n"), (2, 0, "2 tokens revoked\n")],
)
def test_it_is_said_how_many_were_revoked(
    ended: int, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert revoked(ended, "token") == status
    assert capsys.readouterr().err == said


def test_times_and_states_are_for_people() -> None:
    assert when(0) == "1970-01-01T00:00:00Z"
    assert when(math.inf) == "never"
    assert state_of(row("a")) == "live"
    assert state_of(row("a", expires=2.0)) == "expired"
    assert state_of(row("a", ended=2.0, end_reason="revoked")) == "ended: revoked"
