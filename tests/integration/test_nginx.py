"""A real nginx as the upstream, a real curl as the client: what passes, passes untouched."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.heim import Heim, user
from tests.fakes.upstream import Upstream, answer
from tests.integration.curl import Curled, curl
from tests.integration.nginx import Nginx, nginx
from tests.integration.setup import APP, alice_only, app_backend

pytestmark = pytest.mark.real

MIB = 1024 * 1024


@dataclass
class Site:
    """A proxy in front of nginx, and alice's cookie."""

    heim: Heim
    nginx: Nginx
    cookie: str

    async def curl(self, path: str, *args: str | Path, stdin: bytes = b"") -> Curled:
        return await curl(self.heim, path, *args, cookie=self.cookie, stdin=stdin)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with nginx(tmp_path / "nginx") as upstream:
        heim = await Heim.start(tmp_path, backends=[app_backend(upstream.url)], roles=alice_only())
        yield Site(heim, upstream, await heim.signed_in(user("alice"), APP))
        await heim.stop()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fill(path: Path, size: int) -> str:
    """Write random bytes; returns their digest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for _ in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size)))
    return sha256(path)


async def test_64_mib_down_arrive_byte_for_byte(site: Site, tmp_path: Path) -> None:
    digest = fill(site.nginx.www / "big.bin", 64 * MIB)
    found = await site.curl("/big.bin", "--output", tmp_path / "got")
    assert (found.exit, found.status) == (0, 200)
    assert found.all("content-length") == [str(64 * MIB)]
    assert sha256(tmp_path / "got") == digest


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
async def test_64_mib_up_arrive_byte_for_byte(chunked: bool, site: Site, tmp_path: Path) -> None:
    digest = fill(tmp_path / "big", 64 * MIB)
    how = ("--header", "Transfer-Encoding: chunked") if chunked else ()
    found = await site.curl("/upload/big", "--upload-file", tmp_path / "big", *how)
    assert (found.exit, found.status) == (0, 201)
    assert sha256(site.nginx.www / "upload" / "big") == digest


async def test_requests_share_an_upstream_connection(site: Site) -> None:
    for _ in range(5):
        assert (await site.curl("/version")).body == b"1"
    assert len(site.nginx.connections("/version")) == 1


async def test_an_upstream_that_closes_after_each_answer_is_asked_anew(site: Site) -> None:
    for _ in range(3):
        assert (await site.curl("/closing")).body == b"closing"
    assert len(site.nginx.connections("/closing")) == 3


async def test_an_upstream_that_closes_idle_connections_costs_no_request(tmp_path: Path) -> None:
    async with nginx(tmp_path / "nginx", keepalive="100ms") as upstream:
        heim = await Heim.start(tmp_path, backends=[app_backend(upstream.url)], roles=alice_only())
        cookie = await heim.signed_in(user("alice"), APP)
        for pause in (0.09, 0.1, 0.11, 0.2):
            assert (await heim.request("/version", cookie=cookie)).body == b"1"
            await asyncio.sleep(pause)
        await heim.stop()


async def test_chunked_answers_arrive_whole(site: Site) -> None:
    text = "".join(f"line {number}\n" for number in range(50_000))
    (site.nginx.www / "long.txt").write_text(text)
    found = await site.curl("/chunked/long.txt")
    assert found.all("transfer-encoding") == ["chunked"]
    assert found.body.decode() == text
    # HTTP/1.0 knows no chunks: the end of the connection is the end of the body.
    old = await site.curl("/chunked/long.txt", "--http1.0")
    assert old.all("transfer-encoding") == []
    assert old.body.decode() == text


async def test_compressed_answers_pass_untouched(site: Site) -> None:
    text = b"compress me " * 1000
    (site.nginx.www / "text.txt").write_bytes(text)
    found = await site.curl("/text.txt", "--header", "Accept-Encoding: gzip")
    assert found.all("content-encoding") == ["gzip"]
    assert gzip.decompress(found.body) == text
    assert (await site.curl("/text.txt", "--compressed")).body == text
    plain = await site.curl("/text.txt")
    assert (plain.all("content-encoding"), plain.body) == ([], text)


async def test_an_unchanged_page_is_304_without_a_body(site: Site) -> None:
    (site.nginx.www / "page.html").write_text("<p>hello")
    first = await site.curl("/page.html")
    (tag,), (modified,) = first.all("etag"), first.all("last-modified")
    for condition in (f"If-None-Match: {tag}", f"If-Modified-Since: {modified}"):
        found = await site.curl("/page.html", "--header", condition)
        assert (found.exit, found.status, found.body) == (0, 304, b"")
        assert found.all("last-modified") == [modified]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("0-9", range(10)), ("90-", range(90, 100)), ("-5", range(95, 100)), ("0-0", range(1))],
)
async def test_a_range_is_exactly_that_range(asked: str, expected: range, site: Site) -> None:
    (site.nginx.www / "bytes.bin").write_bytes(bytes(range(100)))
    found = await site.curl("/bytes.bin", "--range", asked)
    assert (found.status, found.body) == (206, bytes(expected))
    assert found.all("content-range") == [f"bytes {expected[0]}-{expected[-1]}/100"]


async def test_a_range_out_of_bounds_is_416_and_several_ranges_come_as_parts(site: Site) -> None:
    (site.nginx.www / "bytes.bin").write_bytes(bytes(range(100)))
    assert (await site.curl("/bytes.bin", "--range", "200-300")).status == 416
    several = await site.curl("/bytes.bin", "--range", "0-1,10-11")
    assert several.status == 206
    assert several.all("content-type")[0].startswith("multipart/byteranges")


async def test_head_has_the_headers_of_get_and_no_body(site: Site) -> None:
    (site.nginx.www / "bytes.bin").write_bytes(bytes(1000))
    # curl would wait for a body and fail if the connection did not stay in step.
    found = await site.curl("/bytes.bin", "--head")
    assert (found.exit, found.status, found.all("content-length")) == (0, 200, ["1000"])


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/nosuch", 404, b"404 Not Found"),
        ("/teapot", 418, b"short and stout"),
        ("/broken", 500, b"nginx is unwell"),
        ("/empty", 204, b""),
    ],
)
async def test_the_upstreams_own_errors_are_the_answer(
    path: str, status: int, body: bytes, site: Site
) -> None:
    found = await site.curl(path)
    assert (found.exit, found.status) == (0, status)
    assert body in found.body


async def test_redirects_of_the_upstream_pass(site: Site) -> None:
    found = await site.curl("/moved")
    assert found.status == 301
    assert found.all("location")[0].endswith("/elsewhere")


async def test_an_upstream_that_hangs_up_is_a_502_that_names_it(site: Site) -> None:
    found = await site.curl("/drop")
    assert found.status == 502
    assert b"backend app closed the connection without an answer" in found.body
    assert (await site.curl("/version")).body == b"1"


async def test_an_nginx_that_reloads_under_load_loses_no_request(site: Site) -> None:
    stop = asyncio.Event()
    seen: list[tuple[int, bytes]] = []

    async def load() -> None:
        while not stop.is_set():
            found = await site.heim.request("/version", cookie=site.cookie)
            seen.append((found.status, found.body))

    loads = [asyncio.ensure_future(load()) for _ in range(4)]
    await site.heim.until(lambda: len(seen) > 20)
    site.nginx.configure(version="2")
    site.nginx.reload()
    await site.heim.until(lambda: (200, b"2") in seen)
    after = len(seen)
    await site.heim.until(lambda: len(seen) > after + 20)
    stop.set()
    await asyncio.gather(*loads)
    assert set(seen) == {(200, b"1"), (200, b"2")}


async def test_an_upstream_that_is_gone_is_a_502_until_it_is_back(site: Site) -> None:
    assert (await site.curl("/version")).body == b"1"
    site.nginx.process.terminate()
    await site.nginx.process.wait()
    gone = await site.curl("/version")
    assert gone.status == 502
    assert b"backend app cannot be reached" in gone.body

    async def back(*_: object) -> bytes:
        return answer(b"back")

    other = Upstream(script=back, port=site.nginx.port)
    await other.start()
    assert (await site.curl("/version")).body == b"back"
    await other.stop()
