"""The document as bytes, and what a proxy that loads it says."""

from __future__ import annotations

import json

import pytest

from heim_controller.translation.document import canonical, digest
from heim_runtime.kept import Kept
from tests.fakes.kube_objects import ingress, path, role, rule, translated, web


def test_equal_content_is_equal_bytes() -> None:
    assert canonical({"b": 1, "a": [{"y": "ü", "x": True}]}) == (
        b'{"a":[\n{"x":true,"y":"\\u00fc"}\n],"b":1}'
    )


def test_every_item_has_a_line_of_its_own_and_nothing_else_ends_one() -> None:
    document = {"a": [], "b": [{"x": [1, 2]}, {"x": "\n"}], "tls": {"c": [{"d": 1}, {"d": 2}]}}
    content = canonical(document)
    assert json.loads(content) == document
    assert content.split(b"\n") == [
        b'{"a":[],"b":[',
        b'{"x":[1,2]},',
        b'{"x":"\\n"}',
        b'],"tls":{"c":[',
        b'{"d":1},',
        b'{"d":2}',
        b"]}}",
    ]


def test_what_was_written_before_is_not_written_again() -> None:
    texts: Kept[int, tuple[object, str]] = Kept()
    first, second = {"x": 1}, {"x": 2}
    before = canonical({"a": [first, second]}, texts)
    assert {one[0]["x"] for one in texts.before.values()} == {1, 2}  # type: ignore[index]
    assert canonical({"a": [first, second]}, texts) == before
    # It is the very same object that counts, and never what stands at its address later.
    assert canonical({"a": [{"x": 3}]}, texts) == b'{"a":[\n{"x":3}\n]}'
    assert len(texts.before) == 1


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": float("nan")})


def test_the_digest_names_the_content() -> None:
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_nothing_of_a_value_leaves_its_place() -> None:
    nasty = 'x"\n  - name: evil\n    public: true #'
    made = ingress("shop/web", rule("a.test", path(f"/{nasty}")), notes={"roles": nasty})
    found = translated(*web("shop"), role("shop/viewers"), made)
    again = json.loads(canonical(found.document))
    assert again == found.document
    assert len(canonical(found.document).split(b"\n")) == 3
    assert not any(one.get("public") for one in again["backends"])


def test_routes_are_in_order() -> None:
    made = ingress("shop/web", rule("a.test", "/b", "/", path("/b", kind="Exact"), "/a"))
    [found] = translated(*web("shop"), made).document["backends"]
    assert [(one["path"], one.get("match")) for one in found["http"]] == [
        ("/", None), ("/a", None), ("/b", None), ("/b", "exact")
    ]  # fmt: skip
