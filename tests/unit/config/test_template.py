from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from heim_config.load import load_file
from heim_config.problems import ConfigError
from heim_config.template import render_init
from tests.unit.config.samples import load, told


def written(tmp_path: Path, domain: str) -> Path:
    path = tmp_path / "heim.yaml"
    path.write_text(render_init(domain=domain), encoding="utf-8")
    return path


def test_the_initial_configuration_loads_once_its_files_exist(tmp_path: Path) -> None:
    path = written(tmp_path, "corp.example.org")
    with pytest.raises(ConfigError) as caught:
        load_file(path)
    for problem in caught.value.problems:
        found = re.search(r"the file (\S+) cannot be read: No such file", problem.message)
        assert found is not None, problem
        Path(found[1]).parent.mkdir(exist_ok=True)
        Path(found[1]).write_text("x\n", encoding="utf-8")
    config = load_file(path)
    assert config.login_host == "auth.corp.example.org"
    assert config.backend_hosts(config.backends[0]) == ("wiki.corp.example.org",)


def test_what_is_commented_out_in_it_would_load_too() -> None:
    text = render_init(domain="example.com")
    shown = re.sub(r"^  # (- name: |  )", r"  \1", text, flags=re.MULTILINE)
    assert told(shown) == []
    config = load(shown)
    assert [backend.name for backend in config.backends] == ["wiki", "status", "desktop"]
    assert config.backends[2].tcp is not None


def test_a_binding_as_its_comment_says_gives_the_tcp_that_is_commented_out() -> None:
    text = render_init(domain="example.com")
    shown = re.sub(r"^  # (- name: |  )", r"  \1", text, flags=re.MULTILINE)
    binding = re.search(r"the binding (\{.*\}) of a role", text)
    assert binding is not None
    config = load(shown.replace("{backend: wiki, permission: all}", binding[1]))
    assert (config.roles[1].bindings[0].backend, config.roles[1].bindings[0].permission) == (
        "desktop",
        None,
    )


def test_a_domain_is_written_in_its_canonical_form() -> None:
    assert "domain: xn--bcher-kva.example\n" in render_init(domain="Bücher.example.")


@pytest.mark.parametrize(
    ("domain", "people"),
    [
        ("x.example.com", "example.com"),
        ("apps.x.example.com", "x.example.com"),
        ("example.com", "example.com"),
        ("localhost", "localhost"),
        ("example.co.uk", "example.co.uk"),
        ("x.example.co.uk", "example.co.uk"),
        ("x.co.example", "co.example"),
        ("x.example.de", "example.de"),
    ],
)
def test_people_are_of_the_domain_above_where_it_can_be_theirs(domain: str, people: str) -> None:
    document = yaml.safe_load(render_init(domain=domain))
    everyone, editors = document["roles"]
    assert document["identity"]["providers"][0]["hosted_domains"] == [people]
    assert everyone["members"] == [{"domain": people}]
    assert editors["members"] == [{"user": f"alice@{people}"}]
    assert document["domain"] == domain


@pytest.mark.parametrize(
    "domain", ["", "a b", "x\nadmin: true", "{domain}", "*.example.com", "10.0.0.1", "a/b", "a: b"]
)
def test_what_is_not_a_domain_is_refused(domain: str) -> None:
    with pytest.raises(ValueError):
        render_init(domain=domain)


def test_it_says_what_to_do_first_and_names_no_secret() -> None:
    text = render_init(domain="example.com")
    assert "heim-proxy check --config heim.yaml" in text
    assert "https://auth.example.com/.heim/callback" in text
    assert not re.search(r"client_secret:|password", text)
