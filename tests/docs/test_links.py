"""Links between pages lead somewhere, anchors included."""

from __future__ import annotations

import pytest

from tests.docs.pages import DOCS, PAGES, ROOT, Page

_OUTSIDE = ("https://", "http://", "mailto:")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Page) -> None:
    broken = [link for link in page.links if not link.startswith(_OUTSIDE) and _broken(page, link)]
    assert broken == []


def _broken(page: Page, link: str) -> bool:
    name, _, anchor = link.partition("#")
    path = (page.path.parent / name).resolve() if name else page.path
    if not path.exists() or not path.is_relative_to(ROOT):
        return True
    return bool(anchor) and anchor not in Page(path).anchors


def test_every_page_can_be_reached_from_the_index() -> None:
    seen: set[object] = set()
    waiting = [Page(DOCS / "README.md")]
    while waiting:
        page = waiting.pop()
        seen.add(page.path)
        for link in page.links:
            path = (page.path.parent / link.partition("#")[0]).resolve()
            if path.suffix == ".md" and path.exists() and path not in seen:
                waiting.append(Page(path))
    assert sorted(str(path) for path in DOCS.rglob("*.md") if path not in seen) == []


def test_a_broken_link_is_noticed() -> None:
    index = Page(DOCS / "README.md")
    assert _broken(index, "howto/nowhere.md")
    assert _broken(index, "howto/policy.md#nowhere")
    assert not _broken(index, "howto/policy.md#members")
