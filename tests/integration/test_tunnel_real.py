"""Real programs through the tunnel: ssh, scp, sftp, rsync, git, psql, redis-cli, byte for byte."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.real import require
from tests.integration.services import Sshd, postgres, redis, sshd
from tests.integration.test_nginx import fill, sha256
from tests.integration.tunnel import Run, TunnelSite, forward, run, tcp_backend, tunnel_site

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

MIB = 1024 * 1024
BIG = 64 * MIB


@dataclass(frozen=True)
class Desktop:
    """A machine with sshd behind the proxy, and an ssh configuration that leads there."""

    site: TunnelSite
    config: Path

    async def run(
        self, program: str, *args: str, stdin: bytes = b"", within_s: float = 50.0
    ) -> Run:
        return await run(require(program), *args, stdin=stdin, env=self.site.env, within_s=within_s)

    async def ssh(self, *args: str, stdin: bytes = b"", within_s: float = 50.0) -> Run:
        return await self.run("ssh", "-F", str(self.config), *args, stdin=stdin, within_s=within_s)


def ssh_config(site: TunnelSite, machine: Sshd, path: Path) -> Path:
    """The README's snippet, and what lets this test's key in."""
    command = shlex.join(site.command("%h")).replace(f"%h.{site.host('')[1:]}", "%h")
    path.write_text(
        f"Host *.{site.host('')[1:]}\n  ProxyCommand {command}\n"
        + machine.client_config.read_text()
    )
    return path


@pytest.fixture
async def desktop(tmp_path: Path) -> AsyncIterator[Desktop]:
    async with (
        sshd(tmp_path / "sshd") as machine,
        tunnel_site(tmp_path, [tcp_backend("desktop", machine.upstream)]) as site,
    ):
        yield Desktop(site, ssh_config(site, machine, tmp_path / "ssh_config"))


async def test_ssh_runs_a_command_and_passes_its_exit_status(desktop: Desktop) -> None:
    there = await desktop.ssh(desktop.site.host("desktop"), "echo here; exit 7")
    assert (there.status, there.out) == (7, b"here\n"), there.err


async def test_ssh_carries_64_mib_both_ways(desktop: Desktop, tmp_path: Path) -> None:
    digest = fill(tmp_path / "up", BIG)
    host = desktop.site.host("desktop")
    up = await desktop.ssh(host, "sha256sum", stdin=(tmp_path / "up").read_bytes())
    assert up.out.split()[0].decode() == digest, up.err
    down = await desktop.ssh(host, f"cat {shlex.quote(str(tmp_path / 'up'))}")
    (tmp_path / "down").write_bytes(down.out)
    assert sha256(tmp_path / "down") == digest


@pytest.mark.parametrize("flags", [("-O",), ("-s",)], ids=["scp protocol", "sftp protocol"])
async def test_scp_copies_both_ways(desktop: Desktop, tmp_path: Path, flags: tuple[str]) -> None:
    digest = fill(tmp_path / "big", BIG)
    host = desktop.site.host("desktop")
    base = ("-F", str(desktop.config), "-q", *flags)
    there = f"{host}:{tmp_path}/there"
    up = await desktop.run("scp", *base, str(tmp_path / "big"), there)
    assert (up.status, up.err) == (0, "")
    down = await desktop.run("scp", *base, there, str(tmp_path / "back"))
    assert (down.status, down.err) == (0, "")
    assert sha256(tmp_path / "there") == digest == sha256(tmp_path / "back")


async def test_sftp_puts_and_gets(desktop: Desktop, tmp_path: Path) -> None:
    digest = fill(tmp_path / "big", BIG)
    batch = f"put {tmp_path}/big {tmp_path}/there\nget {tmp_path}/there {tmp_path}/back\n"
    done = await desktop.run(
        "sftp", "-F", str(desktop.config), "-b", "-", desktop.site.host("desktop"),
        stdin=batch.encode(),
    )  # fmt: skip
    assert done.status == 0, done.err
    assert sha256(tmp_path / "there") == digest == sha256(tmp_path / "back")


async def test_rsync_brings_a_tree_over_and_back(desktop: Desktop, tmp_path: Path) -> None:
    digests = {f"{n}/file": fill(tmp_path / "tree" / str(n) / "file", MIB * n) for n in (1, 5, 20)}
    host = desktop.site.host("desktop")
    shell = f"ssh -F {desktop.config}"
    for source, goal in (
        (f"{tmp_path}/tree/", f"{host}:{tmp_path}/there/"),
        (f"{host}:{tmp_path}/there/", f"{tmp_path}/back/"),
    ):
        done = await desktop.run("rsync", "-a", "-e", shell, source, goal)
        assert done.status == 0, done.err
    assert {name: sha256(tmp_path / "back" / name) for name in digests} == digests


async def test_git_pushes_and_clones(desktop: Desktop, tmp_path: Path) -> None:
    git = require("git")
    env = {
        **desktop.site.env,
        "GIT_SSH_COMMAND": f"ssh -F {desktop.config}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.com",
    }  # fmt: skip
    work = tmp_path / "work"
    digest = fill(work / "blob", 30 * MIB)
    url = f"ssh://{desktop.site.host('desktop')}{tmp_path}/origin.git"
    for command in (
        ("init", "-q", "--bare", str(tmp_path / "origin.git")),
        ("-C", str(work), "init", "-q", "-b", "main"),
        ("-C", str(work), "add", "."),
        ("-C", str(work), "commit", "-q", "-m", "one"),
        ("-C", str(work), "push", "-q", url, "main"),
        ("clone", "-q", "-b", "main", url, str(tmp_path / "clone")),
    ):
        done = await run(git, *command, env=env, within_s=50)
        assert done.status == 0, done.err
    assert sha256(tmp_path / "clone" / "blob") == digest


async def test_many_ssh_at_once_all_get_through(desktop: Desktop) -> None:
    host = desktop.site.host("desktop")
    done = await asyncio.gather(*(desktop.ssh(host, f"echo {n}") for n in range(12)))
    assert [one.out.split() for one in done] == [[b"%d" % n] for n in range(12)]


async def test_a_control_master_is_shared(desktop: Desktop, tmp_path: Path) -> None:
    host = desktop.site.host("desktop")
    shared = ("-o", f"ControlPath={tmp_path}/control")
    master = await desktop.ssh(*shared, "-o", "ControlPersist=30", "-M", "-N", "-f", host)
    assert master.status == 0, master.err
    done = [await desktop.ssh(*shared, host, f"echo {n}") for n in range(3)]
    assert [one.out for one in done] == [b"0\n", b"1\n", b"2\n"]
    assert (await desktop.ssh(*shared, "-O", "exit", host)).status == 0


async def test_ssh_jumps_through_and_forwards_to_a_port_behind(desktop: Desktop) -> None:
    """`ssh -W`, as ProxyJump uses it: the machine's own sshd answers with its banner."""
    port = desktop.site.heim.document["backends"][0]["tcp"]["upstream"].rpartition(":")[2]
    done = await desktop.ssh("-W", f"127.0.0.1:{port}", desktop.site.host("desktop"), stdin=b"\n")
    assert done.out.startswith(b"SSH-2.0-OpenSSH"), done.err


