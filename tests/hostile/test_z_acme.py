"""Z: the one way past every login, challenges of an ACME authority, and nothing beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.heim import DOMAIN, LOGIN_HOST, Answer, Heim
from tests.fakes.upstream import Received, Upstream, answer
from tests.hostile.world import ALICE, World, host, websocket_head, within

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
BASE = "/.well-known/acme-challenge"
PATH = f"{BASE}/{TOKEN}"
UNKNOWN = "not-yet-here.test"
HOSTS = (host("app"), host("open"), LOGIN_HOST, UNKNOWN)
SECRET = "canary-of-somebody"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def solver() -> AsyncIterator[Upstream]:
    solver = await Upstream().start()
    yield solver
    await solver.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_world(
    tmp_path_factory: pytest.TempPathFactory, solver: Upstream
) -> AsyncIterator[World]:
    directory: Path = tmp_path_factory.mktemp("heim")
    challenges = [{"host": name, "token": TOKEN, "upstreams": [solver.url]} for name in HOSTS]
    world = await World.start(directory, acme_challenges=challenges)
    yield world
    await world.stop()


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def quiet(solver: Upstream) -> None:
    solver.requests.clear()
    solver.script = None


async def ask(world: World, at: str = UNKNOWN, target: str = PATH, **more: object) -> Answer:
    found: Answer = await world.heim.request(target, host=at, plain=True, **more)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("at", HOSTS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_Z1_a_challenge_is_answered_wherever_it_is_configured(
    world: World, solver: Upstream, at: str, method: str
) -> None:
    """The login host and a host that nothing else is served on need certificates, too."""
    found = await ask(world, at, method=method)
    assert found.status == 200
    assert found.body == (b"ok" if method == "GET" else b"")
    (sent,) = solver.requests
    assert sent.line == f"{method} {PATH} HTTP/1.1"
    world.untouched()


@pytest.mark.parametrize(
    "spelled", [UNKNOWN.upper(), f"{UNKNOWN}:80", f"{UNKNOWN}.", f"{UNKNOWN}:8080"]
)
async def test_Z2_the_host_may_be_spelled_as_hosts_are(
    world: World, solver: Upstream, spelled: str
) -> None:
    assert (await ask(world, spelled)).status == 200
    # Whoever answers hears of one host in one spelling.
    assert solver.requests[0].all("host") == [UNKNOWN]


WIDER = {
    "Z3-prefix": BASE,
    "Z3-prefix-slash": f"{BASE}/",
    "Z3-below": f"{PATH}/more",
    "Z3-trailing-slash": f"{PATH}/",
    "Z3-another-token": f"{BASE}/{TOKEN[:-1]}1",
    "Z3-longer": f"{PATH}0",
    "Z3-shorter": PATH[:-1],
    "Z3-case-of-the-token": f"{BASE}/{TOKEN.lower()}",
    "Z3-case-of-the-path": f"/.Well-Known/acme-challenge/{TOKEN}",
    "Z4-encoded-letter": PATH.replace("L", "%4C", 1),
    "Z4-encoded-dot": PATH.replace("/.well", "/%2Ewell"),
    "Z4-encoded-slash": f"{BASE}%2F{TOKEN}",
    "Z4-encoded-dash": PATH.replace("acme-", "acme%2D"),
    "Z5-dot-segment": f"{BASE}/./{TOKEN}",
    "Z5-dot-dot": f"{BASE}/x/../{TOKEN}",
    "Z5-encoded-dot-dot": f"{BASE}/x/%2e%2e/{TOKEN}",
    "Z5-out-of-it": f"{PATH}/../../../admin",
    "Z5-double-slash": f"{BASE}//{TOKEN}",
    "Z5-leading-double-slash": f"/{PATH}",
    "Z6-parameter": f"{PATH};x=1",
    "Z6-parameter-before": f"{BASE};x/{TOKEN}",
    "Z7-query": f"{PATH}?x=1",
    "Z7-empty-query": f"{PATH}?",
    "Z8-nul": f"{PATH}%00",
    "Z8-space": f"{PATH}%20",
    "Z8-newline": f"{PATH}%0a",
    "Z8-backslash": f"{BASE}%5c{TOKEN}",
    "Z8-fragment": f"{PATH}%23x",
    "Z8-utf8": f"{PATH}%C3%A9",
}


@pytest.mark.parametrize("target", WIDER.values(), ids=WIDER)
async def test_no_other_path_is_let_through(world: World, solver: Upstream, target: str) -> None:
    for at in (host("app"), LOGIN_HOST, UNKNOWN):
        found = await ask(world, at, target)
        assert found.status in ((308, 400) if at != UNKNOWN else (404, 400))
    assert not solver.requests
    world.untouched()


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "TRACE", "CONNECT", "get"]
)
async def test_Z9_no_other_method_is_let_through(
    world: World, solver: Upstream, method: str
) -> None:
    for at in (host("app"), LOGIN_HOST, UNKNOWN):
        found = await ask(world, at, method=method)
        assert found.status in (308, 400, 404, 405)
    assert not solver.requests
    world.untouched()


RAW = {
    "Z10-body": "GET {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n\r\nbody",
    "Z10-chunked": "GET {path} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
    "4\r\nbody\r\n0\r\n\r\n",
    "Z11-http-1.0": "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n",
    "Z11-http-1.0-keep-alive": "GET {path} HTTP/1.0\r\nHost: {host}\r\n"
    "Connection: keep-alive\r\n\r\n",
    "Z11-http-0.9": "GET {path}\r\n\r\n",
    "Z12-absolute": "GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "Z12-absolute-of-another-host": "GET http://{host}{path} HTTP/1.1\r\nHost: two.test\r\n\r\n",
    "Z12-absolute-https": "GET https://{host}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n",
    "Z13-websocket": "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "Z13-h2c": "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    "Z14-two-hosts": "GET {path} HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n",
    "Z14-no-host": "GET {path} HTTP/1.1\r\n\r\n",
    "Z14-user-info": "GET {path} HTTP/1.1\r\nHost: x@{host}\r\n\r\n",
    "Z14-another-host": "GET {path} HTTP/1.1\r\nHost: two.example.test\r\n\r\n",
    "Z14-below-the-host": "GET {path} HTTP/1.1\r\nHost: sub.{host}\r\n\r\n",
    "Z14-above-the-host": "GET {path} HTTP/1.1\r\nHost: example.test\r\n\r\n",
    "Z14-forwarded-host": "GET {path} HTTP/1.1\r\nHost: two.example.test\r\n"
    "X-Forwarded-Host: {host}\r\nForwarded: host={host}\r\n\r\n",
    "Z15-method-override": "POST {path} HTTP/1.1\r\nHost: {host}\r\n"
    "X-HTTP-Method-Override: GET\r\nContent-Length: 0\r\n\r\n",
    "Z15-rewritten-url": "GET / HTTP/1.1\r\nHost: {host}\r\nX-Original-URL: {path}\r\n"
    "X-Rewrite-URL: {path}\r\n\r\n",
}


@pytest.mark.parametrize("request_text", RAW.values(), ids=RAW)
async def test_no_other_kind_of_request_is_let_through(
    world: World, solver: Upstream, request_text: str
) -> None:
    for at in (host("app"), LOGIN_HOST, UNKNOWN):
        data = request_text.format(path=PATH, host=at).encode()
        found = await world.heim.raw(data, plain=True)
        assert found.status in (308, 400, 404, 405, 421)
    assert not solver.requests
    world.untouched()


@pytest.mark.parametrize("at", [host("app"), LOGIN_HOST, host("open")])
async def test_Z16_nothing_of_it_exists_on_https(world: World, solver: Upstream, at: str) -> None:
    await world.heim.request(PATH, host=at)
    await world.heim.request(PATH, host=at, headers=(("X-Forwarded-Proto", "http"),))
    assert not solver.requests


async def test_Z16_an_unknown_host_is_unknown_on_https(world: World, solver: Upstream) -> None:
    data = f"GET {PATH} HTTP/1.1\r\nHost: {UNKNOWN}\r\n\r\n".encode()
    assert (await world.heim.raw(data)).status == 421
    assert not solver.requests


HEADERS = (
    ("Authorization", f"Bearer {SECRET}"),
    ("Proxy-Authorization", f"Basic {SECRET}"),
    ("Cookie", f"a={SECRET}"),
    ("X-Forwarded-For", SECRET),
    ("X-Forwarded-Host", SECRET),
    ("Forwarded", f"for={SECRET}"),
    ("X-Real-IP", SECRET),
    ("X-Request-Id", SECRET),
    ("X-Auth-Id", SECRET),
    ("X-Forwarded-User", SECRET),
    ("X-Api-Key", SECRET),
    ("Referer", f"https://app.example.test/{SECRET}"),
    ("Origin", f"https://{SECRET}.test"),
    ("Accept-Language", SECRET),
    ("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("Range", "bytes=0-1"),
    ("Connection", "user-agent"),
    ("TE", "trailers"),
)


@pytest.mark.parametrize("at", HOSTS)
async def test_Z17_nothing_of_anybody_is_sent_to_whoever_answers(
    world: World, solver: Upstream, at: str
) -> None:
    cookie = await world.cookie(ALICE)
    found = await ask(world, at, headers=HEADERS, cookie=cookie)
    assert found.status == 200
    (sent,) = solver.requests
    assert [name.lower() for name, _ in sent.fields] == ["host"]
    assert SECRET.encode() not in sent.head
    assert b"127.0.0.1" not in sent.head.partition(b"\r\n")[2]


async def test_Z17_what_says_how_to_answer_is_sent(world: World, solver: Upstream) -> None:
    told = (("User-Agent", "validation/1"), ("Accept", "*/*"), ("Accept-Encoding", "gzip"))
    assert (await ask(world, headers=told)).status == 200
    fields = dict(solver.requests[0].fields)
    assert fields == {"Host": UNKNOWN, "User-Agent": "validation/1", "Accept": "*/*"}


async def test_Z18_whoever_answers_sets_no_cookies(world: World, solver: Upstream) -> None:
    async def script(*_: object) -> bytes:
        cookies = "Set-Cookie: __Host-heim=x; Secure; Path=/\r\nset-cookie: a=1; Domain=.test\r\n"
        early = f"HTTP/1.1 103 Early Hints\r\n{cookies}Link: </x>\r\n\r\n".encode()
        late = answer(b"<script>1</script>", headers=f"{cookies}X-Own: 1\r\nSET-COOKIE: b=2\r\n")
        return early + late

    solver.script = script
    wire = await world.wire(plain=True)
    wire.send(f"GET {PATH} HTTP/1.1\r\nHost: {LOGIN_HOST}\r\n\r\n".encode())
    early, late = await within(wire.answer()), await within(wire.answer())
    assert (early.status, late.status) == (103, 200)
    assert not early.all("set-cookie") + late.all("set-cookie")
    assert late.get("x-own") == "1"
    # What is said on the login host's plain origin must not run there.
    assert late.get("x-content-type-options") == "nosniff"
    assert "sandbox" in str(late.get("content-security-policy"))


async def test_Z19_each_request_of_a_connection_is_judged_alone(
    world: World, solver: Upstream
) -> None:
    good = f"GET {PATH} HTTP/1.1\r\nHost: {UNKNOWN}\r\n\r\n"
    others = [
        f"GET /admin HTTP/1.1\r\nHost: {host('app')}\r\n\r\n",
        f"GET {PATH}/.. HTTP/1.1\r\nHost: {UNKNOWN}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {LOGIN_HOST}\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n",
    ]
    wire = await world.wire(plain=True)
    wire.send("".join(good + other for other in others).encode())
    statuses = [(await within(wire.answer())).status for _ in range(8)]
    assert statuses == [200, 308, 200, 404, 200, 308, 200, 404]
    assert [one.path for one in solver.requests] == [PATH] * 4
    world.untouched()


async def test_Z20_a_body_is_no_second_request(world: World, solver: Upstream) -> None:
    inner = f"GET {PATH} HTTP/1.1\r\nHost: {UNKNOWN}\r\n\r\n"
    data = f"POST / HTTP/1.1\r\nHost: {host('app')}\r\nContent-Length: {len(inner)}\r\n\r\n{inner}"
    wire = await world.wire(plain=True)
    wire.send(data.encode())
    assert (await within(wire.answer())).status == 308
    await world.shut(wire)
    assert not solver.requests


async def test_Z21_what_is_called_off_is_answered_no_more(world: World, solver: Upstream) -> None:
    """An exchange under way is finished; the token is nobody's for the next."""
    held: asyncio.Event = asyncio.Event()

    async def script(*_: object) -> bytes:
        await held.wait()
        return answer(b"late")

    solver.script = script
    before = world.heim.document["acme_challenges"]
    wire = await world.wire(plain=True)
    wire.send(f"GET {PATH} HTTP/1.1\r\nHost: {UNKNOWN}\r\n\r\n".encode())
    await world.heim.until(lambda: solver.requests)
    await world.change(acme_challenges=[])
    assert (await ask(world)).status == 404
    held.set()
    assert (await within(wire.answer())).body == b"late"
    await world.change(acme_challenges=before)
    solver.script = None
    assert (await ask(world)).status == 200


