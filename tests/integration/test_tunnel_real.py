"""Real programs through the tunnel: ssh, scp, sftp, rsync, git, psql, redis-cli, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.test_nginx import MIB
from tests.integration.transfers import (
    Desktop,
    by_git,
    by_psql,
    by_redis,
    by_rsync,
    by_scp,
    by_sftp,
    by_ssh,
    desktop_site,
)

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

BIG = 64 * MIB


@pytest.fixture
async def desktop(tmp_path: Path) -> AsyncIterator[Desktop]:
    async with desktop_site(tmp_path) as started:
        yield started


async def test_ssh_runs_a_command_and_passes_its_exit_status(desktop: Desktop) -> None:
    there = await desktop.ssh(desktop.host, "echo here; exit 7")
    assert (there.status, there.out) == (7, b"here\n"), there.err


async def test_ssh_carries_64_mib_both_ways(desktop: Desktop, tmp_path: Path) -> None:
    await by_ssh(desktop, tmp_path, BIG)


@pytest.mark.parametrize("flag", ["-O", "-s"], ids=["scp protocol", "sftp protocol"])
async def test_scp_copies_both_ways(desktop: Desktop, tmp_path: Path, flag: str) -> None:
    await by_scp(desktop, tmp_path, BIG, flag)


async def test_sftp_puts_and_gets(desktop: Desktop, tmp_path: Path) -> None:
    await by_sftp(desktop, tmp_path, BIG)


async def test_rsync_brings_a_tree_over_and_back(desktop: Desktop, tmp_path: Path) -> None:
    await by_rsync(desktop, tmp_path, BIG)


async def test_git_pushes_and_clones(desktop: Desktop, tmp_path: Path) -> None:
    await by_git(desktop, tmp_path, BIG)


async def test_many_ssh_at_once_all_get_through(desktop: Desktop) -> None:
    done = await asyncio.gather(*(desktop.ssh(desktop.host, f"echo {n}") for n in range(12)))
    assert [one.out.split() for one in done] == [[b"%d" % n] for n in range(12)]


async def test_a_control_master_is_shared(desktop: Desktop, tmp_path: Path) -> None:
    shared = ("-o", f"ControlPath={tmp_path}/control")
    master = await desktop.ssh(*shared, "-o", "ControlPersist=30", "-M", "-N", "-f", desktop.host)
    assert master.status == 0, master.err
    done = [await desktop.ssh(*shared, desktop.host, f"echo {n}") for n in range(3)]
    assert [one.out for one in done] == [b"0\n", b"1\n", b"2\n"]
    assert (await desktop.ssh(*shared, "-O", "exit", desktop.host)).status == 0


async def test_ssh_forwards_to_a_port_behind(desktop: Desktop) -> None:
    """`ssh -W`, as ProxyJump uses it: the machine's own sshd answers with its banner."""
    port = desktop.site.heim.document["backends"][0]["tcp"]["upstream"].rpartition(":")[2]
    done = await desktop.ssh("-W", f"127.0.0.1:{port}", desktop.host, stdin=b"\n")
    assert done.out.startswith(b"SSH-2.0-OpenSSH"), done.err


async def test_ssh_jumps_to_a_machine_behind(desktop: Desktop, tmp_path: Path) -> None:
    port = desktop.site.heim.document["backends"][0]["tcp"]["upstream"].rpartition(":")[2]
    # The inner machine is reached directly from the outer one, by no ProxyCommand of ours.
    config = tmp_path / "jump_config"
    config.write_text(
        f"Host inner\n  HostName 127.0.0.1\n  Port {port}\n  ProxyJump {desktop.host}\n"
    )
    config.write_text(config.read_text() + desktop.config.read_text())
    done = await desktop.run("ssh", "-F", str(config), "inner", "echo inside")
    assert done.out == b"inside\n", done.err


async def test_psql_copies_in_and_out(tmp_path: Path) -> None:
    await by_psql(tmp_path, BIG)


async def test_redis_cli_sets_and_gets_large_values(tmp_path: Path) -> None:
    await by_redis(tmp_path, BIG)
