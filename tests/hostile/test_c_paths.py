"""C: what the policy judged is what the upstream sees, whatever the path looks like."""

from __future__ import annotations

import posixpath
import random
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

import pytest

from heim_proxy.target import BadTarget, canonicalise
from tests.fakes.heim import LOGIN_HOST
from tests.hostile.world import ALICE, BOB, DENIED, World, host, within

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Everything here leads, for some reader, from what bob may see (/public) to what he may not.
ESCAPES: Final = {
    "C1": "/public/../admin",
    "C2": "/public/%2e%2e/admin",
    "C3": "/public/.%2e/admin",
    "C3-b": "/public/%2E./admin",
    "C4": "/public/%2e%2e%2fadmin",
    "C4-b": "/public/..%2fadmin",
    "C4-c": "/public%2f..%2fadmin",
    "C5": "/public/..%5cadmin",
    "C5-b": "/public\\..\\admin",
    "C6": "//admin",
    "C6-b": "/public//../admin",
    "C6-c": "///admin",
    "C6-d": "//public/../admin",
    "C7": "/./admin",
    "C7-b": "/admin/.",
    "C8": "/%61dmin",
    "C8-b": "/%41DMIN",
    "C9": "/admin;x=1",
    "C9-b": "/public/..;/admin",
    "C9-c": "/;/admin",
    "C9-d": "/public/..;x=1/admin",
    "C9-e": "/public/..%3b/admin",
    "C9-f": "/public/.;/../admin",
    "C9-g": "/public;/../admin",
    "C10": "/admin%00",
    "C10-b": "/public%00/../admin",
    "C10-c": "/public/%00/../../admin",
    "C11": "/public%23/../admin",
    "C11-b": "/public#/../admin",
    "C12": "/public%3f/../admin",
    "C12-b": "/admin?x=/public",
    "C13": "/public/%252e%252e/admin",
    "C13-b": "/public/%25%32%65%25%32%65/admin",
    "C13-c": "/public/%252%65%252%65/admin",
    "C13-d": "/public/%25%32%66..%25%32%66admin",
    "C13-e": "/public/%%32%65%%32%65/admin",
    "C14": "/public/%c0%ae%c0%ae/admin",
    "C14-b": "/public/%ff/../admin",
    "C14-c": "/public/%zz/../admin",
    "C14-d": "/public/%u002e%u002e/admin",
    "C14-e": "/public/%e0%80%ae%e0%80%ae/admin",
    "C14-f": "/public/%2/../admin",
    "C14-g": "/public/%",
    "C15": "/admin%20",
    "C15-b": "/admin%09",
    "C15-c": "/admin/",
    "C15-d": "/publicx",
    "C15-e": "/public%20/../admin",
    "C15-f": "/publi",
    "C16": "/PUBLIC",
}

# Refused for everybody, alice included: no reader may be given the choice.
_NEVER: Final = """
C4 C4-b C4-c C5 C5-b C9-b C9-d C9-e C9-f C10 C10-b C10-c C11-b C13 C13-b C13-c C13-d C13-e
C14 C14-b C14-c C14-d C14-e C14-f C14-g C15-b
"""
NEVER: Final = _NEVER.split()


async def get(world: World, target: str, cookie: str | None, at: str = "app") -> int:
    line = f"Cookie: {cookie}\r\n" if cookie else ""
    found = await world.heim.raw(
        f"GET {target} HTTP/1.1\r\nHost: {host(at)}\r\n{line}\r\n".encode("latin-1")
    )
    return found.status


@pytest.mark.parametrize("case", ESCAPES)
async def test_a_path_does_not_lead_out_of_what_is_allowed(world: World, case: str) -> None:
    assert await get(world, ESCAPES[case], await world.cookie(BOB)) in (400, 403)
    assert await get(world, ESCAPES[case], None) in (400, 401)
    world.untouched()


@pytest.mark.parametrize("case", NEVER)
async def test_a_path_with_two_readings_is_refused_for_everybody(world: World, case: str) -> None:
    assert await get(world, ESCAPES[case], await world.cookie(ALICE)) == 400
    world.untouched()


@pytest.mark.parametrize("case", [case for case in ESCAPES if case not in NEVER])
async def test_the_upstream_sees_the_path_that_was_judged(world: World, case: str) -> None:
    target = ESCAPES[case]
    assert await get(world, target, await world.cookie(ALICE)) == 200
    judged = canonicalise(target.encode())
    assert world.only().path == (judged.path + judged.query).decode()


