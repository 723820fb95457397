"""The commands of heim-tunnel as processes, against a whole proxy and its real portal."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fakes.heim import DOMAIN, LOGIN_HOST, Heim, authority, user
from tests.fakes.person import Person
from tests.fakes.real import require
from tests.fakes.tunnel import TcpServer, service_token, tcp_backend, tunnel_role
from tests.fakes.tunnel_cli import environment
from tests.integration.middleboxes import nginx_in_front, tinyproxy
from tests.integration.services import sshd
from tests.integration.tunnel import HEIM_TUNNEL

pytestmark = pytest.mark.timeout(60)

WEB = f"web1.{DOMAIN}"


@dataclass
class Done:
    status: int
    out: str
    err: str


class Running:
    """A command under way."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said = ""

    async def line(self) -> str:
        """The next line on standard error."""
        assert self.process.stderr is not None
        async with asyncio.timeout(10):
            line = (await self.process.stderr.readline()).decode()
        self.said += line
        return line

    async def done(self) -> Done:
        async with asyncio.timeout(20):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return Done(self.process.returncode, out.decode(), self.said + err.decode())


@dataclass
class Machine:
    """A person's machine, and the proxy that it knows."""

    heim: Heim
    home: Path
    person: Person
    upstream: TcpServer
    started: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def start(self, *words: str, **env: str) -> Running:
        process = await asyncio.create_subprocess_exec(
            HEIM_TUNNEL,
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                **environment(self.home / "heim"),
                "HOME": str(self.home),
                "HEIM_CA_FILE": str(self.home / "ca.pem"),
                **env,
            },
        )
        self.started.append(process)
        return Running(process)

    async def stop(self) -> None:
        """Leave nothing behind, whatever a test stumbled over."""
        for process in self.started:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    def reach(self, *words: str) -> list[str]:
        """The words of a command with the detour that stands in for a name service."""
        return [words[0], "--connect-to", f"127.0.0.1:{self.heim.https_port}", *words[1:]]

    async def run(self, *words: str, **env: str) -> Done:
        return await (await self.start(*self.reach(*words), **env)).done()

    async def login(self) -> Done:
        running = await self.start(*self.reach("login", LOGIN_HOST))
        await self.person.allow(await running.line())
        done = await running.done()
        assert done.status == 0, done.err
        return done

    @property
    def stored(self) -> Path:
        return self.home / "heim" / "logins" / f"{LOGIN_HOST}.json"


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    upstream = await TcpServer().start()
    heim = await Heim.start(
        tmp_path,
        backends=[tcp_backend("web1", upstream.address), tcp_backend("vault", upstream.address)],
        roles=[
            tunnel_role(
                "r", "web1",
                members=[{"user": "alice@example.com"}, {"service_account": "ci"}],
            )
        ],
        service_accounts=[{"name": "ci"}],
    )  # fmt: skip
    authority().cert_pem.write_to_path(tmp_path / "ca.pem")
    machine = Machine(heim, tmp_path, await Person.of(heim, user("alice")), upstream)
    yield machine
    await machine.stop()
    await heim.stop()
    await upstream.stop()


@asynccontextmanager
async def forwarding(machine: Machine, *words: str, **env: str) -> AsyncIterator[tuple[str, int]]:
    running = await machine.start(*machine.reach("forward", *words), **env)
    assert running.process.stdout is not None
    async with asyncio.timeout(10):
        where = (await running.process.stdout.readline()).decode().strip()
    assert where, await running.done()
    host, _, port = where.rpartition(":")
    yield host, int(port)
    if running.process.returncode is None:
        running.process.send_signal(signal.SIGINT)
    done = await running.done()
    assert done.status == 130, done.err
    assert "Traceback" not in done.err


async def ask(where: tuple[str, int], data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*where)
    try:
        async with asyncio.timeout(15):
            _, answer = await asyncio.gather(_send(writer, data), reader.read())
            return answer
    finally:
        writer.close()


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()
    writer.write_eof()


async def test_a_person_signs_in_looks_around_and_leaves(machine: Machine) -> None:
    done = await machine.login()
    assert f"{LOGIN_HOST}: signed in as alice@example.com until" in done.err
    assert done.out == ""
    assert machine.stored.stat().st_mode & 0o777 == 0o600

    status = await (await machine.start("status")).done()
    assert status.status == 0
    assert "alice@example.com" in status.out

    listed = await machine.run("list")
    assert listed.out.splitlines()[1].split()[:3] == ["web1", "tcp", WEB]
    assert "vault" not in listed.out
    as_json = json.loads((await machine.run("list", "--json")).out)
    assert [one["name"] for one in as_json["backends"]] == ["web1"]

    config = await machine.run("ssh-config")
    assert config.out.startswith(f"Host {WEB}\n    ProxyCommand {HEIM_TUNNEL} proxy ")
    assert config.out.endswith(" %h\n")

    doctor = await machine.run("doctor", "--idle", "1", WEB)
    assert doctor.status == 0, doctor.out
    assert {line.split()[0] for line in doctor.out.splitlines()} == {"ok"}
    assert "idle      still open" in doctor.out

    left = await machine.run("logout")
    assert left.err == f"heim-tunnel: {LOGIN_HOST}: signed out alice@example.com\n"
    assert not machine.stored.exists()

    tokens = machine.home.rglob("*")
    assert not any(one.suffix == ".json" for one in tokens)


