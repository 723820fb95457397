"""M: nothing is let through because of what it calls itself; H19, H20: nor is a login started."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from contextlib import closing

import pytest

from tests.fakes.heim import LOGIN_HOST
from tests.fakes.thorough import THOROUGH
from tests.fakes.upstream import Received, answer
from tests.hostile.world import ALICE, BOB, World, host, within

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/status", "/debug/tasks"])
async def test_M8_the_admin_pages_are_not_on_the_public_listeners(world: World, path: str) -> None:
    for target in (path, f"/.heim{path}", f"/.heim/..{path}", f"//{path[1:]}"):
        for at in (host("app"), LOGIN_HOST):
            for name, status in ((at, (401, 404)), ("localhost", (421,)), ("127.0.0.1", (421,))):
                data = f"GET {target} HTTP/1.1\r\nHost: {name}\r\n\r\n"
                found = await world.heim.raw(data.encode(), sni=at)
                assert found.status in status
                assert b"heim_" not in found.body
    for name in ("127.0.0.1", "localhost", LOGIN_HOST):
        data = f"GET {path} HTTP/1.1\r\nHost: {name}\r\n\r\n"
        found = await world.heim.raw(data.encode(), plain=True)
        assert found.status in (308, 404)
    world.untouched()


@pytest.mark.parametrize(
    "agent",
    ["GoogleHC/1.0", "kube-probe/1.30", "ELB-HealthChecker/2.0", "Consul Health Check", "curl/8"],
)
async def test_M1_a_user_agent_opens_nothing(world: World, agent: str) -> None:
    for target in ("/admin", "/", "/healthz", "/ping", "/.well-known/x", "/robots.txt"):
        found = await world.get(target, headers=(("User-Agent", agent),))
        assert found.status == 401
    world.untouched()


@pytest.mark.parametrize(
    "target", ["/ping/../admin", "/robots.txt/../admin", "/.well-known/../admin", "/favicon.ico"]
)
async def test_M2_a_well_known_path_leads_nowhere(world: World, target: str) -> None:
    assert (await world.get(target)).status == 401
    assert (await world.get(target, cookie=await world.cookie(BOB))).status == 403
    world.untouched()


PREFLIGHT = (("Origin", "https://listed.test"), ("Access-Control-Request-Method", "PUT"))


async def test_M3_a_preflight_is_answered_by_us_and_reaches_nobody(world: World) -> None:
    for cookie in (None, await world.cookie(ALICE, "cors")):
        found = await world.get(
            "/x",
            at="cors",
            method="OPTIONS",
            cookie=cookie,
            headers=(*PREFLIGHT, ("Access-Control-Request-Headers", "x-custom")),
        )
        assert found.status == 204
        assert found.get("access-control-allow-origin") == "https://listed.test"
        assert found.get("access-control-allow-credentials") == "true"
    world.untouched()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param((), 401, id="M3-plain"),
        pytest.param((PREFLIGHT[0],), 401, id="M3-no-method"),
        pytest.param((PREFLIGHT[1],), 401, id="M3-no-origin"),
        pytest.param((("Origin", "https://evil.test"), PREFLIGHT[1]), 403, id="M3-origin"),
        pytest.param((("Origin", "null"), PREFLIGHT[1]), 403, id="M4-null"),
        pytest.param((("Origin", "https://listed.test.evil"), PREFLIGHT[1]), 403, id="M4-suffix"),
        pytest.param((("Origin", "https://xlisted.test"), PREFLIGHT[1]), 403, id="M4-prefix"),
        pytest.param((("Origin", "http://listed.test"), PREFLIGHT[1]), 403, id="M4-scheme"),
        pytest.param((("Origin", "https://listed.test:444"), PREFLIGHT[1]), 403, id="M4-port"),
        pytest.param((("Origin", "https://LISTED.test"), PREFLIGHT[1]), 403, id="M4-case"),
        pytest.param(
            (PREFLIGHT[0], ("Access-Control-Request-Method", "DELETE")), 403, id="M3-method"
        ),
        pytest.param(
            (*PREFLIGHT, ("Access-Control-Request-Headers", "X-Auth-Id")), 403, id="M3-header"
        ),
    ],
)
async def test_what_is_no_listed_preflight_is_judged_or_refused(
    world: World, headers: tuple[tuple[str, str], ...], status: int
) -> None:
    found = await world.get("/x", at="cors", method="OPTIONS", headers=headers)
    assert found.status == status
    if status == 403:
        assert found.get("access-control-allow-origin") is None
    world.untouched()


async def test_M3_a_preflight_with_a_body_ends_the_connection(world: World) -> None:
    wire = await world.wire("cors")
    lines = "".join(f"{name}: {value}\r\n" for name, value in PREFLIGHT)
    smuggled = f"GET /smuggled HTTP/1.1\r\nHost: {host('open')}\r\n\r\n"
    wire.send(
        f"OPTIONS / HTTP/1.1\r\nHost: {host('cors')}\r\n{lines}"
        f"Content-Length: {len(smuggled)}\r\n\r\n{smuggled}".encode()
    )
    found = await within(wire.answer())
    assert (found.status, found.get("connection")) == (204, "close")
    assert await world.shut(wire) == b""
    world.untouched()


async def test_M3_elsewhere_options_is_a_request_like_any_other(world: World) -> None:
    for headers in ((), PREFLIGHT):
        assert (await world.get("/", method="OPTIONS", headers=headers)).status == 401
    world.untouched()
    cookie = await world.cookie(ALICE)
    dav = await world.get("/dav", method="OPTIONS", cookie=cookie)
    assert dav.status == 200
    assert world.only().get("x-auth-id") == "alice@example.com"


async def test_M4_an_upstream_cannot_widen_the_table(world: World) -> None:
    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        return answer(
            headers="Access-Control-Allow-Origin: *\r\n"
            "access-control-allow-credentials: true\r\n"
            "Access-Control-Expose-Headers: X-Secret\r\n"
        )

    world.upstream.script = script
    cookie = await world.cookie(ALICE, "cors")
    for origin in ("https://evil.test", "null", None):
        headers = (("Origin", origin),) if origin else ()
        found = await world.get("/", at="cors", cookie=cookie, headers=headers)
        assert found.status == 200
        assert found.get("access-control-allow-origin") is None
        assert found.get("access-control-allow-credentials") is None
        assert (found.get("vary") or "").lower() == "origin"
    listed = await world.get(
        "/", at="cors", cookie=cookie, headers=(("Origin", "https://listed.test"),)
    )
    assert listed.all("access-control-allow-origin") == ["https://listed.test"]
    assert listed.get("access-control-expose-headers") is None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "origin", ["https://evil.test", "https://two.example.test", "null", "https://app.example.test."]
)
async def test_M4_an_unsafe_method_of_a_foreign_page_is_refused(
    world: World, method: str, origin: str
) -> None:
    cookie = await world.cookie(ALICE)
    found = await world.get("/", method=method, cookie=cookie, headers=(("Origin", origin),))
    assert found.status == 403
    cross = await world.get(
        "/", method=method, cookie=cookie, headers=(("Sec-Fetch-Site", "same-site"),)
    )
    assert cross.status == 403
    world.untouched()
    own = await world.get(
        "/", method=method, cookie=cookie, headers=(("Origin", f"https://{host('app')}"),)
    )
    assert own.status == 200


async def test_M7_a_public_backend_hears_of_no_session(world: World) -> None:
    for cookie in (None, await world.cookie(ALICE, "open"), "__Host-heim=garbage"):
        world.forget()
        found = await world.get("/", at="open", cookie=cookie)
        assert found.status == 200
        assert found.all("set-cookie") == []
        seen = world.only()
        assert seen.get("x-auth-id") is None
        assert seen.get("x-auth-token") is None
        assert seen.get("cookie") is None


# -- H19, H20, G11: what an anonymous request gets ------------------------------------------------

NAVIGATION = (("Accept", "text/html,*/*;q=0.8"), ("Sec-Fetch-Mode", "navigate"))


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        pytest.param("POST", NAVIGATION, id="H19-post"),
        pytest.param("PUT", NAVIGATION, id="H19-put"),
        pytest.param("DELETE", NAVIGATION, id="H19-delete"),
        pytest.param("OPTIONS", NAVIGATION, id="H19-options"),
        pytest.param("GET", (("Accept", "application/json"),), id="H19-json"),
        pytest.param("GET", (), id="H19-no-accept"),
        pytest.param("GET", (("Accept", "*/*"),), id="H19-any"),
        pytest.param(
            "GET", (("Accept", "text/html"), ("X-Requested-With", "XMLHttpRequest")), id="H19-xhr"
        ),
        pytest.param("GET", (("Accept", "text/html"), ("Sec-Fetch-Mode", "cors")), id="H19-fetch"),
        pytest.param("GET", (("Accept", "text/html"), ("Sec-Fetch-Mode", "no-cors")), id="H19-img"),
        pytest.param("GET", (*NAVIGATION, ("Sec-Purpose", "prefetch")), id="H20"),
        pytest.param(
            "GET", (*NAVIGATION, ("Sec-Purpose", "prefetch;prerender")), id="H20-prerender"
        ),
        pytest.param("GET", (*NAVIGATION, ("Purpose", "prefetch")), id="H20-old"),
    ],
)
async def test_what_is_no_navigation_starts_no_login(
    world: World, method: str, headers: tuple[tuple[str, str], ...]
) -> None:
    found = await world.get("/x", method=method, headers=headers)
    assert found.status == 401
    assert found.get("www-authenticate")
    assert found.all("set-cookie") == []
    assert found.get("location") is None
    world.untouched()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_H19_a_navigation_is_sent_to_the_login_host(world: World, method: str) -> None:
    found = await world.get("/x?y=1", method=method, headers=NAVIGATION)
    assert found.status == 303
    assert (found.get("location") or "").startswith(f"https://{LOGIN_HOST}/.heim/login?")
    assert len(found.all("set-cookie")) == 1
    assert found.get("cache-control") == "no-store"
    world.untouched()


@pytest.mark.parametrize(
    "cookie", ["__Host-heim=garbage", "__Host-heim=", "__Host-heim", "__Host-heim=" + "A" * 16_000]
)
async def test_G11_a_worthless_cookie_is_anonymous_and_cleared(world: World, cookie: str) -> None:
    found = await world.get("/", cookie=cookie)
    assert found.status == 401
    if cookie != "__Host-heim":
        assert any("Max-Age=0" in line for line in found.all("set-cookie"))
    world.untouched()


async def test_G18_anonymous_visitors_leave_nothing_in_the_store(world: World) -> None:
    database = world.heim.directory / "state" / "state.db"

    def rows() -> dict[str, int]:
        with closing(
            sqlite3.connect(f"file:{database}?mode=ro", uri=True, isolation_level=None)
        ) as db:
            names = [
                name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")
            ]
            return {
                name: db.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names
            }

    before = rows()
    await anonymous(world, 500)
    assert rows() == before


async def anonymous(world: World, count: int) -> None:
    """Pipelined visits of people who are not signed in, of every kind that costs something."""
    app = f"Host: {host('app')}\r\n"
    kinds = [
        f"GET /p/{{0}} HTTP/1.1\r\n{app}Accept: text/html\r\n\r\n",
        f"GET /q/{{0}}?{{0}} HTTP/1.1\r\n{app}Cookie: __Host-heim=x{{0}}; a={{0}}\r\n\r\n",
        f"GET /h HTTP/1.1\r\n{app}X-{{0}}-Name: 1\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h{0}.wild.example.test\r\nAccept: text/html\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h{0}.unknown.test\r\n\r\n",
        f"GET /.heim/me?{{0}} HTTP/1.1\r\nHost: {LOGIN_HOST}\r\n\r\n",
    ]
    wire = await world.wire()
    for start in range(0, count, 50):
        batch = [kinds[n % len(kinds)].format(n) for n in range(start, start + 50)]
        for text in batch:
            # 421 closes the connection, so it gets one of its own.
            if "unknown" in text:
                found = await world.heim.raw(text.encode(), plain=True)
                assert found.status == 404
        batch = [text for text in batch if "unknown" not in text]
        wire.send("".join(batch).encode())
        for _ in batch:
            assert (await within(wire.answer())).status in (303, 401)


async def test_G18_thousands_of_anonymous_requests_leave_memory_flat(world: World) -> None:
    first, then = (3000, 7000) if THOROUGH else (1500, 3500)
    await anonymous(world, first)
    before = resident()
    await anonymous(world, then)
    # Bounded memories (hosts, names) may still fill up; 10 KB a request would be 35 MB.
    assert resident() - before < 12 * 1024 * 1024
    world.untouched()


def resident() -> int:
    # The proxy collects rarely (50,000 objects), so that what is only waiting would count, too.
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096
