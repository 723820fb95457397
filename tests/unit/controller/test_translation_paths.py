"""Paths of rules: what the configuration, routes and requests make of the same text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_config.paths import parse_path
from heim_controller.translation.paths import (
    acme_token,
    canonical_path,
    closed_part,
    identity,
    strip_suffix,
)
from heim_proxy.pieces import _path as route_path
from heim_proxy.target import BadTarget, canonicalise

TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/", "/"),
        ("/foo", "/foo"),
        ("/foo/", "/foo/"),
        ("/a/b.c/d-e_f~g", "/a/b.c/d-e_f~g"),
        ("/.well-known/x", "/.well-known/x"),
        ("/b%C3%BCro", "/b%C3%BCro"),
        ("/büro", "/b%C3%BCro"),
        ("/b%c3%bcro", "/b%C3%BCro"),
        ("/%61%2Eb", "/a.b"),
        ("/a;b=c", "/a;b=c"),
        ("/a%20b", "/a%20b"),
        ("/a%21", "/a%21"),
        ("/v1:watch@x", "/v1:watch@x"),
    ],
)
def test_a_path_is_written_as_requests_have_it(written: str, path: str) -> None:
    assert canonical_path(written) == path
    parse_path(path)
    assert route_path(path) == path.encode()
    assert canonicalise(path.encode()).path == path.encode()


@pytest.mark.parametrize(
    "written",
    [
        "", "foo", "//", "/a//b", "/a/../b", "/a/./b", "/..", "/a%2fb", "/a%2Fb", "/a%5Cb",
        "/a%00b", "/a%252e", "/a%25%32e", "/%2e%2e/b", "/a\\b", "/a b", "/a\nb", "/a?b", "/a#b",
        "/a/*", "/(foo|bar)", "/foo(/|$)(.*)", "/^a", "/a$", "/a/.*", "/a.+", "/a%", "/a%zz",
        "/a%ff", "/.heim", "/.heim/login", "/.HEIM/x", "/.heim;x", "/%2Eheim/x", "/a/..;/b",
        "/" + "a" * 2048, "/\u2028", "/{id}", "/[a]", "/a\x7f", "/\ud800",
    ],
)  # fmt: skip
def test_a_path_that_no_request_can_have_is_refused(written: str) -> None:
    assert canonical_path(written) is None


@given(st.text(alphabet=st.sampled_from("/ab.~%2fFeE5c0;:@!$&'()*+,=-_ü{}|^\\?#"), max_size=12))
def test_what_is_accepted_the_configuration_and_routes_accept_unchanged(tail: str) -> None:
    path = canonical_path("/" + tail)
    if path is None:
        return
    parse_path(path)
    assert route_path(path) == path.encode()
    assert canonical_path(path) == path


@given(st.binary(max_size=12))
def test_an_accepted_path_is_one_that_a_request_can_have(tail: bytes) -> None:
    try:
        target = canonicalise(b"/" + tail)
    except BadTarget:
        return
    path = canonical_path(target.path.decode("latin-1"))
    assert path is None or path.encode() == target.path


def test_two_spellings_that_lenient_servers_read_alike_are_one_path() -> None:
    assert identity("/a%21", exact=False) == identity("/a!", exact=False)
    assert identity("/a", exact=False) != identity("/b", exact=False)
    assert identity("/a", exact=False) != identity("/a", exact=True)


@pytest.mark.parametrize(
    ("written", "part"),
    [
        ("/api/(v1|v2)/x", "/api"),
        ("/foo(/|$)(.*)", "/"),
        ("/a/b/../c", "/a/b"),
        ("/a//b", "/a"),
        ("", "/"),
        ("no slash", "/"),
        ("/.heim/x", "/"),
        ("/a/" + "z" * 3000, "/a"),
        ("/a" * 40 + "(", "/a" * 31),
    ],
)
def test_the_clear_part_of_an_unclear_path_can_be_closed(written: str, part: str) -> None:
    assert closed_part(written) == part
    assert canonical_path(part) == part


def test_a_challenge_is_one_exact_token() -> None:
    assert acme_token(f"/.well-known/acme-challenge/{TOKEN}") == TOKEN


@pytest.mark.parametrize(
    "written",
    [
        "/.well-known/acme-challenge/",
        "/.well-known/acme-challenge/short",
        f"/.well-known/acme-challenge/{'a' * 129}",
        f"/.well-known/acme-challenge/{TOKEN}/",
        f"/.well-known/acme-challenge/{TOKEN}/../../admin",
        f"/.well-known/acme-challenge/{TOKEN}\n",
        f"/.well-known/acme-challenge/{TOKEN[:-1]}ü",
        f"/.well-known/acme-challenge/{TOKEN}.x",
        f"/x/.well-known/acme-challenge/{TOKEN}",
        f"/.WELL-KNOWN/acme-challenge/{TOKEN}",
    ],
)
def test_nothing_wider_is_a_challenge(written: str) -> None:
    assert acme_token(written) is None


def test_only_one_way_to_strip_a_prefix_is_known() -> None:
    assert strip_suffix("/app(/|$)(.*)") == "/app"
    assert strip_suffix("/a/b(/|$)(.*)") == "/a/b"
    for other in ("/app/(.*)", "/(.*)", "/app(/|$)(.*)x", "/a|b(/|$)(.*)", "/app", "(/|$)(.*)"):
        assert strip_suffix(other) is None
