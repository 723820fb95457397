from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from heim_controller.kube.resources import CONFIG_MAPS, SECRETS
from heim_proxy.sources.account import Account
from heim_proxy.sources.answers import MAX_LIST_BYTES, ApiError, Event, Selection
from heim_proxy.sources.api import PAGE, Api, Pace
from tests.fakes.kube import FakeKube
from tests.fakes.kube_document import NAMESPACE, account_folder, api_tls

MAPS = Selection("configmaps", NAMESPACE, name="a")
LABELLED = Selection("secrets", NAMESPACE, label="part=of")


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube(tls=api_tls()) as started:
        yield started


def environment(url: str) -> dict[str, str]:
    return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": url.split(":")[-1]}


@pytest.fixture
async def api(kube: FakeKube, tmp_path: Path) -> AsyncIterator[Api]:
    account = Account(account_folder(tmp_path / "account"), environment(kube.url))
    made = Api(account, pace=Pace(connect=1.0, answer=1.0, silence=1.0))
    yield made
    await made.close()


def put(kube: FakeKube, name: str, **data: str) -> None:
    kube.store.put(CONFIG_MAPS, {"metadata": {"name": name, "namespace": NAMESPACE}, "data": data})


async def test_a_list_holds_what_is_selected_and_nothing_else(kube: FakeKube, api: Api) -> None:
    put(kube, "a", key="value")
    put(kube, "b")
    listing = await api.list(MAPS, version="0")
    assert [item["data"] for item in listing.items] == [{"key": "value"}]
    assert listing.version == str(kube.store.revision)
    for name, labels in (("mine", {"part": "of"}), ("other", {})):
        metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
        kube.store.put(SECRETS, {"metadata": metadata})
    found = await api.list(LABELLED, version=None)
    assert [item["metadata"]["name"] for item in found.items] == ["mine"]


async def test_a_long_list_comes_in_pages(kube: FakeKube, api: Api) -> None:
    for number in range(PAGE + 1):
        metadata = {"name": f"s{number}", "namespace": NAMESPACE, "labels": {"part": "of"}}
        kube.store.put(SECRETS, {"metadata": metadata})
    listing = await api.list(LABELLED, version=None)
    assert len(listing.items) == PAGE + 1
    assert kube.counted()["list", "secrets"] == 2


async def test_many_certificates_are_more_than_one_answer(kube: FakeKube, api: Api) -> None:
    """Else a proxy that restarts waits for its Secrets for ever."""
    for number in range(200):
        metadata = {"name": f"s{number}", "namespace": NAMESPACE, "labels": {"part": "of"}}
        kube.store.put(SECRETS, {"metadata": metadata, "data": {"tls.crt": "A" * 100_000}})
    assert len((await api.list(LABELLED, version="0")).items) == 200


async def test_a_watch_tells_that_it_is_open_and_then_every_change(
    kube: FakeKube, api: Api
) -> None:
    put(kube, "a", key="1")
    version = (await api.list(MAPS, version=None)).version
    events = api.watch(MAPS, version=version, duration_s=60)
    assert await anext(events) is None
    put(kube, "a", key="2")
    put(kube, "b", key="not asked for")
    kube.store.remove(CONFIG_MAPS, "a", NAMESPACE)
    told = [await anext(events), await anext(events)]
    assert [one.type for one in told if isinstance(one, Event)] == ["MODIFIED", "DELETED"]
    await events.aclose()


@pytest.mark.parametrize("chunk", [0, 7], ids=["whole", "in pieces"])
async def test_lines_are_put_together_however_they_were_cut(
    kube: FakeKube, api: Api, chunk: int
) -> None:
    put(kube, "a", key="1")
    kube.faults.chunk = chunk
    events = api.watch(MAPS, version="0", duration_s=60)
    found = [await anext(events), await anext(events)]
    assert isinstance(found[1], Event)
    assert found[1].object["data"] == {"key": "1"}
    await events.aclose()


async def test_a_watch_whose_time_is_up_ends(kube: FakeKube, api: Api) -> None:
    events = api.watch(MAPS, version=str(kube.store.revision), duration_s=60)
    assert await anext(events) is None
    kube.end_watches()
    assert [event async for event in events] == []


async def test_silence_means_that_nobody_is_there(kube: FakeKube, tmp_path: Path) -> None:
    account = Account(account_folder(tmp_path / "account"), environment(kube.url))
    api = Api(account, pace=Pace(silence=0.1))
    events = api.watch(MAPS, version=str(kube.store.revision), duration_s=60)
    assert await anext(events) is None
    with pytest.raises(ApiError, match="does not answer"):
        await anext(events)
    await api.close()


async def test_a_slow_answer_has_a_deadline(kube: FakeKube, tmp_path: Path) -> None:
    kube.faults.slow_s = 4.0
    account = Account(account_folder(tmp_path / "account"), environment(kube.url))
    api = Api(account, pace=Pace(answer=0.1))
    with pytest.raises(ApiError, match="does not answer"):
        await api.list(MAPS, version=None)
    await api.close()


@pytest.mark.parametrize("status", [403, 404, 410, 429, 500, 503])
async def test_a_refusal_says_what_the_server_says(kube: FakeKube, api: Api, status: int) -> None:
    kube.faults.answer(status, retry_after=7)
    with pytest.raises(ApiError, match=f"answers {status} to configmaps heim/a: planned") as caught:
        await api.list(MAPS, version=None)
    assert (caught.value.status, caught.value.retry_after_s) == (status, 7.0)
    assert caught.value.stale is (status == 410 or status >= 500)


