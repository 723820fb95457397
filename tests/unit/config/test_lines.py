"""A document read by its lines is the document, whatever was read before."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heim_config.lines import Lines
from heim_wire.strict_json import StrictJsonError, read_object
from tests.fakes.thorough import examples

DOCUMENT = b'{"a":[\n{"x":1},\n{"x":2}\n],"b":[],"tls":{"c":[\n{"d":"\\n"}\n],"e":true}}'

# Pieces that end lines in the middle of anything, and pieces of documents.
PIECES = (
    b'{"x":1}', b'{"x":1},', b'{"x":2},', b"{}", b"{},", b'{"x":[{}', b"{}]}", b'{"x":{}},{"y":1}',
    b'{"a":[', b"],", b"]", b"]}", b'],"b":[', b'"b":', b",", b"1", b'"', b'{"x":"', b'"}', b"{",
    b"}", b'{"x":1,"x":2}', b'{"x":NaN}', b" {} ", b'{"x":1} ,', b"null", b"\xff", b'{"x":1}\r',
)  # fmt: skip


def outcome(read: Any, content: bytes) -> object:
    try:
        return read(content)
    except StrictJsonError as error:
        return str(error)


@pytest.mark.parametrize(
    "content",
    [
        DOCUMENT,
        b"{}",
        b"{\n}",
        b"[]",
        b"",
        b"\n",
        b'{"a":\n{"x":1}\n}',  # the value of a key, not an item of a list
        b'{"a":\n{"x":1},\n"b":2}',
        b'{"a":[\n{"x":1}\n{"x":1}\n]}',  # no comma between
        b'{"a":[\n{"x":1},\n]}',  # a comma too many
        b'{"a":[\n{"x":1},\n2,\n{"x":1}\n]}',
        b'{"a":[[\n{"x":1}\n],[\n{"x":1}\n]]}',
        b'{\n{"x":1}\n:1}',  # no key
        b'{"a":"\n{"x":1}\n"}',  # in a string, where no line may end
        b'{"a":[\n{"x":1,"x":1}\n]}',
        b'{"a":[\n{"x":' + b"[" * 40 + b"]" * 40 + b"}\n]}",
        json.dumps({"a": [{"x": 1}], "b": {"c": [{}]}}, indent=1).encode(),
    ],
)
def test_it_is_what_the_strict_reader_says(content: bytes) -> None:
    lines = Lines()
    for _ in range(2):
        assert outcome(lines.read, content) == outcome(read_object, content)


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=9), max_size=4))
def test_whatever_was_read_before(documents: list[list[bytes]]) -> None:
    lines = Lines()
    for pieces in documents:
        content = b'{"a":[\n' + b"\n".join(pieces)
        for one in (content, content + b"\n]}", b"\n".join(pieces)):
            assert outcome(lines.read, one) == outcome(read_object, one)


def test_lines_that_were_read_before_are_the_same_objects() -> None:
    lines = Lines()
    first = lines.read(DOCUMENT)
    second = lines.read(DOCUMENT.replace(b'{"x":1}', b'{"x":7}'))
    assert [one["x"] for one in second["a"]] == [7, 2]
    assert second["a"][1] is first["a"][1]
    assert second["tls"]["c"][0] is first["tls"]["c"][0]


def test_it_holds_the_lines_of_the_last_document() -> None:
    lines = Lines()
    lines.read(DOCUMENT)
    assert repr(lines) == "<Lines known=3>"
    lines.read(b'{"a":[\n{"x":9}\n]}')
    assert repr(lines) == "<Lines known=1>"


def test_what_cannot_be_read_leaves_it_as_it_was() -> None:
    lines = Lines()
    before = lines.read(DOCUMENT)
    with pytest.raises(StrictJsonError):
        lines.read(b'{"a":[\n{"x":1},\n{"x":2}\n')
    assert lines.read(DOCUMENT)["a"][0] is before["a"][0]
