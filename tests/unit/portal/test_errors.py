"""Errors of the portal are values with a readable text."""

from __future__ import annotations

from heim_proxy.portal.errors import PortalError, TryAgain


def test_an_error_says_its_status_and_title() -> None:
    error = PortalError(404, "Nothing is served here.", "Check the address.")
    assert str(error) == "404 Nothing is served here."
    assert (error.step, error.link, error.set_cookies) == ("", None, ())


def test_a_link_says_try_again_unless_told_otherwise() -> None:
    assert TryAgain("/x").text == "Try again"
