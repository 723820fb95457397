from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

from heim_proxy.cli.serve import demo, run, run_loop
from tests.fakes.heim import Heim
from tests.fakes.snapshots import app


def arguments(heim: Heim) -> argparse.Namespace:
    return argparse.Namespace(
        config=str(heim.config_file), access_log=str(heim.log), log_level="error"
    )


def end_when_handled(gave_up: threading.Event) -> None:
    """Send SIGTERM to this process once, as soon as it no longer kills."""
    while not gave_up.wait(0.02):
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            os.kill(os.getpid(), signal.SIGTERM)
            return


def test_it_serves_until_sigterm_and_then_ends_with_0(tmp_path: Path) -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    heim = Heim.prepare(tmp_path, backends=[app()])
    gave_up = threading.Event()
    watcher = threading.Thread(target=end_when_handled, args=(gave_up,))
    watcher.start()
    try:
        assert run(arguments(heim)) == 0
    finally:
        gave_up.set()
        watcher.join()
    assert heim.log.exists()


def test_systemd_is_told_when_it_serves_and_when_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heim = Heim.prepare(tmp_path, backends=[app()])
    gave_up = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        told: list[bytes] = []

        def end_when_ready() -> None:
            told.append(manager.recv(4096))
            end_when_handled(gave_up)

        watcher = threading.Thread(target=end_when_ready)
        watcher.start()
        try:
            assert run(arguments(heim)) == 0
        finally:
            gave_up.set()
            watcher.join()
        while not told[-1].startswith(b"STOPPING=1"):
            told.append(manager.recv(4096))
    assert told[0] == b"READY=1\nSTATUS=serving"


def test_a_configuration_with_mistakes_is_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heim = Heim.prepare(tmp_path, backends=[app(bakend=1)])
    assert run(arguments(heim)) == 2
    assert "1 mistake found" in capsys.readouterr().err


def test_an_address_in_use_is_1_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        taken = f"127.0.0.1:{held.getsockname()[1]}"
        heim = Heim.prepare(tmp_path, backends=[app()])
        heim.document["listeners"]["https"]["address"] = taken
        heim.write()
        assert run(arguments(heim)) == 1
    told = capsys.readouterr().err
    assert told.startswith("heim-proxy: ")
    assert taken in told


def test_a_state_that_cannot_be_opened_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heim = Heim.prepare(tmp_path, backends=[app()])
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.db").write_bytes(b"no database" * 100)
    assert run(arguments(heim)) == 1
    assert capsys.readouterr().err.startswith("heim-proxy: ")


def test_a_demo_in_a_directory_of_somebody_elses_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "precious").write_text("keep me")
    assert demo(argparse.Namespace(dir=str(tmp_path), port=0, ssh=False)) == 1
    assert capsys.readouterr().err.startswith("heim-proxy demo: ")
    assert (tmp_path / "precious").read_text() == "keep me"


async def _loop_name() -> int:
    return int(type(asyncio.get_running_loop()).__module__.startswith("uvloop"))


def test_uvloop_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_loop(_loop_name()) == 1


def test_without_it_asyncio_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    from asyncio import sslproto

    monkeypatch.setitem(sys.modules, "uvloop", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(sslproto.SSLProtocol, "max_size", 256 * 1024)
    assert run_loop(_loop_name()) == 0
    # An idle TLS connection would take 256 KiB otherwise.
    assert sslproto.SSLProtocol.max_size <= 32 * 1024
