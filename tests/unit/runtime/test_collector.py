from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from heim_runtime.collector import LARGE, paused, settle, without_collecting


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """Begin with nothing in view: all the other tests are half a million objects to walk over."""
    gc.freeze()
    yield
    gc.freeze()
    gc.enable()


def test_nothing_is_collected_while_something_is_made() -> None:
    with without_collecting():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_is_large_is_never_walked_again() -> None:
    before = gc.get_freeze_count()
    with without_collecting():
        made: list[list[int]] = [[] for _ in range(2 * LARGE)]
    assert gc.get_freeze_count() >= before + 2 * LARGE
    del made


def test_what_is_small_stays_in_view() -> None:
    before = gc.get_freeze_count()
    with without_collecting():
        made: list[list[int]] = [[] for _ in range(100)]
    assert gc.get_freeze_count() <= before
    del made


def test_what_is_left_of_a_failure_stays_in_view() -> None:
    before = gc.get_freeze_count()
    made: list[list[int]] = []

    def fail() -> None:
        with without_collecting():
            made.extend([] for _ in range(2 * LARGE))
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert gc.get_freeze_count() <= before
    assert gc.isenabled()


def test_it_is_on_again_when_the_last_of_several_has_ended() -> None:
    begun, end = threading.Event(), threading.Event()

    def other() -> None:
        with without_collecting():
            begun.set()
            end.wait(4)

    thread = threading.Thread(target=other)
    thread.start()
    assert begun.wait(4)
    with without_collecting():
        pass
    assert not gc.isenabled()
    end.set()
    thread.join()
    assert gc.isenabled()


def test_a_pause_is_a_pause_and_ends_as_it_began() -> None:
    with paused():
        assert not gc.isenabled()
        with paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="no"), paused():
        raise ValueError("no")
    assert gc.isenabled()


def test_what_has_settled_is_not_walked_and_garbage_goes_first() -> None:
    class Knot:
        def __init__(self) -> None:
            self.me = self

    seen = weakref.ref(Knot())
    before = gc.get_freeze_count()
    settle()
    assert seen() is None
    assert gc.get_freeze_count() > before
