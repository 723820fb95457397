"""Objects as plain dicts: nothing that is missing or of the wrong kind raises."""

from __future__ import annotations

from heim_controller.translation.objects import (
    Ref,
    annotations_of,
    generation,
    labels_of,
    listed,
    mapping,
    metadata,
    seniority,
    text,
)
from tests.fakes.kube_objects import at, ingress


def test_what_is_missing_is_empty() -> None:
    assert dict(metadata({})) == {}
    assert dict(labels_of({"metadata": None})) == {}
    assert dict(annotations_of({"metadata": {"annotations": []}})) == {}
    assert dict(mapping("x")) == {}
    assert listed({"a": 1}) == []
    assert text(None) == ""


def test_the_older_one_comes_first_then_the_name() -> None:
    made = [("b/x", at(1)), ("a/y", at(2)), ("a/x", at(2)), ("a/a", None)]
    found = []
    for name, created in made:
        space, bare = name.split("/")
        found.append(seniority(ingress(name, created=created), (space, bare), "Ingress"))
    assert [one[1] for one in sorted(found)] == ["b/x", "a/x", "a/y", "a/a"]


def test_the_generation_is_a_number() -> None:
    assert generation(ingress("a/b")) == 1
    assert generation({}) == 0
    assert generation({"metadata": {"generation": "2"}}) == 0


def test_an_object_is_shown_with_its_kind() -> None:
    assert str(Ref("Ingress", "shop", "web")) == "Ingress shop/web"
    assert str(Ref("IngressClass", "", "heim")) == "IngressClass heim"
