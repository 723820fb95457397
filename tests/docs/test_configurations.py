"""Every configuration that the documentation shows loads, routes and compiles."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from heim_config.load import load_text
from heim_config.problems import ConfigError
from heim_proxy.cli.explain import explain_request, subject_of
from heim_proxy.observe.metrics import FAMILIES
from heim_proxy.snapshot import policy_of, routes_of
from tests.docs.pages import PAGES, Fence, Page, page
from tests.docs.snippets import ELSEWHERE, NOT_HEIM, whole, with_files

_YAML = [
    (one, fence)
    for one in PAGES
    for fence in one.of("yaml")
    if not fence.first_line.startswith(ELSEWHERE)
]
_OTHERS = [
    (one, fence)
    for one in PAGES
    for fence in one.of("yaml")
    if fence.first_line.startswith(NOT_HEIM)
]


def _ids(pairs: list[tuple[Page, Fence]]) -> list[str]:
    return [f"{one.name}:{fence.line}" for one, fence in pairs]


@pytest.mark.parametrize(("one", "fence"), _YAML, ids=_ids(_YAML))
def test_configurations_load(one: Page, fence: Fence, tmp_path: Path) -> None:
    data = with_files(whole(fence.text), tmp_path)
    config = load_text(yaml.safe_dump(data), file=tmp_path / "heim.yaml", check_files=True)
    routes_of(config)
    policy_of(config)


def test_a_configuration_with_a_mistake_would_be_noticed(tmp_path: Path) -> None:
    data = with_files(whole("# part of a configuration\nbackend: []\n"), tmp_path)
    with pytest.raises(ConfigError):
        load_text(yaml.safe_dump(data), file=tmp_path / "heim.yaml")


@pytest.mark.parametrize(("one", "fence"), _OTHERS, ids=_ids(_OTHERS))
def test_other_yaml_is_yaml(one: Page, fence: Fence) -> None:
    assert yaml.safe_load(fence.text)


def test_alerts_ask_for_metrics_that_exist() -> None:
    known = {family.name for family in FAMILIES}
    rules = next(f for f in page("docs/howto/operations.md").of("yaml") if "alert:" in f.text)
    asked = set(re.findall(r"\bheim_\w+", rules.text))
    assert asked
    assert asked <= known


_JSON = [(one, fence) for one in PAGES for fence in one.of("json")]


@pytest.mark.parametrize(("one", "fence"), _JSON, ids=_ids(_JSON))
def test_json_is_json(one: Page, fence: Fence) -> None:
    assert json.loads(fence.text)


_EXPLAINED = [
    ("docs/howto/policy.md", 0, "bob@example.com", "POST", "https://wiki.x.example.com/pages/7"),
    ("docs/howto/quick-start.md", 1, "bob@example.com", "GET", "https://grafana.x.example.com/"),
]


@pytest.mark.parametrize(("name", "index", "who", "method", "url"), _EXPLAINED)
def test_shown_explanations_are_what_explain_says(
    name: str, index: int, who: str, method: str, url: str, tmp_path: Path
) -> None:
    shown = next(fence.text for fence in page(name).of("") if fence.text.startswith("REFUSED"))
    data = with_files(whole(page(name).of("yaml")[index].text), tmp_path)
    config = load_text(yaml.safe_dump(data), file=tmp_path / "heim.yaml")
    answer = explain_request(config, subject_of(config, who), method, url)
    assert "\n".join(answer.lines) == shown.rstrip("\n")
