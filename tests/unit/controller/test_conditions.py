"""Conditions of our own kinds."""

from __future__ import annotations

from typing import Any

import pytest

from heim_controller.conditions import (
    Programming,
    Standing,
    conditions_of,
    proxy_conditions,
)
from heim_controller.translation.diagnostics import Diagnostic
from heim_controller.translation.objects import Ref
from heim_controller.translation.reasons import REASONS
from heim_controller.translation.translate import Served

REF = Ref("Backend", "shop", "web")
PROXY = Ref("Proxy", "heim", "main")


def said(reason: str, message: str = "so it is", field: str = "") -> Diagnostic:
    severity = REASONS[reason].severity.value
    return Diagnostic("Backend", "shop", "web", reason, message, severity, field)


def current(kind: str = "", status: str = "True", generation: int = 3) -> dict[str, Any]:
    entry = {"type": kind, "status": status, "observedGeneration": generation}
    return {"status": {"conditions": [entry]}} if kind else {}


def applied(generation: int = 3) -> Programming:
    found = Programming()
    found.published("d", [Served(REF, generation)])
    found.applied("d")
    return found


def made(
    served: Served, *told: Diagnostic, programming: Programming | None = None, **more: Any
) -> dict[str, tuple[str, str]]:
    found = conditions_of(served, told, programming or Programming(), more.get("current", {}))
    return {one["type"]: (one["status"], one["reason"]) for one in found}


def test_what_is_fine_and_applied_is_told_so() -> None:
    assert made(Served(REF, 3), programming=applied()) == {
        "Accepted": ("True", "Accepted"),
        "ResolvedRefs": ("True", "ResolvedRefs"),
        "Programmed": ("True", "Programmed"),
    }


def test_what_is_not_accepted_is_not_programmed() -> None:
    found = made(Served(REF, 3, accepted=False), said("InvalidSpec"), programming=applied())
    assert found["Accepted"] == ("False", "InvalidSpec")
    assert found["Programmed"] == ("False", "NotAccepted")


def test_what_points_nowhere_is_accepted() -> None:
    found = made(Served(REF, 3, resolved=False), said("ServiceNotFound"))
    assert found["Accepted"][0] == "True"
    assert found["ResolvedRefs"] == ("False", "ServiceNotFound")


def test_remarks_stand_beside_what_is_accepted() -> None:
    [accepted, *_] = conditions_of(Served(REF, 3), [said("NoRoles")], Programming(), {})
    assert (accepted["status"], accepted["message"]) == ("True", "so it is")


def test_messages_name_places_and_are_not_endless() -> None:
    told = [said("InvalidSpec", f"m{number}", "spec.x") for number in range(8)]
    [accepted, *_] = conditions_of(Served(REF, 3, accepted=False), told, Programming(), {})
    assert accepted["message"].startswith("m0 (spec.x); m1 (spec.x)")
    assert accepted["message"].endswith("and 3 more")


@pytest.mark.parametrize(
    ("found", "programming", "status"),
    [
        pytest.param({}, Programming(), "Unknown", id="not seen yet"),
        pytest.param({}, applied(2), "Unknown", id="an older generation is in force"),
        pytest.param(current("Programmed"), Programming(), "True", id="it was before a restart"),
        pytest.param(
            current("Programmed", generation=2), Programming(), "Unknown", id="its spec changed"
        ),
        pytest.param(current("Programmed", "False"), applied(), "True", id="it came into force"),
    ],
)
def test_an_object_stays_programmed_until_its_own_generation_changes(
    found: dict[str, Any], programming: Programming, status: str
) -> None:
    assert made(Served(REF, 3), programming=programming, current=found)["Programmed"][0] == status


def test_another_document_applies_nothing() -> None:
    programming = Programming()
    programming.published("new", [Served(REF, 4)])
    for digest in ("old", ""):
        programming.applied(digest)
        assert not programming.has(REF, 4)
    programming.applied("new")
    assert programming.has(REF, 4)
    # A later document does not put what is in force in question.
    programming.published("newer", [Served(REF, 4)])
    assert programming.has(REF, 4)


@pytest.mark.parametrize(
    ("standing", "found", "expected"),
    [
        pytest.param(Standing(), {}, ("Unknown", "Pending"), id="nothing is known"),
        pytest.param(Standing("a", "a"), {}, ("True", "Applied"), id="in force"),
        pytest.param(Standing("b", "a"), {}, ("Unknown", "Pending"), id="on its way"),
        pytest.param(
            Standing("b", "a"), current("Ready"), ("True", "Applied"), id="a change on its way"
        ),
        pytest.param(
            Standing("b", "a", trouble="refused"),
            current("Ready"),
            ("False", "NotApplied"),
            id="it takes too long",
        ),
        pytest.param(
            Standing("a", "a", refused="too many"),
            current("Ready"),
            ("False", "NotPublished"),
            id="not published",
        ),
    ],
)
def test_a_proxy_is_ready_when_it_serves_what_the_cluster_says(
    standing: Standing, found: dict[str, Any], expected: tuple[str, str]
) -> None:
    told = {one["type"]: one for one in proxy_conditions(Served(PROXY, 1), (), standing, found)}
    assert set(told) == {"Accepted", "ResolvedRefs", "Ready"}
    assert (told["Ready"]["status"], told["Ready"]["reason"]) == expected
    assert told["Ready"].get("message", "") in (
        "", standing.trouble, standing.refused, "the proxy has not applied it yet",
    )  # fmt: skip
