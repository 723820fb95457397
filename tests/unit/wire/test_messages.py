from __future__ import annotations

import json
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_wire.errors import Code, WireError
from heim_wire.messages import decode, encode, printable

leaves = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False)
)  # fmt: skip
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3), max_leaves=4)


@given(st.dictionaries(st.text(max_size=8), leaves, max_size=5))
def test_a_message_is_read_as_it_was_written(message: dict[str, object]) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="not complete"),
        pytest.param(b"{}{}", id="two"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"1", id="a number"),
        pytest.param(b'"{}"', id="a string"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"a":1,"a":1}', id="a key twice"),
        pytest.param(b'{"a":{"b":1,"b":2}}', id="an inner key twice"),
        pytest.param(b'{"a":NaN}', id="NaN"),
        pytest.param(b'{"a":Infinity}', id="infinity"),
        pytest.param(b'{"a":-Infinity}', id="minus infinity"),
        pytest.param(b'{"a":1e999}', id="infinity in disguise"),
        pytest.param(b'{"a":"\xff"}', id="not UTF-8"),
        pytest.param(b'{"a":"\\ud800"}', id="half a surrogate pair"),
        pytest.param(b'{"\\udfff":1}', id="half a surrogate pair as a key"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', id="a byte order mark"),
        pytest.param(b'{"a":"\n"}', id="a control character"),
        pytest.param(b"{'a':1}", id="single quotes"),
        pytest.param(b'{"a":1,}', id="a comma too many"),
        pytest.param(b'{"a":[[[[1]]]]}', id="depth 5"),
        pytest.param(b'{"a":{"b":{"c":{"d":{}}}}}', id="depth 5 of objects"),
        pytest.param(b'{"a":' + b"[" * 4000, id="a mountain"),
        pytest.param(b'{"a":' * 800 + b"1" + b"}" * 80, id="a mountain of objects"),
    ],
)
def test_what_is_not_a_message_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError) as refused:
        decode(payload)
    assert refused.value.code == Code.PROTOCOL


def test_depth_four_is_deep_enough() -> None:
    assert decode(b'{"a":[[["b"]]]}') == {"a": [[["b"]]]}
    assert decode(b'{"a":{"b":{"c":{"d":1}}}}') == {"a": {"b": {"c": {"d": 1}}}}
    assert decode(b'{"a":[[[]]]}') == {"a": [[[]]]}


def test_a_refusal_does_not_repeat_what_it_is_about() -> None:
    with pytest.raises(WireError) as refused:
        decode(b'{"kind":"bearer","token":"heim_st_1_secret"')
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"a": "x" * 4090}, id="4098 bytes"),
        pytest.param({"a": "ä" * 2045}, id="4098 bytes of UTF-8"),
        pytest.param({"a": nan}, id="NaN"),
        pytest.param({"a": inf}, id="infinity"),
        pytest.param({"a": [[[[1]]]]}, id="depth 5"),
        pytest.param({"a": "\ud800"}, id="half a surrogate pair"),
    ],
)
def test_what_the_peer_would_refuse_is_not_written(message: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        encode(message)


def test_the_longest_message_there_is() -> None:
    assert len(encode({"a": "x" * 4088})) == 4096


def test_a_message_is_as_short_as_it_can_be() -> None:
    assert encode({"v": [1, 2], "a": "ä"}) == '{"v":[1,2],"a":"ä"}'.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("a restart at 17:00", "a restart at 17:00", id="plain"),
        pytest.param("Zürich → 東京", "Zürich → 東京", id="letters of all the world"),
        pytest.param("a\nb\r\nc\td", "a b c d", id="line ends"),
        pytest.param("\x1b[31mred\x1b[0m", "[31mred [0m", id="colours"),
        pytest.param("\x1b]0;owned\x07", "]0;owned", id="a window title"),
        pytest.param("\x9b2Jgone", "2Jgone", id="C1 control sequence"),
        pytest.param("a\u202egpj.exe", "a gpj.exe", id="right to left"),
        pytest.param("a\u2066b\u2069", "a b", id="isolates"),
        pytest.param("a\u2028b\u0085c", "a b c", id="line ends of Unicode"),
        pytest.param("nul\0byte", "nul byte", id="NUL"),
        pytest.param("half \ud800", "half", id="half a surrogate pair"),
        pytest.param("  a   b  ", "a b", id="spaces"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_a_line_for_a_person_is_safe_on_a_terminal(text: str, shown: str) -> None:
    assert printable(text, 512) == shown


@given(st.text(), st.integers(0, 40))
def test_a_line_is_never_too_long_and_always_utf8(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown.encode()) <= limit
    assert all(char.isprintable() for char in shown)


def test_a_line_is_cut_between_characters() -> None:
    assert printable("ää", 3) == "ä"


@given(values)
def test_whatever_is_json_is_read_or_refused(value: object) -> None:
    try:
        message = decode(json.dumps({"a": value}).encode())
    except WireError:
        return
    assert message == {"a": value}
