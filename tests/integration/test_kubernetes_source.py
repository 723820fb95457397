"""The real heim-proxy with its configuration in a cluster, whose API server is a fake with faults.

What is served changes within a second of the ConfigMap or the Secret, and nothing that happens to
the API server takes anything away from what is served.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from heim_controller.kube.resources import CONFIG_MAPS, SECRETS
from heim_controller.translation.document import canonical, digest
from tests.fakes.heim import user
from tests.fakes.kube import FakeKube
from tests.fakes.kube_document import (
    NAME,
    NAMESPACE,
    Published,
    account_folder,
    api_tls,
    index,
    issued,
)
from tests.fakes.upstream import Received, Upstream, answer
from tests.fakes.waiting import until
from tests.integration.process import HeimProcess, admin, heim_proxy
from tests.integration.setup import APP, OPEN, alice_only, app_backend, public_backend

SECRET = "wiki.heim-tls"
# Only a machine that does four things at once needs more than one of them.
PATIENCE_S = 12.0


def document(*backends: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A document whose certificate is the Secret."""
    return {"backends": [*backends], "tls": {"certificates": [{"secret": SECRET}]}, **more}


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube(tls=api_tls()) as started:
        yield started


@pytest.fixture
def published(kube: FakeKube, upstream: Upstream) -> Published:
    """A cluster in which `open` is served."""
    found = Published(kube)
    found.secret(SECRET, issued("*.example.test"))
    found.document(document(public_backend(upstream.url)))
    return found


