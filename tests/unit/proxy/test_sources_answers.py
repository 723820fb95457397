from __future__ import annotations

import json

import pytest

from heim_proxy.sources.answers import ApiError, Selection, event_of, object_of, unreachable

ONE = Selection("configmaps", "heim", name="heim-configuration")
ALL = Selection("secrets", "heim", label="heim.dev/part-of=heim-configuration")


def test_a_selection_says_what_is_asked_for() -> None:
    assert ONE.path == "/api/v1/namespaces/heim/configmaps"
    assert ONE.query() == {"fieldSelector": "metadata.name=heim-configuration"}
    assert str(ONE) == "configmaps heim/heim-configuration"
    assert ALL.query() == {"labelSelector": "heim.dev/part-of=heim-configuration"}
    assert str(ALL) == "secrets"


def test_a_line_is_an_event() -> None:
    event = event_of(b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}', ONE)
    assert (event.type, event.object) == ("ADDED", {"metadata": {"name": "a"}})


@pytest.mark.parametrize(
    ("error", "words", "status", "stale"),
    [
        ({"code": 410, "message": "too old"}, "too old", 410, True),
        ({"code": 500}, "status 500", 500, False),
        ({"code": "x", "message": ["no text"]}, "status 500", 500, False),
        ({"code": 403, "message": "a\x1b[31m\n  b" + "x" * 500}, "a[31m b" + "x" * 193, 403, False),
    ],
    ids=["gone", "without words", "odd", "words that would paint the log"],
)
def test_an_error_in_a_watch_is_one_printable_line(
    error: dict[str, object], words: str, status: int, stale: bool
) -> None:
    line = json.dumps({"type": "ERROR", "object": error}).encode()
    with pytest.raises(ApiError) as caught:
        event_of(line, ONE)
    assert str(caught.value) == f"watch of {ONE}: {words}"
    assert (caught.value.status, caught.value.stale) == (status, stale)


@pytest.mark.parametrize("content", [b"", b"[1]", b'"secret"', b"{", b"\xff"])
def test_what_is_no_object_is_not_quoted(content: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        object_of(content, ALL)
    assert str(caught.value) in (
        "secrets: the answer is not JSON",
        "secrets: the answer is no object",
    )
    assert caught.value.__cause__ is None


def test_a_deadline_and_a_refused_connection_are_told_apart() -> None:
    assert str(unreachable(TimeoutError())) == "the API server does not answer"
    refused = ConnectionRefusedError(111, "Connection refused")
    assert str(unreachable(refused)).endswith("[Errno 111] Connection refused")
    assert len(str(unreachable(OSError("x" * 5000)))) == 300
