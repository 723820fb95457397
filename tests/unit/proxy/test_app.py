from __future__ import annotations

import asyncio
import json
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from heim_config.problems import ConfigError
from heim_proxy.app import Proxy, _lasting
from heim_proxy.edge.listener import ListenError
from heim_proxy.sources.file import FileSource
from heim_proxy.store.base import StoreUnavailable
from tests.fakes.heim import DOMAIN, Heim, user
from tests.fakes.upstream import Upstream

HOST = f"app.{DOMAIN}"


def backend(upstream: str = "http://127.0.0.1:1", **keys: Any) -> dict[str, Any]:
    return {
        "name": "app",
        "http": [{"path": "/", "upstream": upstream}],
        "permissions": [{"name": "all", "locations": [{"any": "/"}]}],
        **keys,
    }


ROLES = [
    {
        "name": "users",
        "members": [{"user": "alice@example.com"}],
        "bindings": [{"backend": "app", "permission": "all"}],
    }
]


async def admin(heim: Heim, path: str) -> tuple[int, bytes]:
    """One request to the admin listener."""
    reader, writer = await asyncio.open_unix_connection(str(heim.directory / "admin.sock"))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(3):
        data = await reader.read()
    writer.close()
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


def proxy_of(heim: Heim) -> Proxy:
    return Proxy(FileSource(heim.config_file), access_log=heim.log)


class TestStart:
    async def test_it_serves_when_start_returns_and_stops_when_closed(self, tmp_path: Path) -> None:
        upstream = await Upstream().start()
        heim = await Heim.start(tmp_path, backends=[backend(upstream.url)], roles=ROLES)
        try:
            cookie = await heim.signed_in(user("alice"), HOST)
            assert (await heim.request("/x", cookie=cookie)).text == "ok"
            port = heim.https_port
        finally:
            await heim.stop()
            await upstream.stop()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert not (tmp_path / "admin.sock").exists()

    async def test_closing_twice_or_before_starting_is_harmless(self, tmp_path: Path) -> None:
        heim = Heim.prepare(tmp_path, backends=[backend()])
        proxy = proxy_of(heim)
        await proxy.close()
        await proxy.close()

    async def test_a_bad_configuration_opens_nothing(self, tmp_path: Path) -> None:
        heim = Heim.prepare(tmp_path, backends=[backend(bakend=1)])
        proxy = proxy_of(heim)
        with pytest.raises(ConfigError, match="bakend"):
            await proxy.start()
        assert proxy.addresses == []
        assert not (tmp_path / "state").exists()

    async def test_a_certificate_that_does_not_fit_its_key_is_a_configuration_mistake(
        self, tmp_path: Path
    ) -> None:
        heim = Heim.prepare(tmp_path, backends=[backend()])
        (tmp_path / "tls.key").write_text("not a key")
        with pytest.raises(ConfigError, match=r"tls\.key"):
            await proxy_of(heim).start()

    async def test_a_key_that_everybody_can_read_is_told_and_serves(
        self, open_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        heim = Heim.prepare(open_path, backends=[backend()])
        (open_path / "tls.key").chmod(0o644)
        proxy = proxy_of(heim)
        await proxy.start()
        await proxy.close()
        told = [vars(one)["reason"] for one in caplog.records
                if one.message == "config.secret_exposed"]  # fmt: skip
        assert any(reason.startswith("tls.certificates[0]: ") for reason in told)

    @pytest.mark.parametrize("listener", ["https", "http", "admin"])
    async def test_an_address_in_use_is_named_and_everything_is_let_go(
        self, tmp_path: Path, listener: str
    ) -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))
            held.listen()
            taken = f"127.0.0.1:{held.getsockname()[1]}"
            heim = Heim.prepare(tmp_path, backends=[backend()])
            heim.document["listeners"][listener]["address"] = taken
            heim.write()
            proxy = proxy_of(heim)
            with pytest.raises(ListenError, match=taken):
                await proxy.start()
        # Nothing holds the state or an address any more: the next start succeeds.
        again = proxy_of(heim)
        await again.start()
        await again.close()

    async def test_a_state_that_cannot_be_opened_is_said(self, tmp_path: Path) -> None:
        heim = Heim.prepare(tmp_path, backends=[backend()])
        state = tmp_path / "state"
        state.mkdir()
        (state / "state.db").write_bytes(b"this is no database" * 100)
        with pytest.raises(StoreUnavailable):
            await proxy_of(heim).start()

    async def test_keys_are_made_once_for_their_owner_only(self, tmp_path: Path) -> None:
        heim = await Heim.start(tmp_path, backends=[backend()])
        await heim.stop()
        names = ("session.keys", "assertion.pem")
        before = {name: (tmp_path / "state" / name).read_bytes() for name in names}
        for name in names:
            assert stat.S_IMODE((tmp_path / "state" / name).stat().st_mode) == 0o600
        again = proxy_of(heim)
        await again.start()
        await again.close()
        assert before == {name: (tmp_path / "state" / name).read_bytes() for name in names}


