from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from bench.process import Program, StartError, free_port, parse_pss, parse_schedstat

CORE = min(os.sched_getaffinity(0))


def test_schedstat_is_read_as_nanoseconds_on_the_core() -> None:
    assert parse_schedstat("24651123 3147469 2\n") == 24651123


def test_pss_is_read_in_bytes_and_not_from_its_parts() -> None:
    rollup = "55d0-7ffc ---p 0 00:00 0 [rollup]\nRss: 900 kB\nPss:  512 kB\nPss_Anon: 300 kB\n"
    assert parse_pss(rollup) == 512 * 1024


def test_missing_pss_is_an_error() -> None:
    with pytest.raises(ValueError, match="Pss"):
        parse_pss("Rss: 900 kB\n")


def test_work_of_children_counts(tmp_path: Path) -> None:
    """nginx's master does nothing: all of its CPU is its worker's."""
    port = free_port()
    child = (
        "import socket, time\n"
        "while time.process_time() < 0.2: pass\n"
        f"s = socket.create_server(('127.0.0.1', {port}))\n"
        "while True: s.accept()\n"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-Sc', {child!r}])"
    program = Program([sys.executable, "-Sc", parent], core=CORE, output=tmp_path / "output")
    try:
        program.wait_for(port)
        assert program.cpu_ns() > 200_000_000
        assert program.pss_bytes() > 0
    finally:
        program.kill()


def test_a_program_that_ends_at_once_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no certificate')"]
    program = Program(command, core=CORE, output=tmp_path / "output")
    with pytest.raises(StartError, match="no certificate"):
        program.wait_for(free_port())
