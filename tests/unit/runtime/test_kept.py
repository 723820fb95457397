from __future__ import annotations

from heim_runtime.kept import Kept


def test_a_value_lives_as_long_as_each_round_uses_it() -> None:
    kept: Kept[str, int] = Kept()
    kept.now["a"], kept.now["b"] = 1, 2
    assert dict(kept.before) == {}
    kept.turn()
    assert dict(kept.before) == {"a": 1, "b": 2}
    kept.now["b"] = kept.before["b"]
    kept.turn()
    assert dict(kept.before) == {"b": 2}
    kept.turn()
    assert dict(kept.before) == {}


def test_what_is_cleared_is_gone() -> None:
    kept: Kept[str, int] = Kept()
    kept.now["a"] = 1
    kept.turn()
    kept.now["b"] = 1
    kept.clear()
    assert dict(kept.before) == kept.now == {}
