"""Documents that two parsers could read differently are refused."""

from __future__ import annotations

import pytest

from heim_proxy.identity.strictjson import MAX_DEPTH, StrictJsonError, loads_object


def test_an_ordinary_object_is_read() -> None:
    found = loads_object('{"a": [1, {"b": null}], "ä": "ö"}'.encode(), max_bytes=100)
    assert found == {"a": [1, {"b": None}], "ä": "ö"}


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>", id="html"),
        pytest.param(b"[]", id="array"),
        pytest.param(b'"text"', id="string"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"a":1}{"b":2}', id="two documents"),
        pytest.param(b'{"a":1,"a":1}', id="duplicate key"),
        pytest.param(b'{"x":{"a":1,"\\u0061":2}}', id="duplicate key, escaped, inside"),
        pytest.param(b'{"a":NaN}', id="NaN"),
        pytest.param(b'{"a":-Infinity}', id="infinity"),
        pytest.param(b'{"a":1e999}', id="float overflow"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="integer of 5000 digits"),
        pytest.param(b'{"a":"\xff"}', id="not UTF-8"),
        pytest.param(b'\xef\xbb\xbf{"a":1}', id="byte order mark"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, id="nested 100000 deep"),
        pytest.param(b'{"a":' * 20 + b"1" + b"}" * 20, id="nested 20 deep"),
        pytest.param(b'{"a":"' + b"x" * 2_000_000 + b'"}', id="too long"),
    ],
)
def test_a_document_without_one_meaning_is_refused(document: bytes) -> None:
    with pytest.raises(StrictJsonError):
        loads_object(document, max_bytes=1_500_000)


def test_nesting_up_to_the_limit_is_read() -> None:
    document = b'{"a":' * (MAX_DEPTH - 1) + b"{}" + b"}" * (MAX_DEPTH - 1)
    assert loads_object(document, max_bytes=1000)