@pytest.fixture
async def heim(
    tmp_path: Path, kube: FakeKube, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[HeimProcess]:
    """A proxy with a boot file, not started."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", kube.url.rpartition(":")[2])
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    account = account_folder(tmp_path / "account")
    prepared = prepare(tmp_path, {"kubernetes": {"config_map": NAME, "account": str(account)}})
    yield prepared
    for starting in _STARTING:
        starting.cancel()
    await asyncio.gather(*_STARTING, return_exceptions=True)
    _STARTING.clear()
    if hasattr(prepared, "process"):
        await prepared.stop()


_STARTING: list[asyncio.Future[None]] = []


def begin(heim: HeimProcess) -> asyncio.Future[None]:
    """Start it without waiting; what a test leaves waiting ends with it."""
    _STARTING.append(asyncio.ensure_future(heim.launch()))
    return _STARTING[-1]


def prepare(directory: Path, source: dict[str, Any]) -> HeimProcess:
    heim = HeimProcess.prepare(directory, backends=[])
    assert isinstance(heim, HeimProcess)
    for key in ("backends", "roles", "tls"):
        del heim.document[key]
    heim.document["source"] = source
    heim.write()
    # Tests look into it before there is a process.
    heim.log_file.touch()
    return heim


async def holds(condition: Callable[[], Awaitable[bool]], within_s: float = PATIENCE_S) -> float:
    """Wait until an awaited condition holds; returns how long that took."""
    began = time.monotonic()
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.02)
    return time.monotonic() - began


async def serves(
    heim: HeimProcess, body: bytes, host: str = OPEN, within_s: float = PATIENCE_S
) -> float:
    async def does() -> bool:
        return (await heim.request(host=host)).body == body

    return await holds(does, within_s)


async def generation(
    heim: HeimProcess, wanted: int, within_s: float = PATIENCE_S
) -> dict[str, Any]:
    async def reached() -> bool:
        return bool((await heim.status())["generation"] >= wanted)

    await holds(reached, within_s)
    return await heim.status()


async def event(heim: HeimProcess, name: str) -> None:
    await heim.until(lambda: heim.events(name), PATIENCE_S)


async def certificate(heim: HeimProcess) -> bytes:
    wire = await heim.connect(OPEN)
    found: bytes = wire.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    wire.close()
    return found


async def readiness(heim: HeimProcess) -> tuple[int, str]:
    found = await admin(heim.directory, "/readyz")
    return found.status, json.loads(found.body)["checks"]["configuration"]


def other_upstream(body: bytes) -> Upstream:
    async def say(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        return answer(body)

    return Upstream(script=say)


# -- what is served -----------------------------------------------------------------------------


async def test_a_change_is_served_within_a_second(
    heim: HeimProcess, published: Published, upstream: Upstream
) -> None:
    await heim.launch()
    second = await other_upstream(b"the other one").start()
    took = []
    # The best of some: the machine may do other things.
    for url, body in ((second.url, b"the other one"), (upstream.url, b"ok")) * 3:
        published.document(document(public_backend(url)))
        took.append(await serves(heim, body))
    assert min(took) < 1.0
    await second.stop()


async def test_a_route_and_a_role_of_the_document_serve(
    heim: HeimProcess, published: Published, upstream: Upstream
) -> None:
    await heim.launch()
    assert (await heim.request(host=OPEN)).body == b"ok"
    status = await heim.status()
    assert status["document_hash"] == published.hash
    assert status["generation"] == 1
    assert await readiness(heim) == (200, "ok")

    second = await other_upstream(b"the other one").start()
    backends = (public_backend(second.url), app_backend(upstream.url))
    published.document(document(*backends, roles=alice_only()))
    await serves(heim, b"the other one")
    assert (await heim.request(cookie=await heim.signed_in(user("alice"), APP))).status == 200
    assert (await heim.request(cookie=await heim.signed_in(user("bob"), APP))).status == 403
    assert (await heim.status())["document_hash"] == published.hash
    await second.stop()


async def test_the_token_is_nowhere_but_in_the_request(
    heim: HeimProcess, published: Published
) -> None:
    await heim.launch()
    assert {asked.token for asked in published.kube.asked} == {"secret-token"}
    assert "secret-token" not in heim.log_file.read_text()
    assert "PRIVATE KEY" not in heim.log_file.read_text()


async def test_a_rotated_secret_is_served_and_open_connections_go_on(
    heim: HeimProcess, published: Published
) -> None:
    await heim.launch()
    kept = await heim.connect(OPEN)
    before = await certificate(heim)
    published.secret(SECRET, issued("*.example.test"))

    async def renewed() -> bool:
        return await certificate(heim) != before

    await holds(renewed)
    kept.send(f"GET / HTTP/1.1\r\nHost: {OPEN}\r\n\r\n".encode())
    assert (await kept.answer()).status == 200


@pytest.mark.parametrize(
    "content",
    [{"tls.crt": b"garbage", "tls.key": b"garbage"}, {}],
    ids=["garbage", "nothing"],
)
async def test_a_secret_that_is_no_certificate_leaves_the_last_good_one(
    heim: HeimProcess, published: Published, content: dict[str, bytes]
) -> None:
    await heim.launch()
    before = await certificate(heim)
    published.secret(SECRET, content)
    await event(heim, "cert.rejected")
    assert await certificate(heim) == before


async def test_a_deleted_secret_leaves_the_last_good_certificate_even_after_a_restart(
    heim: HeimProcess, published: Published, kube: FakeKube
) -> None:
    await heim.launch()
    before = await certificate(heim)
    kube.store.remove(SECRETS, SECRET, NAMESPACE)
    await event(heim, "config.secret_gone")
    assert await certificate(heim) == before
    await heim.stop()
    await heim.launch()
    assert await certificate(heim) == before


async def test_only_secrets_that_the_document_names_become_files_and_only_ours_to_read(
    heim: HeimProcess, published: Published, tmp_path: Path
) -> None:
    published.secret("unwanted", issued("x.example.test"))
    await heim.launch()
    [folder] = (tmp_path / "run").iterdir()
    assert [found.name for found in folder.iterdir()] == [SECRET]
    assert folder.stat().st_mode & 0o777 == 0o700
    key = (folder / SECRET / "tls.key").resolve()
    assert key.stat().st_mode & 0o777 == 0o600


# -- what cannot be used ------------------------------------------------------------------------


async def test_a_document_with_a_mistake_changes_nothing_and_is_told_with_its_place(
    heim: HeimProcess, published: Published, upstream: Upstream
) -> None:
    await heim.launch()
    good = published.hash
    published.document(document(public_backend(upstream.url, upstrem="x")))
    await event(heim, "config.rejected")
    status = await heim.status()
    assert status["document_hash"] == good
    [problem] = status["last_error"]["problems"]
    assert problem.startswith(f"ConfigMap {NAMESPACE}/{NAME}: backends[0].upstrem: unknown key")
    assert (await heim.request(host=OPEN)).body == b"ok"
    ready, words = await readiness(heim)
    assert ready == 200
    assert words.startswith("still generation 1; the latest was refused: ")


async def test_keys_of_the_boot_file_in_the_document_are_refused(
    heim: HeimProcess, published: Published, upstream: Upstream
) -> None:
    await heim.launch()
    published.document(document(public_backend(upstream.url), drain="2s"))
    await event(heim, "config.rejected")
    assert "drain: belongs to the boot file" in heim.log_file.read_text()


async def test_half_written_shards_are_waited_for_and_never_applied(
    heim: HeimProcess, published: Published, upstream: Upstream
) -> None:
    await heim.launch()
    second = await other_upstream(b"sharded").start()
    content = canonical(document(public_backend(second.url)))
    parts = [content[:100].decode(), content[100:200].decode(), content[200:].decode()]
    names = ["document-0", "document-1", "document-2"]
    published.pieces({"index.json": index(content, names), "document-0": parts[0]})
    published.pieces({"document-1": "not yet"}, 1)
    published.pieces({"document-2": parts[2]}, 2)
    # Longer than a change takes.
    await asyncio.sleep(1.0)
    assert (await heim.request(host=OPEN)).body == b"ok"
    assert heim.events("config.rejected") == []
    published.pieces({"document-1": parts[1]}, 1)
    await serves(heim, b"sharded")
    assert (await heim.status())["document_hash"] == digest(content)
    await second.stop()


# -- the API server -----------------------------------------------------------------------------


async def test_an_api_server_that_is_gone_changes_nothing_and_is_caught_up_with(
    heim: HeimProcess, published: Published, kube: FakeKube
) -> None:
    await heim.launch()
    await kube.down()
    await event(heim, "config.source_lost")
    assert (await heim.request(host=OPEN)).body == b"ok"
    ready, words = await readiness(heim)
    assert ready == 200
    assert "the API server cannot be reached" in words
    second = await other_upstream(b"meanwhile").start()
    published.document(document(public_backend(second.url)))
    kube.store.compact()
    await kube.up()
    await serves(heim, b"meanwhile")
    await event(heim, "config.source_recovered")
    assert await readiness(heim) == (200, "ok")
    await second.stop()


@pytest.mark.parametrize("how", ["event", "status"])
async def test_a_version_that_was_compacted_is_listed_again(
    heim: HeimProcess, published: Published, kube: FakeKube, how: str
) -> None:
    await heim.launch()
    kube.faults.gone_by_status = how == "status"
    kube.store.put(CONFIG_MAPS, {"metadata": {"name": "other", "namespace": NAMESPACE}})
    kube.store.compact()
    lists = kube.counted()["list", "configmaps"]
    kube.end_watches()
    await until(lambda: kube.counted()["list", "configmaps"] > lists, within_s=PATIENCE_S)
    second = await other_upstream(b"after 410").start()
    published.document(document(public_backend(second.url)))
    await serves(heim, b"after 410")
    assert heim.events("config.source_lost") == []
    await second.stop()


async def test_a_token_that_was_replaced_is_read_again(
    heim: HeimProcess, published: Published, kube: FakeKube, tmp_path: Path
) -> None:
    await heim.launch()
    kube.tokens = {"the next one"}
    (tmp_path / "account" / "token").write_text("the next one")
    kube.cut()
    second = await other_upstream(b"with another token").start()
    published.document(document(public_backend(second.url)))
    await serves(heim, b"with another token")
    await second.stop()


async def test_a_token_that_is_refused_keeps_serving_and_says_so(
    heim: HeimProcess, published: Published, kube: FakeKube
) -> None:
    await heim.launch()
    kube.tokens = set()
    kube.cut()
    await heim.until(lambda: "401" in heim.log_file.read_text(), PATIENCE_S)
    assert (await heim.request(host=OPEN)).body == b"ok"
    kube.tokens = {"secret-token"}
    await event(heim, "config.source_recovered")


# -- the start ----------------------------------------------------------------------------------


async def test_without_anything_it_waits_says_what_for_and_then_serves(
    heim: HeimProcess, kube: FakeKube, upstream: Upstream
) -> None:
    starting = begin(heim)
    await event(heim, "config.source_lost")
    assert await readiness(heim) == (
        503,
        f"ConfigMap {NAMESPACE}/{NAME}: there is no ConfigMap {NAMESPACE}/{NAME}; the controller "
        "writes it",
    )
    assert (await admin(heim.directory, "/livez")).status == 200
    found = Published(kube)
    found.document(document(public_backend(upstream.url)))
    # Its certificate is missing, and without any nothing can be served.
    await event(heim, "config.rejected")
    assert (await readiness(heim))[0] == 503
    found.secret(SECRET, issued("*.example.test"))
    await starting
    assert (await heim.request(host=OPEN)).body == b"ok"
    assert await readiness(heim) == (200, "ok")


async def test_while_it_waits_sigterm_ends_it(heim: HeimProcess, kube: FakeKube) -> None:
    starting = begin(heim)
    await event(heim, "config.source_lost")
    heim.signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE_S):
        assert await heim.process.wait() == 0
    with pytest.raises(RuntimeError):
        await starting


async def test_a_restart_without_the_api_server_serves_what_was_in_force(
    heim: HeimProcess, published: Published, kube: FakeKube
) -> None:
    await heim.launch()
    before = await certificate(heim)
    kept = heim.directory / "state" / "configuration-document"
    await heim.until(kept.exists, PATIENCE_S)
    await kube.down()
    await heim.stop()
    await heim.launch()
    assert (await heim.request(host=OPEN)).body == b"ok"
    assert await certificate(heim) == before
    assert (await heim.status())["document_hash"] == published.hash
    assert heim.events("config.kept_copy")
    await kube.up()
    second = await other_upstream(b"back").start()
    published.document(document(public_backend(second.url)))
    await serves(heim, b"back")
    await second.stop()


async def test_a_restart_with_a_document_that_cannot_be_used_serves_the_last_good_one(
    heim: HeimProcess, published: Published, upstream: Upstream
) -> None:
    await heim.launch()
    good = published.hash
    await heim.until((heim.directory / "state" / "configuration-document").exists, PATIENCE_S)
    published.document(document(public_backend(upstream.url, upstrem="x")))
    await event(heim, "config.rejected")
    await heim.stop()
    await heim.launch()
    assert (await heim.request(host=OPEN)).body == b"ok"

    async def told() -> bool:
        return (await heim.status())["last_error"] is not None

    await holds(told)
    assert (await heim.status())["document_hash"] == good


# -- commands and mounts ------------------------------------------------------------------------


async def test_check_takes_the_boot_file_alone_or_both_layers(
    heim: HeimProcess, tmp_path: Path, upstream: Upstream
) -> None:
    config = str(heim.config_file)
    alone = await heim_proxy("check", "--config", config)
    assert (alone.status, alone.err) == (0, "")
    assert "ok: the boot file alone" in alone.out
    file = tmp_path / "document.json"
    file.write_bytes(canonical(document(public_backend(upstream.url))))
    both = await heim_proxy("check", "--config", config, "--document", str(file))
    assert (both.status, both.err) == (0, "")
    assert "ok: 1 backend on 1 host" in both.out
    file.write_bytes(canonical(document(public_backend(upstream.url, upstrem="x"), drain="1s")))
    wrong = await heim_proxy("check", "--config", config, "--document", str(file))
    assert wrong.status == 2
    assert f"{file}: backends[0].upstrem: unknown key" in wrong.err
    assert f"{file}: drain: belongs to the boot file" in wrong.err


async def test_commands_beside_the_proxy_know_the_document_that_is_in_force(
    heim: HeimProcess, published: Published
) -> None:
    config = str(heim.config_file)
    question = ("--as", "alice@example.com", "GET", f"https://{OPEN}/")
    before = await heim_proxy("explain", "--config", config, *question)
    assert before.status == 2
    assert "no document was ever in force here" in before.err
    await heim.launch()
    await heim.until((heim.directory / "state" / "configuration-document").exists, PATIENCE_S)
    after = await heim_proxy("explain", "--config", config, *question)
    assert (after.status, after.out) == (0, "ALLOWED: everybody: backend open is public\n")


def mount(folder: Path, version: str, pieces: dict[str, bytes]) -> None:
    """Files as kubelet mounts and replaces them."""
    fresh = folder / f"..{version}"
    fresh.mkdir(parents=True)
    for name, content in pieces.items():
        (fresh / name).write_bytes(content)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data_tmp").symlink_to(fresh.name)
    os.replace(folder / "..data_tmp", folder / "..data")


async def test_mounted_files_make_the_same_configuration_and_change_alike(
    tmp_path: Path, heim: HeimProcess, published: Published, upstream: Upstream
) -> None:
    content = canonical(document(public_backend(upstream.url)))
    pieces = {"index.json": index(content, ["document.json"]).encode(), "document.json": content}
    mount(tmp_path / "mounted", "1", pieces)
    mount(tmp_path / "secrets" / SECRET, "1", issued("*.example.test"))
    source = {"path": str(tmp_path / "mounted"), "secrets": str(tmp_path / "secrets")}
    (tmp_path / "second").mkdir()
    mounted = prepare(tmp_path / "second", {"file": source})
    await heim.launch()
    await mounted.launch()
    try:
        assert (await mounted.request(host=OPEN)).body == b"ok"
        ours, theirs = await mounted.status(), await heim.status()
        assert ours["document_hash"] == theirs["document_hash"] == digest(content)
        second = await other_upstream(b"mounted anew").start()
        content = canonical(document(public_backend(second.url)))
        pieces = {
            "index.json": index(content, ["document.json"]).encode(),
            "document.json": content,
        }
        mount(tmp_path / "mounted", "2", pieces)
        await serves(mounted, b"mounted anew")
        before = await certificate(mounted)
        mount(tmp_path / "secrets" / SECRET, "2", issued("*.example.test"))

        async def renewed() -> bool:
            return await certificate(mounted) != before

        await holds(renewed)
        await second.stop()
    finally:
        await mounted.stop()
