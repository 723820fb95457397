"""Names of objects in the configuration: no two share one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from heim_controller.translation.names import (
    MAX_CHARS,
    ingress_name,
    is_label,
    is_object_key,
    own_name,
)

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(".".join)


def test_names_say_what_and_where() -> None:
    assert ingress_name("shop", "web") == "ingress.shop.web"
    assert ingress_name("shop", "web", plain=True) == "ingress-plain.shop.web"
    assert own_name("shop", "web") == "shop.web"


@given(LABELS, NAMES, LABELS, NAMES)
def test_two_objects_never_share_a_name(a: str, b: str, c: str, d: str) -> None:
    same = (a, b) == (c, d)
    assert (ingress_name(a, b) == ingress_name(c, d)) is same
    assert ingress_name(a, b) != ingress_name(c, d, plain=True)
    if "." not in d:
        assert ingress_name(a, b) != own_name(c, d)


def test_a_long_name_is_cut_and_still_its_own() -> None:
    space = "a" * 63
    one, two = "b" * 252 + "x", "b" * 252 + "y"
    found = ingress_name(space, one)
    assert len(found) == MAX_CHARS
    assert found != ingress_name(space, two)
    assert found.startswith(f"ingress-long.{space}.b")
    # Nobody's name written out begins like that: kinds are ours to choose.
    assert found != ingress_name(space, found.removeprefix(f"ingress.{space}."))


def test_labels_and_keys() -> None:
    assert is_label("a-1")
    assert not any(map(is_label, ("", "A", "a.b", "-a", "a\n", "a" * 64, 1, None)))
    assert is_object_key("shop", "web.v1")
    wrong = [("Shop", "web"), ("shop", ""), ("", "web"), ("sh.op", "web"), ("shop", "web\n")]
    assert not any(is_object_key(*one) for one in [*wrong, ("shop", "a..b"), ("shop", "a" * 254)])
