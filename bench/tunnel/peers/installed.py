"""Programs that no Debian package has: on the PATH, or where cargo put them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from bench.tunnel.peers.base import Missing

__all__ = ["find"]


def find(name: str) -> str:
    """The program's path. `HEIM_BENCH_BIN` names one more directory to look in.

    Raises:
        Missing: It is not there.
    """
    extra = os.environ.get("HEIM_BENCH_BIN", "")
    places = [os.environ.get("PATH", ""), str(Path.home() / ".cargo" / "bin"), extra]
    found = shutil.which(name, path=os.pathsep.join(place for place in places if place))
    if found is None:
        raise Missing(f"{name}: cargo install {name}")
    return found
