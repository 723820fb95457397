"""Errors of the portal are values with a readable text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from heim_proxy.portal.errors import PortalError, TryAgain

ERRORS = Path(__file__).parents[3] / "docs/reference/errors.md"


def test_an_error_says_its_status_and_title() -> None:
    error = PortalError(404, "Nothing is served here.", "Check the address.")
    assert str(error) == "404 Nothing is served here."
    assert (error.step, error.link, error.set_cookies) == ("", None, ())


def test_a_link_says_try_again_unless_told_otherwise() -> None:
    assert TryAgain("/x").text == "Try again"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "bad_request"),
        (401, "sign_in_required"),
        (403, "forbidden"),
        (404, "not_found"),
        (405, "bad_request"),
        (429, "busy"),
        (500, "internal_error"),
        (502, "provider_failed"),
        (503, "sign_in_unavailable"),
    ],
)
def test_programs_get_a_code_that_the_documentation_lists(status: int, code: str) -> None:
    assert PortalError(status, "x", "y").code == code
    listed = re.findall(r"^\| `(\w+)` \| ([\d, ]+) \|$", ERRORS.read_text(), re.MULTILINE)
    assert any(one == code and str(status) in found for one, found in listed)
