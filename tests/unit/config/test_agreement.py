"""What configuration accepts is what the proxy can act on; the two are written apart."""

from __future__ import annotations

from typing import get_args
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_config.backends import DIALECTS, METHODS, Backend
from heim_config.hosts import parse_host
from heim_config.paths import parse_path, parse_pattern
from heim_proxy.access.patterns import compile_pattern
from heim_proxy.access.roles import ANY, wire_methods
from heim_proxy.identity.dialects import DIALECTS as BUILDERS
from heim_proxy.target import canonical_host, canonicalise

PATHS = st.text(alphabet="/ab.%2F3e5Ccé*=;~$()'@:[]^{}\\?# ", max_size=14)


def wire(text: str) -> bytes:
    """The request target that a browser sends for a path as people write it."""
    return quote(text, safe="/%!$&'()*+,=:@;~").encode("ascii")


@given(PATHS.map("/".__add__))
def test_an_accepted_path_is_one_that_requests_have(text: str) -> None:
    try:
        path = parse_path(text)
    except ValueError:
        return
    assert canonicalise(wire(path)).query == b""


@given(PATHS)
def test_an_accepted_pattern_compiles(text: str) -> None:
    try:
        pattern = parse_pattern(text)
    except ValueError:
        return
    exact = pattern.startswith("=")
    path = canonicalise(wire(pattern.removeprefix("="))).path
    compile_pattern(b"=" + path if exact else path)


@given(st.text(max_size=30) | st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True))
def test_an_accepted_host_is_in_the_form_of_requests(text: str) -> None:
    try:
        host = parse_host(text)
    except ValueError:
        return
    assert canonical_host(host.encode()) == host


@pytest.mark.parametrize("method", METHODS)
def test_every_method_word_is_known_to_policy(method: str) -> None:
    assert method == ANY or wire_methods(method)


def test_the_dialects_are_those_that_are_built() -> None:
    assert set(DIALECTS) == set(BUILDERS)
    [words] = [
        get_args(argument)
        for argument in get_args(Backend.model_fields["identity_headers"].annotation)
        if get_args(argument)
    ]
    assert set(words) == set(DIALECTS)