async def test_init_does_it_all(machine: Machine) -> None:
    running = await machine.start(*machine.reach("init", "--ssh-config", LOGIN_HOST))
    assert "is a Heim login host" in await running.line()
    await machine.person.allow(await running.line())
    done = await running.done()
    assert done.status == 0, done.err
    assert "try: heim-tunnel forward web1" in done.err
    assert f"Host {WEB}" in (machine.home / ".ssh" / "config").read_text()


async def test_a_code_is_typed_on_another_machine(machine: Machine) -> None:
    running = await machine.start(*machine.reach("login", "--device", LOGIN_HOST))
    page = await machine.person.type_code(await running.line())
    assert "The device is signed in" in page
    # The portal asks for five seconds between polls.
    done = await running.done()
    assert done.status == 0, done.err
    assert machine.stored.exists()


@pytest.mark.parametrize("way", ["browser", "code"])
async def test_a_refusal_is_one_line(way: str, machine: Machine) -> None:
    words = ["login", "--device", LOGIN_HOST] if way == "code" else ["login", LOGIN_HOST]
    running = await machine.start(*machine.reach(*words))
    line = await running.line()
    if way == "code":
        await machine.person.type_code(line, "deny")
    else:
        assert "Not signed in" in await machine.person.decide(line, "deny")
    done = await running.done()
    assert done.status == 77
    assert "was refused" in done.err.splitlines()[-1]
    assert not machine.stored.exists()


async def test_a_second_browser_answer_finds_nobody(machine: Machine) -> None:
    running = await machine.start(*machine.reach("login", LOGIN_HOST))
    line = await running.line()
    await machine.person.allow(line)
    assert (await running.done()).status == 0
    with pytest.raises(ConnectionRefusedError):
        await machine.person.allow(line)


async def test_a_token_that_is_over_is_renewed_without_anybody(machine: Machine) -> None:
    await machine.login()
    before = json.loads(machine.stored.read_text())
    machine.stored.write_text(json.dumps({**before, "access_expires": time.time() - 1}))
    done = await machine.run("list")
    assert (done.status, done.err) == (0, "")
    after = json.loads(machine.stored.read_text())
    assert after["refresh_token"] != before["refresh_token"]
    assert after["access_token"] != before["access_token"]


async def test_bytes_go_through_a_forward_and_back(machine: Machine) -> None:
    await machine.login()
    async with forwarding(machine, "web1") as where:
        data = os.urandom(4 * 1024 * 1024)
        back = await ask(where, data)
        assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()
        small = [os.urandom(n) for n in (0, 1, 16_368, 65_537)]
        assert await asyncio.gather(*(ask(where, one) for one in small)) == small


async def test_a_service_token_forwards_without_a_login(machine: Machine) -> None:
    token = machine.home / "service-token"
    token.touch(mode=0o600)
    token.write_text(f"{await service_token(machine.heim, 'ci')}@{DOMAIN}")
    async with forwarding(machine, f"0:{WEB}", HEIM_TOKEN_FILE=str(token)) as where:
        assert await ask(where, b"x") == b"x"
    assert not machine.stored.exists()


async def test_the_login_host_leads_to_every_backend(machine: Machine) -> None:
    await machine.login()
    async with forwarding(machine, WEB, HEIM_PROXY=LOGIN_HOST) as where:
        assert await ask(where, b"x") == b"x"
    doctor = await machine.run("doctor", WEB, HEIM_PROXY=LOGIN_HOST)
    assert doctor.status == 0, doctor.out


async def test_who_may_not_reads_why(machine: Machine) -> None:
    await machine.login()
    by_name = await machine.run("forward", "vault")
    assert by_name.status == 68
    assert "alice@example.com may reach no backend called vault; there is web1" in by_name.err
    running = await machine.start(*machine.reach("forward", f"vault.{DOMAIN}"))
    assert running.process.stdout is not None
    where = (await running.process.stdout.readline()).decode().strip()
    with pytest.raises(ConnectionError):
        await ask(("127.0.0.1", int(where.rpartition(":")[2])), b"x")
    running.process.send_signal(signal.SIGINT)
    assert "alice@example.com may not" in (await running.done()).err
    doctor = await machine.run("doctor", f"vault.{DOMAIN}")
    assert doctor.status == 1
    assert f"warn  rights    vault.{DOMAIN} is not among what alice@example.com" in doctor.out
    assert "fail  tunnel    alice@example.com may not" in doctor.out


async def test_signing_out_ends_what_is_open(machine: Machine) -> None:
    await machine.login()
    async with forwarding(machine, "web1") as where:
        reader, writer = await asyncio.open_connection(*where)
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        began = time.monotonic()
        assert (await machine.run("logout")).status == 0
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(5):
                await reader.read()
        assert time.monotonic() - began < 4
        writer.close()


