"""How agents are answered when something is wrong, and what they may send."""

from __future__ import annotations

import asyncio
import json
from unittest import mock

import pytest
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from heim_proxy.portal.limits import NetworkRate, RateLimit
from heim_proxy.portal.problems import (
    MAX_DOCUMENT_BYTES,
    ProblemError,
    document_of,
    for_agents,
    text_of,
)
from heim_proxy.portal.visit import Facts, Visit
from heim_proxy.store.base import StoreUnavailable
from tests.fakes.portal import LOGIN, PortalStand

FACTS = Facts(LOGIN, on_login_host=True, client="192.0.2.1", request_id="r1")


def rate(burst: float = 100.0) -> NetworkRate:
    return NetworkRate(
        client=RateLimit(burst=burst, per_second=0.1), network=RateLimit(burst=100, per_second=1)
    )


async def answer(stand: PortalStand, failure: Exception | None, limit: NetworkRate) -> web.Response:
    async def handler(visit: Visit) -> web.StreamResponse:
        if failure is not None:
            raise failure
        return web.json_response({})

    visit = Visit(make_mocked_request("POST", "/"), FACTS, stand.ctx)
    made = await for_agents(handler, rate=limit)(visit)
    assert isinstance(made, web.Response)
    return made


def visit_with(stand: PortalStand, body: bytes, kind: str = "application/json") -> Visit:
    loop = asyncio.get_running_loop()
    # aiohttp's own stand-in for a transport: nothing here pauses or resumes.
    reader = StreamReader(mock.Mock(spec=BaseProtocol, _reading_paused=False), 2**16, loop=loop)
    reader.feed_data(body)
    reader.feed_eof()
    request = make_mocked_request("POST", "/", headers={"Content-Type": kind}, payload=reader)
    return Visit(request, FACTS, stand.ctx)


async def test_a_refusal_is_a_problem_document_with_a_code(stand: PortalStand) -> None:
    failure = ProblemError(409, "name_taken", "desktop is taken", "revoke it")
    made = await answer(stand, failure, rate())
    assert (made.status, made.content_type) == (409, "application/problem+json")
    assert json.loads(made.text or "") == {
        "title": "Conflict",
        "status": 409,
        "code": "name_taken",
        "detail": "desktop is taken",
        "hint": "revoke it",
        "request_id": "r1",
    }
    assert "Retry-After" not in made.headers
    assert str(failure) == "409 name_taken"


async def test_when_to_try_again_is_told_to_programs_and_proxies(stand: PortalStand) -> None:
    made = await answer(stand, ProblemError(429, "slow_down", "x", "y", retry_after=10), rate())
    assert json.loads(made.text or "")["retry_after"] == 10
    assert made.headers["Retry-After"] == "10"


async def test_a_store_that_is_gone_is_busy_and_not_named(stand: PortalStand) -> None:
    made = await answer(stand, StoreUnavailable("/secret/path: disk"), rate())
    document = json.loads(made.text or "")
    assert (made.status, document["code"], document["retry_after"]) == (503, "busy", 5)
    assert "/secret" not in str(made.text)


async def test_too_many_requests_are_busy(stand: PortalStand) -> None:
    limit = rate(burst=2.0)
    found = [await answer(stand, None, limit) for _ in range(3)]
    assert [made.status for made in found] == [200, 200, 429]
    assert json.loads(found[2].text or "")["code"] == "busy"
    assert int(found[2].headers["Retry-After"]) == 11


async def test_bugs_are_not_hidden(stand: PortalStand) -> None:
    with pytest.raises(ZeroDivisionError):
        await answer(stand, ZeroDivisionError(), rate())


async def test_a_document_is_read_once(stand: PortalStand) -> None:
    visit = visit_with(stand, b'{"a": "1", "b": [2]}', "application/json; charset=utf-8")
    assert await document_of(visit) == {"a": "1", "b": [2]}


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        pytest.param(b"{}", "text/plain", 415, id="plain text"),
        pytest.param(b"a=1", "application/x-www-form-urlencoded", 415, id="a form"),
        pytest.param(b"{}", "application/octet-stream", 415, id="no type"),
        pytest.param(b" " * MAX_DOCUMENT_BYTES + b"{}", "application/json", 413, id="too long"),
        pytest.param(b"", "application/json", 400, id="empty"),
        pytest.param(b"[]", "application/json", 400, id="a list"),
        pytest.param(b'{"a":', "application/json", 400, id="cut off"),
        pytest.param(b'{"a":1,"a":2}', "application/json", 400, id="a key twice"),
        pytest.param(b'{"a":NaN}', "application/json", 400, id="not a number"),
        pytest.param(b'{"a":"\xff"}', "application/json", 400, id="not UTF-8"),
        pytest.param(b'{"a":' + b"[" * 2000, "application/json", 400, id="nested"),
    ],
)
async def test_what_is_no_document_of_ours_is_refused(
    stand: PortalStand, body: bytes, kind: str, status: int
) -> None:
    with pytest.raises(ProblemError) as caught:
        await document_of(visit_with(stand, body, kind))
    assert (caught.value.status, caught.value.code) == (status, "bad_request")


@pytest.mark.parametrize("value", [None, 1, True, [], {}, ["x"], ""], ids=repr)
def test_what_must_be_text_is_not_something_else(value: object) -> None:
    with pytest.raises(ProblemError) as caught:
        text_of({"a": value}, "a")
    assert (caught.value.status, caught.value.code) == (400, "bad_request")
    with pytest.raises(ProblemError):
        text_of({}, "a")
    assert text_of({"a": "x"}, "a") == "x"


def test_what_may_be_missing_is_empty_then() -> None:
    assert text_of({}, "a", optional=True) == ""
    assert text_of({"a": ""}, "a", optional=True) == ""
    with pytest.raises(ProblemError):
        text_of({"a": 1}, "a", optional=True)
