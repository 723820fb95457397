"""Which applications somebody may open, and where they begin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from heim_proxy.access.applications import Application
from tests.fakes.sessions import ALICE
from tests.fakes.snapshots import app, role, snapshot
from tests.fakes.snapshots import configured as config

CAROL = replace(ALICE, subject="1003", email="carol@example.test")
EVERYBODY = [{"domain": "example.test"}]


def backend(name: str, *locations: dict[str, str], paths: tuple[str, ...] = ("/",)) -> Any:
    """A backend on <name>.example.test that serves `paths`; =path is an exact one."""
    return app(
        name,
        http=[
            {
                "path": path.removeprefix("="),
                "match": "exact" if path.startswith("=") else "prefix",
                "upstream": "http://127.0.0.1:3000",
            }
            for path in paths
        ],
        permissions=[{"name": "all", "locations": list(locations) or [{"any": "/"}]}],
    )


def opened(*backends: Any, bound: tuple[str, ...] = ("app/all",), **keys: Any) -> dict[str, str]:
    """The applications of somebody with a role of `bound`, as name to address."""
    made = snapshot(config(list(backends), [role("r", *bound, members=EVERYBODY)], **keys))
    found = made.applications(ALICE)
    assert all(isinstance(one, Application) for one in found)
    return {one.name: one.url for one in found}


@pytest.mark.parametrize(
    ("locations", "paths", "begins"),
    [
        pytest.param([{"any": "/"}], ("/",), "/", id="everything"),
        pytest.param([{"get": "=/"}], ("/",), "/", id="only the root"),
        pytest.param([{"get": "/docs"}], ("/",), "/docs", id="one part"),
        pytest.param([{"post": "/docs"}, {"get": "=/b"}], ("/",), "/b", id="not what is not GET"),
        pytest.param([{"any": "/"}], ("/files", "/files/deep"), "/files", id="nothing at the root"),
        pytest.param([{"any": "/"}], ("=/only",), "/only", id="one exact route"),
        pytest.param([{"get": "/api/v1"}], ("/api",), "/api/v1", id="a part of what is served"),
        pytest.param([{"get": "/users/*/profile"}], ("/",), "/", id="wildcards name no page"),
        pytest.param([{"post": "/"}], ("/",), None, id="nothing to read"),
        pytest.param([{"any": "/b\u00fcro"}], ("/",), "/b%C3%BCro", id="encoded for the wire"),
    ],
)  # fmt: skip
def test_an_application_begins_where_it_may_be_read(
    locations: list[dict[str, str]], paths: tuple[str, ...], begins: str | None
) -> None:
    expected = {} if begins is None else {"app": f"https://app.example.test{begins}"}
    assert opened(backend("app", *locations, paths=paths)) == expected


def test_only_what_the_persons_roles_give_is_listed_by_name() -> None:
    made = snapshot(
        config(
            [backend("wiki"), backend("app"), backend("secret")],
            [
                role("everyone", "wiki/all", "app/all", members=EVERYBODY),
                role("one", "secret/all", members=[{"user": "carol@example.test"}]),
            ],
        )
    )
    assert [one.name for one in made.applications(ALICE)] == ["app", "wiki"]
    assert [one.name for one in made.applications(CAROL)] == ["app", "secret", "wiki"]


def test_public_backends_and_wildcards_are_not_listed() -> None:
    wild = {**backend("app"), "hosts": ["*.teams.example.test"]}
    assert opened(wild, app("open", public=True)) == {}
    both = {**backend("app"), "hosts": ["*.teams.example.test", "teams.example.test"]}
    assert opened(both) == {"app": "https://teams.example.test/"}


def test_the_address_has_the_port_that_people_use() -> None:
    assert opened(backend("app"), public_port=8443) == {"app": "https://app.example.test:8443/"}


def test_what_only_breaking_the_glass_opens_is_not_offered() -> None:
    emergency = {**role("emergency", members=EVERYBODY), "break_glass": True}
    bare = snapshot(config([backend("app")], [emergency]))
    assert bare.applications(ALICE) == ()
    part = role("part", "app/all", members=EVERYBODY)
    both = snapshot(config([backend("app", {"get": "/docs"})], [emergency, part]))
    assert [one.url for one in both.applications(ALICE)] == ["https://app.example.test/docs"]
