from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heim_proxy.cli.certs import check_certificate
from tests.fakes.certificates import make_pair
from tests.fakes.heim import Heim
from tests.fakes.snapshots import app

HOST = "app.example.test"


@pytest.fixture
async def heim(tmp_path: Path) -> AsyncIterator[Heim]:
    made = Heim.prepare(
        tmp_path,
        backends=[app(public=True)],
        tls={
            "certificates": [
                {"directory": str(tmp_path / "pair"), "hosts": [HOST, "soon.example.test"]},
            ],
            "self_signed": True,
        },
    )
    make_pair(HOST, "bücher.test".encode("idna").decode(), "soon.example.test").write(
        tmp_path / "pair"
    )
    started = await Heim.start(tmp_path, backends=[app(public=True)], tls=made.document["tls"])
    yield started
    await started.stop()


async def check(heim: Heim, host: str = HOST, connect: str = "") -> int:
    return await asyncio.to_thread(
        check_certificate,
        argparse.Namespace(
            config=str(heim.config_file),
            host=host,
            connect=connect or f"127.0.0.1:{heim.https_port}",
        ),
    )


async def test_what_is_in_the_files_and_served_is_right(
    heim: Heim, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await check(heim, f"{HOST.upper()}.") == 0
    out = capsys.readouterr().out
    assert out.endswith(f"{HOST}: ok\n")
    assert f"the same as in {heim.directory / 'pair' / 'tls.crt'}" in out
    assert f"for {HOST}, xn--bcher-kva.test, soon.example.test, until 20" in out


async def test_a_certificate_of_our_own_is_said_to_be_one(
    heim: Heim, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await check(heim, "elsewhere.test") == 1
    out = capsys.readouterr().out
    assert "wrong: it is self-signed" in out
    assert "wrong: it is not for elsewhere.test" in out
    assert "the same as in" in out


async def test_another_one_than_in_the_files_is_said(
    heim: Heim, capsys: pytest.CaptureFixture[str]
) -> None:
    certificates = heim.proxy._certificates
    # A proxy that does not look at its files any more.
    certificates._watcher._slots = ()
    make_pair(HOST, end_days=3).write(heim.directory / "pair")
    assert await check(heim) == 1
    out = capsys.readouterr().out
    assert "wrong: it is not the one in" in out


async def test_one_that_ends_soon_is_said(heim: Heim, capsys: pytest.CaptureFixture[str]) -> None:
    before = heim.proxy._certificates._store.find(HOST)
    pair = make_pair(HOST, "soon.example.test", start_days=-87, end_days=3)
    pair.write(heim.directory / "pair")
    await heim.until(lambda: heim.proxy._certificates._store.find(HOST) is not before)
    assert await check(heim) == 1
    assert "wrong: it expires soon, on 20" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lived", "left", "status"), [(4, 2, 0), (5.2, 0.8, 1)], ids=["renewed in time", "late"]
)
async def test_one_that_lives_for_days_is_judged_by_its_own_lifetime(
    heim: Heim, capsys: pytest.CaptureFixture[str], lived: float, left: float, status: int
) -> None:
    before = heim.proxy._certificates._store.find(HOST)
    pair = make_pair(HOST, "soon.example.test", start_days=-lived, end_days=left)
    pair.write(heim.directory / "pair")
    await heim.until(lambda: heim.proxy._certificates._store.find(HOST) is not before)
    assert await check(heim) == status
    assert ("it expires soon" in capsys.readouterr().out) is bool(status)


async def test_nobody_there_is_said(heim: Heim, capsys: pytest.CaptureFixture[str]) -> None:
    assert await check(heim, connect="127.0.0.1:1") == 1
    assert "no certificate from 127.0.0.1:1: Connection refused" in capsys.readouterr().out


async def test_what_is_no_tls_is_said(heim: Heim, capsys: pytest.CaptureFixture[str]) -> None:
    def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.test ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        assert await check(heim, connect=f"127.0.0.1:{port}") == 1
    assert "TLS failed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("host", "connect"),
    [
        pytest.param("a b", "127.0.0.1:1", id="host"),
        pytest.param("[::1]", "127.0.0.1:1", id="address"),
        pytest.param(HOST, "127.0.0.1", id="no port"),
        pytest.param(HOST, "127.0.0.1:x", id="no number"),
        pytest.param(HOST, ":443", id="no name"),
        pytest.param(HOST, "a:70000", id="no port there is"),
    ],
)
def test_what_cannot_be_asked_is_wrong_usage(tmp_path: Path, host: str, connect: str) -> None:
    heim = Heim.prepare(tmp_path, backends=[app(public=True)])
    args = argparse.Namespace(config=str(heim.config_file), host=host, connect=connect)
    assert check_certificate(args) == 2
