from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from heim_config.layers import read_boot
from heim_config.model import Config
from heim_config.problems import ConfigError, Problem
from heim_proxy.cli.complain import complain, load_or_complain
from heim_proxy.sources.document import Sheet
from heim_proxy.sources.known import kept_copy
from tests.fakes.heim import Heim
from tests.fakes.snapshots import app


@pytest.mark.parametrize(("count", "summary"), [(1, "1 mistake found"), (3, "3 mistakes found")])
def test_every_problem_is_a_line_on_stderr(
    count: int, summary: str, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = tuple(
        Problem(file="heim.yaml", line=index, path=f"a[{index}]", message="is wrong", hint="do b")
        for index in range(1, count + 1)
    )
    assert complain(ConfigError(problems)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    lines = told.err.splitlines()
    assert lines == [*map(str, problems), summary]
    assert lines[0] == "heim.yaml:1: a[1]: is wrong; do b"


def test_a_configuration_that_can_be_used_is_returned(tmp_path: Path) -> None:
    heim = Heim.prepare(tmp_path, backends=[app()])
    assert isinstance(load_or_complain(str(heim.config_file)), Config)


def test_files_are_looked_at_only_where_they_matter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heim = Heim.prepare(tmp_path, backends=[app()])
    (tmp_path / "tls.crt").unlink()
    assert load_or_complain(str(heim.config_file)) == 2
    assert "tls.crt" in capsys.readouterr().err
    assert isinstance(load_or_complain(str(heim.config_file), check_files=False), Config)


def test_with_a_source_the_document_in_force_belongs_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "heim.yaml"
    file.write_text(
        "version: 1\ndomain: x.example.com\nstate: {url: sqlite://state/state.db}\n"
        "source: {kubernetes: {config_map: heim-configuration}}\n"
    )
    assert load_or_complain(str(file)) == 2
    assert "no document was ever in force here" in capsys.readouterr().err
    # What needs the state alone works without.
    alone = load_or_complain(str(file), whole=False)
    assert isinstance(alone, Config)
    backend = {"name": "a", "public": True, "http": [{"path": "/", "upstream": "http://[::1]:1"}]}
    content = json.dumps({"backends": [backend]}).encode()
    kept_copy(read_boot(file)).write(Sheet(content, hashlib.sha256(content).hexdigest()))
    found = load_or_complain(str(file))
    assert isinstance(found, Config)
    assert [one.name for one in found.backends] == ["a"]
