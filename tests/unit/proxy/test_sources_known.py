from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from heim_config.layers import read_boot
from heim_config.problems import ConfigError
from heim_proxy.sources.document import Sheet
from heim_proxy.sources.known import kept_copy, last_known
from tests.fakes.kube_document import index
from tests.unit.config.samples import GOOD

HEAD = "version: 1\ndomain: x.example.com\nstate: {url: sqlite://state/state.db}\n"
IN_CLUSTER = "source: {kubernetes: {config_map: heim-configuration}}\n"
MOUNTED = "source: {file: {path: document}}\n"
CONTENT = json.dumps(
    {
        "backends": [
            {"name": "a", "public": True, "http": [{"path": "/", "upstream": "http://[::1]:1"}]}
        ]
    }
).encode()
SHEET = Sheet(CONTENT, hashlib.sha256(CONTENT).hexdigest())


def written(directory: Path, text: str) -> Path:
    file = directory / "heim.yaml"
    file.write_text(text)
    return file


def test_commands_take_the_document_that_the_proxy_keeps(tmp_path: Path) -> None:
    boot = read_boot(written(tmp_path, HEAD + IN_CLUSTER))
    kept_copy(boot).write(SHEET)
    assert [backend.name for backend in last_known(boot).backends] == ["a"]


def test_commands_take_mounted_files_when_nothing_is_kept_yet(tmp_path: Path) -> None:
    boot = read_boot(written(tmp_path, HEAD + MOUNTED))
    with pytest.raises(ConfigError, match="document cannot be read"):
        last_known(boot)
    (tmp_path / "document").mkdir()
    (tmp_path / "document" / "index.json").write_text(index(CONTENT, ["document.json"]))
    (tmp_path / "document" / "document.json").write_bytes(CONTENT)
    assert [backend.name for backend in last_known(boot).backends] == ["a"]


def test_commands_say_when_there_is_no_document(tmp_path: Path) -> None:
    boot = read_boot(written(tmp_path, HEAD + IN_CLUSTER))
    with pytest.raises(ConfigError, match="no document was ever in force here"):
        last_known(boot)


def test_a_file_without_source_needs_no_document(tmp_path: Path) -> None:
    boot = read_boot(written(tmp_path, GOOD), check_files=False)
    assert last_known(boot) is boot.config
