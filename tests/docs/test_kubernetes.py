"""Manifests of the Kubernetes reference are what the translation takes, to the last field."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from heim_controller.translation import policy
from tests.docs.pages import page
from tests.docs.snippets import NOT_HEIM
from tests.fakes.kube_objects import (
    at,
    certificate,
    endpoint_slice,
    loaded,
    reasons,
    service,
    translated,
)

PAGE = page("docs/reference/kubernetes-mapping.md")


def manifests(namespace: str) -> list[dict[str, Any]]:
    """What the page shows in a namespace, as an API server would keep it."""
    made = [yaml.safe_load(fence.text) for fence in PAGE.of("yaml")]
    assert all(fence.first_line == NOT_HEIM for fence in PAGE.of("yaml"))
    kept = {"creationTimestamp": at(0), "generation": 1}
    return [
        {**one, "metadata": {**one["metadata"], **kept}}
        for one in made
        if one["metadata"]["namespace"] == namespace
    ]


SURROUNDINGS = [
    service("monitoring/grafana"), endpoint_slice("monitoring/grafana", "10.1.0.1", port=3000),
    certificate("monitoring/grafana-tls", "grafana.example.com"),
    service("docs/wiki"), endpoint_slice("docs/wiki", "10.1.0.2"),
    service("docs/wiki-db", {"port": 5432}), endpoint_slice("docs/wiki-db", "10.1.0.3", port=5432),
]  # fmt: skip


@pytest.mark.parametrize("namespace", ["monitoring", "docs"])
def test_manifests_are_served_without_a_complaint(namespace: str) -> None:
    found = translated(SURROUNDINGS, manifests(namespace))
    assert reasons(found) == []
    assert len(found.document["backends"]) == 1
    assert found.document["roles"]
    loaded(found)


def test_the_document_that_is_shown_is_what_comes_out() -> None:
    [shown] = PAGE.of("json")
    found = translated(SURROUNDINGS, manifests("monitoring"))
    expected = json.loads(shown.text)
    assert {key: found.document[key] for key in expected} == expected


def test_every_setting_of_a_proxy_is_explained() -> None:
    text = PAGE.text[PAGE.text.index("## The Proxy") :]
    for key in ("domain", "loginHost", "certificates", "defaultRoles", "defaultAuth",
                "backendSelector", "roleSelector", "allowPublic", "allowCatchAll",
                "hostOwnership", "hostSuffixes", "externalName"):  # fmt: skip
        assert key in text
    assert policy.HOST_SUFFIXES in PAGE.text
