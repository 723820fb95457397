"""Keep one marked block in somebody's ~/.ssh/config, and leave every other byte alone.

The block goes to the end of the file: it begins with a `Host` line, so it ends whatever stood open
before it, and options at the top of the file still apply to every host. (At the top of the file it
would swallow them.) ssh takes the first value it finds, so an earlier `ProxyCommand` for the same
hosts wins; `effective` asks ssh itself.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["SshConfigError", "effective", "holds_block", "merged", "write_block"]

# A config of this size is not written by people, and all of it is held in memory.
MAX_CONFIG: Final = 4 * 1024 * 1024
# Somebody else wrote the file while we did: read it again, this often.
_ATTEMPTS: Final = 3
# `ssh -G` runs the `Match exec` commands of the config, which may be slow.
_ASK_SSH_S: Final = 5.0


class SshConfigError(Exception):
    """The file cannot be changed safely; the message says why and is one line."""


def merged(config: bytes, block: str, mark: str) -> bytes:
    """A config with our block in it: where it stood before, or at the end.

    Args:
        config: The file as it is; its line ends (LF or CRLF) are kept.
        block: The lines between the marks, each with its newline.
        mark: What tells our blocks apart, such as the login host's name.

    Raises:
        SshConfigError: The marks in the file do not pair up.
    """
    begin, end = f"# heim-tunnel begin {mark}", f"# heim-tunnel end {mark}"
    newline = b"\r\n" if b"\r\n" in config else b"\n"
    ours = f"{begin}\n{block}{end}\n".encode().replace(b"\n", newline)
    lines = config.splitlines(keepends=True)
    stripped = [line.strip() for line in lines]
    begins = [at for at, line in enumerate(stripped) if line == begin.encode()]
    ends = [at for at, line in enumerate(stripped) if line == end.encode()]
    if not begins and not ends:
        return _appended(config, ours, newline)
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        at = (begins + ends)[0] + 1
        raise SshConfigError(
            f"line {at} begins or ends a heim-tunnel block that has no other half or stands "
            "there twice; delete those lines and try again"
        )
    return b"".join((*lines[: begins[0]], ours, *lines[ends[0] + 1 :]))


def _appended(config: bytes, ours: bytes, newline: bytes) -> bytes:
    if not config:
        return ours
    if not config.endswith(b"\n"):
        config += newline
    return config + newline + ours


def write_block(path: Path, block: str, mark: str) -> bool:
    """Put the block into the file in one step; says whether anything had to change.

    A link is followed and stays one; mode and owner stay. A file that appears while we write is
    noticed: its contents are taken in, too.

    Raises:
        SshConfigError: It cannot be read or written, or its marks do not pair up.
    """
    target = Path(os.path.realpath(path))
    for _ in range(_ATTEMPTS):
        try:
            before, config = _read(target)
            fresh = merged(config, block, mark)
            if fresh == config:
                return False
            if _replaced(target, before, fresh):
                return True
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise SshConfigError(
                f"cannot write {path}: {why}; without --write the lines are printed for you to copy"
            ) from error
        except SshConfigError as error:
            raise SshConfigError(f"{path}: {error}") from None
    raise SshConfigError(f"{path} changes while it is written; try again")


def holds_block(path: Path, block: str, mark: str) -> bool:
    """Whether the file has this very block already; False for one that cannot be read."""
    try:
        _, config = _read(Path(os.path.realpath(path)))
        return merged(config, block, mark) == config
    except (OSError, SshConfigError):
        return False


def _read(target: Path) -> tuple[os.stat_result | None, bytes]:
    try:
        # Without O_NONBLOCK, opening a pipe that nobody writes would wait for ever.
        with os.fdopen(os.open(target, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise SshConfigError("this is no regular file")
            config = file.read(MAX_CONFIG + 1)
    except FileNotFoundError:
        return None, b""
    if len(config) > MAX_CONFIG:
        raise SshConfigError(f"larger than {MAX_CONFIG // 1024 // 1024} MiB")
    return before, config


def _replaced(target: Path, before: os.stat_result | None, fresh: bytes) -> bool:
    """Replace the file unless somebody changed it since `before`."""
    if before is None and target.parent == Path(os.path.realpath(os.path.expanduser("~/.ssh"))):
        # Only ssh's own: another that is missing is a mistyped path. ssh refuses configs that
        # others may write.
        target.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".heim-tunnel-", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(fresh)
            file.flush()
            if before is not None:
                _like(file.fileno(), before)
            os.fsync(file.fileno())
        if not _same(target, before):
            return False
        os.replace(name, target)
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _like(descriptor: int, before: os.stat_result) -> None:
    """Give the new file the old one's owner and mode; as root under sudo the owner differs."""
    fresh = os.fstat(descriptor)
    if (fresh.st_uid, fresh.st_gid) != (before.st_uid, before.st_gid):
        os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


def _same(target: Path, before: os.stat_result | None) -> bool:
    try:
        now = target.stat()
    except FileNotFoundError:
        return before is None
    return before is not None and (now.st_ino, now.st_size, now.st_mtime_ns) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
    )


def effective(path: Path, host: str) -> str | None:
    """The ProxyCommand that ssh would use for a host with this config; None when it cannot say."""
    try:
        # The person's own ssh, found as their shell finds it; the host is not taken for an option.
        told = subprocess.run(  # noqa: S603
            ["ssh", "-G", "-F", str(path), "--", host],  # noqa: S607
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=_ASK_SSH_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    for line in told.stdout.decode("utf-8", "replace").splitlines():
        name, _, value = line.partition(" ")
        if name == "proxycommand":
            return value
    return ""
