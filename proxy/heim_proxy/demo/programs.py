"""Where this installation's programs are, for what the demo prints and starts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Programs"]


@dataclass(frozen=True, slots=True)
class Programs:
    """What starts each program, from the directory in which the demo was started."""

    proxy: str
    tunnel: str
    agent: str

    @classmethod
    def beside(cls, started: str) -> Programs:
        """Those of the installation that `started` (argv[0] of heim-proxy) belongs to.

        Never a bare name, which a shell would look for in PATH, where it need not be; except of a
        program that is not installed there.
        """
        proxy = shutil.which(started) or str(Path(started).absolute())

        def find(name: str) -> str:
            beside = Path(proxy).absolute().with_name(name)
            return str(beside) if beside.exists() else name

        return cls(proxy, find("heim-tunnel"), find("heim-agent"))
