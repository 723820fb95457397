"""How programs are answered when something is wrong."""

from __future__ import annotations

import json

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from heim_proxy.portal.errors import PortalError
from heim_proxy.portal.limits import RateLimit
from heim_proxy.portal.oauth import OAuthError, for_programs, needed
from heim_proxy.portal.visit import Facts, Visit
from heim_proxy.store.base import StoreUnavailable
from tests.fakes.portal import LOGIN, PortalStand

FACTS = Facts(LOGIN, on_login_host=True, client="192.0.2.1", request_id="r1")


async def answer(stand: PortalStand, failure: Exception | None, rate: RateLimit) -> web.Response:
    async def handler(visit: Visit) -> web.StreamResponse:
        if failure is not None:
            raise failure
        return web.json_response({})

    visit = Visit(make_mocked_request("POST", "/"), FACTS, stand.ctx)
    made = await for_programs(handler, rate_limit=rate)(visit)
    assert isinstance(made, web.Response)
    return made


@pytest.mark.parametrize(
    ("failure", "status", "error"),
    [
        pytest.param(OAuthError("invalid_grant", "No."), 400, "invalid_grant", id="OAuth"),
        pytest.param(OAuthError("x", "No.", 401), 401, "x", id="another status"),
        pytest.param(PortalError(400, "Bad.", "Do."), 400, "invalid_request", id="ours"),
        pytest.param(
            StoreUnavailable("/secret/path: disk"), 503, "temporarily_unavailable", id="store"
        ),
    ],
)
async def test_failures_are_json_in_the_words_of_oauth(
    stand: PortalStand, failure: Exception, status: int, error: str
) -> None:
    made = await answer(stand, failure, RateLimit())
    assert (made.status, made.content_type) == (status, "application/json")
    document = json.loads(made.text or "")
    assert document.keys() == {"error", "error_description", "request_id"}
    assert (document["error"], document["request_id"]) == (error, "r1")
    assert "/secret" not in str(made.text)
    assert ("Retry-After" in made.headers) == (status == 503)


async def test_too_many_requests_are_not_called_the_end_of_a_login(stand: PortalStand) -> None:
    """400 and 401 make a program sign in again; 429 makes it wait."""
    rate = RateLimit(burst=2.0, per_second=0.1)
    assert [(await answer(stand, None, rate)).status for _ in range(3)] == [200, 200, 429]


async def test_bugs_are_not_hidden(stand: PortalStand) -> None:
    with pytest.raises(ZeroDivisionError):
        await answer(stand, ZeroDivisionError(), RateLimit())


def test_fields_that_are_needed() -> None:
    assert needed({"a": "1", "b": "2", "c": "3"}, "b", "a") == ("2", "1")
    with pytest.raises(OAuthError) as caught:
        needed({"a": ""}, "a", "b")
    assert caught.value.description == "The request has no a and no b."
    assert str(caught.value) == "400 invalid_request"
