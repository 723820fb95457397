"""`proxy` runs as a process in tests/integration/test_tunnel_*; here is what it may load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.tunnel_cli import environment, write_login
from tests.fakes.tunnel_server import TARGET, Peer, TunnelServer

# What must not be imported on the way to a tunnel, and what it would cost (CPU, ms).
FORBIDDEN = {
    "argparse": "5: __main__ and invocation read the few options",
    "asyncio": "30: link and pump poll",
    "concurrent": "threads of _thread are enough",
    "contextlib": "1",
    "cryptography": "30",
    "dataclasses": "6: plain classes with slots",
    "email": "10",
    "encodings.idna": "4: host names go to the system as bytes",
    "heim_proxy": "100",
    "heim_runtime.clock": "typing",
    "heim_runtime.logs": "logging",
    "heim_runtime.tasks": "asyncio",
    "heim_tunnel.arguments": "argparse",
    "heim_tunnel.cli": "argparse",
    "heim_tunnel.login": "only when somebody has to sign in",
    "heim_tunnel.request": "only when a token is renewed",
    "http": "20",
    "importlib.metadata": "15",
    "ipaddress": "4: inet_pton",
    "jwt": "60: the file says when a token ends",
    "logging": "6",
    "pathlib": "4",
    "random": "3",
    "secrets": "6",
    "shutil": "3",
    "subprocess": "4",
    "tempfile": "5",
    "threading": "1: _thread",
    "typing": "5: TYPE_CHECKING",
    "urllib": "5",
    "websockets": "33: the mask helper is loaded after a megabyte",
}


def hello(peer: Peer) -> None:
    peer.request()
    peer.upgrade()
    peer.stream.send(b"x")
    peer.goodbye()


@pytest.fixture
def imported(tmp_path: Path) -> set[str]:
    """Every module that was loaded for a whole connection."""
    write_login(tmp_path)
    with TunnelServer(hello) as server:
        done = subprocess.run(
            [
                sys.executable,
                "-X",
                "importtime",
                "-S",
                "-c",
                f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}; "
                "from heim_tunnel.__main__ import main; main()",
                "proxy",
                "--ca-file",
                str(server.ca_file),
                "--connect-to",
                f"127.0.0.1:{server.port}",
                TARGET,
            ],
            env=environment(tmp_path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=10,
        )
    assert done.stdout == b"x"
    return {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}


def test_60_a_tunnel_imports_nothing_heavy(imported: set[str]) -> None:
    assert {"heim_tunnel.pump", "heim_wire.session", "ssl"} <= imported
    found = {name for name in FORBIDDEN if name in imported}
    assert found == set()


def test_60_nothing_but_the_standard_library_and_ours(imported: set[str]) -> None:
    roots = {name.partition(".")[0] for name in imported if name.replace(".", "").isidentifier()}
    foreign = roots - set(sys.stdlib_module_names) - {"heim_tunnel", "heim_wire", "heim_runtime"}
    assert {name for name in foreign if not name.startswith("_")} == set()