class TestRestart:
    async def test_people_stay_signed_in(self, tmp_path: Path) -> None:
        upstream = await Upstream().start()
        heim = await Heim.start(tmp_path, backends=[backend(upstream.url)], roles=ROLES)
        cookie = await heim.signed_in(user("alice"), HOST)
        await heim.stop()
        heim.proxy = proxy_of(heim)
        await heim.proxy.start()
        try:
            assert (await heim.request("/x", cookie=cookie)).status == 200
        finally:
            await heim.stop()
            await upstream.stop()


class TestBackground:
    async def test_work_that_fails_is_begun_again(self, caplog: pytest.LogCaptureFixture) -> None:
        """A sweep or a tick that stays away would end deadlines and revocations for good."""
        begun = 0
        again = asyncio.Event()

        async def work() -> None:
            nonlocal begun
            begun += 1
            if begun == 1:
                raise RuntimeError("once")
            again.set()

        async with asyncio.timeout(3):
            await _lasting("sessions.tick", work)
        assert again.is_set()
        assert [record.getMessage() for record in caplog.records] == ["task.restarted"]


class TestReload:
    async def test_backends_and_roles_come_and_go(self, tmp_path: Path) -> None:
        upstream = await Upstream().start()
        heim = await Heim.start(tmp_path, backends=[backend(upstream.url)], roles=ROLES)
        try:
            cookie = await heim.signed_in(user("alice"), HOST)
            assert (await heim.request("/", cookie=cookie)).status == 200
            await heim.change(roles=[])
            assert (await heim.request("/", cookie=cookie)).status == 403
            await heim.change(backends=[backend(upstream.url, host=f"new.{DOMAIN}")])
            assert (await heim.request("/", cookie=cookie)).status == 404
        finally:
            await heim.stop()
            await upstream.stop()

    async def test_a_shorter_lifetime_holds_for_those_who_are_signed_in(
        self, tmp_path: Path
    ) -> None:
        upstream = await Upstream().start()
        heim = await Heim.start(tmp_path, backends=[backend(upstream.url)], roles=ROLES)
        try:
            session = await heim.session(user("alice"))
            cookie = heim.cookie(session, HOST)
            assert (await heim.request("/", cookie=cookie)).status == 200
            await heim.change(session={"lifetime": "1s", "idle": "1s"})
            await heim.until(lambda: session.ended is not None)
            assert (await heim.request("/", cookie=cookie)).status == 401
        finally:
            await heim.stop()
            await upstream.stop()

    async def test_a_mistake_keeps_what_is_in_force_and_is_visible(self, tmp_path: Path) -> None:
        heim = await Heim.start(tmp_path, backends=[backend()], roles=ROLES)
        try:
            cookie = await heim.signed_in(user("alice"), HOST)
            heim.document["roles"][0]["bindings"][0]["backend"] = "gone"
            heim.write()
            await heim.until(lambda: heim.proxy._reloader.status.last_error is not None)
            assert (await heim.request("/", cookie=cookie)).status == 502
            code, body = await admin(heim, "/readyz")
            assert code == 200
            assert b"gone" in body
            status = json.loads((await admin(heim, "/status"))[1])
            assert status["generation"] == 1
            assert "gone" in status["last_error"]["problems"][0]
            _, metrics = await admin(heim, "/metrics")
            assert b"heim_config_last_reload_successful 0.0" in metrics
            heim.document["roles"][0]["bindings"][0]["backend"] = "app"
            heim.write()
            await heim.until(lambda: heim.proxy._reloader.status.last_error is None)
            assert b"gone" not in (await admin(heim, "/readyz"))[1]
        finally:
            await heim.stop()

    async def test_what_needs_a_restart_says_so(self, tmp_path: Path) -> None:
        heim = await Heim.start(tmp_path, backends=[backend()])
        try:
            listeners = {**heim.document["listeners"], "https": {"address": "127.0.0.1:1"}}
            await heim.change(listeners=listeners)
            status = json.loads((await admin(heim, "/status"))[1])
            assert status["restart_needed"] == ["listeners"]
        finally:
            await heim.stop()


