"""Limits of a session that its owner chooses; everything else is fixed by the protocol."""

from __future__ import annotations

from heim_wire.liveness import QUIET

__all__ = ["Settings"]


class Settings:
    """Limits of one session; the defaults are the protocol's. Sizes in bytes.

    Attributes:
        window: What a stream may have on its way to us once it is open, memory permitting.
        max_window: How large that may grow on a fast and long path.
        session_window: All windows of the session together.
        max_streams: How many streams the peer may have open here; 0 on the `connect` leg, where
            the HTTP request was the only OPEN there is.
        quiet: Seconds of silence before a PING. Whoever has thousands of sessions waits for the
            peer's, which comes earlier: one exchange in 15 s instead of one in 10.
    """

    __slots__ = ("max_streams", "max_window", "quiet", "session_window", "window")

    def __init__(
        self,
        *,
        window: int = 262_144,
        max_window: int = 16_777_216,
        session_window: int = 67_108_864,
        max_streams: int = 1024,
        quiet: float = QUIET,
    ) -> None:
        self.window = window
        self.max_window = max_window
        self.session_window = session_window
        self.max_streams = max_streams
        self.quiet = quiet
