"""Read and write the agent's own files: small, private, whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat

from heim_agent.complaints import FAILED, Complaint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["FILE_BYTES", "Lock", "make_directory", "read", "write"]

FILE_BYTES: Final = 256 * 1024
"""A key has 0.3 KiB, an identity with a dozen keys 4, a file of authorities 200; more is none."""

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
# systemd and Kubernetes give mounted secrets to one more user by the group's bits, never to all.
_STRANGERS: Final = stat.S_IWGRP | stat.S_IRWXO


def read(path: str, *, secret: bool = False, mounted: bool = False) -> bytes | None:
    """A small file of ours; None when there is none.

    Args:
        path: Which.
        secret: It must be ours or root's, and nobody else may read it.
        mounted: Somebody else put it there for us, perhaps as a symbolic link.

    Raises:
        Complaint: It cannot be read, or somebody else could have read or put it there.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (0 if mounted else os.O_NOFOLLOW))
    except FileNotFoundError:
        return None
    except OSError as e:
        if os.path.islink(path) and not mounted:
            raise Complaint(
                f"{path} is a symbolic link, which somebody may have put there; replace it by "
                "the file"
            ) from e
        raise Complaint(f"cannot read {path}: {e.strerror}") from e
    with open(descriptor, "rb", buffering=0) as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise Complaint(f"{path} is no file")
        _check_owner(path, about)
        if secret and about.st_mode & (_STRANGERS if mounted else _OTHERS):
            raise Complaint(
                f"others may read {path} (mode {stat.S_IMODE(about.st_mode):o}); if nobody has, "
                f"run: chmod 600 {path}"
            )
        try:
            data = file.read(FILE_BYTES + 1) or b""
        except OSError as e:
            raise Complaint(f"cannot read {path}: {e.strerror}") from e
    if len(data) > FILE_BYTES:
        raise Complaint(f"{path} is longer than {FILE_BYTES // 1024} KiB; it is another file")
    return data


def _check_owner(path: str, about: os.stat_result) -> None:
    if about.st_uid not in (os.geteuid(), 0):
        raise Complaint(
            f"{path} belongs to uid {about.st_uid}, not to us (uid {os.geteuid()}); run as its "
            f"owner, or: chown {os.geteuid()} {path}"
        )


def make_directory(path: str) -> None:
    """Make a directory of ours, mode 0700, if it is not there.

    Raises:
        Complaint: It cannot be made, or others may write to it.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        about = os.stat(path)
    except OSError as e:
        raise Complaint(f"cannot make the directory {path}: {e.strerror}") from e
    # systemd makes /var/lib/heim-agent a link to private/heim-agent; what counts is where it ends.
    _check_owner(path, about)
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Complaint(
            f"others may write to {path} (mode {stat.S_IMODE(about.st_mode):o}); run: "
            f"chmod 700 {path}"
        )


def write(path: str, data: bytes, *, mode: int = 0o600) -> None:
    """Replace a file: whoever looks sees the old one or the new one, also after a crash.

    Raises:
        OSError: It could not be written (a full disk, say); the old file is as it was.
    """
    fresh = f"{path}.{os.getpid()}.new"
    with contextlib.suppress(FileNotFoundError):
        # Left by a crash, or put there by somebody who would keep it open and read along.
        os.unlink(fresh)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # The new name itself must survive a power cut.
        os.fsync(directory)
    finally:
        os.close(directory)


class Lock:
    """One program at a time in a directory: an flock, which ends with the process however it ends.

    Use as `with Lock(directory): …`.
    """

    __slots__ = ("_descriptor", "_directory")

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._descriptor = -1

    def __enter__(self) -> None:
        path = f"{self._directory}/lock"
        make_directory(self._directory)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise Complaint(f"cannot lock {path}: {e.strerror}") from e
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
            raise Complaint(f"cannot lock {path}: {e.strerror}") from e
        self._descriptor = descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
