from __future__ import annotations

from typing import Any

import pytest

from heim_proxy.edge.challenge import challenge, challenge_head
from heim_proxy.routing import Endpoint
from tests.fakes.snapshots import app, configured, snapshot
from tests.unit.edge.heads import HOST, parsed

TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
PATH = f"/.well-known/acme-challenge/{TOKEN}"
CONFIGURED = snapshot(
    configured(
        [app()],
        acme_challenges=[
            {"host": HOST, "token": TOKEN, "upstreams": ["http://10.0.0.1:8089"]},
            {"host": "other.test", "token": f"{TOKEN}x", "upstreams": ["http://10.0.0.2:8089"]},
        ],
    )
)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("host", [HOST, HOST.upper(), f"{HOST}:80", f"{HOST}."])
def test_exactly_the_path_on_its_host_is_a_challenge(method: str, host: str) -> None:
    found = challenge(parsed(PATH, method=method, host=host), CONFIGURED)
    assert found is not None
    name, route = found
    assert name == HOST
    assert route.endpoints == (Endpoint("http", "10.0.0.1", 8089),)
    assert route.backend.challenge
    assert not route.backend.dialects
    assert not route.backend.upgrades


OTHERS: dict[str, dict[str, Any]] = {
    "method": {"method": "POST"},
    "options": {"method": "OPTIONS"},
    "token-of-another-host": {"target": f"{PATH}x"},
    "host-of-another-token": {"host": "other.test"},
    "query": {"target": f"{PATH}?"},
    "encoded": {"target": PATH.replace("L", "%4C")},
    "dots": {"target": f"/x/..{PATH}"},
    "slash": {"target": f"{PATH}/"},
    "absolute": {"target": f"http://{HOST}{PATH}"},
    "body": {"headers": ("Content-Length: 1",)},
    "chunked": {"headers": ("Transfer-Encoding: chunked",)},
    "upgrade": {"headers": ("Connection: upgrade", "Upgrade: h2c")},
    "http-1.0": {"version": "HTTP/1.0"},
    "user-info": {"host": f"x@{HOST}"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_nothing_else_is(other: dict[str, Any]) -> None:
    assert challenge(parsed(other.pop("target", PATH), **other), CONFIGURED) is None


def test_an_empty_body_is_none() -> None:
    assert challenge(parsed(PATH, headers=("Content-Length: 0",)), CONFIGURED) is not None


def test_what_is_sent_names_the_host_and_nobody() -> None:
    head = parsed(
        PATH,
        host=f"{HOST.upper()}:80",
        headers=(
            "Cookie: a=1",
            "Authorization: Bearer x",
            "X-Forwarded-For: 1.2.3.4",
            "user-agent: check",
            "X-Any: 1",
        ),
    )
    sent = challenge_head(head, path=PATH.encode(), host=HOST)
    assert sent.decode() == f"GET {PATH} HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: check\r\n\r\n"
    bare = challenge_head(parsed(PATH, method="HEAD"), path=PATH.encode(), host=HOST)
    assert bare.decode() == f"HEAD {PATH} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