async def test_Z22_whoever_answers_cannot_upgrade_or_stall(world: World, solver: Upstream) -> None:
    async def script(*_: object) -> bytes:
        return b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"

    solver.script = script
    assert (await ask(world)).status == 502

    async def silence(_: Received, reader: asyncio.StreamReader, __: object) -> bytes | None:
        await reader.read()
        return None

    solver.script = silence
    wire = await world.wire(plain=True)
    wire.send(f"GET {PATH} HTTP/1.1\r\nHost: {UNKNOWN}\r\n\r\n".encode())
    await world.heim.until(lambda: world.live == 1)
    world.sweep(11)
    assert (await within(wire.answer())).status == 504


async def test_Z23_nobody_there_is_an_error_and_no_redirect(world: World) -> None:
    before = world.heim.document["acme_challenges"]
    gone = [{"host": UNKNOWN, "token": TOKEN, "upstreams": ["http://127.0.0.1:1"]}]
    await world.change(acme_challenges=gone)
    found = await ask(world)
    assert found.status == 502
    assert b"127.0.0.1" not in found.body
    await world.change(acme_challenges=before)


async def test_Z24_a_websocket_goes_where_it_always_went(world: World, solver: Upstream) -> None:
    """The same path on https belongs to the host's backend, handshakes included."""
    wire = await world.wire()
    wire.send(websocket_head(PATH, cookie=await world.cookie(ALICE)))
    await within(wire.answer())
    assert world.only().path == PATH
    assert not solver.requests
    assert DOMAIN in str(world.only().get("host"))


