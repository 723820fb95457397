from __future__ import annotations

import argparse
from typing import Any

import pytest

from heim_proxy.cli.agent_arguments import add_agent


def parsed(line: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_agent(parser.add_subparsers())
    found = vars(parser.parse_args(line.split()))
    return {name: value for name, value in found.items() if name not in ("run", "config")}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("agent list", {"all": False}),
        ("agent list --all", {"all": True}),
        ("agent revoke office", {"agent": "office", "id": None}),
        # An id may begin with a hyphen.
        ("agent revoke --id=-abc", {"agent": None, "id": "-abc"}),
        ("agent token create office", {"agent": "office", "expires": "15m", "replace": False}),
        (
            "agent token create --expires 1d --replace office",
            {"agent": "office", "expires": "1d", "replace": True},
        ),
        ("agent token list --all", {"all": True}),
        ("agent token revoke 0123", {"id": "0123"}),
    ],
)
def test_what_is_typed_is_what_the_command_gets(line: str, expected: dict[str, Any]) -> None:
    assert parsed(line) == expected
