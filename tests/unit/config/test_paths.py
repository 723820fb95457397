from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_config.paths import decoded, parse_path, parse_pattern


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/a", "/a/", "/a/b.html", "/bücher", "/b%C3%BCcher", "/a%20b", "/.heimdall"),
        *("/.well-known", "/a;v=1", "/$metadata", "/Products(1)", "/~alice", "/a@b:c", "/x/.heim"),
    ],
)
def test_paths_are_kept_as_written(path: str) -> None:
    assert parse_path(path) == path
    assert parse_pattern(path) == path


@pytest.mark.parametrize(
    "pattern", ["=/", "=/admin", "/*", "/users/*", "/users/*/profile", "=/users/*/x", "/*/*", "/a/"]
)
def test_patterns_of_the_grammar_are_kept_as_written(pattern: str) -> None:
    assert parse_pattern(pattern) == pattern


# Nothing here can ever be, or be covered by, the canonical path of a request.
HOSTILE = [
    *("", "a", "admin/x", "//", "//a", "/a//b", "http://x/", "\\a", "/a\\b", "/a\\..\\b"),
    *("/a?b", "/a?", "/a#b", "/a b", "/a\tb", "/a\n", "/a\0", "/a\x7f", "/\u202ea", "/\ud800"),
    *("/.", "/..", "/a/.", "/a/..", "/a/../b", "/./a", "/%2e%2e/a", "/%2E", "/.%2e", "/a/..;x/b"),
    *("/%", "/%2", "/%zz", "/a%2fb", "/a%2Fb", "/a%5cb", "/a%00", "/a%1f", "/%252e", "/%7F"),
    *("/%ff", "/%c3", "/%C3%28"),
    *("/.heim", "/.heim/", "/.heim/login", "/.HEIM/x", "/%2eheim/x", "/.he%69m", "/.heim;x"),
    *("^/a", "/a$", "/a|b", "/[ab]", "/{id}", "/a.*", "/(?i)a", "/.+", "/<id>", "/a`", '/a"'),
    "/" + "a" * 3000,
    *(None, 1, True, [], {}),
]


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_paths_that_no_request_can_have_are_refused(value: object) -> None:
    with pytest.raises(ValueError):
        parse_path(value)
    with pytest.raises(ValueError):
        parse_pattern(value)
    with pytest.raises(ValueError):
        parse_pattern(f"={value}" if isinstance(value, str) else value)


@pytest.mark.parametrize(
    "pattern",
    [
        *("/**", "/a/**", "/a/**/b", "/a*", "/*a", "/a/b*c", "/***", "/*.html"),
        *("==/a", "*", "=", "=*"),
    ],
)
def test_wildcards_beyond_the_grammar_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError):
        parse_pattern(pattern)


def test_a_route_has_no_wildcards() -> None:
    with pytest.raises(ValueError, match="no wildcards"):
        parse_path("/users/*")


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("/a/**", "covers everything below it already"),
        ("/users/.*", "* stands for one segment"),
        ("admin", "write /admin"),
        ("/a%", "%25"),
    ],
)
def test_common_mistakes_are_answered_with_the_spelling(pattern: str, hint: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_pattern(pattern)
    assert hint in caught.value.context["hint"]  # type: ignore[attr-defined]


@given(st.text(alphabet="/.%2eEfF5cC*=ab;?#\\ \0é", max_size=16))
def test_an_accepted_path_has_one_reading(text: str) -> None:
    try:
        path = parse_path(text)
    except ValueError:
        return
    plain = decoded(path)
    segments = plain.split("/")[1:]
    assert plain.startswith("/")
    assert "" not in segments[:-1]
    assert not {".", ".."} & set(segments)
    assert plain.count("/") == path.count("/")


@pytest.mark.parametrize("parse", [parse_path, parse_pattern])
def test_what_was_judged_before_is_judged_in_the_same_way(parse: Callable[[object], str]) -> None:
    for _ in range(2):
        assert parse("/team a".replace(" ", "%20")) == "/team%20a"
        with pytest.raises(ValueError, match="dot segment"):
            parse("/a/../b")
        with pytest.raises(ValueError, match=r"slash|pattern"):
            parse(["/a"])
