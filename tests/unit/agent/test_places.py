from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from heim_agent.places import SYSTEM_CONFIG, SYSTEM_STATE, Places

ETC = f"{SYSTEM_CONFIG}/agent.toml"


@pytest.mark.parametrize(
    ("environ", "options", "state", "seed", "config"),
    [
        ({}, {"root": True}, SYSTEM_STATE, SYSTEM_CONFIG, ETC),
        ({}, {"root": True, "state": "/s"}, "/s", "/s", ETC),
        ({"HEIM_AGENT_STATE": "/s"}, {"root": True}, "/s", "/s", ETC),
        (
            {"XDG_STATE_HOME": "/xs", "XDG_CONFIG_HOME": "/xc"},
            {"root": False},
            "/xs/heim-agent",
            "/xs/heim-agent",
            "/xc/heim-agent/agent.toml",
        ),
        (
            {"HEIM_AGENT_STATE": "/s", "HEIM_AGENT_CONFIG": "/c.toml"},
            {"root": False},
            "/s",
            "/s",
            "/c.toml",
        ),
        (
            {"HEIM_AGENT_STATE": "/s", "HEIM_AGENT_CONFIG": "/c.toml"},
            {"root": False, "state": "/t", "config": "/d.toml"},
            "/t",
            "/t",
            "/d.toml",
        ),
        ({"STATE_DIRECTORY": "/v/a:/v/b"}, {"root": False}, "/v/a", "/v/a", ETC),
    ],
    ids=["root", "root --state", "root HEIM_AGENT_STATE", "a user", "environment", "options",
         "a unit without credentials"],
)  # fmt: skip
def test_places_are_what_the_user_and_the_environment_mean(
    environ: Mapping[str, str], options: dict[str, str | bool], state: str, seed: str, config: str
) -> None:
    found = Places.find(environ, **options)  # type: ignore[arg-type]
    assert (found.state, found.seed, found.config) == (state, seed, config)
    assert not found.seed_is_mounted


def test_a_unit_with_credentials_reads_them_and_writes_its_state(tmp_path: Path) -> None:
    (tmp_path / "key.pem").touch()
    environ = {"STATE_DIRECTORY": "/var/lib/x", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    found = Places.find(environ, root=False)
    assert (found.state, found.seed, found.seed_is_mounted) == ("/var/lib/x", str(tmp_path), True)


def test_credentials_of_something_else_are_not_taken(tmp_path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "XDG_STATE_HOME": "/xs"}
    assert Places.find(environ, root=False).seed == "/xs/heim-agent"


def test_a_state_that_is_named_is_the_seed_whatever_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "key.pem").touch()
    found = Places.find({"CREDENTIALS_DIRECTORY": str(tmp_path)}, state="/s", root=False)
    assert (found.seed, found.seed_is_mounted) == ("/s", False)


def test_only_the_machines_directory_is_open_to_read() -> None:
    assert Places.find({}, root=True).seed_mode == 0o755
    assert Places(config="c", state="/s").seed_mode == 0o700


def test_it_shows_the_paths() -> None:
    assert repr(Places(config="c", state="s")) == "<Places config=c state=s seed=s>"
