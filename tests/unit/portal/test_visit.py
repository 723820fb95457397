"""What is read of a request, and how a redirect looks."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from heim_proxy.portal.errors import PortalError
from heim_proxy.portal.visit import Facts, Visit, redirect
from tests.fakes.portal import LOGIN, PortalStand

EDGE = {"X-Heim-Host": LOGIN, "X-Heim-Surface": "login", "X-Heim-Request": "r1"}


def visit(stand: PortalStand, target: str, headers: dict[str, str] | None = None) -> Visit:
    request = make_mocked_request("GET", target, headers={**EDGE, **(headers or {})})
    facts = Facts.of(request)
    assert facts is not None
    return Visit(request, facts, stand.ctx)


async def test_facts_are_the_edges_words(stand: PortalStand) -> None:
    found = visit(stand, "/", {"X-Heim-Client": "192.0.2.1"}).facts
    assert found == Facts(LOGIN, on_login_host=True, client="192.0.2.1", request_id="r1")


@pytest.mark.parametrize("name", list(EDGE))
def test_incomplete_facts_are_none(name: str) -> None:
    headers = {key: value for key, value in EDGE.items() if key != name}
    assert Facts.of(make_mocked_request("GET", "/", headers=headers)) is None


async def test_the_path_is_taken_as_it_came(stand: PortalStand) -> None:
    assert visit(stand, "/.heim/%6de/../x?rd=/y?z").path == "/.heim/%6de/../x"


async def test_parameters_are_decoded_once(stand: PortalStand) -> None:
    found = visit(stand, "/x?rd=%2Fa%252Fb&h=&i=a+b").query()
    assert found == {"rd": "/a%2Fb", "h": "", "i": "a b"}


@pytest.mark.parametrize(
    "query",
    ["a=1&a=2", "a=1&%61=2", "a=&a=", "a=%ff", "&".join(f"a{n}=" for n in range(40))],
    ids=["twice", "twice, encoded", "twice, empty", "not UTF-8", "many"],
)
async def test_a_query_with_two_meanings_is_refused(stand: PortalStand, query: str) -> None:
    with pytest.raises(PortalError) as caught:
        visit(stand, f"/x?{query}").query()
    assert caught.value.status == 400


async def test_a_redirect_has_no_body_and_makes_the_next_request_a_get() -> None:
    response = redirect("https://app1.example.test/", ("a=b", "c=d"))
    assert (response.status, response.body) == (303, None)
    assert response.headers.getall("Set-Cookie") == ["a=b", "c=d"]
