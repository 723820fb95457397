"""The versions that tests and the image use are ones that pyproject.toml allows."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

_ROOT = Path(__file__).parents[2]


def _asked_for() -> Iterator[Requirement]:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    for requirements in (project["dependencies"], *project["optional-dependencies"].values()):
        yield from filter(lambda one: one.name != "heim", map(Requirement, requirements))


def _pinned() -> dict[str, str]:
    lines = (_ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.lstrip().startswith("#")]
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}


@pytest.mark.parametrize("wanted", sorted(set(map(str, _asked_for()))))
def test_what_is_asked_for_has_one_version(wanted: str) -> None:
    requirement = Requirement(wanted)
    version = _pinned().get(requirement.name)
    assert version is not None, "run: make lock"
    assert requirement.specifier.contains(version), "run: make lock"
