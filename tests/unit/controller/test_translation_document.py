"""The document as bytes, and what a proxy that loads it says."""

from __future__ import annotations

import json

import pytest

from heim_controller.translation.document import canonical, digest
from tests.fakes.kube_objects import ingress, path, role, rule, translated, web


def test_equal_content_is_equal_bytes() -> None:
    assert canonical({"b": 1, "a": [{"y": "ü", "x": True}]}) == (
        b'{"a":[{"x":true,"y":"\\u00fc"}],"b":1}'
    )


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
    assert b"\n" not in canonical(found.document)
    assert not any(one.get("public") for one in again["backends"])


def test_routes_are_in_order() -> None:
    made = ingress("shop/web", rule("a.test", "/b", "/", path("/b", kind="Exact"), "/a"))
    [found] = translated(*web("shop"), made).document["backends"]
    assert [(one["path"], one.get("match")) for one in found["http"]] == [
        ("/", None), ("/a", None), ("/b", None), ("/b", "exact")
    ]  # fmt: skip