@pytest.mark.parametrize(
    ("target", "status"),
    [
        pytest.param("/public", 200, id="C15-border"),
        pytest.param("/public/", 200, id="C15-slash"),
        pytest.param("/public/x", 200, id="C15-below"),
        pytest.param("/publicx", 403, id="C15-beside"),
        pytest.param("/public;x/y", 400, id="C9-segment"),
        pytest.param("/public/x;y=1", 200, id="C9-below"),
        pytest.param("/Public", 403, id="C16-case"),
        pytest.param("/%70ublic/x", 200, id="C8-unreserved"),
    ],
)
async def test_borders_of_a_prefix(world: World, target: str, status: int) -> None:
    found = await get(world, target, await world.cookie(BOB))
    # What is a matter of readings may be refused either way, but never let through.
    assert found == status or (status == 400 and found == 403)
    assert len(world.sent) == (status == 200)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        pytest.param("GET http://two.example.test/ HTTP/1.1", 400, id="C17"),
        pytest.param("GET http://app.example.test@two.example.test/ HTTP/1.1", 400, id="C17-user"),
        pytest.param("GET http://app.example.test:80@evil/ HTTP/1.1", 400, id="C17-port"),
        pytest.param("GET http://app.example.test\\admin HTTP/1.1", 400, id="C17-backslash"),
        pytest.param("GET ftp://app.example.test/ HTTP/1.1", 400, id="C17-scheme"),
        pytest.param("GET http:///admin HTTP/1.1", 400, id="C17-empty"),
        pytest.param("GET admin HTTP/1.1", 400, id="C19-relative"),
        pytest.param("GET * HTTP/1.1", 400, id="C19-star"),
        pytest.param("OPTIONS * HTTP/1.1", 400, id="C19-options"),
        pytest.param("CONNECT app.example.test:443 HTTP/1.1", 405, id="C20"),
        pytest.param("CONNECT / HTTP/1.1", 405, id="C20-path"),
        pytest.param("TRACE / HTTP/1.1", 405, id="C20-trace"),
        pytest.param("get /public HTTP/1.1", 400, id="C24"),
        pytest.param("Get /public HTTP/1.1", 400, id="C24-mixed"),
        pytest.param("FOO /public HTTP/1.1", 400, id="C25"),
        pytest.param("GET;x /public HTTP/1.1", 400, id="C25-token"),
    ],
)
async def test_a_strange_request_line_is_refused_and_the_connection_closed(
    world: World, line: str, status: int
) -> None:
    wire = await world.wire()
    cookie = await world.cookie(ALICE)
    wire.send(f"{line}\r\nHost: {host('app')}\r\nCookie: {cookie}\r\n\r\n".encode())
    # C20: what follows must not be read as another request.
    wire.send(f"GET /after HTTP/1.1\r\nHost: {host('app')}\r\nCookie: {cookie}\r\n\r\n".encode())
    found = await within(wire.answer())
    assert (found.status, found.get("connection")) == (status, "close")
    assert await world.shut(wire) == b""
    world.untouched()


@pytest.mark.parametrize("scheme", ["http", "HTTPS"])
async def test_C18_the_absolute_form_of_the_same_host_is_its_path(
    world: World, scheme: str
) -> None:
    target = f"{scheme}://app.example.test"
    assert await get(world, f"{target}/public/../admin", await world.cookie(BOB)) == 403
    world.untouched()
    assert await get(world, f"{target}/public/a?b=1", await world.cookie(BOB)) == 200
    assert world.only().path == "/public/a?b=1"


@pytest.mark.parametrize(
    "target",
    [
        "/api/../admin",
        "/api/%2e%2e/admin",
        "/api%2f..%2fadmin",
        "/api/..%2fadmin",
        "/apix",
        "/api;x/../admin",
        "/api/..;/admin",
        "//api/../admin",
        "/admin",
    ],
)
async def test_C21_a_stripped_prefix_cannot_be_climbed_out_of(world: World, target: str) -> None:
    cookie = await world.cookie(ALICE, "strip")
    assert await get(world, target, cookie, "strip") in (400, 404)
    world.untouched()


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/api", "/"),
        ("/api/", "/"),
        ("/api/x", "/x"),
        ("//api//x", "/x"),
        ("/%61pi/./x?y=%2F", "/x?y=%2F"),
        ("/api?q", "/?q"),
        ("/api//evil.test/x", "/evil.test/x"),
    ],
)
async def test_C21_the_prefix_is_taken_from_the_canonical_path(
    world: World, target: str, sent: str
) -> None:
    assert await get(world, target, await world.cookie(ALICE, "strip"), "strip") == 200
    assert world.only().path == sent


