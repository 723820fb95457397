"""Documents that two parsers could read differently are refused, and the refusal says why."""

from __future__ import annotations

import pytest

from heim_wire.strict_json import MAX_DEPTH, StrictJsonError, is_deeper, read_object


def nested(depth: int) -> bytes:
    """An object with lists in it, `depth` containers in all."""
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


def test_an_ordinary_object_is_read() -> None:
    content = '{"a": [1, {"b": null}, true, 1.5, {}], "ä": "ö"}'.encode()
    assert read_object(content) == {"a": [1, {"b": None}, True, 1.5, {}], "ä": "ö"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "is not JSON at character 0: Expecting value", id="empty"),
        pytest.param(b"<html>", "is not JSON at character 0", id="html"),
        pytest.param(b"a: 1\n", "is not JSON at character 0", id="YAML"),
        pytest.param(b"{", "is not JSON at character 1", id="cut off"),
        pytest.param(b'{"a":1}{"b":2}', "is not JSON at character 7: Extra", id="two documents"),
        pytest.param(b'{"a":"\x01"}', "is not JSON at character 6", id="control"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', "is not JSON at character 0", id="byte order mark"),
        pytest.param(b'{"a":"\xff"}', "is not UTF-8 at byte 6", id="not UTF-8"),
        pytest.param(b"[]", "is not a JSON object", id="array"),
        pytest.param(b'"text"', "is not a JSON object", id="string"),
        pytest.param(b"null", "is not a JSON object", id="null"),
        pytest.param(b'{"b":0,"a":1,"a":1}', 'has the key "a" twice in one object', id="twin"),
        pytest.param(b'{"x":[{"a":1,"\\u0061":2}]}', 'has the key "a" twice', id="inner twin"),
        pytest.param(b'{"\\n":1,"\\n":2}', r'has the key "\n" twice', id="odd twin"),
        pytest.param(b'{"a":NaN}', "has NaN, which is not JSON", id="NaN"),
        pytest.param(b'{"a":-Infinity}', "has -Infinity, which is not JSON", id="infinity"),
        pytest.param(b'{"a":1e999}', "has a number out of range", id="float overflow"),
        pytest.param(
            b'{"a":' + b"9" * 5000 + b"}", "is not JSON that can be read", id="5000 digits"
        ),
        pytest.param(nested(MAX_DEPTH + 1), f"is nested more than {MAX_DEPTH} deep", id="deep"),
        pytest.param(nested(100_000), "is not JSON that can be read", id="100000 lists deep"),
        pytest.param(
            b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
            "is not JSON that can be read",
            id="100000 objects deep",
        ),
    ],
)
def test_a_document_without_one_meaning_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(StrictJsonError) as refused:
        read_object(content)
    assert str(refused.value).startswith(message)


def test_bounds_are_the_callers() -> None:
    assert read_object(nested(3), max_bytes=10, max_depth=3) == {"a": [[]]}
    with pytest.raises(StrictJsonError, match=r"^has 10 bytes; 9 is the limit$"):
        read_object(nested(3), max_bytes=9, max_depth=3)
    with pytest.raises(StrictJsonError, match=r"^is nested more than 2 deep$"):
        read_object(nested(3), max_depth=2)


def test_a_key_of_strangers_is_not_repeated_at_length() -> None:
    key = b'"' + b"k" * 1000 + b'":1'
    with pytest.raises(StrictJsonError) as refused:
        read_object(b"{" + key + b"," + key + b"}")
    assert len(str(refused.value)) < 120


def test_the_deepest_that_is_allowed_is_read() -> None:
    assert read_object(nested(MAX_DEPTH))
    assert read_object(b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH)


def test_depth_counts_everything_that_json_writes_as_a_container() -> None:
    assert not is_deeper({}, 1)
    assert not is_deeper({"a": "text"}, 1)
    assert is_deeper({"a": ()}, 1)
    assert not is_deeper({"a": ([],)}, 3)
    assert is_deeper({"a": ([],)}, 2)
