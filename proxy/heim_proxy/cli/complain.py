"""How commands say that a configuration cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path

from heim_config.layers import read_boot
from heim_config.model import Config
from heim_config.problems import ConfigError
from heim_proxy.sources.known import last_known

__all__ = ["complain", "load_or_complain"]


def complain(error: ConfigError) -> int:
    """Print every problem on stderr; returns the exit status of an unusable configuration."""
    for problem in error.problems:
        print(problem, file=sys.stderr)
    count = len(error.problems)
    print(f"{count} {'mistake' if count == 1 else 'mistakes'} found", file=sys.stderr)
    return 2


def load_or_complain(path: str, *, check_files: bool = True, whole: bool = True) -> Config | int:
    """The configuration, or the exit status after its mistakes were printed.

    With a `source` it is the one that the proxy beside us has in force; without one in force the
    boot file's, unless the `whole` is needed.
    """
    try:
        boot = read_boot(Path(path), check_files=check_files)
    except ConfigError as error:
        return complain(error)
    try:
        return last_known(boot)
    except ConfigError as error:
        return complain(error) if whole else boot.config
