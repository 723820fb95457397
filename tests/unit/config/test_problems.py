from __future__ import annotations

from pathlib import Path

import pytest

from heim_config.problems import ConfigError, Problem, mistake, nearest, show, show_path


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (
            Problem("heim.yaml", 12, "backends[2].x", "unknown key", "did you mean y?"),
            "heim.yaml:12: backends[2].x: unknown key; did you mean y?",
        ),
        (Problem("heim.yaml", 1, "", "is empty"), "heim.yaml:1: is empty"),
        (Problem("heim.yaml", None, "", "cannot be read"), "heim.yaml: cannot be read"),
    ],
)
def test_a_problem_reads_as_one_line(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_an_error_reads_as_all_its_problems() -> None:
    problems = [Problem("a", 1, "", "x"), Problem("a", 2, "", "y")]
    error = ConfigError(problems, files=[Path("s")])
    assert str(error) == "a:1: x\na:2: y"
    assert error.problems == tuple(problems)
    assert error.files == (Path("s"),)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("upstrem", "did you mean upstream?"),
        ("UPSTREAM", "did you mean upstream?"),
        ("zzz", None),
        ("", None),
        ("upstream" * 100, None),
    ],
)
def test_the_nearest_word_is_offered_when_there_is_one(word: str, hint: str | None) -> None:
    assert nearest(word, ["upstream", "path", "match"]) == hint


def test_too_many_candidates_are_not_searched() -> None:
    assert nearest("b1", [f"b{i}" for i in range(100_000)]) is None


@pytest.mark.parametrize(
    ("loc", "text"),
    [
        ((), ""),
        (("a",), "a"),
        (("a", 0, "b", 12, "c-d"), "a[0].b[12].c-d"),
        (("a", "x.y"), 'a["x.y"]'),
        (("a\n\x1b[2J",), '["a\\n\\u001b[2J"]'),
        (("é",), '["\\u00e9"]'),
    ],
)
def test_places_read_as_people_write_them(loc: tuple[str | int, ...], text: str) -> None:
    assert show_path(loc) == text


@pytest.mark.parametrize("value", ["a\nb", "\x1b[2J", "\u202e", "a" * 500, {"k": "\n"}, ["\x1b"]])
def test_values_are_shown_in_one_short_printable_line(value: object) -> None:
    shown = show(value)
    assert shown.isprintable()
    assert len(shown) < 70


def test_a_mistake_carries_hint_and_place() -> None:
    error = mistake("is {wrong}", "do {this}", at=("a", 0))
    assert str(error) == "is {wrong}"
    assert error.context == {"message": "is {wrong}", "hint": "do {this}", "at": ("a", 0)}
