"""Tables in handwritten pages that are made from code say what the code says."""

from __future__ import annotations

import pytest

from tests.docs.generated import BLOCKS, rewritten
from tests.docs.pages import HANDWRITTEN, Page


@pytest.mark.parametrize("page", HANDWRITTEN, ids=lambda page: page.name)
def test_generated_tables_are_fresh(page: Page) -> None:
    assert rewritten(page.text) == page.text, "run: python -m tests.docs.generated"


def test_each_generated_table_is_on_some_page() -> None:
    text = "".join(page.text for page in HANDWRITTEN)
    missing = [name for name in BLOCKS if f"<!-- begin generated: {name} -->" not in text]
    assert missing == []


def test_a_stale_table_is_noticed() -> None:
    page = "<!-- begin generated: dialects -->\nold\n<!-- end generated: dialects -->"
    assert rewritten(page) != page
