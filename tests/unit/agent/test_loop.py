from __future__ import annotations

import asyncio
import importlib.util

import pytest
import uvloop

from heim_agent.loop import loop_factory


def test_uvloop_is_used_where_it_is_installed() -> None:
    factory = loop_factory()
    assert factory is not None
    with asyncio.Runner(loop_factory=factory) as runner:
        assert isinstance(runner.get_loop(), uvloop.Loop)


def test_58_asyncio_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert loop_factory() is None