# Who answers for every host of ours: `listeners.http.acme`.


THUMBPRINT = "9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"


async def standing(tmp_path: Path, **acme: str) -> Heim:
    listeners = {
        "https": {"address": "127.0.0.1:0"},
        "http": {"address": "127.0.0.1:0", "acme": acme},
        "admin": {"address": f"unix:{tmp_path / 'admin.sock'}"},
    }
    backend = {
        "name": "app",
        "http": [{"path": "/", "upstream": "http://127.0.0.1:1"}],
        "permissions": [{"name": "all", "locations": [{"any": "/"}]}],
    }
    return await Heim.start(tmp_path, backends=[backend], listeners=listeners)


@pytest.mark.parametrize("kind", ["webroot", "upstream"])
async def test_Z25_one_who_answers_for_all_sees_tokens_of_our_hosts_alone(
    tmp_path: Path, solver: Upstream, kind: str
) -> None:
    folder = tmp_path / "acme" / ".well-known" / "acme-challenge"
    folder.mkdir(parents=True)
    content = f"{TOKEN}.{THUMBPRINT}".encode()
    (folder / TOKEN).write_bytes(content)
    (tmp_path / "acme" / "secret").write_text(SECRET)

    async def script(*_: object) -> bytes:
        return answer(content, headers="Set-Cookie: a=1\r\n")

    solver.script = script
    heim = await standing(
        tmp_path, **{kind: str(tmp_path / "acme") if kind == "webroot" else solver.url}
    )
    try:
        for at in (host("app"), LOGIN_HOST):
            found = await heim.request(PATH, host=at, plain=True, headers=HEADERS)
            assert (found.status, found.body) == (200, content)
            assert not found.all("set-cookie")
            head = await heim.request(PATH, host=at, plain=True, method="HEAD")
            assert head.get("content-length") == str(len(content))
        assert SECRET.encode() not in b"".join(one.head for one in solver.requests)
        solver.requests.clear()
        for at in (host("app"), LOGIN_HOST, UNKNOWN, f"x.{UNKNOWN}"):
            # A token of the right form goes to whoever answers, on our hosts.
            allowed = {"Z3-another-token", "Z3-longer", "Z3-shorter", "Z3-case-of-the-token"}
            targets = [one for name, one in WIDER.items() if name not in allowed]
            targets += [f"{BASE}/short", f"{BASE}/{'a' * 129}", f"{BASE}/../../secret", "/secret"]
            for target in [*targets, *([PATH] if UNKNOWN in at else [])]:
                found = await heim.request(target, host=at, plain=True)
                assert found.status in (308, 400, 404), target
                assert SECRET.encode() not in found.body
            for request_text in RAW.values():
                data = request_text.format(path=PATH, host=at).encode()
                found = await heim.raw(data, plain=True)
                assert found.status in (308, 400, 404, 405, 421), request_text
            data = f"GET {PATH} HTTP/1.1\r\nHost: {at}\r\n\r\n".encode()
            assert (await heim.raw(data)).status in (401, 404, 421)
        assert not solver.requests
        if kind == "webroot":
            gone = await heim.request(f"{PATH}x", host=LOGIN_HOST, plain=True)
            assert (gone.status, gone.body) == (404, b"")
    finally:
        await heim.stop()


async def test_Z26_files_that_are_no_answer_stay_where_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "acme" / ".well-known" / "acme-challenge"
    folder.mkdir(parents=True)
    (tmp_path / "secret").write_text(SECRET)
    links = {"a" * 20: "../../../secret", "b" * 20: "/etc/passwd", "c" * 20: "/dev/zero"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / ("d" * 20)).write_text(SECRET)
    heim = await standing(tmp_path, webroot=str(tmp_path / "acme"))
    try:
        for name in (*links, "d" * 20, "e" * 20):
            found = await heim.request(f"{BASE}/{name}", host=LOGIN_HOST, plain=True)
            assert (found.status, found.body) == (404, b"")
    finally:
        await heim.stop()
