from __future__ import annotations

import json

import pytest

from heim_controller.kube.errors import (
    MAX_MESSAGE,
    AlreadyExists,
    ApiError,
    Busy,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    Unauthorized,
    error_for,
)


def status(reason: str = "", message: str = "no", **details: object) -> bytes:
    return json.dumps({"reason": reason, "message": message, "details": details}).encode()


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (400, "BadRequest", Invalid), (401, "Unauthorized", Unauthorized),
        (403, "Forbidden", Forbidden), (404, "NotFound", NotFound),
        (409, "Conflict", Conflict), (409, "AlreadyExists", AlreadyExists),
        (410, "Expired", Gone), (413, "", Invalid), (422, "Invalid", Invalid),
        (429, "TooManyRequests", Busy), (500, "InternalError", Busy), (503, "", Busy),
        (504, "Timeout", Busy), (302, "", Invalid),
    ],
)  # fmt: skip
def test_a_status_is_what_a_caller_does_about_it(
    code: int, reason: str, kind: type[ApiError]
) -> None:
    error = error_for(code, status(reason))
    assert type(error) is kind
    assert (error.status, error.reason, error.message) == (code, reason, "no")


@pytest.mark.parametrize(
    ("header", "detail", "wait"),
    [
        ("7", None, 7.0), (None, 3, 3.0), ("9999999", None, 300.0), ("-1", None, None),
        ("nan", None, None), ("Fri, 01 Jan 2027 00:00:00 GMT", None, None), (None, [], None),
        (None, None, None),
    ],
)  # fmt: skip
def test_how_long_to_wait_is_believed_within_reason(
    header: str | None, detail: object, wait: float | None
) -> None:
    assert error_for(429, status(retryAfterSeconds=detail), header).retry_after_s == wait


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>\n <b>Bad   Gateway</b></html>", "<html> <b>Bad Gateway</b></html>"),
        (b"", "no message"),
        (b"[1]", "[1]"),
        (b"\xff\xfe", "��"),
        (b'{"details": 7}', "no message"),
    ],
    ids=["page", "nothing", "list", "bytes", "details"],
)
def test_what_a_proxy_in_between_says_is_told(body: bytes, said: str) -> None:
    error = error_for(502, body)
    assert error.message == said
    assert isinstance(error, Busy)


def test_a_message_is_short() -> None:
    assert len(error_for(422, status(message="x" * 10_000)).message) == MAX_MESSAGE
    assert len(error_for(502, b"x" * 10_000).message) == MAX_MESSAGE