@pytest.mark.parametrize("by_status", [True, False], ids=["as a status", "as an event"])
async def test_a_version_that_was_compacted_is_gone(
    kube: FakeKube, api: Api, by_status: bool
) -> None:
    version = str(kube.store.revision)
    put(kube, "a")
    put(kube, "a", key="1")
    kube.store.compact()
    kube.faults.gone_by_status = by_status
    events = api.watch(MAPS, version=version, duration_s=60)
    with pytest.raises(ApiError) as caught:
        async for _ in events:
            pass
    assert caught.value.status == 410


async def test_a_401_is_answered_with_the_token_as_it_is_now(
    kube: FakeKube, api: Api, tmp_path: Path
) -> None:
    await api.list(MAPS, version=None)
    kube.tokens = {"the next"}
    (tmp_path / "account" / "token").write_text("the next")
    await api.list(MAPS, version=None)
    kube.tokens = set()
    with pytest.raises(ApiError) as caught:
        await api.list(MAPS, version=None)
    assert caught.value.status == 401
    assert "the next" not in str(caught.value)


async def test_the_token_is_read_again_from_time_to_time(kube: FakeKube, tmp_path: Path) -> None:
    account = Account(account_folder(tmp_path / "account"), environment(kube.url))
    api = Api(account, pace=Pace(token=0.0))
    await api.list(MAPS, version=None)
    kube.tokens.add("the next")
    (tmp_path / "account" / "token").write_text("the next")
    await api.list(MAPS, version=None)
    assert [asked.token for asked in kube.asked] == ["secret-token", "the next"]
    # Between two tokens there is none; the last one still does.
    (tmp_path / "account" / "token").unlink()
    await api.list(MAPS, version=None)
    await api.close()


async def test_an_authority_that_does_not_vouch_for_the_server_is_believed_nothing(
    kube: FakeKube, api: Api, tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "account" / "ca.crt")
    with pytest.raises(ApiError, match="certificate verify failed"):
        await api.list(MAPS, version=None)
    assert kube.asked == []
    # It was replaced, as when a cluster's authority is: read again, and all is well.
    account_folder(tmp_path / "account")
    await api.list(MAPS, version=None)


async def test_an_authority_that_is_none_is_named(api: Api, tmp_path: Path) -> None:
    (tmp_path / "account" / "ca.crt").write_text("nothing")
    with pytest.raises(ApiError, match="holds no usable certificate"):
        await api.list(MAPS, version=None)


async def test_without_a_server_it_says_so(kube: FakeKube, api: Api) -> None:
    await kube.down()
    with pytest.raises(ApiError, match="cannot be reached"):
        await api.list(MAPS, version=None)


async def asked(tmp_path: Path, answer: web.Response, *, watch: bool = False) -> Any:
    """What comes of asking a server that answers so."""

    async def same(request: web.Request) -> web.StreamResponse:
        return answer

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", same)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=api_tls()).start()
    port = runner.addresses[0][1]
    api = Api(Account(account_folder(tmp_path / "account"), environment(f":{port}")))
    try:
        if watch:
            return [event async for event in api.watch(MAPS, version="1", duration_s=9)]
        return await api.list(MAPS, version=None)
    finally:
        await api.close()
        await runner.cleanup()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "the answer is not JSON"),
        (b"[]", "the answer is no object"),
        (b"{}", "the answer is no list"),
        (b'{"metadata":{},"items":{"a":1}}', "the answer is no list"),
        (b'{"a":' + b"[" * 50_000, "the answer is not JSON"),
    ],
    ids=["a page", "a list", "nothing", "no items", "brackets"],
)
async def test_an_answer_that_is_none_is_refused_without_quoting_it(
    tmp_path: Path, body: bytes, message: str
) -> None:
    with pytest.raises(ApiError, match=message) as caught:
        await asked(tmp_path, web.Response(body=body))
    assert "html" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"<html>\n", "the answer is not JSON"),
        (b'{"type":"ADDED"}\n', "a line is no event"),
        (b'{"type":1,"object":{}}\n', "a line is no event"),
        (b'{"type":"ERROR","object":{"code":500,"message":"a\\nb"}}\n', "a b"),
        (b'{"type":"ERROR","object":{}}\n', "status 500"),
    ],
    ids=["a page", "no object", "no type", "an error", "an error without words"],
)
async def test_a_line_that_is_no_event_ends_the_watch(
    tmp_path: Path, line: bytes, message: str
) -> None:
    with pytest.raises(ApiError, match=message):
        await asked(tmp_path, web.Response(body=line), watch=True)


async def test_the_token_goes_nowhere_else(tmp_path: Path) -> None:
    moved = web.Response(status=302, headers={"Location": "https://elsewhere.example/"})
    with pytest.raises(ApiError, match="answers 302"):
        await asked(tmp_path, moved)


async def test_an_answer_has_an_end(tmp_path: Path) -> None:
    huge = b" " * (MAX_LIST_BYTES + 1)
    with pytest.raises(ApiError, match="is larger than"):
        await asked(tmp_path, web.Response(body=huge))
    with pytest.raises(ApiError, match="is longer than"):
        await asked(tmp_path, web.Response(body=huge), watch=True)


async def test_closing_ends_a_watch(kube: FakeKube, api: Api) -> None:
    events = api.watch(MAPS, version=str(kube.store.revision), duration_s=60)
    assert await anext(events) is None
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    await api.close()
    with pytest.raises((ApiError, StopAsyncIteration)):
        await waiting
