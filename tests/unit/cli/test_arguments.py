from __future__ import annotations

import argparse

import pytest

from heim_proxy.cli.arguments import add_action, add_config


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


def test_an_action_has_its_function_and_the_configuration() -> None:
    parser = argparse.ArgumentParser()

    def run(args: argparse.Namespace) -> int:
        return 7

    add_action(parser.add_subparsers(), "list", "who is there", run)
    args = parser.parse_args(["list", "--config", "other.yaml"])
    assert (args.run, args.config) == (run, "other.yaml")
