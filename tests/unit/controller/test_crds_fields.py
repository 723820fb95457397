"""The fields of our kinds are those that the controller reads, and there are no others.

Objects that remember what is asked of them go through the whole translation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from heim_controller.crds.manifests import KINDS
from heim_controller.issuing import certificate_of
from tests.fakes.kube_objects import (
    SETTINGS,
    agent,
    backend,
    binding,
    proxy,
    role,
    translated,
    web,
)
from tests.fakes.kube_schema import complaints, parts, schema_of
from tests.unit.controller.test_crds_access import GOOD as ACCESS
from tests.unit.controller.test_crds_backend import GOOD as BACKENDS
from tests.unit.controller.test_crds_proxy import GOOD as PROXIES

# A selector is one thing, with tests of its own.
SELECTORS = ("matchLabels", "matchExpressions")
# Read by nothing that translates: by kubectl, for people; and by `leading`, see its own tests.
ELSEWHERE = {"Role": {"title", "description"}, "Proxy": {"maxRouteDropPercent"}}


class Watched(dict[str, Any]):
    """A mapping that notes which keys are asked for."""

    def __init__(self, value: dict[str, Any], at: str, asked: set[str]) -> None:
        super().__init__({key: _watched(inner, self._below(at, key), asked)
                          for key, inner in value.items()})  # fmt: skip
        self._at, self._asked = at, asked

    @staticmethod
    def _below(at: str, key: str) -> str:
        return f"{at}.{key}" if at else key

    def __deepcopy__(self, memo: object) -> Watched:
        return self

    def _note(self, key: object) -> None:
        self._asked.add(self._below(self._at, str(key)))

    def get(self, key: Any, default: Any = None) -> Any:
        self._note(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self._note(key)
        return super().__contains__(key)

    def items(self) -> Any:
        self._asked.add(f"{self._at}{{}}")
        return super().items()


def _watched(value: Any, at: str, asked: set[str]) -> Any:
    if isinstance(value, dict):
        return Watched(value, at, asked)
    if isinstance(value, list):
        return [_watched(one, f"{at}[]", asked) for one in value]
    return value


def watched(made: dict[str, Any], asked: dict[str, set[str]]) -> dict[str, Any]:
    spec = Watched(made["spec"], "spec", asked.setdefault(made["kind"], set()))
    return {**made, "spec": spec}


def samples() -> Iterator[list[dict[str, Any]]]:
    """Good objects of every kind; each list is a cluster of its own."""
    for spec in PROXIES.values():
        yield [proxy(**spec), backend("shop/web", **BACKENDS["one route"]), role("shop/viewers")]
    for access in ACCESS.values():
        yield [access, role("shop/viewers"), backend("shop/wiki", **BACKENDS["permissions"])]
    for spec in BACKENDS.values():
        yield [
            backend("shop/web", **spec), agent("shop/desktop", "ssh", group=True),
            proxy(ingress={"allowPublic": {}, "externalName": "Allowed"}),
        ]  # fmt: skip


@pytest.fixture(scope="module")
def asked() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for made in samples():
        assert [said for one in made for said in complaints(one)] == []
        seen = [watched(one, found) for one in made]
        translated(seen, web("shop"))
        for one in seen:
            if one["kind"] == "Proxy":
                kept = {**one["metadata"], "uid": "1"}
                whole = {"apiVersion": "heim.dev/v1alpha1", **one, "metadata": kept}
                certificate_of(whole, SETTINGS)
    return found


def fields(kind: str) -> set[str]:
    """Every field below spec, in the notation of `asked`."""
    spec = schema_of(kind)["properties"]["spec"]
    found = {f"spec.{at}" for at, _ in parts(spec) if at}
    return without_selectors({at for at in found if not at.endswith("[]")})


def without_selectors(found: set[str]) -> set[str]:
    return {at for at in found if not any(word in at for word in SELECTORS)}


@pytest.mark.parametrize("kind", [kind.resource.kind for kind in KINDS])
def test_every_field_is_read(kind: str, asked: dict[str, set[str]]) -> None:
    unread = fields(kind) - asked[kind] - {f"spec.{one}" for one in ELSEWHERE.get(kind, ())}
    assert unread == set()


@pytest.mark.parametrize("kind", [kind.resource.kind for kind in KINDS])
def test_every_field_that_is_read_is_there(kind: str, asked: dict[str, set[str]]) -> None:
    assert without_selectors(asked[kind]) - fields(kind) == set()


def test_a_field_that_nobody_reads_would_be_noticed() -> None:
    seen: dict[str, set[str]] = {}
    watched(binding("a/b", "c"), seen)
    assert seen["RoleBinding"] == set()
