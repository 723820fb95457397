from __future__ import annotations

import pytest

from heim_agent.targets import FIELDS, Target, is_agent_name, is_name, parse_target


@pytest.mark.parametrize(
    ("address", "host", "port", "path"),
    [
        ("127.0.0.1:22", "127.0.0.1", 22, ""),
        ("db.lan:5432", "db.lan", 5432, ""),
        ("nas_2:445", "nas_2", 445, ""),
        ("[fd00::7]:22", "fd00::7", 22, ""),
        ("unix:/run/app.sock", "", 0, "/run/app.sock"),
    ],
)
def test_an_address_is_a_place(address: str, host: str, port: int, path: str) -> None:
    target, problems = parse_target("x", {"address": address})
    assert problems == {}
    assert target is not None
    assert (target.host, target.port, target.path) == (host, port, path)
    assert target.address == address
    assert (target.role, target.proxy_protocol, target.connect_timeout_s) == (None, False, 5.0)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        (22, "host:port"),
        ("127.0.0.1", "a port is needed"),
        ("127.0.0.1:", "a port is needed"),
        ("127.0.0.1:ssh", "a port is needed"),
        ("127.0.0.1:\u0661", "a port is needed"),
        ("127.0.0.1:0", "from 1 to 65535"),
        ("127.0.0.1:70000", "from 1 to 65535"),
        ("fd00::7:22", "brackets"),
        ("[fd00]:22", "no IPv6 address"),
        (":22", "host:port"),
        ("a b:22", "host:port"),
        ("http://web:80", "without http://"),
        ("user@web:80", "host:port"),
        ("unix:run/app.sock", "whole path"),
        ("unix:/a\0b", "whole path"),
        ("unix:/" + "x" * 107, "longer"),
    ],
)  # fmt: skip
def test_an_address_that_is_none_is_explained(address: object, told: str) -> None:
    target, problems = parse_target("x", {"address": address})
    assert target is None
    assert told in problems["address"]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("role", "Prod SSH", "name of a role"),
        ("role", ["prod-ssh"], "name of a role"),
        ("proxy_protocol", "true", "true or false"),
        ("proxy_protocol", 1, "true or false"),
        ("connect_timeout", 5, "duration"),
        ("connect_timeout", "5 s", "duration"),
        ("connect_timeout", "0s", "duration"),
        ("connect_timeout", "2m", "duration"),
    ],
)
def test_a_wrong_value_is_explained(key: str, value: object, told: str) -> None:
    target, problems = parse_target("x", {"address": "a:1", key: value})
    assert target is None
    assert told in problems[key]


def test_everything_can_be_said() -> None:
    target, problems = parse_target(
        "ssh",
        {
            "address": "a:1",
            "role": "prod-ssh",
            "proxy_protocol": True,
            "connect_timeout": "250ms",
        },
    )
    assert problems == {}
    assert target == Target("ssh", "a", 1, "", "prod-ssh", True, 0.25)


def test_an_address_is_required_and_all_mistakes_are_told_at_once() -> None:
    target, problems = parse_target("x", {"role": 7, "proxy_protocol": 7})
    assert target is None
    assert set(problems) == {"", "role", "proxy_protocol"}


@pytest.mark.parametrize(
    ("name", "good"),
    [("ssh", True), ("a-1", True), ("-a", False), ("a-", False), ("A", False), ("a/b", False),
     ("..", False), ("", False), ("a" * 64, False), ("ä", False)],
)  # fmt: skip
def test_names_are_those_that_the_proxy_has(name: str, good: bool) -> None:
    assert is_name(name) is good


@pytest.mark.parametrize(
    ("name", "good"),
    [("desktop", True), ("default.office", True), ("a" * 63, True), ("a" * 64, False),
     (".a", False), ("a.", False), ("a..b", False), ("a/b", False), ("A", False), ("", False)],
)  # fmt: skip
def test_agents_may_be_named_as_in_kubernetes(name: str, good: bool) -> None:
    assert is_agent_name(name) is good


@pytest.mark.parametrize(("role", "good"), [("team-a.ssh", True), ("a..b", False), ("A", False)])
def test_roles_may_be_named_as_in_kubernetes(role: str, good: bool) -> None:
    _, problems = parse_target("ssh", {"address": "a:1", "role": role})
    assert ("role" not in problems) is good


def test_every_key_is_described() -> None:
    assert [field.name for field in FIELDS] == [
        "address", "role", "proxy_protocol", "connect_timeout",
    ]  # fmt: skip
    assert all(field.meaning for field in FIELDS)
