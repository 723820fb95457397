"""`python -m heim_agent`: the same as `heim-agent`."""

from __future__ import annotations

import sys

from heim_agent.cli import main

if __name__ == "__main__":
    sys.exit(main())