@pytest.mark.parametrize(
    "name",
    ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "x-http-method-override"],
)
async def test_C23_the_method_on_the_wire_is_what_counts(world: World, name: str) -> None:
    found = await world.get(
        "/public/x", cookie=await world.cookie(BOB), headers=((name, "DELETE"),)
    )
    assert found.status == 200
    assert world.only().all(name) == []
    world.reset()
    refused = await world.get(
        "/public/x", method="DELETE", cookie=await world.cookie(BOB), headers=((name, "GET"),)
    )
    assert refused.status == 403
    world.untouched()


async def test_C26_head_is_governed_by_get(world: World) -> None:
    cookie = await world.cookie(BOB)
    assert (await world.get("/public/x", method="HEAD", cookie=cookie)).status == 200
    assert (await world.get("/admin", method="HEAD", cookie=cookie)).status == 403
    assert [received.line for received in world.sent] == ["HEAD /public/x HTTP/1.1"]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        pytest.param("/public/a%2Fb", 200, id="C28"),
        pytest.param("/public/a%2fb?c=%2f", 200, id="C28-lower"),
        pytest.param("/public/%7Euser//x", 200, id="C28-spelling"),
        pytest.param("/public/a%2F..%2F..%2Fadmin", 403, id="C28-climb"),
        pytest.param("/admin/..%2Fpublic/x", 403, id="C28-raw-view"),
        pytest.param("/admin/../public/x", 403, id="C28-raw-dots"),
        pytest.param("/public/../admin", 403, id="C28-dots"),
        pytest.param("/public/%252F", 400, id="C28-double"),
        pytest.param("/public/..%5Cadmin", 400, id="C28-backslash"),
        pytest.param("/x/..%2f.heim/login", 400, id="C28-reserved"),
    ],
)
async def test_C28_raw_bytes_reach_the_upstream_only_when_both_views_are_allowed(
    world: World, target: str, status: int
) -> None:
    found = await get(world, target, await world.cookie(BOB, "raw"), "raw")
    assert found == status
    if status == 200:
        assert world.only().path == target
    else:
        world.untouched()


@pytest.mark.parametrize(
    "query",
    ["?", "?a", "?a=1&a=2", "?a+b=%20;c", "?%zz", "?a=/../admin", "??", "?a=%2e%2E", "?{}|^`[]"],
)
async def test_C29_a_query_passes_byte_for_byte(world: World, query: str) -> None:
    assert await get(world, f"/public/x{query}", await world.cookie(BOB)) == 200
    assert world.only().path == f"/public/x{query}"


@pytest.mark.parametrize(
    ("target", "answers"),
    [
        ("/.heim%2flogin", {400, 404}),
        ("/.heim%2Fhandoff?t=x", {400, 404}),
        ("/.heim;x/login", {400, 404}),
        ("/.heim;/handoff", {400, 404}),
        ("/x/..;/.heim/login", {400, 404}),
        ("//.heim/login", {303, 400, 404}),
        ("/a/../.heim/handoff", {303, 400, 404}),
        ("/%2eheim/me", {200, 303, 401}),
        ("/.heim/nothing", {404}),
        ("/.heim", {404}),
        ("/.heim/", {404}),
        ("/.heim/%2e%2e/.heim/x", {404}),
    ],
)
async def test_D10_no_spelling_of_the_reserved_prefix_reaches_an_upstream(
    world: World, target: str, answers: set[int]
) -> None:
    for at in ("app", "open", "raw", "strip"):
        cookie = await world.cookie(ALICE, at)
        assert await get(world, target, cookie, at) in answers
    plain = await world.heim.raw(
        f"GET {target} HTTP/1.1\r\nHost: {host('open')}\r\n\r\n".encode(), plain=True
    )
    assert plain.status in (308, 400)
    world.untouched()


async def test_D9_the_reserved_prefix_opens_nothing_else(world: World) -> None:
    assert await get(world, "/.heim/../admin", None) == 401
    assert await get(world, "/.heim/../admin", await world.cookie(BOB)) == 403
    assert await get(world, "/.heimx", None) == 401
    assert await get(world, "/.HEIM/login", None) == 401
    world.untouched()


async def test_the_login_host_has_no_other_spelling_of_its_pages(world: World) -> None:
    for target in ("/.heim;x/login", "/.heim/login%2fx", "/.heim/me;x"):
        found = await world.heim.request(target, host=LOGIN_HOST)
        assert found.status == 400
    world.untouched()


# -- C30 ------------------------------------------------------------------------------------

