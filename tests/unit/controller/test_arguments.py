"""The command line of heim-controller."""

from __future__ import annotations

import pytest

from heim_controller.arguments import ENVIRONMENT, build_parser
from tests.docs.programs import CONTROLLER


def test_every_variable_that_helps_name_is_in_the_list_of_them() -> None:
    assert CONTROLLER.twins() == {one for one in ENVIRONMENT if one.startswith("HEIM_")}


def test_abbreviations_are_refused() -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["run", "--prox", "heim/main"])


def test_a_mode_that_is_none_is_refused() -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["run", "--secrets", "all"])


@pytest.mark.parametrize("command", ["run", "translate", "version"])
def test_help_shows_an_example_that_can_be_pasted(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        build_parser().parse_args([command, "--help"])
    assert raised.value.code == 0
    out = capsys.readouterr().out
    assert f"heim-controller {command}" in out[out.index("examples:") :]


def test_translate_needs_files() -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["translate", "--domain", "example.test"])
