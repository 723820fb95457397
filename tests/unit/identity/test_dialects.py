"""Dialects: values that stay one value (B10), and headers that are complete."""

from __future__ import annotations

import string
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_proxy.identity.dialects import (
    DIALECTS,
    MAX_LIST_BYTES,
    MAX_VALUE_BYTES,
    HeaderBlock,
    Identity,
    bounded,
    encode_value,
    header_lines,
    is_identity_header,
)

ALICE = Identity("alice@example.test", "alice@example.test", ("dev", "sre"), "ey.j.wt")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("alice@example.test", "alice@example.test", id="as it is"),
        pytest.param("Alice Liddell, Dr.", "Alice Liddell, Dr.", id="printable"),
        pytest.param("a\r\nX-Auth-Id: admin", "a%0D%0AX-Auth-Id: admin", id="CRLF"),
        pytest.param("a\nb\rc\x00d\x7f", "a%0Ab%0Dc%00d%7F", id="controls"),
        pytest.param("größe", "gr%C3%B6%C3%9Fe", id="UTF-8"),
        pytest.param("100%41", "100%2541", id="the escape itself"),
        pytest.param("  a b ", "%20%20a b%20", id="spaces at the ends"),
        pytest.param(" ", "%20", id="only a space"),
        pytest.param("a\x85b\u2028", "a%C2%85b%E2%80%A8", id="other line breaks"),
        pytest.param("", None, id="empty"),
        pytest.param(None, None, id="absent"),
        pytest.param("x" * 20480, None, id="20 KiB"),
        pytest.param("ö" * 400, None, id="too long once encoded"),
        pytest.param("\ud800", None, id="not text"),
    ],
)
def test_a_value_is_encoded_or_left_out(text: str | None, value: str | None) -> None:
    """B10."""
    assert encode_value(text) == value


@given(st.text())
def test_every_value_is_one_line_of_ascii_and_decodes_to_itself(text: str) -> None:
    for value in (encode_value(text), encode_value(text, in_list=True)):
        if value is not None:
            assert len(value) <= MAX_VALUE_BYTES
            assert value == value.strip()
            assert all(" " <= char <= "~" for char in value)
            assert unquote(value) == text


@given(st.lists(st.text(min_size=1, max_size=50), unique=True, max_size=10))
def test_a_list_of_groups_comes_apart_where_it_was_put_together(groups: list[str]) -> None:
    identity = Identity("a", None, bounded(groups), "")
    lines = header_lines(identity, ["forwarded"]).decode()
    sent = [line for line in lines.split("\r\n") if line.startswith("X-Forwarded-Groups: ")]
    expected = [name for name in sorted(groups) if encode_value(name) is not None]
    assert len(sent) == bool(expected)
    if sent:
        assert [unquote(name) for name in sent[0].partition(": ")[2].split(",")] == expected


def test_a_comma_in_a_group_name_does_not_make_two_groups() -> None:
    identity = Identity("a", None, ("admin,root", "dev"), "")
    assert b"X-Forwarded-Groups: admin%2Croot,dev\r\n" in header_lines(identity, ["forwarded"])


def test_a_long_list_ends_with_a_whole_name() -> None:
    groups = [f"group-{number:04d}" for number in range(2000)]
    kept = bounded(groups)
    assert kept == tuple(groups[: len(kept)])
    assert MAX_LIST_BYTES - 12 < len(",".join(kept)) <= MAX_LIST_BYTES


def test_a_list_that_fits_exactly_is_whole() -> None:
    names = [char * 1023 for char in "abcd"]
    assert bounded(names) == tuple(names)
    assert len(",".join(names)) == MAX_LIST_BYTES - 1
    assert bounded([*names, "e"]) == tuple(names)


def test_a_name_that_cannot_be_sent_does_not_cut_the_list() -> None:
    assert bounded(["a" * 2000, "b", "c\ud800"]) == ("b",)


def test_heimdallr_says_who_and_proves_it() -> None:
    assert header_lines(ALICE, ["heimdallr"]) == (
        b"X-Auth-Id: alice@example.test\r\nX-Auth-Token: ey.j.wt\r\n"
    )


def test_forwarded_says_who_and_their_groups() -> None:
    assert header_lines(ALICE, ["forwarded"]) == (
        b"X-Forwarded-User: alice@example.test\r\n"
        b"X-Forwarded-Email: alice@example.test\r\n"
        b"X-Forwarded-Groups: dev,sre\r\n"
    )


def test_what_is_unknown_is_not_said() -> None:
    """B9: no empty header either, which some upstreams take for a value."""
    nobody = Identity("1001", None, (), "")
    assert header_lines(nobody, ["heimdallr", "forwarded"]) == (
        b"X-Auth-Id: 1001\r\nX-Forwarded-User: 1001\r\n"
    )


def test_no_dialect_is_no_header() -> None:
    assert header_lines(ALICE, []) == b""


def test_every_header_we_send_is_one_that_clients_may_not_send() -> None:
    for headers in DIALECTS.values():
        for name, _ in headers:
            assert is_identity_header(name.encode()), name
            assert set(name) <= set(string.ascii_letters + string.digits + "-"), name


def test_tokens_hide_in_reprs() -> None:
    assert "ey.j.wt" not in repr(ALICE)
    block = HeaderBlock(None, "grafana", ("heimdallr",), (), 0.0, b"X-Auth-Token: ey.j.wt\r\n")
    assert repr(block) == "<HeaderBlock grafana heimdallr <sealed>>"
