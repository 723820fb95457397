"""From a configuration file's path to the source that it asks for."""

from __future__ import annotations

from pathlib import Path

from heim_config.layers import Boot, combine, read_boot, read_document
from heim_config.model import Config
from heim_config.problems import ConfigError, Problem
from heim_config.source import KubernetesObjects
from heim_proxy.sources.account import ACCOUNT_FOLDER, Account, AccountError
from heim_proxy.sources.api import Api
from heim_proxy.sources.base import Source
from heim_proxy.sources.document import IncompleteError, Sheet
from heim_proxy.sources.file import FileSource
from heim_proxy.sources.kept import KeptCopy
from heim_proxy.sources.kubernetes import KubernetesFeed
from heim_proxy.sources.layered import LayeredSource
from heim_proxy.sources.mounted import MountedFeed, read_mounted
from heim_proxy.sources.secrets import SecretFolder, folder_for

__all__ = ["last_known", "open_source"]


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
        return LayeredSource(boot, feed, _kept(boot, feed.name))
    wanted = source.kubernetes
    assert wanted is not None
    account = Account(wanted.account or ACCOUNT_FOLDER)
    folder = SecretFolder(folder_for(f"{boot.file.absolute()} {wanted.config_map}"))
    namespace = wanted.namespace or _namespace(account, path)
    objects = KubernetesFeed(Api(account), namespace, wanted.config_map, folder)
    return LayeredSource(boot, objects, _kept(boot, _named(wanted)))


def last_known(boot: Boot) -> Config:
    """The configuration with the document that is in force, for commands beside a running proxy.

    That is the copy it keeps beside its state, or the mounted files before there is one.

    Raises:
        ConfigError: There is none, or it cannot be used.
    """
    source = boot.source
    if source is None:
        return boot.config
    sheet: Sheet | None
    if source.file is not None:
        name = str(source.file.path)
        sheet = _kept(boot, name).read()
        if sheet is None:
            try:
                sheet = read_mounted(source.file.path)
            except IncompleteError as error:
                raise ConfigError([Problem(name, None, "", str(error))]) from error
    else:
        assert source.kubernetes is not None
        name = _named(source.kubernetes)
        sheet = _kept(boot, name).read()
    if sheet is None:
        text = "no document was ever in force here; start the proxy, or run this beside its state"
        raise ConfigError([Problem(name, None, "", text)])
    document = read_document(sheet.content, name=name)
    return combine(boot, document, name=name, check_files=False)


def _kept(boot: Boot, source: str) -> KeptCopy:
    return KeptCopy(boot.config.state.path.parent, source)


def _named(wanted: KubernetesObjects) -> str:
    """The document by what the boot file says of it: the namespace may only be known in a pod."""
    return f"ConfigMap {wanted.namespace or '(of the pod)'}/{wanted.config_map}"


def _namespace(account: Account, path: Path) -> str:
    try:
        return account.namespace()
    except AccountError as error:
        hint = "write namespace"
        where = "source.kubernetes.namespace"
        raise ConfigError([Problem(str(path), None, where, str(error), hint)]) from error
