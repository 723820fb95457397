"""The rule for real programs in tests: absent on a laptop is a skip, absent in CI is a failure."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

__all__ = ["E2E", "require", "require_node_packages"]

E2E = Path(__file__).resolve().parents[1] / "e2e"
"""Where package.json and its node_modules are."""


def require(program: str) -> str:
    """The path of a program that this test cannot do without."""
    path = shutil.which(program)
    if path is None:
        _absent(f"{program} is not installed (apt-get install {program})")
    return path


def require_node_packages() -> str:
    """The path of node, with the packages of tests/e2e/package.json installed."""
    node = require("node")
    if not (E2E / "node_modules" / "oidc-provider").is_dir():
        _absent(f"the packages of {E2E}/package.json are missing (npm ci --prefix {E2E})")
    return node


def _absent(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; CI has to have it", pytrace=False)
    pytest.skip(reason)
