from __future__ import annotations

import pytest

from heim_wire.errors import FAILURES, Code, OpenRefused, WireError, by_slug

CODES = {name: value for name, value in vars(Code).items() if name.isupper()}


def test_every_code_has_its_failure() -> None:
    assert sorted(FAILURES) == sorted(CODES.values()) == list(range(1, 21))
    assert {failure.slug.upper() for failure in FAILURES.values()} == set(CODES)


@pytest.mark.parametrize("failure", FAILURES.values(), ids=lambda failure: failure.slug)
def test_a_failure_is_found_by_its_slug(failure: object) -> None:
    assert by_slug(failure.slug) is failure  # type: ignore[attr-defined]
    assert failure.code == CODES[failure.slug.upper()]  # type: ignore[attr-defined]
    assert failure.http_status in range(400, 600)  # type: ignore[attr-defined]
    assert failure.exit_status in range(64, 79)  # type: ignore[attr-defined]


def test_a_word_of_a_newer_version_is_no_failure() -> None:
    assert by_slug("out_of_cheese") is None


@pytest.mark.parametrize(
    ("slug", "exit_status"),
    [("protocol", 76), ("forbidden", 77), ("no_such_target", 68), ("dns", 69), ("busy", 75),
     ("expired", 77), ("flow", 70), ("connection_reset", 69), ("superseded", 75)],
)  # fmt: skip
def test_scripts_can_tell_failures_apart(slug: str, exit_status: int) -> None:
    failure = by_slug(slug)
    assert failure is not None
    assert failure.exit_status == exit_status


@pytest.mark.parametrize("kind", [WireError, OpenRefused])
def test_an_error_carries_what_to_tell(kind: type[WireError | OpenRefused]) -> None:
    error = kind(Code.BUSY, "too many streams")
    assert (error.code, error.reason, str(error)) == (9, "too many streams", "too many streams")


def test_a_failure_shows_itself() -> None:
    assert repr(FAILURES[Code.IDLE]) == "<Failure 13 idle>"
