"""What people make ssh do, through `heim-tunnel` and a whole proxy: tunnel.md, 6, 53, 59, 62."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import shlex
import termios
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from heim_proxy.demo.loopback import free_port
from tests.fakes.heim import LOGIN_HOST, Heim, authority, user
from tests.fakes.person import Person
from tests.fakes.real import require
from tests.fakes.tunnel import TcpServer, cli_login, tcp_backend, tunnel_role
from tests.fakes.tunnel_cli import environment, write_login
from tests.integration.services import accepts, sshd
from tests.integration.transfers import Desktop, desktop_site
from tests.integration.tunnel import HEIM_TUNNEL, run

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]


@pytest.fixture
async def desktop(tmp_path: Path) -> AsyncIterator[Desktop]:
    async with desktop_site(tmp_path) as started:
        yield started


def sshd_port(desktop: Desktop) -> int:
    return int(desktop.site.heim.document["backends"][0]["tcp"]["upstream"].rpartition(":")[2])


@asynccontextmanager
async def dynamic(desktop: Desktop, *options: str) -> AsyncIterator[int]:
    """`ssh -N -D`: a SOCKS server on the port that this gives, for the length of the block."""
    port = free_port(18080)
    process = await asyncio.create_subprocess_exec(
        require("ssh"), "-F", str(desktop.config), "-N", *options, "-D", f"127.0.0.1:{port}",
        desktop.host,
        stdin=asyncio.subprocess.DEVNULL, env={**os.environ, **desktop.site.env},
    )  # fmt: skip
    try:
        async with asyncio.timeout(15):
            while not await accepts(port):
                assert process.returncode is None, "ssh ended"
                await asyncio.sleep(0.05)
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def through_socks(port: int, to: int, data: bytes) -> bytes:
    """What `127.0.0.1:to` on the other side answers, by way of a SOCKS 5 server (RFC 1928)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(10):
            writer.write(b"\5\1\0")
            assert await reader.readexactly(2) == b"\5\0"
            writer.write(b"\5\1\0\1\x7f\0\0\1" + to.to_bytes(2, "big"))
            answer = await reader.readexactly(10)
            assert answer[1] == 0, answer
            writer.write(data)
            writer.write_eof()
            return await reader.read()
    finally:
        writer.close()


async def test_59_ssh_N_D_carries_many_connections_at_once(desktop: Desktop) -> None:
    echo = await TcpServer().start()
    sent = [os.urandom(size) for size in (0, 1, 65_537, 3_000_000)] * 3
    try:
        async with dynamic(desktop) as port:
            done = await asyncio.gather(*(through_socks(port, echo.port, data) for data in sent))
    finally:
        await echo.stop()
    assert done == sent


async def test_59_vs_codes_double_connect(desktop: Desktop, tmp_path: Path) -> None:
    """Remote-SSH looks at the machine with one ssh, then starts its server and `-D` with another.

    The script comes on standard input of a shell without a terminal, and the first connection is
    gone before the second begins.
    """
    probe = await desktop.ssh("-T", desktop.host, "sh", stdin=b"uname -s; echo ready-$$\n")
    assert probe.status == 0, probe.err
    assert probe.out.startswith(b"Linux\nready-")
    server = await TcpServer().start()
    port = free_port(18090)
    second = await asyncio.create_subprocess_exec(
        require("ssh"), "-F", str(desktop.config), "-T", "-D", f"127.0.0.1:{port}", desktop.host,
        "sh", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **desktop.site.env},
    )  # fmt: skip
    assert second.stdin is not None
    assert second.stdout is not None
    try:
        async with asyncio.timeout(20):
            second.stdin.write(b"echo listeningOn==%d==\n" % server.port)
            assert await second.stdout.readline() == b"listeningOn==%d==\n" % server.port
            # The editor speaks through the SOCKS server, while the shell of that ssh lives on.
            assert await through_socks(port, server.port, b"GET /version") == b"GET /version"
            second.stdin.write(b"echo still here\n")
            assert await second.stdout.readline() == b"still here\n"
            second.stdin.write(b"exit 3\n")
            assert await second.wait() == 3
    finally:
        if second.returncode is None:
            second.kill()
        await second.wait()
        await server.stop()


async def test_59_a_chain_of_jumps_has_a_tunnel_within_a_tunnel(
    desktop: Desktop, tmp_path: Path
) -> None:
    """A bastion behind the proxy; the next machine is behind the proxy too, seen from there."""
    port = sshd_port(desktop)
    command = shlex.join([*desktop.site.command("desktop")[:-1], "%h"])
    config = tmp_path / "chain_config"
    config.write_text(
        f"Host first\n  HostName {desktop.host}\n  ProxyCommand {command}\n"
        f"Host second\n  HostName 127.0.0.1\n  Port {port}\n  ProxyJump first\n"
        f"Host third\n  HostName 127.0.0.1\n  Port {port}\n  ProxyJump second\n"
        + desktop.config.read_text()
    )
    done = await desktop.run("ssh", "-F", str(config), "third", "echo $SSH_CONNECTION; exit 5")
    assert done.status == 5, done.err
    # Through a proxy command within ours: `ssh -W` as its standard input.
    nested = ("-o", f"ProxyCommand=ssh -F {desktop.config} -W 127.0.0.1:{port} {desktop.host}")
    done = await desktop.run("ssh", "-F", str(config), *nested, "127.0.0.1", "echo inside")
    assert done.out == b"inside\n", done.err


