"""TLS Secrets as files, so that they serve like any other certificate: one directory for each.

Files are replaced as kubelet replaces them, by renaming one link, so that certificate and key
are never of two versions. The directory belongs in memory: $XDG_RUNTIME_DIR, which a pod's chart
points to a volume in memory that outlives the container, or the system's place for such files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["SecretFolder", "folder_for"]

_KEYS: Final = ("tls.crt", "tls.key")
_LINK: Final = "..data"


def folder_for(what: str) -> Path:
    """A place in memory for the Secrets of `what`, the same after a restart."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"heim-secrets-{hashlib.sha256(what.encode()).hexdigest()[:16]}"


class SecretFolder:
    """A private directory of Secrets. All methods block; call them in a thread, one at a time."""

    def __init__(self, path: Path) -> None:
        """Use `path`; it is made when the first Secret is put there."""
        self.path = path

    def put(self, name: str, data: Mapping[str, bytes]) -> None:
        """Make the Secret `name` what `data` holds of it; what is so already stays untouched.

        Raises:
            OSError: It cannot be written. What was there before still is.
        """
        self._prepare()
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        held = {key: data[key] for key in _KEYS if key in data}
        content = hashlib.sha256(b"".join(hashlib.sha256(one).digest() for one in held.values()))
        content.update("".join(held).encode())
        version = f"..{content.hexdigest()[:32]}"
        before = _target(folder / _LINK)
        if before == version:
            return
        fresh = folder / version
        # What an earlier run left behind when it was killed here may be half of it.
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        for key, value in held.items():
            _write(fresh / key, value)
        _relink(folder / _LINK, version)
        for key in _KEYS:
            if not (folder / key).is_symlink():
                _relink(folder / key, f"{_LINK}/{key}")
        for old in folder.iterdir():
            if old.name not in (_LINK, version, *_KEYS):
                _remove(old)

    def keep(self, names: frozenset[str]) -> None:
        """Remove every Secret but these."""
        if not self.path.is_dir():
            return
        for folder in self.path.iterdir():
            if folder.name not in names:
                _remove(folder)

    def _prepare(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.path.lstat()
        # In a directory that everybody may write to, somebody else may have been here first.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(f"{self.path} is not a directory of ours")
        if found.st_mode & 0o077:
            raise PermissionError(f"{self.path} is open to others")

    def __repr__(self) -> str:
        return f"<SecretFolder {self.path}>"


def _write(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(content)


def _relink(link: Path, target: str) -> None:
    fresh = link.with_name(f"..{link.name}_tmp")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def _target(link: Path) -> str | None:
    try:
        return os.readlink(link)
    except OSError:
        return None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
