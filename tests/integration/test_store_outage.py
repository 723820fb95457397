"""The disk is full or the state is gone: who is signed in goes on, nothing new is granted."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.fakes.heim import LOGIN_HOST, Heim, user
from tests.fakes.upstream import Upstream
from tests.integration.process import HeimProcess, admin, heim_proxy, running
from tests.integration.setup import APP, alice_only, app_backend


@pytest.fixture
async def heim(tmp_path: Path, upstream: Upstream) -> AsyncIterator[HeimProcess]:
    async with running(
        tmp_path, backends=[app_backend(upstream.url)], roles=alice_only()
    ) as started:
        yield started


@contextmanager
def full_disk(heim: HeimProcess) -> Iterator[None]:
    """No file of the proxy's can grow or be written, its logs included (EFBIG for ENOSPC)."""
    pid = heim.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


async def metric(directory: Path, name: str) -> float:
    lines = (await admin(directory, "/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def dropped(directory: Path, lines: int) -> None:
    """Wait until that many lines of the access log are counted as lost."""
    async with asyncio.timeout(5):
        while await metric(directory, "heim_access_log_dropped_total") < lines:
            await asyncio.sleep(0.05)


async def refused(heim: Heim, cookie: str) -> None:
    """Wait until a session is no longer let in: at most 2 s."""
    async with asyncio.timeout(2):
        while (await heim.request(cookie=cookie)).status != 401:
            await asyncio.sleep(0.05)


async def sign_out(heim: Heim, cookie: str) -> int:
    """Press the button of the sign-out page; its status."""
    page = await heim.request(
        "/.heim/logout", host=LOGIN_HOST, cookie=cookie, headers=(("Accept", "text/html"),)
    )
    csrf = page.text.partition('name="csrf" value="')[2].partition('"')[0]
    form = (
        ("Origin", f"https://{LOGIN_HOST}"),
        ("Content-Type", "application/x-www-form-urlencoded"),
    )
    answer = await heim.request(
        "/.heim/logout",
        host=LOGIN_HOST,
        method="POST",
        cookie=cookie,
        headers=form,
        body=f"csrf={csrf}".encode(),
    )
    return answer.status


async def test_with_a_full_disk_requests_go_on_and_lost_log_lines_are_counted(
    heim: HeimProcess, tmp_path: Path
) -> None:
    cookie = await heim.signed_in(user("alice"), APP)
    assert (await heim.request(cookie=cookie)).status == 200
    await heim.until(lambda: heim.log.stat().st_size)
    with full_disk(heim):
        for _ in range(5):
            assert (await heim.request(cookie=cookie)).status == 200
        await dropped(tmp_path, 5)
    assert (await heim.request("/after", cookie=cookie)).status == 200
    await heim.until(lambda: "/after" in heim.log.read_text())
    for line in heim.log.read_text().splitlines():
        json.loads(line)


async def test_a_sign_out_that_cannot_be_written_says_so_and_is_made_up_for(
    heim: HeimProcess, tmp_path: Path
) -> None:
    session = await heim.session(user("alice"))
    cookie = await heim.cookie_of(session, LOGIN_HOST)
    app = await heim.cookie_of(session, APP)
    assert (await heim.request(cookie=app)).status == 200
    with full_disk(heim):
        assert await sign_out(heim, cookie) == 503
        # It ended here all the same.
        assert (await heim.request(cookie=app)).status == 401
        # Reading goes on, so nothing but these would tell whoever watches.
        ready = await admin(tmp_path, "/readyz")
        assert ready.status == 200
        assert "nobody can sign in: cannot be written: " in ready.text
        assert await metric(tmp_path, 'heim_store_errors_total{operation="write"}') > 0

    def recorded() -> bool:
        with closing(sqlite3.connect(heim.database, isolation_level=None)) as db:
            return db.execute("SELECT ended FROM sessions").fetchone()[0] is not None

    await heim.until(recorded)
    assert '"store": "ok"' in (await admin(tmp_path, "/readyz")).text


async def test_a_revocation_by_another_process_ends_access_although_the_disk_is_full(
    heim: HeimProcess,
) -> None:
    cookie = await heim.signed_in(user("alice"), APP)
    assert (await heim.request(cookie=cookie)).status == 200
    with full_disk(heim):
        revoked = await heim_proxy(
            "session", "revoke", "--config", str(heim.config_file), "--everybody"
        )
        assert revoked.status == 0
        await refused(heim, cookie)


async def test_a_write_lock_held_by_another_program_stops_no_request(
    heim: HeimProcess,
) -> None:
    cookie = await heim.signed_in(user("alice"), APP)
    assert (await heim.request(cookie=cookie)).status == 200
    locker = sqlite3.connect(heim.database, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    try:
        for _ in range(5):
            assert (await heim.request(cookie=cookie)).status == 200
    finally:
        locker.execute("ROLLBACK")
        locker.close()


async def test_a_restart_keeps_sessions_and_what_was_revoked(heim: HeimProcess) -> None:
    kept = await heim.signed_in(user("alice"), APP)
    gone = await heim.session(user("alice"))
    gone_cookie = await heim.cookie_of(gone, APP)
    assert (await heim.request(cookie=kept)).status == 200
    ended = await heim_proxy("session", "revoke", "--config", str(heim.config_file), gone.sid)
    assert ended.status == 0

    heim.signal(signal.SIGTERM)
    assert await heim.process.wait() == 0
    await heim.launch()

    assert (await heim.request(cookie=kept)).status == 200
    assert (await heim.request(cookie=gone_cookie)).status == 401


async def test_a_restart_after_a_kill_keeps_sessions(heim: HeimProcess) -> None:
    kept = await heim.signed_in(user("alice"), APP)
    assert (await heim.request(cookie=kept)).status == 200
    heim.signal(signal.SIGKILL)
    await heim.process.wait()
    await heim.launch()
    assert (await heim.request(cookie=kept)).status == 200


async def test_a_state_file_that_is_no_database_stops_the_start_with_its_name(
    tmp_path: Path, upstream: Upstream
) -> None:
    heim = Heim.prepare(tmp_path, backends=[app_backend(upstream.url)], roles=alice_only())
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "state.db").write_bytes(b"these are somebody's holiday plans\n" * 100)
    ended = await heim_proxy("run", "--config", str(heim.config_file))
    assert ended.status == 1
    assert str(state / "state.db") in ended.err.splitlines()[-1]
    assert b"holiday" in (state / "state.db").read_bytes()
