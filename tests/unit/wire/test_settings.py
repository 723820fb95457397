from __future__ import annotations

from heim_wire.settings import Settings


def test_defaults_are_those_of_the_protocol() -> None:
    limits = Settings()
    assert (limits.window, limits.max_window) == (256 * 1024, 16 * 1024**2)
    assert limits.session_window == 64 * 1024**2
    assert limits.max_streams == 1024
    assert limits.quiet == 10


def test_each_limit_can_be_chosen() -> None:
    limits = Settings(window=1, max_window=2, session_window=3, max_streams=0, quiet=20)
    chosen = (limits.window, limits.max_window, limits.session_window, limits.max_streams)
    assert chosen == (1, 2, 3, 0)
    assert limits.quiet == 20
