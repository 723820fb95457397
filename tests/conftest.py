"""What every test is spared: walks over all the others, and the logging of the one before."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` is: two more than there are processors, for tests wait half of their time."""
    return (os.cpu_count() or 1) + 2


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Half a million objects live as long as the run; the collector need not look at them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Programs set up the logging of their process, and tests call them in ours."""
    root = logging.getLogger()
    level, handlers, raises = root.level, root.handlers[:], logging.raiseExceptions
    try:
        return (yield)
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
        logging.raiseExceptions = raises


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that everybody may enter; `tmp_path` is inside one that nobody else may."""
    with TemporaryDirectory(dir="/tmp", prefix="heim-open-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