async def test_a_program_that_does_not_read_does_not_fill_the_memory(machine: Machine) -> None:
    await machine.login()
    data = os.urandom(1024 * 1024)
    pieces = 96

    async def download(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(pieces):
            writer.write(data)
            await writer.drain()
        writer.close()

    machine.upstream.script = download
    async with forwarding(machine, "web1") as where:
        began = resident(where)
        reader, writer = await asyncio.open_connection(*where, limit=65536)
        # Until nothing moves any more: windows, queues and sockets are full.
        before, most = -1, 0
        while before != most:
            before = most
            await asyncio.sleep(0.5)
            most = max(most, resident(where))
        assert most - began < 32 * 1024 * 1024
        digest = hashlib.sha256()
        async with asyncio.timeout(20):
            while part := await reader.read(1024 * 1024):
                digest.update(part)
        writer.close()
    expected = hashlib.sha256()
    for _ in range(pieces):
        expected.update(data)
    assert digest.digest() == expected.digest()


def resident(where: tuple[str, int]) -> int:
    """Resident memory, in bytes, of the process that listens there."""
    wanted = f"0100007F:{where[1]:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()
    inode = next(line.split()[9] for line in lines if line.split()[1] == wanted)
    for process in Path("/proc").glob("[0-9]*"):
        for descriptor in process.glob("fd/*"):
            try:
                if os.readlink(descriptor) == f"socket:[{inode}]":
                    pages = int((process / "statm").read_text().split()[1])
                    return pages * os.sysconf("SC_PAGE_SIZE")
            except OSError:
                continue
    raise AssertionError("nobody listens there")


@pytest.mark.real
async def test_what_ssh_config_writes_is_what_openssh_needs(machine: Machine) -> None:
    """Beside what is in the file already, with the person signing in from inside ssh."""
    ssh = require("ssh")
    async with sshd(machine.home / "sshd") as server:
        backend = tcp_backend("desktop", server.upstream, host=f"desktop.ssh.{DOMAIN}")
        roles = [*machine.heim.document["roles"], tunnel_role("ssh", "desktop")]
        await machine.heim.change(
            backends=[*machine.heim.document["backends"], backend], roles=roles
        )
        config = server.client_config
        words = ["ssh-config", "--write", "--file", str(config), "--login-host", LOGIN_HOST]
        written = await machine.run(*words, f"*.ssh.{DOMAIN}", HEIM_PROXY=LOGIN_HOST)
        assert written.status == 0, written.err
        process = await asyncio.create_subprocess_exec(
            ssh, "-F", str(config), f"desktop.ssh.{DOMAIN}", "echo through; echo talk >&2; exit 7",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                **environment(machine.home / "heim"), "HOME": str(machine.home), "BROWSER": "true",
            },
        )  # fmt: skip
        running = Running(process)
        assert "not signed in; signing in at" in await running.line()
        await machine.person.allow(await running.line())
        done = await running.done()
    assert (done.status, done.out) == (7, "through\n"), done.err
    assert done.err.endswith("talk\n")


@pytest.mark.real
async def test_the_doctor_names_the_middlebox_that_cuts(machine: Machine) -> None:
    await machine.login()
    async with nginx_in_front(machine.home / "nginx", machine.heim.https_port, idle_s=2) as front:
        running = await machine.start(
            "doctor", "--connect-to", f"127.0.0.1:{front.port}", "--ca-file", str(front.ca_file),
            "--idle", "8", WEB,
        )  # fmt: skip
        done = await running.done()
    assert done.status == 1
    assert "ok    upgrade   passes" in done.out
    assert "ok    tunnel    open in" in done.out
    assert "fail  idle      cut after 2 s" in done.out
    assert "raise the idle timeout of load balancers" in done.out


@pytest.mark.real
async def test_the_doctor_names_the_company_proxy_that_refuses(machine: Machine) -> None:
    async with tinyproxy(machine.home / "company", login=("alice", "s3cret")) as company:
        target = f"{WEB}:{machine.heim.https_port}"
        for given in (company.url, company.url.replace("//", "//alice:wr0ng@")):
            running = await machine.start("doctor", target, HTTPS_PROXY=given, NO_PROXY="")
            done = await running.done()
            assert done.status == 1
            assert f"ok    settings  through web proxy {company.url}" in done.out
            assert f"{company.url} answered 40" in done.out
            assert f"-> ask whoever runs this network how to get through {company.url}" in done.out
            assert "wr0ng" not in done.out + done.err


async def test_five_commands_share_one_sign_in(machine: Machine) -> None:
    running = [
        await machine.start(*machine.reach("list", LOGIN_HOST), BROWSER="true") for _ in range(5)
    ]
    first = [await one.line() for one in running]
    signing = [one for one, line in zip(running, first, strict=True) if "signing in at" in line]
    waiting = [one for one, line in zip(running, first, strict=True) if "waiting for" in line]
    # Whoever holds the lock says that it signs in; the others say that they wait.
    leaders = [one for one in signing if one not in waiting]
    assert (len(leaders), len(waiting)) == (1, 4), first
    await machine.person.allow(await leaders[0].line())
    for one in running:
        done = await one.done()
        assert done.status == 0, done.err
        assert "web1" in done.out
