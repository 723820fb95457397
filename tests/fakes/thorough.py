"""How often chance is asked: enough after every change, and very often in `make e2e`.

A property that is wrong fails for most of its examples, or for one in thousands. The first kind
must not take minutes to find, and the second is worth them before a release.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ["THOROUGH", "examples"]

THOROUGH: Final = os.environ.get("HEIM_THOROUGH") == "1"

FEWEST: Final = 25


def examples(thorough: int) -> int:
    """How many examples to make of a property that `thorough` of them would show."""
    return thorough if THOROUGH else max(thorough // 4, min(thorough, FEWEST))
