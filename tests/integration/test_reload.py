"""A configuration that changes under a running proxy: good ones within a second, bad ones never."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
import websockets
from websockets.asyncio.server import ServerConnection, serve

from heim_proxy.identity.keys import KeyRing
from tests.fakes.heim import LOGIN_HOST, Heim, authority, user
from tests.fakes.idp import FakeIdp
from tests.fakes.upstream import Received, Upstream, answer
from tests.integration.process import HeimProcess, admin, running
from tests.integration.setup import (
    APP,
    OPEN,
    alice_only,
    app_backend,
    public_backend,
    websocket,
)


@pytest.fixture
async def heim(tmp_path: Path, upstream: Upstream) -> AsyncIterator[HeimProcess]:
    async with running(
        tmp_path,
        backends=[app_backend(upstream.url), public_backend(upstream.url)],
        roles=alice_only(),
    ) as started:
        yield started


async def holds(condition: Any, within_s: float = 3.0) -> None:
    """Wait until an awaited condition holds."""
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.05)


async def generation(heim: HeimProcess, wanted: int) -> None:
    async def reached() -> bool:
        return bool((await heim.status())["generation"] == wanted)

    await holds(reached)


async def metrics(heim: HeimProcess) -> list[str]:
    return (await admin(heim.directory, "/metrics")).text.splitlines()


async def served_certificate(heim: Heim) -> bytes:
    """What a new connection is shown."""
    wire = await heim.connect()
    found: bytes = wire.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    wire.close()
    return found


# -- the configuration file ---------------------------------------------------------------------


async def test_a_changed_upstream_serves_within_a_second_and_a_half(
    heim: HeimProcess, upstream: Upstream
) -> None:
    async def other(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        return answer(b"the other one")

    second = await Upstream(script=other).start()
    assert (await heim.request(host=OPEN)).body == b"ok"
    heim.document["backends"][1]["http"][0]["upstream"] = second.url
    heim.write()
    began = time.monotonic()

    async def moved() -> bool:
        return (await heim.request(host=OPEN)).body == b"the other one"

    await holds(moved)
    assert time.monotonic() - began < 1.5
    await second.stop()


async def test_a_broken_configuration_changes_nothing_and_shows_everywhere(
    heim: HeimProcess,
) -> None:
    good = heim.config_file.read_text()
    heim.document["backends"][0]["upstrem"] = "x"
    heim.document["roles"][0]["bindings"][0]["backend"] = "ap"
    heim.write()

    async def noticed() -> bool:
        return (await heim.status())["last_error"] is not None

    await holds(noticed)
    assert (await heim.request(host=OPEN)).body == b"ok"
    assert (await heim.request(cookie=await heim.signed_in(user("alice"), APP))).status == 200
    status = await heim.status()
    assert status["generation"] == 1
    # Both mistakes at once, each with its place.
    first, second = status["last_error"]["problems"]
    assert "upstrem" in first + second
    assert "ap" in first + second
    assert str(heim.config_file) in first
    ready = await admin(heim.directory, "/readyz")
    said = json.loads(ready.body)["checks"]["configuration"]
    assert ready.status == 200
    assert said.startswith("still generation 1; the latest was refused: ")
    assert "heim_config_last_reload_successful 0.0" in await metrics(heim)
    (rejected,) = heim.events("config.rejected")
    assert (rejected["level"], rejected["problem_count"]) == ("error", 2)
    assert rejected["generation_kept"] == 1

    heim.config_file.write_text(good.replace("drain: 1s", "drain: 2s"))
    await generation(heim, 2)
    assert json.loads((await admin(heim.directory, "/readyz")).body)["checks"]["configuration"] == (
        "ok"
    )
    assert "heim_config_last_reload_successful 1.0" in await metrics(heim)
    assert (await heim.status())["last_error"] is None


@pytest.mark.parametrize(
    "text",
    ["", "version: [", "version: 1\n", "- a list\n", "\x00\x01"],
    ids=["empty", "no YAML", "incomplete", "a list", "binary"],
)
async def test_a_file_that_is_no_configuration_leaves_the_old_one_in_force(
    text: str, heim: HeimProcess
) -> None:
    heim.config_file.write_text(text)
    await heim.until(lambda: heim.events("config.rejected"))
    assert (await heim.request(host=OPEN)).body == b"ok"
    assert heim.process.returncode is None


async def test_a_file_that_is_gone_leaves_the_old_one_in_force(heim: HeimProcess) -> None:
    heim.config_file.unlink()
    await heim.until(lambda: heim.events("config.rejected"))
    assert (await heim.request(host=OPEN)).body == b"ok"
    heim.document["drain"] = "2s"
    heim.write()
    await generation(heim, 2)


async def test_a_role_taken_away_ends_its_websocket_with_a_reason_within_2_s(
    heim: HeimProcess, upstream: Upstream
) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        heim.document["backends"][0]["http"][0]["upstream"] = f"http://127.0.0.1:{port}"
        heim.write()
        await generation(heim, 2)
        cookie = await heim.signed_in(user("alice"), APP)
        async with websocket(heim, cookie) as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
            heim.document["roles"][0]["members"] = [{"user": "bob@example.com"}]
            heim.write()
            began = time.monotonic()
            with pytest.raises(websockets.ConnectionClosed) as told:
                await socket.recv()
            assert time.monotonic() - began < 2
            assert told.value.rcvd is not None
            assert (told.value.rcvd.code, told.value.rcvd.reason) == (4401, "heim: policy_changed")
        assert (await heim.request(cookie=cookie)).status == 403


async def test_a_changed_listener_waits_for_a_restart_and_says_so(heim: HeimProcess) -> None:
    heim.document["listeners"]["http"] = None
    heim.document["drain"] = "2s"
    heim.write()
    await generation(heim, 2)
    assert (await heim.status())["restart_needed"] == ["listeners"]
    assert heim.events("config.restart_needed")[0]["keys"] == ["listeners"]
    assert (await heim.request(plain=True, host=OPEN)).status == 308


# -- signals ------------------------------------------------------------------------------------


async def test_sighup_loads_again_and_reopens_the_access_log(heim: HeimProcess) -> None:
    await heim.request("/first", host=OPEN)
    await heim.until(lambda: "/first" in heim.log.read_text())
    rotated = heim.log.with_suffix(".1")
    heim.log.rename(rotated)
    heim.signal(signal.SIGHUP)
    await generation(heim, 2)
    await heim.request("/second", host=OPEN)
    await heim.until(lambda: heim.log.exists() and "/second" in heim.log.read_text())
    assert "/second" not in rotated.read_text()
    assert heim.process.returncode is None


# -- certificates -------------------------------------------------------------------------------


def put_secret(mount: Path, version: str) -> None:
    """Put a certificate where kubelet would: a new directory, then one swap of `..data`."""
    fresh = mount / f"..{version}"
    fresh.mkdir(parents=True)
    issued = authority().issue_cert("*.example.test")
    (fresh / "tls.crt").write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(fresh / "tls.key")
    (mount / "..data.new").symlink_to(fresh.name)
    os.replace(mount / "..data.new", mount / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (mount / name).is_symlink():
            (mount / name).symlink_to(f"..data/{name}")


async def test_a_swapped_secret_serves_within_2_s_and_open_connections_live_on(
    tmp_path: Path, upstream: Upstream
) -> None:
    mount = tmp_path / "mounted"
    put_secret(mount, "1")
    async with running(
        tmp_path,
        backends=[public_backend(upstream.url)],
        tls={"certificates": [{"directory": str(mount)}]},
    ) as heim:
        request = f"GET / HTTP/1.1\r\nHost: {OPEN}\r\n\r\n".encode()
        kept = await heim.connect(OPEN)
        kept.send(request)
        assert (await kept.answer()).status == 200
        before = await served_certificate(heim)

        put_secret(mount, "2")
        began = time.monotonic()

        async def renewed() -> bool:
            return await served_certificate(heim) != before

        await holds(renewed)
        assert time.monotonic() - began < 2
        kept.send(request)
        assert (await kept.answer()).status == 200


async def test_a_key_that_does_not_fit_leaves_the_last_good_pair_in_force(
    heim: HeimProcess, tmp_path: Path
) -> None:
    before = await served_certificate(heim)
    other = authority().issue_cert("*.example.test")
    other.private_key_pem.write_to_path(tmp_path / "tls.key")
    await heim.until(lambda: heim.events("cert.rejected"))
    assert await served_certificate(heim) == before
    rejected = [line for line in await metrics(heim) if "heim_certificate_rejected{" in line]
    assert [line.rpartition(" ")[2] for line in rejected] == ["1.0"]

    (tmp_path / "tls.crt").write_bytes(b"".join(one.bytes() for one in other.cert_chain_pems))

    async def renewed() -> bool:
        return await served_certificate(heim) != before

    await holds(renewed)


# -- keys and secrets ---------------------------------------------------------------------------


async def test_session_keys_rotate_without_a_login_until_the_old_one_is_removed(
    tmp_path: Path, upstream: Upstream
) -> None:
    keys = tmp_path / "session.keys"
    old, new = KeyRing.generate_line(), KeyRing.generate_line()
    keys.write_text(old + "\n")
    keys.chmod(0o600)
    heim = await Heim.start(
        tmp_path,
        backends=[app_backend(upstream.url)],
        roles=alice_only(),
        session={"key_file": str(keys)},
    )
    cookie = await heim.signed_in(user("alice"), APP)
    assert (await heim.request(cookie=cookie)).get("set-cookie") is None

    keys.write_text(f"{new}\n{old}\n")
    await heim.until(lambda: heim.generation == 2)
    renewing = await heim.request(cookie=cookie)
    assert renewing.status == 200
    renewed = (renewing.get("set-cookie") or "").split(";")[0]
    assert renewed.startswith("__Host-heim=")
    assert renewed != cookie
    assert (await heim.request(cookie=renewed)).get("set-cookie") is None

    keys.write_text(f"{new}\n")
    await heim.until(lambda: heim.generation == 3)
    assert (await heim.request(cookie=renewed)).status == 200
    assert (await heim.request(cookie=cookie)).status == 401
    await heim.stop()


async def test_a_key_file_that_becomes_garbage_keeps_the_old_keys(
    tmp_path: Path, upstream: Upstream
) -> None:
    keys = tmp_path / "session.keys"
    line = KeyRing.generate_line()
    keys.write_text(line + "\n")
    keys.chmod(0o600)
    async with running(
        tmp_path,
        backends=[app_backend(upstream.url)],
        roles=alice_only(),
        session={"key_file": str(keys)},
    ) as heim:
        keys.write_text(line[:20] + "\n")
        await heim.until(lambda: heim.events("config.rejected"))
        # The log says which file, and nothing of what is in it.
        text = heim.log_file.read_text()
        assert str(keys) in text
        assert line.partition(":")[2][:8] not in text
        assert (await heim.request()).status == 401


async def login_status(heim: Heim) -> int:
    """Sign in at the fake provider; the status of the callback's answer."""
    begun = await heim.request("/.heim/login", host=LOGIN_HOST, headers=(("Accept", "text/html"),))
    cookie = (begun.get("set-cookie") or "").split(";")[0]
    async with (
        aiohttp.ClientSession() as client,
        client.get(begun.get("location") or "", allow_redirects=False) as approved,
    ):
        back = urlsplit(approved.headers["Location"])
    called = await heim.request(f"{back.path}?{back.query}", host=LOGIN_HOST, cookie=cookie)
    return called.status


async def test_a_changed_client_secret_is_used_for_the_next_login(
    tmp_path: Path, upstream: Upstream
) -> None:
    idp = FakeIdp(redirect_uri=f"https://{LOGIN_HOST}/.heim/callback")
    await idp.start()
    secret = tmp_path / "idp-secret"
    secret.write_text("the old one")
    provider = {
        "name": "test",
        "type": "oidc",
        "issuer": idp.issuer,
        "client_id": idp.client_id,
        "client_secret_file": str(secret),
    }
    heim = await Heim.start(
        tmp_path,
        backends=[app_backend(upstream.url)],
        roles=alice_only(),
        identity={"providers": [provider]},
    )
    assert await login_status(heim) == 502
    secret.write_text(idp.client_secret)
    await heim.until(lambda: heim.generation == 2)
    assert await login_status(heim) == 303
    await heim.stop()
    await idp.stop()