_CONFUSING: Final = r"""
/ // . .. ... %2e %2E %2e%2e .%2e %2f %2F %5c \ ; ;x=1 ..; %3b %00 %20 %25 %252e %25%32%65
%c3%a4 %c0%ae %ff %zz % a admin public PUBLIC .heim ~ %7e * + , : @ ! $ & ' ( ) = | [ ] { }
%23 # %3f %0a %7f < > ^ ` "
"""
_PIECES: Final = _CONFUSING.split()


def targets(seed: int, count: int) -> Iterator[bytes]:
    """Paths made of everything that was ever used to confuse two readers of a path."""
    rng = random.Random(seed)
    for _ in range(count):
        pieces = rng.choices(_PIECES, k=rng.randint(1, 9))
        path = (
            "/"
            + rng.choice(("", "public", "public/"))
            + "".join(piece + rng.choice(("", "", "/")) for piece in pieces)
        )
        query = rng.choice(("", "", "?", "?a=%2e%2e/&b"))
        yield (path + query).encode()


def lenient_readings(path: bytes) -> Iterator[bytes]:
    """What servers in the field may make of a path that they receive."""
    once = unquote_to_bytes(path)
    for seen in (path, once, unquote_to_bytes(once)):
        for text in (seen, seen.replace(b"\\", b"/"), seen.split(b"\x00")[0], seen.split(b"#")[0]):
            yield text
            yield b"/".join(part.split(b";")[0] for part in text.split(b"/"))


def resolved(path: bytes) -> bytes:
    return posixpath.normpath(b"/" + path.lstrip(b"/")) if path else b"/"


async def test_C30_canonical_paths_are_stable_and_mean_one_thing() -> None:
    accepted = 0
    for target in targets(30, 100_000):
        try:
            found = canonicalise(target)
        except BadTarget:
            continue
        accepted += 1
        again = canonicalise(found.path + found.query)
        assert (again.path, again.query) == (found.path, found.query), target
        assert again.path.startswith(b"/"), target
        assert b"//" not in again.path, target
        segments = again.path.split(b"/")
        assert b"." not in segments, target
        assert b".." not in segments, target
        assert not {0, 0x0A, 0x5C, 0x7F} & set(unquote_to_bytes(found.path)), target
        # Every reading of what is forwarded is the path that is judged, or its alias.
        views = {resolved(unquote_to_bytes(found.path))}
        if found.alias is not None:
            views.add(resolved(unquote_to_bytes(found.alias)))
        if b"%3B" not in found.path:
            loose = b"/".join(part.split(b";")[0] for part in found.path.split(b"/"))
            assert resolved(unquote_to_bytes(loose)) in views, target
    assert accepted > 20_000


async def test_C30_on_the_wire_bob_reaches_nothing_that_reads_as_another_path(
    world: World,
) -> None:
    cookie = await world.cookie(BOB)
    statuses = set()
    wire = await world.wire()
    for target in targets(31, 300):
        world.forget()
        wire.send(
            b"GET %b HTTP/1.1\r\nHost: %b\r\nCookie: %b\r\n\r\n"
            % (target, host("app").encode(), cookie.encode())
        )
        found = await within(wire.answer())
        statuses.add(found.status)
        if found.status == 200:
            sent = world.only().path.encode("latin-1")
            judged = canonicalise(target)
            assert sent == judged.path + judged.query
            path = sent.partition(b"?")[0]
            for reading in lenient_readings(path):
                where = resolved(reading)
                assert where == b"/public" or where.startswith(b"/public/"), (target, reading)
        else:
            assert found.status in DENIED | {404}
            world.untouched()
        if found.get("connection") == "close":
            wire.close()
            wire = await world.wire()
    assert {200, 400, 403} <= statuses


async def test_C30_on_the_wire_alice_is_sent_where_she_was_judged(world: World) -> None:
    cookie = await world.cookie(ALICE)
    wire = await world.wire()
    passed = 0
    for target in targets(32, 300):
        world.forget()
        wire.send(
            b"GET %b HTTP/1.1\r\nHost: %b\r\nCookie: %b\r\n\r\n"
            % (target, host("app").encode(), cookie.encode())
        )
        found = await within(wire.answer())
        try:
            judged = canonicalise(target)
        except BadTarget:
            assert found.status == 400
            world.untouched()
        else:
            if world.sent:
                passed += 1
                assert world.only().path.encode("latin-1") == judged.path + judged.query
        if found.get("connection") == "close":
            wire.close()
            wire = await world.wire()
    assert passed > 100
