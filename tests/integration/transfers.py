"""Transfers by real programs through the tunnel, of any size, compared byte for byte."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fakes.real import require
from tests.integration.services import Sshd, postgres, redis, sshd
from tests.integration.test_nginx import MIB, fill, sha256
from tests.integration.tunnel import Run, TunnelSite, forward, run, tcp_backend, tunnel_site

__all__ = [
    "Desktop",
    "by_git",
    "by_psql",
    "by_redis",
    "by_rsync",
    "by_scp",
    "by_sftp",
    "by_ssh",
    "desktop_site",
]

VALUE_BYTES: Final = 16 * MIB


@dataclass(frozen=True)
class Desktop:
    """A machine with sshd behind the proxy, and an ssh configuration that leads there."""

    site: TunnelSite
    config: Path
    # For one program to end.
    patience_s: float = 50.0

    @property
    def host(self) -> str:
        return self.site.host("desktop")

    async def run(self, program: str, *args: str, stdin: bytes | Path = b"") -> Run:
        return await run(
            require(program), *args, stdin=stdin, env=self.site.env, within_s=self.patience_s
        )

    async def ssh(self, *args: str, stdin: bytes | Path = b"") -> Run:
        return await self.run("ssh", "-F", str(self.config), *args, stdin=stdin)


@asynccontextmanager
async def desktop_site(directory: Path, *, patience_s: float = 50.0) -> AsyncIterator[Desktop]:
    """A desktop for the length of the block."""
    async with (
        sshd(directory / "sshd") as machine,
        tunnel_site(directory, [tcp_backend("desktop", machine.upstream)]) as site,
    ):
        yield Desktop(site, _ssh_config(site, machine, directory / "ssh_config"), patience_s)


def _ssh_config(site: TunnelSite, machine: Sshd, path: Path) -> Path:
    """The README's snippet where nothing resolves names, and what lets this test's key in."""
    command = shlex.join([*site.command("desktop")[:-1], "%h"])
    path.write_text(
        f"Host *.{site.host('').strip('.')}\n  ProxyCommand {command}\n"
        + machine.client_config.read_text()
    )
    return path


def _same(digest: str, *paths: Path) -> None:
    assert [sha256(path) for path in paths] == [digest] * len(paths)


async def by_ssh(desktop: Desktop, directory: Path, size: int) -> None:
    digest = fill(directory / "up", size)
    up = await desktop.ssh(desktop.host, "sha256sum", stdin=directory / "up")
    assert up.out.split()[0].decode() == digest, up.err
    there = shlex.quote(str(directory / "up"))
    down = await desktop.ssh(desktop.host, f"cat {there}")
    (directory / "down").write_bytes(down.out)
    _same(digest, directory / "down")


async def by_scp(desktop: Desktop, directory: Path, size: int, flag: str) -> None:
    digest = fill(directory / "big", size)
    base = ("-F", str(desktop.config), "-q", flag)
    there = f"{desktop.host}:{directory}/there"
    for source, goal in ((f"{directory}/big", there), (there, f"{directory}/back")):
        done = await desktop.run("scp", *base, source, goal)
        assert (done.status, done.err) == (0, "")
    _same(digest, directory / "there", directory / "back")


async def by_sftp(desktop: Desktop, directory: Path, size: int) -> None:
    digest = fill(directory / "big", size)
    batch = f"put {directory}/big {directory}/there\nget {directory}/there {directory}/back\n"
    args = ("-F", str(desktop.config), "-b", "-", desktop.host)
    done = await desktop.run("sftp", *args, stdin=batch.encode())
    assert done.status == 0, done.err
    _same(digest, directory / "there", directory / "back")


async def by_rsync(desktop: Desktop, directory: Path, size: int) -> None:
    parts = {"a": size // 16, "b/c": size // 4, "d": size - size // 16 - size // 4}
    digests = {name: fill(directory / "tree" / name, part) for name, part in parts.items()}
    there = f"{desktop.host}:{directory}/there/"
    for source, goal in ((f"{directory}/tree/", there), (there, f"{directory}/back/")):
        done = await desktop.run("rsync", "-a", "-e", f"ssh -F {desktop.config}", source, goal)
        assert done.status == 0, done.err
    assert {name: sha256(directory / "back" / name) for name in digests} == digests


async def by_git(desktop: Desktop, directory: Path, size: int) -> None:
    env = {
        **desktop.site.env,
        "GIT_SSH_COMMAND": f"ssh -F {desktop.config}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.com",
    }  # fmt: skip
    work, clone = directory / "work", directory / "clone"
    digest = fill(work / "blob", size)
    url = f"ssh://{desktop.host}{directory}/origin.git"
    # Random bytes do not compress; trying takes longer than the transfer.
    quick = ("-c", "core.compression=0")
    for command in (
        ("init", "-q", "--bare", str(directory / "origin.git")),
        ("-C", str(work), "init", "-q", "-b", "main"),
        (*quick, "-C", str(work), "add", "."),
        ("-C", str(work), "commit", "-q", "-m", "one"),
        (*quick, "-C", str(work), "push", "-q", url, "main"),
        ("clone", "-q", "-b", "main", url, str(clone)),
    ):
        done = await run(require("git"), *command, env=env, within_s=desktop.patience_s)
        assert done.status == 0, done.err
    _same(digest, clone / "blob")


async def by_psql(directory: Path, size: int, *, patience_s: float = 50.0) -> None:
    """Through `heim-tunnel forward`, as a program that knows no ProxyCommand needs it."""
    rows, back = directory / "rows", directory / "back"
    with rows.open("wb") as file:
        for number in range(size // 968):
            file.write(b"%d\t%s\n" % (number, os.urandom(480).hex().encode()))
    async with (
        postgres() as database,
        tunnel_site(directory, [tcp_backend("pg", database.upstream)]) as site,
        forward(site, "pg") as port,
    ):
        base = (
            require("psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "heim", "-q", "-d",
            "postgres", "-v", "ON_ERROR_STOP=1",
        )  # fmt: skip
        for command in (
            "create table t (n int, payload text)",
            f"\\copy t from '{rows}'",
            f"\\copy (select * from t order by n) to '{back}'",
        ):
            done = await run(*base, "-c", command, env=site.env, within_s=patience_s)
            assert done.status == 0, done.err
    _same(sha256(rows), back)


async def by_redis(directory: Path, size: int) -> None:
    async with (
        redis(directory / "redis") as server,
        tunnel_site(directory, [tcp_backend("cache", server.upstream)]) as site,
        forward(site, "cache") as port,
    ):
        cli = (require("redis-cli"), "-p", str(port))
        for _ in range(0, size, VALUE_BYTES):
            value = os.urandom(min(size, VALUE_BYTES) // 2).hex().encode()
            assert (await run(*cli, "-x", "set", "k", stdin=value)).out == b"OK\n"
            assert (await run(*cli, "--raw", "get", "k")).out == value + b"\n"
