"""Routes made in code; how files spell them is in test_load, and through agents in test_agents."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from heim_config.hosts import Upstream
from heim_config.routes import HttpRoute

HERE = Upstream("http", "127.0.0.1", 3000)
THERE = Upstream("http", "127.0.0.1", 3001)


@pytest.mark.parametrize(
    ("keys", "endpoints"),
    [
        ({"upstream": HERE}, (HERE,)),
        ({"upstreams": (HERE, THERE)}, (HERE, THERE)),
        ({"agent": "desktop", "target": "web"}, ()),
    ],
)
def test_a_route_leads_to_upstreams_or_to_a_target(
    keys: dict[str, Any], endpoints: tuple[Upstream, ...]
) -> None:
    route = HttpRoute(path="/", **keys)
    assert route.endpoints == endpoints
    assert route.scheme == "http"


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"upstream": HERE, "upstreams": (THERE,)},
        {"upstream": HERE, "agent": "desktop", "target": "web"},
        {"upstreams": ()},
        {"agent": "desktop"},
        {"target": "web"},
        {"upstream": HERE, "target": "web"},
        {"upstream": HERE, "scheme": "http"},
        {"upstream": HERE, "match": "exact", "strip_prefix": True},
    ],
    ids=lambda keys: "+".join(keys) or "nothing",
)
def test_a_route_leads_to_one_place(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HttpRoute(path="/", **keys)
