"""`heim-agent` as people run it, against a real `heim-proxy`: join, run, reload, status, stop."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from heim_wire.errors import FAILURES, Code
from tests.fakes.heim import LOGIN_HOST, user
from tests.fakes.person import Person
from tests.fakes.real import require
from tests.fakes.tunnel import TcpServer
from tests.integration.process import heim_proxy
from tests.integration.services import sshd
from tests.integration.tunnel import Run, TunnelSite, run, tunnel_site

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

HEIM_AGENT = str(Path(sys.executable).with_name("heim-agent"))
AGENT = "desktop"
BACKENDS: list[dict[str, Any]] = [
    {"name": name, "tcp": {"agent": AGENT, "target": name}} for name in ("ssh", "web")
]
KEEPERS = {
    "name": "keepers",
    "members": [{"user": "alice@example.com"}],
    "bindings": [],
    "approve_agents": True,
}


@dataclass
class Machine:
    """A machine with heim-agent on it, and what its programs said."""

    site: TunnelSite
    directory: Path
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.directory / "agent.toml"

    @property
    def state(self) -> Path:
        return self.directory / "agent"

    @property
    def log(self) -> Path:
        return self.directory / "agent.log"

    @property
    def env(self) -> dict[str, str]:
        # Only the way to the authority: what joined keeps a copy.
        return {**os.environ, "HEIM_CA_FILE": self.site.env["HEIM_CA_FILE"]}

    @property
    def _way(self) -> tuple[str, ...]:
        return (
            "--connect-to", f"127.0.0.1:{self.site.port}",
            "--config", str(self.config), "--state", str(self.state),
        )  # fmt: skip

    def serve(self, **ports: int) -> None:
        """Write agent.toml: these targets on loopback."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(
            "".join(
                f'[targets.{name}]\naddress = "127.0.0.1:{port}"\n' for name, port in ports.items()
            )
        )
        os.replace(fresh, self.config)

    async def token(self, *more: str, name: str = AGENT) -> str:
        """A join token, as `heim-proxy agent token create` prints it."""
        made = await heim_proxy(
            "agent", "token", "create", name, "--config", str(self.site.heim.config_file), *more
        )
        assert made.status == 0, made.err
        return made.out

    async def join(self, *more: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Run:
        command = (HEIM_AGENT, "join", f"https://{LOGIN_HOST}", *self._way, *more)
        return await run(*command, stdin=stdin.encode(), env={**self.env, **(env or {})})

    async def joined(self) -> None:
        done = await self.join("--token-file", "-", stdin=await self.token())
        assert done.status == 0, done.err

    async def start(self) -> asyncio.subprocess.Process:
        """`heim-agent run`, once it is connected."""
        begun = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                HEIM_AGENT, "run", *self._way,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                # What was joined is all it needs.
                env={name: value for name, value in os.environ.items() if "HEIM" not in name},
            )  # fmt: skip
        self.processes.append(process)
        await self.told("lane.ready", begin=begun)
        return process

    async def status(self, *more: str) -> Run:
        return await run(HEIM_AGENT, "status", "--state", str(self.state), *more)

    def events(self, name: str, begin: int = 0) -> list[dict[str, Any]]:
        text = self.log.read_bytes()[begin:]
        lines = text[: text.rfind(b"\n") + 1].splitlines()
        return [entry for line in lines if (entry := json.loads(line)).get("event") == name]

    async def told(self, name: str, *, count: int = 1, begin: int = 0) -> dict[str, Any]:
        """The latest entry of that kind, once there are so many."""
        async with asyncio.timeout(15):
            while len(found := self.events(name, begin)) < count:
                running = [one for one in self.processes if one.returncode is None]
                assert running, self.log.read_text()
                await asyncio.sleep(0.02)
        return found[-1]

    async def ask(self, name: str, said: bytes = b"hello") -> Run:
        """What `heim-tunnel proxy` brings back."""
        return await self.site.tunnel(name, said)

    async def stop(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


@asynccontextmanager
async def machine_at(directory: Path, **more: Any) -> AsyncIterator[Machine]:
    agents = [{"name": AGENT, "targets": ["ssh", "web"]}]
    async with tunnel_site(directory, BACKENDS, agents=agents, **more) as site:
        machine = Machine(site, directory)
        try:
            yield machine
        finally:
            await machine.stop()


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    async with machine_at(tmp_path) as found:
        yield found


@pytest.fixture
async def echo() -> AsyncIterator[TcpServer]:
    server = await TcpServer().start()
    yield server
    await server.stop()


def line(done: Run) -> str:
    """The only line that somebody reads."""
    assert done.err.count("\n") == 1, done.err
    return done.err


@pytest.mark.parametrize("way", ["file", "stdin", "environment"])
async def test_a_token_makes_an_agent_that_serves(
    machine: Machine, echo: TcpServer, way: str
) -> None:
    token = await machine.token()
    if way == "file":
        (machine.directory / "join-token").write_text(token)
        done = await machine.join("--token-file", str(machine.directory / "join-token"))
    elif way == "stdin":
        done = await machine.join("--token-file", "-", stdin=token)
    else:
        done = await machine.join(env={"HEIM_JOIN_TOKEN": token.strip()})
    assert (done.status, done.out) == (0, b""), done.err
    assert f"joined https://{LOGIN_HOST} as agent {AGENT}" in done.err
    assert "(ssh, web)" in done.err
    assert token.strip() not in done.err

    machine.serve(ssh=echo.port)
    checked = await run(HEIM_AGENT, "targets", "check", "--config", str(machine.config))
    assert (checked.status, b"reached" in checked.out) == (0, True)
    await machine.start()
    answer = await machine.ask("ssh")
    assert (answer.status, answer.out) == (0, b"hello"), answer.err
    ended = await machine.told("stream.ended")
    assert (ended["target"], ended["user"], ended["backend"]) == ("ssh", "ci", "ssh")
    assert (ended["bytes_in"], ended["bytes_out"], ended["end"]) == (5, 5, "done")
    # The same request, in the log of the proxy.
    async with asyncio.timeout(5):
        while ended["request_id"] not in machine.site.heim.log.read_text():
            await asyncio.sleep(0.05)


async def test_somebody_who_may_lets_it_in(tmp_path: Path, echo: TcpServer) -> None:
    async with machine_at(tmp_path) as machine:
        heim = machine.site.heim
        heim.document["roles"].append(KEEPERS)
        heim.write()
        await until_approvers(machine)
        process = await asyncio.create_subprocess_exec(
            HEIM_AGENT, "join", f"https://{LOGIN_HOST}", *machine._way, "--name", AGENT,
            stderr=asyncio.subprocess.PIPE, env=machine.env,
        )  # fmt: skip
        assert process.stderr is not None
        said = ""
        async with asyncio.timeout(15):
            while "waiting" not in said:
                said += (await process.stderr.readline()).decode()
        fingerprint = said.partition("this machine's key is ")[2].split()[0]
        person = await Person.of(heim, user("alice"))
        asked = await person.typed(said)
        assert fingerprint.removeprefix("SHA256:").encode()[:20] in asked.body
        await person.press(asked, decision="approve")
        async with asyncio.timeout(20):
            said += (await process.stderr.read()).decode()
            assert await process.wait() == 0, said
        assert f"as agent {AGENT}; key {fingerprint}" in said
        machine.serve(web=echo.port)
        await machine.start()
        assert (await machine.ask("web")).out == b"hello"


async def until_approvers(machine: Machine) -> None:
    """Wait until the proxy has taken the configuration with those who may."""
    async with asyncio.timeout(10):
        while (await machine.site.heim.status())["generation"] < 2:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("decision", ["deny", "Ctrl-C"])
async def test_who_is_not_let_in_is_told_and_keeps_nothing(tmp_path: Path, decision: str) -> None:
    async with machine_at(tmp_path) as machine:
        heim = machine.site.heim
        heim.document["roles"].append(KEEPERS)
        heim.write()
        await until_approvers(machine)
        process = await asyncio.create_subprocess_exec(
            HEIM_AGENT, "join", f"https://{LOGIN_HOST}", *machine._way, "--name", AGENT,
            stderr=asyncio.subprocess.PIPE, env=machine.env,
        )  # fmt: skip
        assert process.stderr is not None
        said = ""
        async with asyncio.timeout(15):
            while "waiting" not in said:
                said += (await process.stderr.readline()).decode()
        if decision == "deny":
            await (await Person.of(heim, user("alice"))).type_code(said, "deny")
        else:
            process.send_signal(signal.SIGINT)
        async with asyncio.timeout(20):
            rest = (await process.stderr.read()).decode()
            status = await process.wait()
        if decision == "deny":
            assert status == FAILURES[Code.UNAUTHENTICATED].exit_status
            assert "somebody refused to let this machine in" in rest
        else:
            assert (status, rest) == (130, "heim-agent: stopped\n")
        assert not (machine.state / "key.pem").exists()


async def test_tokens_that_do_not_count_are_explained(machine: Machine) -> None:
    spent = await machine.token()
    first = await machine.join("--token-file", "-", stdin=spent)
    assert first.status == 0, first.err
    again = await machine.join("--token-file", "-", stdin=spent)
    assert again.status == 77
    assert f"the join token for agent {AGENT} was used" in line(again)
    assert "(request " in again.err
    unknown = await machine.join("--token-file", "-", stdin="heim_jt_unknownunknown_unknownunknown")
    assert unknown.status == 77
    assert "token" in line(unknown)
    taken = await machine.join("--token-file", "-", stdin=await machine.token())
    assert taken.status == 77
    assert "revoke" in line(taken)
    replaced = await machine.join("--token-file", "-", stdin=await machine.token("--replace"))
    assert replaced.status == 0, replaced.err


async def test_a_certificate_that_is_not_trusted_gets_no_token(machine: Machine) -> None:
    token = await machine.token()
    done = await machine.join("--token-file", "-", stdin=token, env={"HEIM_CA_FILE": ""})
    assert done.status == 69
    assert "not trusted" in line(done)
    assert "--ca-file" in done.err
    good = await machine.join("--token-file", "-", stdin=token)
    assert good.status == 0, good.err


async def test_ssh_goes_through(machine: Machine) -> None:
    async with sshd(machine.directory / "sshd") as behind:
        await machine.joined()
        machine.serve(ssh=behind.port)
        await machine.start()
        command = shlex.join([*machine.site.command("ssh")[:-1], "%h"])
        config = machine.directory / "ssh_config"
        config.write_text(
            f"Host *.{machine.site.host('').strip('.')}\n  ProxyCommand {command}\n"
            + behind.client_config.read_text()
        )
        done = await run(
            require("ssh"), "-F", str(config), machine.site.host("ssh"), "cat; echo done",
            stdin=b"over there", env=machine.site.env,
        )  # fmt: skip
        assert (done.status, done.out) == (0, b"over theredone\n"), done.err


async def test_targets_change_while_it_runs(machine: Machine, echo: TcpServer) -> None:
    await machine.joined()
    machine.serve(ssh=echo.port)
    process = await machine.start()
    missing = await machine.ask("web")
    assert missing.status == FAILURES[Code.NO_SUCH_TARGET].exit_status, missing.err
    assert "web" in line(missing)
    machine.serve(ssh=echo.port, web=echo.port)
    await machine.told("settings.applied")
    assert (await machine.ask("web")).out == b"hello"
    # A mistake changes nothing, and says where it is.
    machine.config.write_text("[targets.ssh]\naddr = 7\n")
    refused = await machine.told("settings.refused")
    assert refused["problems"][0] == (
        f"{machine.config}, line 2: targets.ssh.addr: there is no such key; did you mean address?"
    )
    assert (await machine.ask("ssh")).out == b"hello"
    process.send_signal(signal.SIGHUP)
    await machine.told("settings.refused", count=2)
    assert (await machine.ask("web")).out == b"hello"


async def test_names_that_the_proxy_spells_otherwise_are_told_where_they_are_written(
    machine: Machine, echo: TcpServer
) -> None:
    await machine.joined()
    machine.serve(shh=echo.port, web=echo.port)
    await machine.start()
    differ = await machine.told("settings.differ")
    assert (differ["missing"], differ["unasked"]) == (["ssh"], ["shh"])
    said = b"the proxy asks for ssh, agent.toml has shh: "
    async with asyncio.timeout(5):
        # It is written once a second.
        while said not in (await machine.status()).out:
            await asyncio.sleep(0.1)
    listed = await run(
        HEIM_AGENT, "targets", "--config", str(machine.config), "--state", str(machine.state)
    )
    assert said.decode() in listed.err
    machine.serve(ssh=echo.port)
    await machine.told("settings.differ", count=2)
    async with asyncio.timeout(5):
        while b"which agent.toml does not have" not in (await machine.status()).out:
            await asyncio.sleep(0.1)
    machine.serve(ssh=echo.port, web=echo.port)
    await machine.told("settings.applied", count=2)
    async with asyncio.timeout(5):
        while b"agent.toml" in (await machine.status()).out:
            await asyncio.sleep(0.1)
    assert len(machine.events("settings.differ")) == 2


async def test_a_revoked_machine_is_told_so_on_both_sides(
    machine: Machine, echo: TcpServer
) -> None:
    await machine.joined()
    machine.serve(ssh=echo.port, web=echo.port)
    await machine.start()
    await heim_proxy("agent", "revoke", AGENT, "--config", str(machine.site.heim.config_file))
    refused = await machine.told("lane.refused")
    assert refused["code"] == "revoked"
    assert "join again" not in refused["reason"]
    assert "run: heim-agent join" in refused["hint"]
    async with asyncio.timeout(5):
        while b"worth nothing any more" not in (shown := await machine.status()).out:
            await asyncio.sleep(0.1)
    assert b"by itself" not in shown.out
    asked = await machine.ask("ssh")
    assert asked.status == FAILURES[Code.AGENT_OFFLINE].exit_status
    assert "it was revoked less than a minute ago" in asked.err
    assert "its machine has to join again" in asked.err


async def test_a_target_that_is_down_is_told_to_the_user(machine: Machine) -> None:
    await machine.joined()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    machine.serve(ssh=port)
    await machine.start()
    done = await machine.ask("ssh")
    assert done.status == FAILURES[Code.DIAL_REFUSED].exit_status
    assert "connection refused" in line(done)
    assert AGENT in done.err
    assert str(port) not in done.err
    failed = await machine.told("stream.failed")
    assert failed["address"] == f"127.0.0.1:{port}"


async def test_status_says_what_it_does(machine: Machine, echo: TcpServer) -> None:
    nothing = await machine.status()
    assert nothing.status == 1
    assert nothing.out.startswith(b"not joined")
    await machine.joined()
    idle = await machine.status()
    assert idle.status == 1
    assert b"not running" in idle.out
    machine.serve(ssh=echo.port)
    process = await machine.start()
    async with asyncio.timeout(10):
        while (shown := await machine.status()).status:
            await asyncio.sleep(0.1)
    text = shown.out.decode()
    assert text.startswith(f"agent {AGENT} of https://{LOGIN_HOST}\n  connected since ")
    assert "targets that the proxy knows of: ssh, web" in text
    assert "renewed by itself" in text
    told = json.loads((await machine.status("--json")).out)
    assert (told["running"], told["connected"], told["pid"]) == (True, True, process.pid)
    process.kill()
    await process.wait()
    assert b"not running" in (await machine.status()).out


async def test_sigterm_lets_streams_end_and_is_0(machine: Machine, echo: TcpServer) -> None:
    await machine.joined()
    machine.serve(ssh=echo.port)
    process = await machine.start()
    stream = await asyncio.create_subprocess_exec(
        *machine.site.command("ssh"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **machine.site.env},
    )  # fmt: skip
    assert stream.stdin is not None
    assert stream.stdout is not None
    stream.stdin.write(b"before")
    async with asyncio.timeout(10):
        assert await stream.stdout.readexactly(6) == b"before"
        process.send_signal(signal.SIGTERM)
        await machine.told("link.stopping")
        stream.stdin.write(b"after")
        assert await stream.stdout.readexactly(5) == b"after"
        stream.stdin.close()
        assert await stream.wait() == 0
        assert await process.wait() == 0
    assert not (machine.state / "status.json").exists()
    assert machine.events("agent.stopped")
    offline = await machine.ask("ssh")
    assert offline.status == FAILURES[Code.AGENT_OFFLINE].exit_status
    assert AGENT in line(offline)


async def test_sigterm_in_the_middle_of_a_dial_is_0(machine: Machine) -> None:
    await machine.joined()
    with socket.create_server(("127.0.0.1", 0), backlog=1) as dead:
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(dead.getsockname())
        machine.serve(ssh=dead.getsockname()[1])
        process = await machine.start()
        asking = asyncio.ensure_future(machine.ask("ssh"))
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await process.wait() == 0
            assert (await asking).status != 0
        for sock in waiting:
            sock.close()


async def test_two_programs_on_one_state_are_one_too_many(
    machine: Machine, echo: TcpServer
) -> None:
    await machine.joined()
    machine.serve(ssh=echo.port)
    process = await machine.start()
    second = await run(HEIM_AGENT, "run", *machine._way)
    assert second.status == 1
    assert f"another heim-agent (process {process.pid}) uses {machine.state}" in line(second)
    # kill -9 leaves the lock's file, and no lock.
    process.kill()
    await process.wait()
    await machine.start()
    assert (await machine.ask("ssh")).out == b"hello"


async def test_what_it_writes_holds_no_secret(machine: Machine, echo: TcpServer) -> None:
    """R1: token, key and assertions are in no log and no status."""
    token = (await machine.token()).strip()
    await machine.join("--token-file", "-", stdin=token)
    machine.serve(ssh=echo.port)
    await machine.start()
    await machine.ask("ssh")
    await machine.told("stream.ended")
    secret = (machine.state / "key.pem").read_text().splitlines()[1]
    written = machine.log.read_text() + (await machine.status("--json")).out.decode()
    for canary in (token, token.rpartition("_")[2], secret, "eyJ"):
        assert canary not in written


async def test_a_unit_hands_the_key_over_and_is_told_how_it_goes(
    machine: Machine, echo: TcpServer
) -> None:
    """The environment that systemd gives to what `install` writes."""
    await machine.joined()
    machine.serve(ssh=echo.port)
    credentials, state = machine.directory / "credentials", machine.directory / "state-of-service"
    state.mkdir(mode=0o700)
    machine.state.rename(credentials)
    for file in credentials.iterdir():
        file.chmod(0o440)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(machine.directory / "notify"))
        manager.setblocking(False)
        told = b""
        environment = {
            "STATE_DIRECTORY": str(state),
            "CREDENTIALS_DIRECTORY": str(credentials),
            "NOTIFY_SOCKET": str(machine.directory / "notify"),
            "WATCHDOG_USEC": "500000",
        }
        with machine.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                HEIM_AGENT, "run", "--config", str(machine.config),
                "--connect-to", f"127.0.0.1:{machine.site.port}",
                stderr=log, env={**os.environ, **environment},
            )  # fmt: skip
        machine.processes.append(process)
        await machine.told("lane.ready")
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            while told.count(b"WATCHDOG=1") < 3 or b"STATUS=connected to" not in told:
                told += await loop.sock_recv(manager, 4096) + b"\n"
            assert b"READY=1" in told
            assert (await machine.ask("ssh")).out == b"hello"
            process.send_signal(signal.SIGTERM)
            while b"STOPPING=1" not in told:
                told += await loop.sock_recv(manager, 4096) + b"\n"
            assert await process.wait() == 0
    # The pins of the first statement went to the state; what was handed over is as it was.
    assert {"identity.json", "certificate.pem"} <= set(os.listdir(state))
    assert "key.pem" not in os.listdir(state)
