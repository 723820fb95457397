"""The documentation as tests see it: pages, fenced blocks, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

__all__ = ["DOCS", "GENERATED", "HANDWRITTEN", "PAGES", "ROOT", "Fence", "Page", "page"]

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# Written from the model; a test of heim_config holds them fresh.
GENERATED = (DOCS / "reference/configuration.md",)

_FENCE = re.compile(r"^( *)(```+)(\w*)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`[^`\n]+`")


@dataclass(frozen=True)
class Fence:
    """A fenced block: its language, its text without indentation, and the line it starts on."""

    language: str
    text: str
    line: int

    @property
    def first_line(self) -> str:
        return self.text.split("\n", 1)[0]


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    @cached_property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return _FENCE.sub("", self.text)

    @cached_property
    def fences(self) -> tuple[Fence, ...]:
        return tuple(self._fences())

    def _fences(self) -> Iterator[Fence]:
        for found in _FENCE.finditer(self.text):
            indent, _, language, body = found.groups()
            lines = (line.removeprefix(indent) for line in body.split("\n"))
            yield Fence(language, "\n".join(lines), self.text.count("\n", 0, found.start()) + 1)

    def of(self, language: str) -> list[Fence]:
        return [fence for fence in self.fences if fence.language == language]

    @property
    def links(self) -> list[str]:
        return _LINK.findall(_CODE.sub("", self.prose))

    @cached_property
    def anchors(self) -> frozenset[str]:
        """What GitHub makes of the headings: lower case, punctuation away, spaces to hyphens."""
        return frozenset(_slug(heading) for heading in _HEADING.findall(self.prose))


def _slug(heading: str) -> str:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def page(name: str) -> Page:
    """The page at a path relative to the repository."""
    return Page(ROOT / name)


PAGES = tuple(Page(path) for path in (*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))))
HANDWRITTEN = tuple(one for one in PAGES if one.path not in GENERATED)
