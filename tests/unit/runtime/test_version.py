from __future__ import annotations

import re
from importlib import metadata

from heim_runtime.version import version


def test_the_version_is_the_installed_one() -> None:
    assert version() == metadata.version("heim")
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", version())
