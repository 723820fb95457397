"""Hosts in canonical form, and whose they are."""

from __future__ import annotations

import pytest

from heim_config.hosts import parse_host
from heim_controller.translation.hosts import (
    Owners,
    canonical_host,
    parent_wildcard,
    under_suffix,
)


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("app.example.com", "app.example.com"),
        ("APP.Example.COM", "app.example.com"),
        ("app.example.com.", "app.example.com"),
        ("*.example.com", "*.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("localhost", "localhost"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_hosts_are_compared_in_one_form(written: str, host: str) -> None:
    assert canonical_host(written) == host
    assert parse_host(written, wildcard=True) == host


@pytest.mark.parametrize(
    "written",
    [
        "", "*", "a*.example.com", "*.*.example.com", "app..example.com", "-app.example.com",
        "10.0.0.1", "example.1", "example.0x1f", "app.example.com:443", "app example.com",
        "app.example.com\n", "http://app.example.com", "bücher.example", "a" * 64 + ".example",
        ".".join(["a" * 62] * 5), "app_1.example.com", "app.example.com..", "[::1]",
    ],
)  # fmt: skip
def test_what_is_no_host_is_none(written: str) -> None:
    assert canonical_host(written) is None


def test_a_wildcard_covers_one_label() -> None:
    assert parent_wildcard("a.example.com") == "*.example.com"
    assert parent_wildcard("*.example.com") is None
    assert parent_wildcard("localhost") is None
    assert parent_wildcard("a.b.example.com") == "*.b.example.com"


def test_suffixes_end_at_dots() -> None:
    assert under_suffix("a.team.example", ["team.example"])
    assert under_suffix("team.example", ["team.example"])
    assert under_suffix("*.team.example", ["team.example"])
    assert not under_suffix("evilteam.example", ["team.example"])
    assert not under_suffix("*.example", ["team.example"])
    assert not under_suffix("a.team.example", [])


def owners(*claims: tuple[str, str, int], before: dict[str, str] | None = None) -> Owners:
    made = [(host, space, (str(age), f"{space}/x", "Ingress")) for host, space, age in claims]
    return Owners(made, before or {})


def test_the_oldest_names_a_host_first() -> None:
    found = owners(("a.example", "young", 2), ("a.example", "old", 1))
    assert found.hosts == {"a.example": "old"}
    assert found.may("old", "a.example")
    assert not found.may("young", "a.example")
    assert found.may("anybody", "b.example")


def test_at_one_age_the_name_decides() -> None:
    assert owners(("a.example", "b", 1), ("a.example", "a", 1)).owner("a.example") == "a"


def test_an_older_wildcard_owns_what_it_covers() -> None:
    found = owners(("*.example.com", "old", 1), ("login.example.com", "young", 2))
    assert found.owner("login.example.com") == "old"
    assert found.owner("nobody.example.com") == "old"
    assert found.owner("a.b.example.com") is None


def test_a_younger_wildcard_takes_nothing_that_was_there() -> None:
    found = owners(("*.example.com", "young", 2), ("app.example.com", "old", 1))
    assert found.owner("app.example.com") == "old"
    assert found.owner("other.example.com") == "young"


def test_who_had_a_host_keeps_it_though_an_older_object_names_it_now() -> None:
    claims = [("a.example", "edited", 1), ("a.example", "first", 2)]
    assert owners(*claims, before={"a.example": "first"}).owner("a.example") == "first"
    assert owners(*claims).owner("a.example") == "edited"


def test_who_had_a_host_and_names_it_no_more_has_it_no_more() -> None:
    found = owners(("a.example", "second", 2), before={"a.example": "first"})
    assert found.hosts == {"a.example": "second"}


def test_a_wildcard_that_gets_older_by_an_edit_takes_nothing() -> None:
    before = {"*.test": "wide", "a.test": "narrow"}
    found = owners(("*.test", "wide", 0), ("a.test", "narrow", 1), before=before)
    assert found.hosts == before


def test_who_had_a_wildcard_keeps_what_it_covers() -> None:
    claims = [("x.example.com", "edited", 1), ("*.example.com", "first", 2)]
    found = owners(*claims, before={"*.example.com": "first"})
    assert found.owner("x.example.com") == "first"
