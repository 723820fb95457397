"""B: nobody but the proxy says who is asking, on any kind of route."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from heim_proxy.identity.families import FAMILIES, is_identity_header
from tests.fakes.heim import LOGIN_HOST
from tests.fakes.upstream import Received, Script, answer
from tests.fakes.verifier import Verifier
from tests.hostile.world import (
    ALICE,
    BOB,
    SPOOF,
    SWITCHING,
    WEIRD,
    World,
    host,
    websocket_head,
    within,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

SPELLINGS: Final = {
    "B1": ("X-Auth-Id",),
    "B2": ("X-Auth-Id", "X-Auth-Id"),
    "B3": ("x-auth-id", "X-AUTH-ID", "x-AuTh-Id"),
    "B4": ("X_Auth_Id",),
    "B5": ("X.Auth.Id",),
    "B6": ("X-Auth_Id",),
    "B7": ("X--Auth-Id",),
    "B7-more": ("X-Auth-Id-", "-X-Auth-Id", "X!Auth!Id", "X-Auth'Id", "XAuthId", "X~Auth|Id"),
    "B9": ("X-Forwarded-Groups", "X-Auth-Groups", "Remote-Groups"),
    "B20-heim": ("X-Heim-Session", "X-Heim-Host", "X-Heim-Client", "X_Heim_Session", "XHeimHost"),
    "httpoxy": ("Proxy",),
}

FAMILY_NAMES: Final = {
    f"B8-{product}": (*family.names, *(f"{name.rstrip('-_')}-Extra" for name in family.prefixes))
    for product, family in FAMILIES.items()
}

CASES: Final = {**SPELLINGS, **FAMILY_NAMES}


def forged(names: tuple[str, ...]) -> str:
    return "".join(f"{name}: {SPOOF}\r\n" for name in names)


async def on_app(world: World, lines: str) -> None:
    cookie = await world.cookie(BOB)
    await world.heim.raw(
        f"GET /public HTTP/1.1\r\nHost: {host('app')}\r\nCookie: {cookie}\r\n{lines}\r\n".encode()
    )
    seen = world.only()
    assert seen.all("x-auth-id") == ["bob@example.com"]
    assert seen.all("x-forwarded-user") == ["bob@example.com"]
    assert len(seen.all("x-auth-token")) == 1
    assert seen.all("x-forwarded-groups") == []


async def on_public(world: World, lines: str) -> None:
    await world.heim.raw(f"GET / HTTP/1.1\r\nHost: {host('open')}\r\n{lines}\r\n".encode())
    assert not identity_fields(world.only())


async def on_plain_http(world: World, lines: str) -> None:
    await world.heim.raw(
        f"GET / HTTP/1.1\r\nHost: {host('open')}\r\n{lines}\r\n".encode(), plain=True
    )
    assert not identity_fields(world.only())


async def on_websocket(world: World, lines: str) -> None:
    world.upstream.script = switch
    wire = await world.wire()
    wire.send(websocket_head(cookie=await world.cookie(ALICE), extra=lines))
    assert (await within(wire.answer())).status == 101
    seen = world.only()
    assert seen.all("x-auth-id") == ["alice@example.com"]
    assert len(seen.all("x-auth-token")) == 1
    assert seen.all("x-forwarded-groups") == ["sre"]
    wire.close()


async def on_preflight(world: World, lines: str) -> None:
    found = await world.heim.raw(
        f"OPTIONS / HTTP/1.1\r\nHost: {host('cors')}\r\nOrigin: https://listed.test\r\n"
        f"Access-Control-Request-Method: PUT\r\n{lines}\r\n".encode()
    )
    assert found.status == 204
    assert SPOOF.encode() not in found.raw
    world.untouched()


async def on_portal(world: World, lines: str) -> None:
    found = await world.heim.raw(
        f"GET /.heim/me HTTP/1.1\r\nHost: {LOGIN_HOST}\r\nAccept: application/json\r\n"
        f"{lines}\r\n".encode(),
        sni=LOGIN_HOST,
    )
    assert found.status == 401
    assert SPOOF.encode() not in found.raw + found.body
    world.untouched()


async def on_refusal(world: World, lines: str) -> None:
    found = await world.heim.raw(
        f"GET /admin HTTP/1.1\r\nHost: {host('app')}\r\n{lines}\r\n".encode()
    )
    assert found.status == 401
    assert SPOOF.encode() not in found.raw + found.body
    world.untouched()


ROUTES: Final[dict[str, Callable[[World, str], Awaitable[None]]]] = {
    "app": on_app,
    "public": on_public,
    "plain-http": on_plain_http,
    "websocket": on_websocket,
    "preflight": on_preflight,
    "portal": on_portal,
    "refusal": on_refusal,
}


def identity_fields(received: Received) -> list[tuple[str, str]]:
    return [(name, value) for name, value in received.fields if is_identity_header(name.encode())]


async def switch(
    received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bytes | None:
    writer.write(SWITCHING)
    await reader.read()
    return None


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("case", SPELLINGS)
async def test_a_forged_identity_header_never_arrives(world: World, case: str, route: str) -> None:
    await ROUTES[route](world, forged(CASES[case]))
    for received in world.sent:
        assert SPOOF.encode() not in received.head


@pytest.mark.parametrize("route", ROUTES)
async def test_B8_every_family_of_every_product_is_stripped(world: World, route: str) -> None:
    # One request for each of a few products at a time: at most 100 header fields.
    names = [name for case in FAMILY_NAMES.values() for name in case]
    for start in range(0, len(names), 60):
        world.reset()
        await ROUTES[route](world, forged(tuple(names[start : start + 60])))
        for received in world.sent:
            assert SPOOF.encode() not in received.head


async def test_B10_a_claim_that_is_no_header_value_is_encoded_and_never_split(
    world: World,
) -> None:
    found = await world.get("/", cookie=await world.cookie(WEIRD))
    assert found.status == 200
    seen = world.only()
    assert seen.all("x-admin") == []
    assert len(seen.all("x-auth-id")) == 1
    assert seen.all("x-forwarded-groups") == ["sre,with%2Ccomma"]
    assert all(0x20 <= byte < 0x7F for byte in seen.head.replace(b"\r\n", b""))


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("close, X-Auth-Id", id="B11"),
        pytest.param("X-Auth-Id, X-Auth-Token, X-Forwarded-User", id="B11-all"),
        pytest.param(" \tx-auth-id\t ,\tkeep-alive", id="B12"),
        pytest.param("X-Forwarded-For, X-Forwarded-Proto, X-Request-Id, Host, Cookie", id="B13"),
        pytest.param("transfer-encoding, content-length, upgrade", id="B13-framing"),
    ],
)
async def test_naming_ours_in_connection_does_not_remove_them(world: World, value: str) -> None:
    cookie = await world.cookie(ALICE)
    names = "x-heim"
    await world.heim.raw(
        f"POST / HTTP/1.1\r\nHost: {host('app')}\r\nConnection: {value}\r\n"
        f"X-Auth-Id: {SPOOF}\r\nContent-Length: 2\r\nCookie: {cookie}; a=b\r\n\r\nhi".encode()
    )
    if "Cookie" in value:
        # Named, so it is the client's wish that it ends here: then nobody is signed in.
        world.untouched()
        return
    seen = world.only()
    assert seen.all("x-auth-id") == ["alice@example.com"]
    assert seen.all("x-forwarded-for") == ["127.0.0.1"]
    assert seen.all("content-length") == ["2"]
    assert seen.all("host") == [host("app")]
    assert not [name for name, _ in seen.fields if name.lower().startswith(names)]


async def test_B14_trailers_end_at_the_proxy(world: World) -> None:
    cookie = await world.cookie(BOB, "plain")
    await world.heim.raw(
        f"POST / HTTP/1.1\r\nHost: {host('plain')}\r\nCookie: {cookie}\r\n"
        f"Trailer: X-Auth-Id, X-Forwarded-User\r\nTE: trailers\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
        f"2\r\nhi\r\n0\r\nX-Auth-Id: {SPOOF}\r\nX-Forwarded-User: {SPOOF}\r\n\r\n".encode()
    )
    seen = world.only()
    assert seen.body == b"2\r\nhi\r\n0\r\n\r\n"
    assert seen.all("x-forwarded-user") == ["bob@example.com"]
    # B15: what announces trailers is of this hop.
    assert seen.all("trailer") == []
    assert seen.all("te") == []


@pytest.mark.parametrize(
    "line",
    [
        "__Host-heim=evil; Path=/; Secure",
        "__host-HEIM=evil",
        '"__Host-heim"=evil',
        " __Host-heim =evil",
        "__Host-heim_1=evil",
        "__Host-heim-flow-0=evil",
        "__Host-heim-login-0=evil",
        "__Host-heim",
        "=__Host-heim=evil; Domain=example.test",
        "= __Host-heim=evil",
    ],
)
async def test_B16_an_upstream_cannot_set_our_cookies(world: World, line: str) -> None:
    world.upstream.script = scripted(answer(headers=f"Set-Cookie: {line}\r\nSet-Cookie: a=b\r\n"))
    found = await world.as_alice()
    assert found.all("set-cookie") == ["a=b"]


async def test_B16_nor_with_an_interim_answer(world: World) -> None:
    hint = b"HTTP/1.1 103 Early Hints\r\nSet-Cookie: __Host-heim=evil\r\nLink: </a>\r\n\r\n"
    world.upstream.script = scripted(hint + answer())
    wire = await world.wire()
    cookie = await world.cookie(ALICE)
    wire.send(f"GET / HTTP/1.1\r\nHost: {host('app')}\r\nCookie: {cookie}\r\n\r\n".encode())
    early = await within(wire.answer())
    assert (early.status, early.all("set-cookie")) == (103, [])
    assert (await within(wire.answer())).status == 200


async def test_B17_a_request_id_of_a_stranger_is_replaced(world: World) -> None:
    found = await world.as_alice(headers=(("X-Request-Id", SPOOF), ("x-request-id", SPOOF)))
    assert found.get("x-request-id") != SPOOF
    assert world.only().all("x-request-id") == [found.get("x-request-id")]


async def test_B18_the_handshake_of_a_websocket_carries_the_same_identity(world: World) -> None:
    cookie = await world.cookie(ALICE)
    await world.get("/", cookie=cookie)
    plain = identity_fields(world.only())
    world.reset()
    world.upstream.script = switch
    wire = await world.websocket(cookie=cookie)
    assert identity_fields(world.only()) == plain
    wire.close()


async def test_B18_the_assertion_is_for_this_host_and_verifies(world: World) -> None:
    await world.as_alice()
    keys = world.heim.proxy._snapshot.signing_keys
    token = world.only().all("x-auth-token")[0]
    login_url = world.heim.proxy._snapshot.login_url
    now = world.heim.proxy._clock.now()
    claims = Verifier(keys.jwks(), login_url).verify(token, audience=host("app"), now=now)
    assert claims["sub"] == "alice"
    assert claims["groups"] == ["sre"]


async def test_B20_our_cookies_stay_and_the_others_pass_byte_for_byte(world: World) -> None:
    cookie = await world.cookie(ALICE)
    others = 'a="x, y"; b==; c; d=%20;e=1;  f=\xff'
    await world.get("/", cookie=f"{others}; {cookie}; __Host-heim-flow-1=zz;g=2")
    assert world.only().all("cookie") == [f"{others};g=2"]


async def test_B20_nothing_is_left_of_a_header_that_held_only_ours(world: World) -> None:
    await world.as_alice()
    assert world.only().all("cookie") == []


def jwt_like(typ: str) -> str:
    head = base64.urlsafe_b64encode(json.dumps({"alg": "ES256", "typ": typ}).encode())
    return f"{head.rstrip(b'=').decode()}.e30.c2lnbmVk"


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.mark.parametrize("at", ["app", "open"])
@pytest.mark.parametrize(
    ("value", "passes"),
    [
        pytest.param(f"Bearer heim_st_{'a' * 24}_{'b' * 43}", False, id="service token"),
        pytest.param("bearer  heim_st_damaged", False, id="a damaged one, another spelling"),
        pytest.param(f"Bearer heim_rt_{'a' * 24}_x_y", False, id="refresh token"),
        pytest.param(f"Bearer {jwt_like('heim-cli+jwt')}", False, id="access token"),
        pytest.param("Heim anything", False, id="our scheme"),
        pytest.param(f"Bearer {jwt_like('at+jwt')}", True, id="somebody else's JWT"),
        pytest.param("Bearer no.token!.at=all", True, id="no JWT"),
        pytest.param("Bearer ghp_abc", True, id="opaque"),
        pytest.param(basic("x", "y"), True, id="basic"),
        pytest.param(basic("git", f"heim_st_{'a' * 24}_{'b' * 43}"), False, id="git's password"),
        pytest.param(basic("heim_st_damaged", ""), False, id="curl's user"),
        pytest.param(basic("x", jwt_like("heim-cli+jwt")), False, id="access token as password"),
        pytest.param(basic("x", jwt_like("at+jwt")), True, id="somebody else's as password"),
    ],
)
async def test_B20_a_credential_of_ours_reaches_no_upstream(
    world: World, at: str, value: str, passes: bool
) -> None:
    cookie = await world.cookie(ALICE)
    lines = f"Authorization: {value}\r\naUTHORIZATION: {value}\r\nX-After: 1\r\n"
    await world.heim.raw(
        f"GET / HTTP/1.1\r\nHost: {host(at)}\r\nCookie: {cookie}\r\n{lines}\r\n".encode()
    )
    seen = world.only()
    assert seen.all("authorization") == ([value, value] if passes else [])
    assert seen.all("x-after") == ["1"]


@pytest.mark.parametrize(
    "extra",
    [
        "__Host-heim_1=part",
        '"__Host-heim"=quoted',
        " __HOST-HEIM =case",
        "__Host-heim-login-x=y",
        "\t__host-heim\t=tab",
        "'__Host-heim'=single",
    ],
)
async def test_B21_spellings_of_our_cookie_are_all_removed(world: World, extra: str) -> None:
    await world.get("/", at="open", cookie=f"keep=1; {extra}")
    assert world.only().all("cookie") == ["keep=1"]


async def test_B21_two_session_cookies_are_no_session(world: World) -> None:
    cookie = await world.cookie(ALICE)
    for header in (f"{cookie}; {cookie}", f"__Host-heim=planted; {cookie}"):
        assert (await world.get("/", cookie=header)).status == 401
    two_lines = (("Cookie", cookie), ("Cookie", cookie))
    assert (await world.get("/", headers=two_lines)).status == 401
    world.untouched()


async def test_one_connection_serves_each_cookie_as_its_own_person(world: World) -> None:
    alice, bob = await world.cookie(ALICE, "plain"), await world.cookie(BOB, "plain")
    wire = await world.wire("plain")
    people = [alice, bob, None, bob, alice, None]
    for cookie in people:
        line = f"Cookie: {cookie}\r\n" if cookie else ""
        wire.send(f"GET / HTTP/1.1\r\nHost: {host('plain')}\r\n{line}\r\n".encode())
        assert (await within(wire.answer())).status == (200 if cookie else 401)
    told = [received.all("x-forwarded-user") for received in world.sent]
    alice_, bob_ = ["alice@example.com"], ["bob@example.com"]
    assert told == [alice_, bob_, bob_, alice_]


async def test_one_upstream_connection_never_mixes_people(world: World) -> None:
    alice, bob = await world.cookie(ALICE, "plain"), await world.cookie(BOB, "plain")
    for cookie in (alice, bob, alice, bob):
        await world.get("/", at="plain", cookie=cookie)
    names = [received.get("x-forwarded-user") for received in world.sent]
    assert names == ["alice@example.com", "bob@example.com"] * 2
    assert len({received.connection for received in world.sent}) == 1


async def test_the_portal_believes_no_header_about_a_session(world: World) -> None:
    session = await world.heim.session(ALICE)
    names = ("X-Heim-Session", "x-heim-session", "X_Heim_Session", "X-Heim.Session", "XHeimSession")
    for name in names:
        for at in (LOGIN_HOST, host("app")):
            found = await world.heim.request(
                "/.heim/me",
                host=at,
                headers=((name, session.sid), ("X-Heim-Surface", "login"), ("Accept", "*/*")),
            )
            assert found.status in (303, 401)
            assert b"alice" not in found.body


async def test_many_strange_header_names_do_not_poison_the_table_of_names(world: World) -> None:
    """The table of names is bounded; what does not fit is judged each time, the same way."""
    for batch in range(30):
        lines = "".join(f"X-Junk-{batch}-{index}: 1\r\n" for index in range(80))
        await world.heim.raw(
            f"GET / HTTP/1.1\r\nHost: {host('open')}\r\n{lines}\r\n".encode(), plain=True
        )
    world.reset()
    await on_app(world, forged(("x-aUTH-iD", "X-Auth-NeverSeenBefore", "x_AUTH_iD")))
    assert SPOOF.encode() not in world.only().head


def scripted(reply: bytes) -> Script:
    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        return reply

    return script


@pytest.mark.parametrize(
    ("value", "passes"),
    [
        pytest.param('"cookies"', False, id="B16-cookies"),
        pytest.param('"cache", "Cookies"', False, id="B16-cookies-among-others"),
        pytest.param('"*"', False, id="B16-everything"),
        pytest.param('"cache", "storage"', True, id="B16-its-own-data"),
    ],
)
async def test_B16_an_upstream_cannot_clear_our_cookies(
    world: World, value: str, passes: bool
) -> None:
    world.upstream.script = scripted(answer(headers=f"Clear-Site-Data: {value}\r\n"))
    found = await world.heim.request("/", host="open.example.test")
    assert found.status == 200
    assert found.all("clear-site-data") == ([value] if passes else [])
