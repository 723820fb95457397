"""Cookies: attributes (G7), parsing as browsers send, and recognising ours (B21, G8)."""

from __future__ import annotations

import pytest

from heim_proxy.identity.cookies import (
    FLOW_PREFIX,
    LOGIN_PREFIX,
    SESSION_COOKIE,
    clear_cookie,
    is_ours,
    parse,
    set_cookie,
)


def test_a_cookie_is_bound_to_its_host_and_hidden_from_scripts() -> None:
    """G7."""
    assert set_cookie(SESSION_COOKIE, "abc", 3600.9) == (
        "__Host-heim=abc; Max-Age=3600; Path=/; Secure; HttpOnly; SameSite=Lax"
    )


def test_a_cookie_is_cleared_with_the_attributes_it_was_set_with() -> None:
    assert clear_cookie(f"{FLOW_PREFIX}1") == (
        "__Host-heim-flow-1=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"
    )


@pytest.mark.parametrize(
    ("asked", "sent"),
    [(0.2, 1), (-5.0, 1), (1e12, 400 * 86400), (59.9, 59)],
    ids=["below a second", "negative", "for ever", "rounded down"],
)
def test_max_age_is_bounded(asked: float, sent: int) -> None:
    assert f"; Max-Age={sent};" in set_cookie(SESSION_COOKIE, "x", asked)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(SESSION_COOKIE, "a; Domain=evil.test", id="attribute in value"),
        pytest.param(SESSION_COOKIE, "a\r\nSet-Cookie: x=y", id="line break in value"),
        pytest.param(SESSION_COOKIE, 'a"', id="quote"),
        pytest.param(SESSION_COOKIE, "ä", id="not ASCII"),
        pytest.param("heim", "a", id="not ours"),
        pytest.param(f"{LOGIN_PREFIX}x=y", "a", id="equals in name"),
        pytest.param(f"{FLOW_PREFIX}x\n", "a", id="line break in name"),
    ],
)
def test_what_would_change_the_header_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        set_cookie(name, value, 60)


@pytest.mark.parametrize("name", ["heim", "__Host-heim-x; a", "__Host-heim\r\n", ""])
def test_only_ours_are_cleared(name: str) -> None:
    with pytest.raises(ValueError, match="not one of ours"):
        clear_cookie(name)


@pytest.mark.parametrize(
    ("header", "pairs"),
    [
        pytest.param("", [], id="empty"),
        pytest.param("a=1", [("a", "1")], id="one"),
        pytest.param("a=1; b=2", [("a", "1"), ("b", "2")], id="two"),
        pytest.param("a=1;b=2;", [("a", "1"), ("b", "2")], id="no space, end"),
        pytest.param(" a = 1 ;\tb=2", [("a", "1"), ("b", "2")], id="white space"),
        pytest.param("a=1; a=2", [("a", "1"), ("a", "2")], id="twice"),
        pytest.param("a=x=y==", [("a", "x=y==")], id="equals in value"),
        pytest.param('a="q;r"', [("a", '"q'), ('r"', "")], id="quotes mean nothing"),
        pytest.param("lonely; =v; ;", [("lonely", ""), ("", "v")], id="no name or value"),
    ],
)
def test_a_cookie_header_is_read_as_browsers_write_it(
    header: str, pairs: list[tuple[str, str]]
) -> None:
    assert parse(header) == pairs


@pytest.mark.parametrize(
    "name",
    [
        b"__Host-heim",
        b"__host-HEIM",
        b"__Host-heim_1",
        b"__Host-heim-flow-0199",
        b"__Host-heim-login-x",
        b'"__Host-heim"',
        b"'__Host-heim",
        b"  __Host-heim\t",
        b"\x00__Host-heim",
        b' "__HOST-HEIM-flow',
    ],
)
def test_ours_are_recognised_as_lenient_parsers_would(name: bytes) -> None:
    assert is_ours(name)


@pytest.mark.parametrize(
    "name", [b"heim", b"__Host-session", b"__Secure-heim", b"x__Host-heim", b"", b"__Host-hei"]
)
def test_other_cookies_are_not_ours(name: bytes) -> None:
    """G8: `heim=x; Domain=.example.test` is nobody's."""
    assert not is_ours(name)
