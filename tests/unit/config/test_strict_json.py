from __future__ import annotations

import pytest

from heim_config.strict_json import MAX_DEPTH, NotStrictJsonError, read_object


def nested(depth: int) -> bytes:
    """An object with lists in it, `depth` containers deep beneath the object."""
    return b'{"a":' + b"[" * depth + b"]" * depth + b"}"


def test_an_object_is_read() -> None:
    assert read_object(b'{"a":[1,"b",null,true,1.5,{}]}') == {"a": [1, "b", None, True, 1.5, {}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON at character 0"),
        (b"{", "is not JSON at character 1"),
        (b'{"a":1} x', "is not JSON at character 8"),
        (b"[]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
        (b"a: 1\n", "is not JSON at character 0"),
        (b'{"a":1,"a":1}', 'has the key "a" twice'),
        (b'{"x":[{"b":1,"b":2}]}', 'has the key "b" twice'),
        (b'{"a":NaN}', "has NaN"),
        (b'{"a":-Infinity}', "has -Infinity"),
        (b'{"a":"\xff"}', "is not UTF-8 at byte 6"),
        (b'{"a":' + b"9" * 5000 + b"}", "is not JSON that can be read"),
        (b'{"a":"\x01"}', "is not JSON at character"),
        (nested(MAX_DEPTH + 1), f"is nested more than {MAX_DEPTH} deep"),
        (nested(100_000), "is not JSON that can be read"),
    ],
    ids=[
        "empty", "cut off", "more behind it", "a list", "null", "YAML", "twin", "inner twin",
        "NaN", "infinity", "bytes", "long number", "control", "deep", "very deep",
    ],
)  # fmt: skip
def test_what_two_readers_would_read_differently_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(NotStrictJsonError, match=message.replace("[", r"\[")):
        read_object(content)


def test_the_deepest_that_is_allowed_is_read() -> None:
    assert read_object(nested(MAX_DEPTH))
