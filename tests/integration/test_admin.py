"""The operator's listener is where it was put and nowhere else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.heim import DOMAIN, LOGIN_HOST, Heim, user
from tests.fakes.upstream import Upstream
from tests.integration.process import admin
from tests.integration.setup import APP, OPEN, alice_only, app_backend, public_backend

PATHS = ["/livez", "/readyz", "/metrics", "/status", "/debug/tasks", "/debug/connections"]


@pytest.fixture
async def heim(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Heim]:
    started = await Heim.start(
        tmp_path,
        backends=[app_backend(upstream.url), public_backend(upstream.url, allow_http=True)],
        roles=alice_only(),
    )
    yield started
    await started.stop()


@pytest.mark.parametrize("path", PATHS)
async def test_its_pages_do_not_exist_on_the_public_listeners(
    path: str, heim: Heim, upstream: Upstream
) -> None:
    cookie = await heim.signed_in(user("alice"), APP)
    # On a backend the path is the application's, who may well have a /metrics of its own.
    assert (await heim.request(path, cookie=cookie)).body == b"ok"
    assert (await heim.request(path, host=OPEN)).body == b"ok"
    assert (await heim.request(path, host=OPEN, plain=True)).body == b"ok"
    assert [one.path for one in upstream.requests] == [path] * 3
    # Nobody is signed in, the login host, an unknown host, plain http.
    assert (await heim.request(path)).status == 401
    assert (await heim.request(path, host=LOGIN_HOST)).status == 404
    assert (await heim.request(path, host=f"nosuch.{DOMAIN}")).status == 404
    assert (await heim.request(path, plain=True)).status == 308
    assert (await heim.request(f"/.heim{path}", cookie=cookie)).status == 404
    assert len(upstream.requests) == 3


async def test_the_proxy_is_alive_and_ready(heim: Heim, tmp_path: Path) -> None:
    assert (await admin(tmp_path, "/livez")).body == b"ok\n"
    ready = await admin(tmp_path, "/readyz")
    assert ready.status == 200
    assert json.loads(ready.body) == {
        "ready": True,
        "checks": {"configuration": "ok", "draining": "ok", "store": "ok", "providers": "ok"},
    }


async def test_requests_and_refusals_are_counted_per_backend(heim: Heim, tmp_path: Path) -> None:
    await heim.request("/", host=OPEN)
    await heim.request("/")
    await heim.request("/", cookie=await heim.signed_in(user("mallory"), APP))
    await heim.request("/", host=f"nosuch.{DOMAIN}")
    lines = (await admin(tmp_path, "/metrics")).text.splitlines()
    assert 'heim_requests_total{backend="open",class="2xx"} 1.0' in lines
    assert 'heim_requests_total{backend="app",class="4xx"} 2.0' in lines
    # Names that strangers make up are no labels: they would be a way to fill our memory.
    assert not any("nosuch" in line for line in lines)


async def test_status_names_what_is_in_use_and_no_secret(heim: Heim, tmp_path: Path) -> None:
    text = (await admin(tmp_path, "/status")).text
    status = json.loads(text)
    assert (status["generation"], status["last_error"]) == (1, None)
    assert len(status["config_hash"]) == 16
    assert "not-a-secret" not in text


@pytest.mark.parametrize("name", ["tasks", "connections", "sessions", "routes"])
async def test_debug_pages_answer_to_loopback_names_only(
    name: str, heim: Heim, tmp_path: Path
) -> None:
    assert (await admin(tmp_path, f"/debug/{name}")).status == 200
    # A page in the operator's browser, through a name that was rebound to this machine.
    assert (await admin(tmp_path, f"/debug/{name}", host="evil.example")).status == 404
