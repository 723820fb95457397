"""What is read of a body, and which forms are ours (P2)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from unittest import mock

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from heim_proxy.portal.forms import MAX_FORM_BYTES, csrf_token, is_ours, read_form
from heim_proxy.portal.visit import Facts, Visit
from tests.fakes.portal import LOGIN, PortalStand

FORM = "application/x-www-form-urlencoded"
ORIGIN = f"https://{LOGIN}"


async def read(body: bytes, kind: str = FORM) -> Mapping[str, str] | None:
    loop = asyncio.get_running_loop()
    # aiohttp's own stand-in for a transport: nothing here pauses or resumes.
    reader = StreamReader(mock.Mock(spec=BaseProtocol, _reading_paused=False), 2**16, loop=loop)
    reader.feed_data(body)
    reader.feed_eof()
    request = make_mocked_request("POST", "/", headers={"Content-Type": kind}, payload=reader)
    return await read_form(request)


async def test_fields_are_decoded_once() -> None:
    assert await read(b"a=1&b=%2541&c=x+y&d=&e=%C3%A9") == {
        "a": "1", "b": "%41", "c": "x y", "d": "", "e": "é",
    }  # fmt: skip


async def test_an_empty_body_is_an_empty_form() -> None:
    assert await read(b"") == {}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(b"a=1", "text/plain", id="plain text"),
        pytest.param(b'{"a":1}', "application/json", id="JSON"),
        pytest.param(b"a=1", "multipart/form-data; boundary=x", id="multipart"),
        pytest.param(b"a=" + b"x" * MAX_FORM_BYTES, FORM, id="too long"),
        pytest.param(b"&".join(b"a%d=" % n for n in range(20)), FORM, id="many fields"),
        pytest.param(b"a=1&a=2", FORM, id="a field twice"),
        pytest.param(b"a=1&%61=2", FORM, id="a field twice, in disguise"),
        pytest.param(b"a=\xff", FORM, id="not ASCII"),
        pytest.param(b"a=%ff", FORM, id="not UTF-8"),
    ],
)
async def test_what_is_no_form_of_ours_is_none(body: bytes, kind: str) -> None:
    assert await read(body, kind) is None


def test_a_token_is_one_sessions_and_one_actions() -> None:
    tokens = {csrf_token(cookie, action) for cookie in ("a", "b") for action in ("x", "y")}
    assert len(tokens) == 4
    assert csrf_token("a", "x") == csrf_token("a", "x")


@pytest.mark.parametrize(
    ("origins", "field", "ours"),
    [
        pytest.param([ORIGIN], csrf_token("cookie", "do"), True, id="ours"),
        pytest.param([], csrf_token("cookie", "do"), False, id="no origin"),
        pytest.param(["null"], csrf_token("cookie", "do"), False, id="null"),
        pytest.param(["https://evil.test"], csrf_token("cookie", "do"), False, id="foreign"),
        pytest.param([ORIGIN, ORIGIN], csrf_token("cookie", "do"), False, id="twice"),
        pytest.param([ORIGIN], csrf_token("cookie", "other"), False, id="another action's"),
        pytest.param([ORIGIN], csrf_token("other", "do"), False, id="another session's"),
        pytest.param([ORIGIN], "", False, id="no token"),
        pytest.param([ORIGIN], "é", False, id="not ASCII"),
    ],
)
async def test_a_form_is_ours_by_origin_and_token(
    stand: PortalStand, origins: list[str], field: str, ours: bool
) -> None:
    headers = CIMultiDict(
        [("X-Heim-Host", LOGIN), ("X-Heim-Surface", "login"), ("X-Heim-Request", "r1")]
    )
    for origin in origins:
        headers.add("Origin", origin)
    request = make_mocked_request("POST", "/", headers=headers)
    facts = Facts.of(request)
    assert facts is not None
    visit = Visit(request, facts, stand.ctx)
    assert is_ours(visit, {"csrf": field}, session_cookie="cookie", action="do") is ours
    assert not is_ours(visit, None, session_cookie="cookie", action="do")
