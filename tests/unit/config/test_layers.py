from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from heim_config.layers import (
    MAX_DOCUMENT_BYTES,
    Boot,
    Remembered,
    combine,
    digest_of,
    read_boot,
    read_document,
)
from heim_config.model import Config
from heim_config.problems import ConfigError
from tests.unit.config.samples import BACKENDS, GOOD, IDENTITY, ROLES, load

NAME = "ConfigMap heim/heim-configuration"
BOOT = (
    "version: 1\ndomain: x.example.com\nsource: {kubernetes: {config_map: heim-configuration}}\n"
    + IDENTITY
)


def document(**more: Any) -> dict[str, Any]:
    """A document that fits `BOOT`."""
    found: dict[str, Any] = yaml.safe_load(ROLES + BACKENDS)
    return {**found, "tls": {"certificates": [{"secret": "wiki-tls"}]}, **more}


def in_lines(found: dict[str, Any]) -> bytes:
    """A document with each item of its lists in a line, as the controller writes it."""
    spread = [
        f'"{key}":[\n' + ",\n".join(map(json.dumps, value)) + "\n]"
        for key, value in found.items()
        if key != "tls"
    ]
    certificates = ",\n".join(map(json.dumps, found["tls"]["certificates"]))
    return f'{{{",".join(spread)},"tls":{{"certificates":[\n{certificates}\n]}}}}'.encode()


def boot(directory: Path, text: str = BOOT) -> Boot:
    file = directory / "heim.yaml"
    file.write_text(text)
    return read_boot(file, check_files=False)


def told(directory: Path, found: dict[str, Any], text: str = BOOT) -> list[str]:
    """What is wrong with a document, file names of the boot file shortened."""
    with pytest.raises(ConfigError) as caught:
        combine(boot(directory, text), found, name=NAME, check_files=False)
    return [str(one).replace(f"{directory}/", "") for one in caught.value.problems]


def test_both_make_the_configuration_that_one_file_would(tmp_path: Path) -> None:
    both = combine(boot(tmp_path), document(), name=NAME, check_files=False)
    one = load(GOOD, file=tmp_path / "heim.yaml")
    assert both.backends == one.backends
    assert both.roles == one.roles
    assert both.identity == one.identity
    assert both.tls.certificates[0].secret == "wiki-tls"
    assert both.certificate_files() == ()


def test_a_document_through_json_is_the_same(tmp_path: Path) -> None:
    content = json.dumps(document()).encode()
    found = read_document(content, name=NAME)
    assert combine(boot(tmp_path), found, name=NAME, check_files=False) == combine(
        boot(tmp_path), document(), name=NAME, check_files=False
    )


def test_mistakes_are_told_of_the_layer_they_are_in(tmp_path: Path) -> None:
    found = document()
    found["backends"][0]["upstrem"] = "x"
    found["roles"][0]["bindings"][0]["backend"] = "grafna"
    assert told(tmp_path, found) == [
        f"{NAME}: backends[0].upstrem: unknown key; did you mean upstream_tls?",
        f'{NAME}: roles[0].bindings[0].backend: there is no backend "grafna"; '
        "did you mean grafana?",
    ]


def test_a_mistake_that_only_both_together_make_is_told_where_it_can_be_mended(
    tmp_path: Path,
) -> None:
    without = BOOT.replace(IDENTITY, "")
    [problem] = told(tmp_path, document(), without)
    assert problem.startswith("heim.yaml:1: identity.providers: has no provider")


@pytest.mark.parametrize("key", ["drain", "session", "source", "service_accounts", "domain"])
def test_keys_of_the_boot_file_are_refused_in_the_document(tmp_path: Path, key: str) -> None:
    assert told(tmp_path, document(**{key: None})) == [
        f"{NAME}: {key}: belongs to the boot file, not to the document"
    ]


def test_an_unknown_key_of_the_document_is_the_documents(tmp_path: Path) -> None:
    [problem] = told(tmp_path, document(backend=[]))
    assert problem == f"{NAME}: backend: unknown key; did you mean backends?"


