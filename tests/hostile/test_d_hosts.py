"""D: one host, one route, one policy, whatever the Host header and the handshake say."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from tests.fakes.heim import LOGIN_HOST, authority
from tests.hostile.world import ALICE, BOB, World, host, within

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    "spelling",
    [
        pytest.param("APP.EXAMPLE.TEST", id="D1-case"),
        pytest.param("app.example.test.", id="D1-dot"),
        pytest.param("app.example.test:443", id="D1-port"),
        pytest.param("App.Example.Test.:443", id="D1-all"),
    ],
)
async def test_a_spelling_of_a_host_has_its_route_and_its_policy(
    world: World, spelling: str
) -> None:
    async def status(target: str, cookie: str | None) -> int:
        line = f"Cookie: {cookie}\r\n" if cookie else ""
        data = f"GET {target} HTTP/1.1\r\nHost: {spelling}\r\n{line}\r\n"
        return (await world.heim.raw(data.encode())).status

    assert await status("/admin", None) == 401
    assert await status("/admin", await world.cookie(BOB)) == 403
    world.untouched()
    assert await status("/public/x", await world.cookie(BOB)) == 200
    assert world.only().all("x-auth-id") == ["bob@example.com"]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("app.example.test@evil.test", id="D2-user"),
        pytest.param("evil@app.example.test", id="D2-user-first"),
        pytest.param("app.example.test/", id="D2-slash"),
        pytest.param("app.example.test/../", id="D2-path"),
        pytest.param("app .example.test", id="D2-space"),
        pytest.param("app.example.test evil.test", id="D2-two-words"),
        pytest.param("app.example.test, evil.test", id="D2-list"),
        pytest.param("", id="D2-empty"),
        pytest.param("[::1", id="D2-bracket"),
        pytest.param("[::1]x", id="D2-after-bracket"),
        pytest.param("a" * 300, id="D2-long"),
        pytest.param(".".join("a" * 60 for _ in range(6)), id="D2-long-labels"),
        pytest.param("app.example.test:0", id="D2-port-0"),
        pytest.param("app.example.test:65536", id="D2-port-high"),
        pytest.param("app.example.test:", id="D2-port-empty"),
        pytest.param("app.example.test:44x", id="D2-port-word"),
        pytest.param("app.example.test:443:443", id="D2-two-ports"),
        pytest.param("app..example.test", id="D2-empty-label"),
        pytest.param(".app.example.test", id="D2-leading-dot"),
        pytest.param("app.example.test..", id="D2-two-dots"),
        pytest.param("-app.example.test", id="D2-hyphen"),
        pytest.param("app_x.example.test", id="D2-underscore"),
        pytest.param("app%2eexample.test", id="D2-percent"),
        pytest.param("app.example.test\\evil", id="D2-backslash"),
        pytest.param("app.example.test#", id="D2-fragment"),
        pytest.param("app.example.test?", id="D2-query"),
        pytest.param("\xe4pp.example.test", id="D11-latin1"),
        pytest.param("https://app.example.test", id="D2-url"),
        pytest.param("*.wild.example.test", id="D8-star"),
    ],
)
async def test_a_value_that_is_no_host_is_refused(world: World, value: str) -> None:
    cookie = await world.cookie(ALICE)
    found = await world.heim.raw(
        f"GET / HTTP/1.1\r\nHost: {value}\r\nCookie: {cookie}\r\n\r\n".encode("latin-1")
    )
    # An empty port is valid by RFC 9110; either way it must not be another host.
    assert found.status == 400
    assert found.get("connection") == "close"
    world.untouched()


@pytest.mark.parametrize("name", ["unknown.example.test", "example.test", "192.0.2.1", "[::1]"])
async def test_D3_an_unknown_host_says_nothing(world: World, name: str) -> None:
    cookie = await world.cookie(ALICE)
    misdirected = await world.heim.raw(
        f"GET / HTTP/1.1\r\nHost: {name}\r\nCookie: {cookie}\r\n\r\n".encode()
    )
    assert misdirected.status == 421
    plain = await world.heim.raw(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode(), plain=True)
    assert plain.status == 404
    for found in (misdirected, plain):
        assert b"app" not in found.body
        assert b"127.0.0.1" not in found.raw + found.body
    world.untouched()


async def test_D3_an_unknown_host_of_its_own_handshake_is_404(world: World) -> None:
    found = await world.heim.request("/", host="unknown.example.test")
    assert found.status == 404
    world.untouched()


async def test_D4_another_host_on_the_same_connection_is_judged_as_itself(world: World) -> None:
    app, two = await world.cookie(ALICE, "app"), await world.cookie(ALICE, "two")
    wire = await world.wire("app")
    cases = [
        ("app", app, 200),
        ("two", app, 401),  # a cookie is sealed for its host
        ("two", two, 200),
        ("app", two, 401),
        ("open", None, 200),
        ("app", None, 401),
    ]
    for at, cookie, status in cases:
        line = f"Cookie: {cookie}\r\n" if cookie else ""
        wire.send(f"GET / HTTP/1.1\r\nHost: {host(at)}\r\n{line}\r\n".encode())
        assert (await within(wire.answer())).status == status
    assert [one.get("host") for one in world.sent] == [host("app"), host("two"), host("open")]
    assert [one.get("x-auth-id") for one in world.sent] == ["alice@example.com"] * 2 + [None]


async def test_D5_a_handshake_without_a_name_is_served_by_its_host_header(world: World) -> None:
    context = ssl.create_default_context()
    authority().configure_trust(context)
    context.check_hostname = False
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", world.heim.https_port, ssl=context, server_hostname=""
    )
    line = f"Cookie: {await world.cookie(ALICE)}\r\n"
    writer.write(f"GET /x HTTP/1.1\r\nHost: {host('app')}\r\n{line}\r\n".encode())
    assert (await within(reader.readline())).startswith(b"HTTP/1.1 200 ")
    writer.transport.abort()
    assert world.only().path == "/x"


@pytest.mark.parametrize(
    "head",
    [
        pytest.param("GET / HTTP/1.1\r\nHost: {0}\r\nHost: {0}\r\n", id="D6-same"),
        pytest.param("GET / HTTP/1.1\r\nHost: {0}\r\nHost: evil.test\r\n", id="D6-other"),
        pytest.param("GET / HTTP/1.1\r\nhOST: {0}\r\nHost: {0}\r\n", id="D6-case"),
        pytest.param("GET / HTTP/1.1\r\n", id="D7-no-host"),
        pytest.param("GET / HTTP/1.0\r\n", id="D7-http10"),
        pytest.param("GET /\r\n", id="D7-http09"),
        pytest.param("GET / HTTP/0.9\r\nHost: {0}\r\n", id="D7-http09-line"),
        pytest.param("GET / HTTP/2.0\r\nHost: {0}\r\n", id="D7-http2"),
        pytest.param("PRI * HTTP/2.0\r\n\r\nSM\r\n", id="D7-preface"),
        pytest.param("GET / HTTP/1.1\r\nHost : {0}\r\n", id="D6-space"),
        pytest.param("GET / HTTP/1.1\r\n Host: {0}\r\n", id="D6-fold"),
    ],
)
async def test_a_request_has_exactly_one_host(world: World, head: str) -> None:
    for plain in (False, True):
        found = await world.heim.raw(
            head.format(host("open")).encode() + b"\r\n", sni=host("open"), plain=plain
        )
        assert found.status == 400
    world.untouched()


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("a.wild.example.test", "wild"),
        ("A.WILD.example.test.:8443", "wild"),
        ("exact.wild.example.test", "deep"),
        ("a.b.wild.example.test", None),
        ("wild.example.test", None),
        ("awild.example.test", None),
        ("xn--4ca.wild.example.test", "wild"),
    ],
)
async def test_D8_a_wildcard_is_one_label(world: World, name: str, backend: str | None) -> None:
    found = await world.heim.raw(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
    if backend is None:
        assert found.status == 421
    else:
        assert found.status == 401
        assert f'realm="{backend}"' in (found.get("www-authenticate") or "")
    world.untouched()


async def test_D9_pages_for_people_are_on_the_login_host_only(world: World) -> None:
    for page in ("/.heim/callback", "/.heim/jwks.json", "/.heim/login/test", "/.heim/signed-out"):
        assert (await world.get(page)).status == 404
    assert (await world.heim.request("/.heim/jwks.json", host=LOGIN_HOST)).status == 200
    for target in ("/app", "/.heim/handoff?t=x"):
        assert (await world.heim.request(target, host=LOGIN_HOST)).status == 404
    world.untouched()


async def test_a_memo_of_hosts_is_not_poisoned_by_spellings(world: World) -> None:
    """Spellings are remembered within a bound; beyond it they are judged as well as before."""
    judge = world.heim.proxy._edge.judge  # type: ignore[union-attr]
    wire = await world.wire("open", plain=True)
    for start in range(0, 4200, 60):
        batch = "".join(
            f"GET / HTTP/1.1\r\nHost: h{index}.wild.example.test\r\n\r\n"
            for index in range(start, start + 60)
        )
        wire.send(batch.encode())
        for _ in range(60):
            assert (await within(wire.answer())).status == 308
    assert len(judge._hosts) <= 4096
    world.untouched()
    for at, status in (("app", 401), ("open", 200)):
        assert (await world.get("/", at=at)).status == status
    assert (await world.as_alice()).status == 200


@pytest.mark.parametrize(
    "value", ["evil.test", "app.example.test:9443", "app.example.test"], ids=str
)
async def test_where_people_are_sent_never_depends_on_the_request(world: World, value: str) -> None:
    """E5, H17: what a client says about hosts is in no Location and in no cookie."""
    found = await world.get(
        "/x",
        headers=(
            ("Accept", "text/html"),
            ("X-Forwarded-Host", value),
            ("Forwarded", f"host={value}"),
            ("Referer", f"https://{value}/"),
        ),
    )
    assert found.status == 303
    location = found.get("location") or ""
    assert location.startswith(f"https://{LOGIN_HOST}/.heim/login?host={host('app')}&")
    assert "evil" not in found.raw.decode()
    assert "Domain" not in found.raw.decode()
    world.untouched()