class TestAdmin:
    async def test_h10_a_dead_provider_is_told_and_everybody_else_is_served(
        self, tmp_path: Path
    ) -> None:
        heim = await Heim.start(tmp_path, backends=[backend()])
        name = heim.document["identity"]["providers"][0]["name"]
        metric = f'heim_identity_provider_failing{{provider="{name}"}}'
        try:
            ready = json.loads((await admin(heim, "/readyz"))[1])
            assert ready["checks"]["providers"] == "ok"
            assert f"{metric} 0.0".encode() in (await admin(heim, "/metrics"))[1]
            # Nothing listens where its provider should be.
            assert (await heim.request("/.heim/login", host=f"auth.{DOMAIN}")).status == 503
            code, body = await admin(heim, "/readyz")
            told = json.loads(body)["checks"]["providers"]
            assert code == 200
            assert told.startswith(f"{name} fails: discovery: ")
            assert f"{metric} 1.0".encode() in (await admin(heim, "/metrics"))[1]
        finally:
            await heim.stop()

    async def test_it_tells_what_operators_ask(self, tmp_path: Path) -> None:
        heim = await Heim.start(tmp_path, backends=[backend()], roles=ROLES)
        try:
            cookie = await heim.signed_in(user("alice"), HOST)
            await heim.request("/", cookie=cookie)
            await heim.request("/")
            assert (await admin(heim, "/livez"))[0] == 200
            assert (await admin(heim, "/readyz"))[0] == 200
            _, metrics = await admin(heim, "/metrics")
            text = metrics.decode()
            for line in (
                "heim_sessions 1.0",
                "heim_config_generation 1.0",
                "heim_config_last_reload_successful 1.0",
                'heim_requests_total{backend="app",class="5xx"} 1.0',
                'heim_denied_total{reason="sign_in_required"} 1.0',
                'heim_upstream_failures_total{reason="upstream_unreachable"} 1.0',
            ):
                assert line in text, line
            for name in ("heim_connections{", "heim_certificate_not_after_seconds{",
                         "heim_exchanges ", "heim_loop_lag_seconds "):  # fmt: skip
                assert name in text, name
            status = json.loads((await admin(heim, "/status"))[1])
            assert (status["generation"], status["last_error"]) == (1, None)
            assert status["certificates"]
            debug = json.loads((await admin(heim, "/debug/sessions"))[1])
            assert debug == {"in_memory": 1}
        finally:
            await heim.stop()


class TestDrain:
    async def test_stop_lets_a_running_answer_finish_and_takes_no_new_ones(
        self, tmp_path: Path
    ) -> None:
        release = asyncio.Event()

        async def slow(*_: object) -> bytes:
            await release.wait()
            return b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"

        upstream = await Upstream(script=slow).start()
        heim = await Heim.start(
            tmp_path, backends=[backend(upstream.url, public=True, permissions=[])]
        )
        try:
            wire = await heim.connect()
            wire.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            await heim.until(lambda: upstream.requests)
            waiting = asyncio.ensure_future(heim.proxy.wait())
            await asyncio.sleep(0)
            heim.proxy.stop()
            await heim.until(lambda: heim.proxy._edge is not None and heim.proxy._edge.draining)
            with pytest.raises(OSError):
                await heim.connect()
            assert not waiting.done()
            release.set()
            found = await wire.answer()
            assert (found.body, found.get("connection")) == (b"done", "close")
            async with asyncio.timeout(3):
                await waiting
        finally:
            await heim.stop()
            await upstream.stop()
