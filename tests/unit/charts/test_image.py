"""The Dockerfile, read: what CI without a Docker engine can know of the image."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.unit.charts.render import CASES, objects, only, values_of

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
KNOWN = {
    "ARG", "FROM", "WORKDIR", "COPY", "RUN", "LABEL", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "CMD",
}  # fmt: skip


class Instruction(NamedTuple):
    word: str
    rest: str


def instructions() -> list[Instruction]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [Instruction(*line.split(None, 1)) for line in lines if line.strip()]


def stages() -> list[list[Instruction]]:
    found: list[list[Instruction]] = []
    for one in instructions():
        if one.word == "FROM":
            found.append([])
        if found:
            found[-1].append(one)
    return found


FINAL = stages()[-1]


def last(word: str) -> str:
    return [one.rest for one in FINAL if one.word == word][-1]


def test_every_instruction_is_a_plain_one() -> None:
    """ADD fetches and unpacks, VOLUME hides what is under it, ONBUILD surprises."""
    assert {one.word for one in instructions()} <= KNOWN


def test_there_is_a_stage_to_build_in_and_one_to_run() -> None:
    assert [stage[0].rest for stage in stages()] == ["${PYTHON} AS build", "${PYTHON}"]
    assert instructions()[0] == ("ARG", "PYTHON=python:3.13-slim")


def test_python_is_one_that_we_support() -> None:
    version = re.search(r"python:(3\.\d+)-slim", instructions()[0].rest)
    assert version is not None
    assert f"Programming Language :: Python :: {version[1]}" in PROJECT["project"]["classifiers"]


@pytest.mark.parametrize("case", CASES)
def test_it_runs_as_whom_the_chart_says(case: str) -> None:
    for name in ("heim-proxy", "heim-controller"):
        pod = only(objects(values_of(case)), "Deployment", name)["spec"]["template"]["spec"]
        security = pod["securityContext"]
        assert last("USER") == f"{security['runAsUser']}:{security['runAsGroup']}"


def test_nothing_runs_as_root_after_the_user_is_set() -> None:
    words = [one.word for one in FINAL]
    assert "RUN" not in words[words.index("USER") :]


@pytest.mark.parametrize("case", CASES)
def test_pods_name_programs_that_are_in_it(case: str) -> None:
    """There is no entry point: the first argument is the program."""
    assert "ENTRYPOINT" not in {one.word for one in instructions()}
    for name in ("heim-proxy", "heim-controller"):
        pod = only(objects(values_of(case)), "Deployment", name)["spec"]["template"]["spec"]
        [container] = pod["containers"]
        assert "command" not in container
        assert container["args"][0] in PROJECT["project"]["scripts"]


def test_all_programs_are_in_it() -> None:
    [install] = [one.rest for one in stages()[0] if one.word == "RUN"]
    assert "'.[all]'" in install
    assert {"heim-proxy", "heim-controller", "heim-agent"} <= PROJECT["project"]["scripts"].keys()


def test_dependencies_come_as_wheels_and_nothing_is_compiled_later() -> None:
    [install] = [one.rest for one in stages()[0] if one.word == "RUN"]
    assert "--only-binary :all:" in install
    assert "compileall" in install
    assert "PYTHONDONTWRITEBYTECODE=1" in last("ENV")


def copied() -> set[str]:
    found: set[str] = set()
    for one in stages()[0]:
        if one.word == "COPY":
            found.update(shlex.split(one.rest)[:-1])
    return found


def test_what_is_copied_is_there_and_is_all_that_is_needed() -> None:
    assert all((ROOT / name).exists() for name in copied())
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {package.partition("/")[0] for package in packages} <= copied()
    assert {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]} <= copied()


def test_only_that_is_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied()
    # What comes later wins.
    assert not [rule for rule in rules[rules.index("**/__pycache__") :] if rule.startswith("!")]


def test_nothing_secret_is_built_in() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"(?i)(password|token|secret)\s*=", text)
    assert [one.rest for one in instructions() if one.word == "ARG"] == ["PYTHON=python:3.13-slim"]


def test_health_is_asked_by_whoever_runs_it() -> None:
    assert last("HEALTHCHECK") == "NONE"


def test_ports_are_those_that_the_chart_maps() -> None:
    pod = only(objects(values_of("minimal")), "Deployment", "heim-proxy")["spec"]["template"]
    [container] = pod["spec"]["containers"]
    assert {str(port["containerPort"]) for port in container["ports"]} == set(
        last("EXPOSE").split()
    )


def test_what_is_written_is_mounted() -> None:
    """The root is read-only: state, keys in memory and temporary files have a volume each."""
    pod = only(objects(values_of("minimal")), "Deployment", "heim-proxy")["spec"]["template"]
    [container] = pod["spec"]["containers"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/var/lib/heim", "/run/heim", "/tmp"} <= mounts
    assert "XDG_RUNTIME_DIR=/run/heim" in last("ENV")
