"""`python -m heim_controller`."""

from __future__ import annotations

import sys

from heim_controller.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