def test_a_boot_file_with_mistakes_is_refused_by_itself(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        boot(tmp_path, BOOT + "drane: 1s\n")
    [problem] = caught.value.problems
    assert problem.path == "drane"
    assert problem.line == BOOT.count("\n") + 1


def test_files_are_looked_at_of_both_layers(tmp_path: Path) -> None:
    found = document()
    found["backends"][0]["http"][0]["upstream"] = "https://127.0.0.1:3000"
    found["backends"][0]["upstream_tls"] = {"ca_file": "missing.pem"}
    with pytest.raises(ConfigError) as caught:
        combine(boot(tmp_path), found, name=NAME)
    places = {(Path(one.file).name, one.path) for one in caught.value.problems}
    assert places == {
        (NAME.rpartition("/")[2], "backends[0].upstream_tls.ca_file"),
        ("heim.yaml", "identity.providers[0].client_secret_file"),
    }
    assert tmp_path / "missing.pem" in caught.value.files


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"[]", "is not a JSON object"), (b'{"a":1,"a":2}', 'has the key "a" twice')],
    ids=["a list", "twins"],
)
def test_content_that_is_no_document_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_document(content, name=NAME)


def test_content_that_is_too_large_is_not_even_read() -> None:
    with pytest.raises(ConfigError, match="is larger than 8 MiB"):
        read_document(b"x" * (MAX_DOCUMENT_BYTES + 1), name=NAME)


def test_the_digest_is_of_both_layers(tmp_path: Path) -> None:
    first = digest_of(boot(tmp_path), "ab" * 32)
    assert digest_of(boot(tmp_path), "ab" * 32) == first
    assert digest_of(boot(tmp_path), "cd" * 32) != first
    assert digest_of(boot(tmp_path, BOOT + "drain: 5s\n"), "ab" * 32) != first


def test_backends_that_did_not_change_are_taken_over_and_others_are_judged(tmp_path: Path) -> None:
    remembered, layer = Remembered(), boot(tmp_path)

    def combined(found: dict[str, Any]) -> Config:
        data = read_document(in_lines(found), name=NAME, lines=remembered.lines)
        return combine(layer, data, name=NAME, check_files=False, remembered=remembered)

    first = combined(document())
    changed = document()
    changed["backends"][0]["idle"] = "no key of a backend"
    with pytest.raises(ConfigError) as caught:
        combined(changed)
    assert [one.path for one in caught.value.problems] == ["backends[0].idle"]

    changed = document()
    changed["backends"].append({**changed["backends"][0], "name": "another", "public": True})
    changed["backends"][-1].pop("permissions", None)
    second = combined(changed)
    assert second.backends[1] is first.backends[1]
    assert second.roles[0] is first.roles[0]
    assert second.tls.certificates[0] is first.tls.certificates[0]
    assert second == combine(layer, changed, name=NAME, check_files=False)


def test_what_backends_mean_together_is_judged_although_each_is_known(tmp_path: Path) -> None:
    remembered, layer = Remembered(), boot(tmp_path)
    found = document()
    combine(layer, found, name=NAME, check_files=False, remembered=remembered)
    twice = {**found, "backends": [*found["backends"], found["backends"][0]]}
    with pytest.raises(ConfigError, match="name of another one"):
        combine(layer, twice, name=NAME, check_files=False, remembered=remembered)


def test_relative_paths_of_known_backends_start_at_the_file_of_now(tmp_path: Path) -> None:
    remembered, found = Remembered(), document()
    found["backends"][0]["http"][0]["upstream"] = "unix:app.sock"
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        layer = boot(tmp_path / name)
        config = combine(layer, found, name=NAME, check_files=False, remembered=remembered)
        assert config.backends[0].http[0].endpoints[0].host == str(tmp_path / name / "app.sock")


@pytest.mark.parametrize("backends", [None, "web", {"name": "web"}])
def test_backends_that_are_no_list_are_told_with_a_memory_too(
    tmp_path: Path, backends: object
) -> None:
    layer = boot(tmp_path)
    with pytest.raises(ConfigError, match="must be a list"):
        combine(layer, document(backends=backends), name=NAME, remembered=Remembered())
