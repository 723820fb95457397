"""Read and write the agent's own files: small, private, whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat

from heim_runtime.complaints import FAILED, Complaint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["FILE_BYTES", "LOCK", "Lock", "make_directory", "read", "write"]

FILE_BYTES: Final = 256 * 1024
"""A key has 0.3 KiB, an identity with a dozen keys 4, a file of authorities 200; more is none."""

LOCK: Final = ".lock"
"""Held by whoever uses a directory."""

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
# systemd and Kubernetes give mounted secrets to one more user by the group's bits, never to all.
_STRANGERS: Final = stat.S_IWGRP | stat.S_IRWXO


def read(
    path: str, *, secret: bool = False, mounted: bool = False, anybodys: bool = False
) -> bytes | None:
    """A small file of ours or root's; None when there is none.

    Args:
        path: Which.
        secret: Nobody else may read it. Nobody else may ever write to it.
        mounted: Somebody else put it there for us, perhaps as a symbolic link.
        anybodys: It is only to be shown: it may belong to another user.

    Raises:
        Complaint: It cannot be read, or somebody else could have read or put it there.
    """
    # Not blocking: a pipe that somebody put there would keep us waiting for its writer.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if mounted else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as e:
        if os.path.islink(path) and not mounted:
            raise Complaint(
                f"{path} is a symbolic link, which somebody may have put there; replace it by "
                "the file",
                FAILED,
            ) from e
        raise Complaint(f"cannot read {path}: {e.strerror}", FAILED) from e
    try:
        _check(path, os.fstat(descriptor), secret=secret, mounted=mounted, anybodys=anybodys)
        data = b""
        while chunk := os.read(descriptor, FILE_BYTES + 1 - len(data)):
            data += chunk
    except OSError as e:
        raise Complaint(f"cannot read {path}: {e.strerror}", FAILED) from e
    finally:
        os.close(descriptor)
    if len(data) > FILE_BYTES:
        limit = FILE_BYTES // 1024
        raise Complaint(f"{path} is longer than {limit} KiB; it is another file", FAILED)
    return data


def _check(
    path: str, about: os.stat_result, *, secret: bool, mounted: bool, anybodys: bool
) -> None:
    if not stat.S_ISREG(about.st_mode):
        raise Complaint(f"{path} is no file", FAILED)
    if not anybodys:
        _check_owner(path, about)
    if secret and about.st_mode & (_STRANGERS if mounted else _OTHERS):
        raise Complaint(
            f"others may read {path} (mode {stat.S_IMODE(about.st_mode):o}); if nobody has, "
            f"run: chmod 600 {path}",
            FAILED,
        )
    if about.st_mode & stat.S_IWOTH:
        raise Complaint(
            f"everybody may write to {path}; look at it, then: chmod o-w {path}", FAILED
        )


def _check_owner(path: str, about: os.stat_result) -> None:
    if about.st_uid not in (os.geteuid(), 0):
        raise Complaint(
            f"{path} belongs to uid {about.st_uid}, not to us (uid {os.geteuid()}); run as its "
            f"owner, or: chown {os.geteuid()} {path}",
            FAILED,
        )


def make_directory(path: str, *, mode: int = 0o700) -> None:
    """Make a directory of ours, if it is not there.

    Raises:
        Complaint: It cannot be made, or others may write to it.
    """
    try:
        if not os.path.isdir(path):
            os.makedirs(path, exist_ok=True)
            # Whatever the umask says.
            os.chmod(path, mode)
        about = os.stat(path)
    except OSError as e:
        raise Complaint(f"cannot make the directory {path}: {e.strerror}", FAILED) from e
    # systemd makes /var/lib/heim-agent a link to private/heim-agent; what counts is where it ends.
    if about.st_uid not in (os.geteuid(), 0):
        raise Complaint(
            f"{path} belongs to uid {about.st_uid}, not to us (uid {os.geteuid()}); run as its "
            "owner (a service: systemctl start heim-agent), or name another one with --state",
            FAILED,
        )
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Complaint(
            f"others may write to {path} (mode {stat.S_IMODE(about.st_mode):o}); run: "
            f"chmod 700 {path}",
            FAILED,
        )


def write(*replacements: tuple[str, bytes, int]) -> None:
    """Replace files by `(path, data, mode)`, all of one directory.

    Everything is on the disk under other names before the first is renamed: a full disk replaces
    none of them, and whoever looks sees the old or the new of each.

    Raises:
        OSError: Something could not be written; the old files are as they were.
    """
    fresh = [(f"{path}.{os.getpid()}.new", path) for path, _, _ in replacements]
    try:
        for (name, _), (_, data, mode) in zip(fresh, replacements, strict=True):
            _stage(name, data, mode)
        for name, path in fresh:
            os.replace(name, path)
    except BaseException:
        for name, _ in fresh:
            with contextlib.suppress(OSError):
                os.unlink(name)
        raise
    directory = os.open(
        os.path.dirname(replacements[0][0]) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    )
    try:
        # The new names themselves must survive a power cut.
        os.fsync(directory)
    finally:
        os.close(directory)


def _stage(path: str, data: bytes, mode: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        # Left by a crash, or put there by somebody who would keep it open and read along.
        os.unlink(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


class Lock:
    """One program at a time in a directory: an flock, which ends with the process however it ends.

    Use as `with Lock(directory): …`.
    """

    __slots__ = ("_descriptor", "_directory")

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._descriptor = -1

    def __enter__(self) -> None:
        path = f"{self._directory}/{LOCK}"
        make_directory(self._directory)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise Complaint(f"cannot lock {path}: {e.strerror}", FAILED) from e
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except BlockingIOError as e:
            holder = os.pread(descriptor, 16, 0).strip().decode("ascii", "replace")
            os.close(descriptor)
            who = f" (process {holder})" if holder.isdecimal() else ""
            raise Complaint(
                f"another heim-agent{who} uses {self._directory}; end that one first, or give "
                "this one a directory and an identity of its own with --state",
                FAILED,
            ) from e
        except OSError as e:
            os.close(descriptor)
            raise Complaint(f"cannot lock {path}: {e.strerror}", FAILED) from e
        self._descriptor = descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
