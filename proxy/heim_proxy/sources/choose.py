"""From a configuration file's path to the source that it asks for."""

from __future__ import annotations

from pathlib import Path

from heim_config.layers import read_boot
from heim_config.problems import ConfigError, Problem
from heim_proxy.sources.account import ACCOUNT_FOLDER, Account, AccountError
from heim_proxy.sources.api import Api
from heim_proxy.sources.base import Source
from heim_proxy.sources.file import FileSource
from heim_proxy.sources.known import kept_copy
from heim_proxy.sources.kubernetes import KubernetesFeed
from heim_proxy.sources.layered import LayeredSource
from heim_proxy.sources.mounted import MountedFeed
from heim_proxy.sources.secrets import SecretFolder, folder_for

__all__ = ["open_source"]


def open_source(path: Path) -> Source:
    """The source of the configuration at `path`; call it in the event loop.

    Raises:
        ConfigError: It has a source and cannot be used, or its source cannot.
    """
    try:
        boot = read_boot(path)
    except ConfigError:
        # Reported by the source, as it reports every later mistake.
        return FileSource(path)
    source = boot.source
    if source is None:
        return FileSource(path)
    if source.file is not None:
        feed = MountedFeed(source.file.path, source.file.secrets_directory)
        return LayeredSource(boot, feed, kept_copy(boot))
    wanted = source.kubernetes
    assert wanted is not None
    account = Account(wanted.account or ACCOUNT_FOLDER)
    folder = SecretFolder(folder_for(f"{boot.file.absolute()} {wanted.config_map}"))
    namespace = wanted.namespace or _namespace(account, path)
    objects = KubernetesFeed(Api(account), namespace, wanted.config_map, folder)
    return LayeredSource(boot, objects, kept_copy(boot))


def _namespace(account: Account, path: Path) -> str:
    try:
        return account.namespace()
    except AccountError as error:
        hint = "write namespace"
        where = "source.kubernetes.namespace"
        raise ConfigError([Problem(str(path), None, where, str(error), hint)]) from error
