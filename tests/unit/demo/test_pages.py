from __future__ import annotations

import pytest
from jinja2 import UndefinedError

from heim_proxy.demo.pages import page


def message(text: str) -> dict[str, object]:
    return {"title": "Hello", "text": text, "bad": False}


def test_page_says_that_it_is_a_demo() -> None:
    assert "<strong>DEMO</strong>" in (page("message", message("x")).text or "")


def test_values_are_escaped() -> None:
    text = page("message", message("<script>alert(1)</script>")).text or ""
    assert "<script>" not in text


def test_page_is_not_stored_and_loads_nothing_from_elsewhere() -> None:
    headers = page("message", message("x")).headers
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_forgotten_value_is_an_error_not_a_gap() -> None:
    with pytest.raises(UndefinedError):
        page("message", {})
