"""What a proxy has in force, as far as commands beside it can know without asking anybody."""

from __future__ import annotations

from heim_config.layers import Boot, combine, read_document
from heim_config.model import Config
from heim_config.problems import ConfigError, Problem
from heim_config.source import Source
from heim_proxy.sources.document import IncompleteError
from heim_proxy.sources.kept import KeptCopy
from heim_proxy.sources.mounted import read_mounted

__all__ = ["kept_copy", "last_known"]


def kept_copy(boot: Boot) -> KeptCopy:
    """Where the document of a boot file with `source` is kept, beside the state."""
    assert boot.source is not None
    return KeptCopy(boot.config.state.path.parent, _name(boot.source))


def last_known(boot: Boot) -> Config:
    """The configuration with the document that was in force last.

    That is the copy that the proxy keeps beside its state, or the mounted files before there is
    one; the boot file's own configuration when it has no `source`.

    Raises:
        ConfigError: There is no document, or it cannot be used.
    """
    source = boot.source
    if source is None:
        return boot.config
    name = _name(source)
    sheet = kept_copy(boot).read()
    if sheet is None and source.file is not None:
        try:
            sheet = read_mounted(source.file.path)
        except IncompleteError as error:
            raise ConfigError([Problem(name, None, "", str(error))]) from error
    if sheet is None:
        text = "no document was ever in force here; start the proxy, or run this beside its state"
        raise ConfigError([Problem(name, None, "", text)])
    document = read_document(sheet.content, name=name)
    return combine(boot, document, name=name, check_files=False)


def _name(source: Source) -> str:
    """The document by what the boot file says of it: the namespace may only be known in a pod."""
    if source.file is not None:
        return str(source.file.path)
    assert source.kubernetes is not None
    wanted = source.kubernetes
    return f"ConfigMap {wanted.namespace or '(of the pod)'}/{wanted.config_map}"