async def test_59_a_control_masters_sessions_come_and_go_after_a_pause(
    desktop: Desktop, tmp_path: Path
) -> None:
    """One tunnel for all: bulk in one session, a key press in another, silence, another one."""
    shared = ("-o", f"ControlPath={tmp_path}/control")
    master = await desktop.ssh(*shared, "-o", "ControlPersist=30", "-M", "-N", "-f", desktop.host)
    assert master.status == 0, master.err
    try:
        zeros = f"head -c {8 * 1024 * 1024} /dev/zero"
        bulk, small = await asyncio.gather(
            desktop.ssh(*shared, desktop.host, zeros),
            desktop.ssh(*shared, desktop.host, "echo beside"),
        )
        assert (len(bulk.out), small.out) == (8 * 1024 * 1024, b"beside\n")
        await asyncio.sleep(1)
        again = await desktop.ssh(*shared, desktop.host, "echo later")
        assert (again.status, again.out) == (0, b"later\n")
        opened = desktop.site.heim.log.read_text().count("/.heim/tunnel/connect")
        assert opened == 0, "an access-log line is written when a stream ends"
    finally:
        await desktop.ssh(*shared, "-O", "exit", desktop.host)
    async with asyncio.timeout(5):
        while not (lines := desktop.site.heim.log.read_text().splitlines()):
            await asyncio.sleep(0.02)
    assert len(lines) == 1


async def test_62_ctrl_c_goes_to_the_remote_program_and_the_terminal_is_as_before(
    desktop: Desktop,
) -> None:
    """ssh makes the terminal raw: Ctrl-C must reach the other side, and nobody on this one."""
    person, program = pty.openpty()
    before = termios.tcgetattr(program)
    remote = "trap 'echo caught' INT; echo started; sleep 20; echo after"
    process = await asyncio.create_subprocess_exec(
        require("ssh"), "-F", str(desktop.config), "-tt", desktop.host, remote,
        stdin=program, stdout=program, stderr=program, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(program, termios.TIOCSCTTY, 0),
        env={**os.environ, **desktop.site.env},
    )  # fmt: skip
    try:
        await shown(person, b"started")
        assert termios.tcgetattr(program) != before
        os.write(person, b"\x03")
        seen = await shown(person, b"after")
        async with asyncio.timeout(5):
            assert await process.wait() == 0
        assert b"caught" in seen
        assert termios.tcgetattr(program) == before
        assert os.get_blocking(program)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        os.close(person)
        os.close(program)


async def shown(person: int, text: bytes) -> bytes:
    """What a terminal shows, up to and with some text."""
    seen = b""
    os.set_blocking(person, False)
    async with asyncio.timeout(15):
        while text not in seen:
            try:
                seen += os.read(person, 4096)
            except BlockingIOError:
                await asyncio.sleep(0.01)
    return seen


# -- 53: five at once, nobody signed in ---------------------------------------------------------


BROWSER = """\
#!/bin/sh
echo "$1" >>{opened}
"""


async def test_53_five_ssh_at_once_open_one_browser_and_all_proceed(tmp_path: Path) -> None:
    """Real ssh, the real portal; the person signs in once, after a while."""
    home = tmp_path / "home"
    async with sshd(tmp_path / "sshd") as machine:
        heim = await Heim.start(
            tmp_path,
            backends=[tcp_backend("desktop", machine.upstream)],
            roles=[tunnel_role("ssh", "desktop")],
        )
        try:
            authority().cert_pem.write_to_path(tmp_path / "ca.pem")
            # Of yesterday: whose they are is known, what they allow is over.
            old = (await cli_login(heim, user("alice"))).token(time.time() - 90_000)
            write_login(
                home, login_host=LOGIN_HOST, access_token=old, access_expires=1.0,
                session_expires=1.0, domains=["example.test"],
            )  # fmt: skip
            opened, script = tmp_path / "opened", tmp_path / "browser"
            script.write_text(BROWSER.format(opened=opened))
            script.chmod(0o755)
            config = tmp_path / "ssh_config"
            way = ("--connect-to", f"127.0.0.1:{heim.https_port}")
            config.write_text(
                f"Host *.example.test\n  ProxyCommand {shlex.join((HEIM_TUNNEL, 'proxy', *way))}"
                f" %h\n{machine.client_config.read_text()}"
            )
            env = {
                **environment(home),
                "HEIM_CA_FILE": str(tmp_path / "ca.pem"),
                "BROWSER": str(script),
                "DISPLAY": ":0",
            }
            person = await Person.of(heim, user("alice"))
            ssh = (require("ssh"), "-F", str(config), "desktop.example.test")
            five = [asyncio.ensure_future(run(*ssh, f"echo {n}", env=env)) for n in range(5)]
            await heim.until(lambda: opened.exists() and opened.read_text().endswith("\n"), 10)
            await asyncio.sleep(0.5)
            assert not any(one.done() for one in five)
            await person.allow(opened.read_text())
            done = await asyncio.gather(*five)
        finally:
            await heim.stop()
    assert [one.out for one in done] == [b"%d\n" % n for n in range(5)], [o.err for o in done]
    assert len(opened.read_text().splitlines()) == 1
    stored = json.loads((home / "logins" / f"{LOGIN_HOST}.json").read_text())
    assert stored["user"] == "alice@example.com"
