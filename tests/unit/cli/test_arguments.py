from __future__ import annotations

import argparse

import pytest

from heim_proxy.cli.arguments import add_config, lazy


def test_the_configuration_is_named_by_flag_or_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed(*words: str) -> str:
        parser = argparse.ArgumentParser()
        add_config(parser)
        found: str = parser.parse_args(words).config
        return found

    assert parsed() == "heim.yaml"
    monkeypatch.setenv("HEIM_CONFIG", "/etc/heim.yaml")
    assert parsed() == "/etc/heim.yaml"
    assert parsed("--config", "other.yaml") == "other.yaml"


def test_a_command_is_imported_when_it_runs() -> None:
    run = lazy("heim_proxy.cli.nothing_of_that_name", "run")
    with pytest.raises(ModuleNotFoundError):
        run(argparse.Namespace())
    keygen = lazy("heim_proxy.cli.configure", "keygen")
    assert keygen(argparse.Namespace(kind="session")) == 0
