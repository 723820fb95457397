"""`heim-tunnel proxy` where a person sits: Ctrl-C at a terminal, and signals while signing in.

Numbers in names are those of tunnel.md, section 6.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.certificates import make_pair
from tests.fakes.login_host import login_host
from tests.fakes.tunnel_cli import Cli
from tests.fakes.tunnel_server import Peer, TunnelServer
from tests.integration.test_tunnel_credentials import Place, hello, refuse


class Terminal:
    """A pseudo terminal: the person's side, and the program's, which `modes` are told of."""

    def __init__(self) -> None:
        self.person, self.program = pty.openpty()
        self.before = self.modes

    @property
    def modes(self) -> tuple[list[Any], bool]:
        """Terminal modes, and whether reads of it block."""
        return termios.tcgetattr(self.program), os.get_blocking(self.program)

    def until(self, text: str) -> str:
        """What is shown, up to and with some text."""
        seen = b""
        while text.encode() not in seen:
            assert select.select([self.person], [], [], 10)[0], seen
            seen += os.read(self.person, 4096)
        return seen.decode()

    def options(self, **more: Any) -> dict[str, Any]:
        """For a program that this is the terminal of; Ctrl-C signals it."""

        def own() -> None:
            os.setsid()
            fcntl.ioctl(self.program, termios.TIOCSCTTY, 0)

        return {"start_new_session": False, "preexec_fn": own, **more}


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    os.close(made.person)
    os.close(made.program)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with (
        login_host(tmp_path) as auth,
        TunnelServer(hello, pair=make_pair("ssh.localhost")) as server,
    ):
        yield Place(tmp_path, auth, server)
        # Nobody is kept waiting for a person.
        auth.decided.set()


def ended(cli: Cli) -> int:
    status = cli.process.wait(5)
    if cli.process.stderr is not None:
        said = cli.process.stderr.read()
        assert b"Traceback" not in said
        assert b"internal error" not in said
    return status


def test_62_ctrl_c_in_an_open_tunnel(place: Place, terminal: Terminal) -> None:
    def talks(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.stream.send(b"welcome")
        peer.flush()
        peer.wait_closed()

    place.login()
    place.server._script = talks
    both = {"stdin": terminal.program, "stdout": terminal.program}
    with place.cli(**terminal.options(**both)) as cli:
        terminal.until("welcome")
        os.write(terminal.person, b"half a line")
        assert terminal.modes == terminal.before
        os.write(terminal.person, b"\x03")
        assert ended(cli) == 130
    assert terminal.modes == terminal.before


def test_62_ctrl_c_at_the_question_whom_to_trust(place: Place, terminal: Terminal) -> None:
    place.server._script = refuse(place.auth.url)
    with place.cli(**terminal.options(stdin=subprocess.PIPE)) as cli:
        terminal.until("Trust it? [y/N] ")
        os.write(terminal.person, b"y\x03")
        assert ended(cli) == 130
    assert terminal.modes == terminal.before
    assert place.auth.asked == []


def test_62_ctrl_c_while_the_browser_is_waited_for(place: Place, terminal: Terminal) -> None:
    place.login(session_expires=1.0, access_expires=1.0)
    place.auth.decided.clear()
    with place.cli(**terminal.options(stdin=terminal.program)) as cli:
        TunnelServer.until(lambda: place.auth.of("/.heim/cli/authorize"))
        os.write(terminal.person, b"\x03")
        assert ended(cli) == 130
    assert terminal.modes == terminal.before


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, 130), (signal.SIGKILL, -9)],
    ids=["TERM", "HUP", "INT", "KILL"],
)
def test_61_ending_in_the_middle_of_a_sign_in_leaves_the_next_one_free(
    place: Place, number: signal.Signals, status: int
) -> None:
    """Who waited behind it opens a browser of their own; nothing half-written is left."""
    before = place.login(session_expires=1.0, access_expires=1.0).read_bytes()
    place.auth.decided.clear()
    with place.cli() as first:
        TunnelServer.until(lambda: place.auth.of("/.heim/cli/authorize"))
        with place.cli() as second:
            assert second.process.stderr is not None
            line = second.process.stderr.readline().decode()
            assert "waiting for another heim-tunnel" in line
            first.process.send_signal(number)
            assert ended(first) == status
            assert place.file.read_bytes() == before
            TunnelServer.until(lambda: len(place.auth.of("/.heim/cli/authorize")) == 2)
            place.auth.decided.set()
            assert second.finish()[:2] == (0, b"hello")
    assert len(place.bearers()) == 1
    left = {path.name for path in place.file.parent.iterdir()}
    assert left <= {place.file.name, *(f"{place.file.stem}.{end}" for end in ("lock", "ca.pem"))}
