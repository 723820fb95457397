from __future__ import annotations

from pathlib import Path

import pytest

from heim_config.problems import ConfigError
from heim_proxy.sources.base import Rejected
from heim_proxy.sources.choose import open_source
from heim_proxy.sources.file import FileSource
from heim_proxy.sources.layered import LayeredSource
from tests.fakes.kube_document import account_folder
from tests.unit.config.samples import GOOD

HEAD = "version: 1\ndomain: x.example.com\nstate: {url: sqlite://state/state.db}\n"
IN_CLUSTER = "source: {kubernetes: {config_map: heim-configuration, account: account}}\n"
MOUNTED = "source: {file: {path: document}}\n"


def written(directory: Path, text: str) -> Path:
    (directory / "state").mkdir(exist_ok=True)
    file = directory / "heim.yaml"
    file.write_text(text)
    return file


async def test_a_file_without_source_is_all(tmp_path: Path) -> None:
    source = open_source(written(tmp_path, GOOD))
    assert isinstance(source, FileSource)
    assert source.boot is None


async def test_a_cluster_is_followed_in_the_namespace_of_the_pod(tmp_path: Path) -> None:
    account_folder(tmp_path / "account")
    source = open_source(written(tmp_path, HEAD + IN_CLUSTER))
    assert isinstance(source, LayeredSource)
    assert source.name.endswith("with ConfigMap heim/heim-configuration")
    assert source.boot.domain == "x.example.com"
    await source.close()


async def test_a_namespace_that_is_written_goes_first(tmp_path: Path) -> None:
    text = HEAD + IN_CLUSTER.replace("account: account", "account: account, namespace: other")
    source = open_source(written(tmp_path, text))
    assert source.name.endswith("with ConfigMap other/heim-configuration")


async def test_without_a_namespace_nothing_can_be_followed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"source\.kubernetes\.namespace: service account: "):
        open_source(written(tmp_path, HEAD + IN_CLUSTER))


async def test_mounted_files_are_followed(tmp_path: Path) -> None:
    source = open_source(written(tmp_path, HEAD + MOUNTED))
    assert isinstance(source, LayeredSource)
    assert source.secrets == tmp_path / "document"


@pytest.mark.parametrize("text", ["", HEAD + MOUNTED + "drane: 1s\n"], ids=["empty", "misspelt"])
async def test_a_boot_file_with_mistakes_is_reported_like_any_other(
    tmp_path: Path, text: str
) -> None:
    source = open_source(written(tmp_path, text))
    assert isinstance(await anext(source.updates()), Rejected)
