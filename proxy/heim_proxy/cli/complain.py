"""How commands say that a configuration cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path

from heim_config.load import load_file
from heim_config.model import Config
from heim_config.problems import ConfigError

__all__ = ["complain", "load_or_complain"]


def complain(error: ConfigError) -> int:
    """Print every problem on stderr; returns the exit status of an unusable configuration."""
    for problem in error.problems:
        print(problem, file=sys.stderr)
    count = len(error.problems)
    print(f"{count} {'mistake' if count == 1 else 'mistakes'} found", file=sys.stderr)
    return 2


def load_or_complain(path: str, *, check_files: bool = True) -> Config | int:
    """The configuration, or the exit status after its mistakes were printed."""
    try:
        return load_file(Path(path), check_files=check_files)
    except ConfigError as error:
        return complain(error)
