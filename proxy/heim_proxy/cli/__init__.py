"""`heim-proxy`: the command line. Each command imports what it needs when it runs."""

from __future__ import annotations

from heim_proxy.cli.main import main

__all__ = ["main"]