async def test_psql_copies_64_mib_in_and_out(tmp_path: Path) -> None:
    """Through `heim-tunnel forward`, as a program that knows nothing of ProxyCommand needs it."""
    rows = b"".join(b"%d\t%s\n" % (n, os.urandom(480).hex().encode()) for n in range(BIG // 968))
    (tmp_path / "rows").write_bytes(rows)
    async with (
        postgres() as database,
        tunnel_site(tmp_path, [tcp_backend("pg", database.upstream)]) as site,
        forward(site, "pg") as port,
    ):
        base = (require("psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "heim", "-q", "-d",
                "postgres", "-v", "ON_ERROR_STOP=1")  # fmt: skip
        for command in (
            "create table t (n int, payload text)",
            f"\\copy t from '{tmp_path}/rows'",
            f"\\copy (select * from t order by n) to '{tmp_path}/back'",
        ):
            done = await run(*base, "-c", command, env=site.env, within_s=50)
            assert done.status == 0, done.err
    assert sha256(tmp_path / "back") == sha256(tmp_path / "rows")


async def test_redis_cli_sets_and_gets_a_large_value(tmp_path: Path) -> None:
    value = os.urandom(16 * MIB).hex().encode()
    async with (
        redis(tmp_path / "redis") as server,
        tunnel_site(tmp_path, [tcp_backend("cache", server.upstream)]) as site,
        forward(site, "cache") as port,
    ):
        cli = (require("redis-cli"), "-p", str(port))
        assert (await run(*cli, "-x", "set", "k", stdin=value)).out == b"OK\n"
        assert (await run(*cli, "--raw", "get", "k")).out == value + b"\n"
