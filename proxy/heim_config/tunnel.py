"""What people reach with `heim-tunnel`: the limits of TCP over https."""

from __future__ import annotations

from pydantic import Field

from heim_config.fields import Section, Whole

__all__ = ["Tunnel"]


class Tunnel(Section):
    """Limits of TCP streams. What may be reached is said by backends with `tcp`."""

    streams_per_user: Whole = Field(default=256, ge=1, le=65535)
    """How many streams one user, or one service account, may have open at a time, over all
    backends and devices; one more is refused as busy. Default 256: an editor with a remote
    workspace opens a few dozen, and a program in a loop takes no more from the others."""
