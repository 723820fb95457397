from __future__ import annotations

import pytest

from heim_config.model import Config
from heim_config.removed import ABSENT, absent
from heim_config.validation import keys_of


@pytest.mark.parametrize("key", ABSENT)
def test_a_key_is_found_wherever_lists_put_it(key: str) -> None:
    loc: list[str | int] = []
    for part in key.split("."):
        loc += [part, 3] if part in ("backends", "providers") else [part]
    if isinstance(loc[-1], int):
        loc.pop()
    assert absent(tuple(loc)) is ABSENT[key]


def test_other_keys_are_not_known() -> None:
    assert absent(("drain",)) is None
    assert absent(()) is None


def test_no_key_of_the_model_is_called_absent() -> None:
    assert not set(keys_of(Config)) & set(ABSENT)
