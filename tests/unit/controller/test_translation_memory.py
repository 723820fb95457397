"""A translation that remembers gives what one from scratch gives, whatever happened before."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heim_controller.translation.document import canonical
from heim_controller.translation.memory import Memory
from heim_controller.translation.objects import Objects
from heim_controller.translation.translate import Translation, translate
from tests.fakes.kube_objects import (
    SETTINGS,
    agent,
    binding,
    certificate,
    cluster,
    endpoint_slice,
    ingress,
    ingress_class,
    namespace,
    path,
    role,
    rule,
    service,
    web,
)
from tests.fakes.thorough import examples
from tests.unit.controller.test_translation_translate import (
    COMMON,
    PROXIES,
    SPACES,
    backends,
    ingresses,
)

# What may come, or come instead of what has its name; what goes is drawn from what is there.
OTHERS: Final[st.SearchStrategy[Any]] = st.sampled_from([
    *PROXIES,
    *(one for space in SPACES for one in (
        service(f"{space}/web", clusterIP="None"), service(f"{space}/web"),
        service(f"{space}/web", {"name": "http", "port": 80, "appProtocol": "https"}),
        service(f"{space}/web", labels={"acme.cert-manager.io/http01-solver": "true"}),
        endpoint_slice(f"{space}/web", "10.1.0.1", "10.1.0.2"),
        endpoint_slice(f"{space}/web", "10.1.0.9", conditions={"ready": False}),
        endpoint_slice(f"{space}/empty", "10.3.0.1"),
        endpoint_slice(f"{space}/web", "10.1.0.3", suffix="more"),
        namespace(space, notes={"heim.dev/host-suffixes": "a.test"}), namespace(space, team="red"),
        agent(f"{space}/desk", "ssh"), agent(f"{space}/desk", "web", group=True),
        role(f"{space}/viewers", {"backend": "b0"}), binding(f"{space}/viewers", "viewers"),
        certificate(f"{space}/tls", "b.test"), certificate(f"{space}/tls", "a.test", problem="bad"),
    )),
    ingress_class(), ingress_class("other"),
])  # fmt: skip
_COMMON: Final[Any] = COMMON
STEPS: Final = st.one_of(
    ingresses(), ingresses(), backends(), OTHERS, OTHERS, st.integers(0, 999), st.none()
)


def changed(objects: Objects, step: Any) -> Objects:
    """The cluster after one step; every object that it is not about stays the very same one."""
    if step is None:
        # Everything was listed anew: equal objects, none of them the same.
        return copy.deepcopy(objects)
    kinds = {field.name: dict(getattr(objects, field.name)) for field in fields(objects)}
    if isinstance(step, int):
        there = sorted((kind, key) for kind, found in kinds.items() for key in found)
        kind, key = there[step % len(there)]
        del kinds[kind][key]
        return Objects(**kinds)
    one = cluster(step, bare=True)
    return Objects(**{kind: found | getattr(one, kind) for kind, found in kinds.items()})


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.one_of(ingresses(), backends()), max_size=5), st.lists(STEPS, max_size=8))
def test_any_sequence_of_changes_gives_what_a_fresh_translation_gives(
    first: list[Any], steps: list[Any]
) -> None:
    objects, memory = cluster(_COMMON, first, PROXIES[1]), Memory()
    owners: dict[str, str] = {}
    for step in [*steps, None]:
        fresh = translate(objects, SETTINGS, owners=owners, now=5.0)
        found = translate(objects, SETTINGS, owners=owners, now=5.0, memory=memory)
        assert found == fresh
        assert canonical(found.document, memory.texts) == canonical(fresh.document)
        owners = dict(found.owners)
        objects = changed(objects, step)


def several(count: int) -> Objects:
    return cluster(
        [one for i in range(count) for one in web("shop", f"web{i}")],
        [ingress(f"shop/i{i}", rule(f"{i}.test", path("/", f"web{i}"))) for i in range(count)],
        [endpoint_slice("shop/web1", "127.0.0.1", suffix="bad")],
    )


def after(objects: Objects, *steps: Any) -> tuple[Translation, Memory]:
    memory = Memory()
    found = translate(objects, SETTINGS, memory=memory)
    for step in steps:
        objects = changed(objects, step)
        found = translate(objects, SETTINGS, memory=memory)
        assert found == translate(objects, SETTINGS)
    return found, memory


def backends_by_name(found: Translation) -> dict[str, Any]:
    return {one["name"]: one for one in found.document["backends"]}


def test_what_did_not_change_is_the_same_object() -> None:
    objects, memory = several(3), Memory()
    first = backends_by_name(translate(objects, SETTINGS, memory=memory))
    moved = changed(objects, endpoint_slice("shop/web1", "10.7.7.7"))
    second = backends_by_name(translate(moved, SETTINGS, memory=memory))
    assert {name for name, one in second.items() if one is first[name]} == {
        "ingress.shop.i0",
        "ingress.shop.i2",
    }
    assert second["ingress.shop.i1"]["http"][0]["upstreams"] == ["http://10.7.7.7:8080"]


def test_what_was_said_of_an_object_is_said_again() -> None:
    found, _ = after(several(2), endpoint_slice("shop/web0", "10.7.7.7"))
    assert [(one.name, one.reason) for one in found.diagnostics if "Endpoint" in one.reason] == [
        ("i1", "EndpointNotAllowed")
    ]


def test_it_holds_what_the_last_translation_used_and_nothing_else() -> None:
    objects = several(5)
    _, memory = after(objects, ingress("shop/new", rule("new.test", path("/", "web0"))))
    assert len(memory.readings.before) == 6
    gone = replace(objects, ingresses={}, services={}, endpoint_slices={})
    translate(gone, SETTINGS, memory=memory)
    for kept in (memory.readings, memory.made, memory.services, memory.slices, memory.ours):
        assert not kept.before
        assert not kept.now


def test_a_translation_that_failed_leaves_nothing_half_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects, memory = several(2), Memory()
    translate(objects, SETTINGS, memory=memory)
    objects = changed(objects, ingress("shop/i1", rule("1.test", path("/x", "web0"))))
    with monkeypatch.context() as patch:
        patch.setattr("heim_controller.translation.translate.merge", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            translate(objects, SETTINGS, memory=memory)
    objects = changed(objects, endpoint_slice("shop/web0", "10.7.7.7"))
    assert translate(objects, SETTINGS, memory=memory) == translate(objects, SETTINGS)
    assert len(memory.readings.before) == 2


def test_services_that_are_asked_for_are_known() -> None:
    found, _ = after(several(2), ingress("shop/i9", rule("9.test", path("/", "gone"))))
    assert found.services == {("shop", "web0"), ("shop", "web1"), ("shop", "gone")}
    fewer, _ = after(several(2), ingress("shop/i1", rule("1.test", path("/", "web0"))))
    assert fewer.services == {("shop", "web0")}


def test_one_and_true_are_two_ports() -> None:
    """In Python they are equal; which of them was asked for first must not matter."""
    number = ingress("shop/a", rule("a.test", path("/", "web0", port=1)))
    truth = ingress("shop/b", rule("b.test", path("/", "web0", port=True)))
    ports = [service("shop/web0", {"port": 1}), endpoint_slice("shop/web0", "10.1.0.1")]
    forth = translate(cluster(number, truth, ports), SETTINGS)
    back = translate(cluster(truth, number, ports), SETTINGS)
    assert forth == back
    assert [(one.name, one.reason) for one in forth.diagnostics if one.reason != "NoRoles"] == [
        ("b", "PortNotFound")
    ]
