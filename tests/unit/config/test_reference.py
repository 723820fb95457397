from __future__ import annotations

from pathlib import Path

import pytest

from heim_config.fields import Section
from heim_config.model import Config
from heim_config.reference import main, render_reference, render_schema

DOCS = Path(__file__).parents[3] / "docs/reference"


def sections() -> list[type[Section]]:
    """Every section of the model; importing Config has defined them all."""
    found = [
        kind for kind in Section.__subclasses__() if kind.__module__.startswith("heim_config.")
    ]
    assert Config in found
    return sorted(found, key=lambda kind: kind.__name__)


@pytest.mark.parametrize(
    ("name", "content"),
    [("configuration.md", render_reference()), ("config.schema.json", render_schema())],
)
def test_the_committed_reference_is_what_the_model_says(name: str, content: str) -> None:
    committed = (DOCS / name).read_text(encoding="utf-8")
    assert committed == content, f"docs/reference/{name} is stale; run: make docs"


@pytest.mark.parametrize("section", sections(), ids=lambda kind: kind.__name__)
def test_every_field_has_a_text_with_its_default_and_is_in_the_reference(
    section: type[Section],
) -> None:
    reference = render_reference()
    assert section.__doc__
    for name, info in section.model_fields.items():
        text = info.description
        assert text, f"{section.__name__}.{name} has no text under it"
        assert text.endswith("."), text
        assert f"| `{info.alias or name}` |" in reference


def test_the_text_says_what_is_required() -> None:
    """A reader of the source sees the text, not the table."""
    silent = [
        f"{section.__name__}.{name}"
        for section in sections()
        for name, info in section.model_fields.items()
        # The login host is derived when it is not given; its text says from what.
        if info.is_required() and name != "login_host" and "equired" not in (info.description or "")
    ]
    assert silent == []


def test_both_files_are_written_into_the_directory_named(tmp_path: Path) -> None:
    assert main([str(tmp_path / "new")]) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "config.schema.json",
        "configuration.md",
    ]
