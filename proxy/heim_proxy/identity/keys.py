"""Key rings: the symmetric keys that seal cookies, tickets and stored tokens.

A ring is a text file with one key per line, ``kid:base64url(32 bytes)``. The first key seals, all
of them open, so a key is rotated by putting a new line on top and deleting the old one when
everything it sealed has expired.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = ["KEY_BYTES", "Key", "KeyFileError", "KeyRing", "write_secret"]

KEY_BYTES: Final = 32
"""AES-256."""

MAX_KEYS: Final = 16
"""Rotation needs two; every unknown key id is a dictionary miss, so the bound is only sanity."""

MAX_FILE_BYTES: Final = 64 * 1024
"""A key ring of 16 lines has 1.3 KiB; anything larger is the wrong file."""

_KID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


class KeyFileError(Exception):
    """A key file cannot be used; the message names file and line and never shows key material."""


class Key:
    """One secret key with its name; its repr shows the name only."""

    __slots__ = ("kid", "secret")

    def __init__(self, kid: str, secret: bytes) -> None:
        self.kid: Final = kid
        self.secret: Final = secret

    def __repr__(self) -> str:
        return f"<Key {self.kid!r} <sealed>>"


class KeyRing:
    """The keys of one file, in order. Immutable."""

    __slots__ = ("_by_kid", "first")

    def __init__(self, keys: Sequence[Key]) -> None:
        """The first of `keys` seals; there must be at least one."""
        self.first: Final = keys[0]
        self._by_kid: Final = {key.kid: key for key in keys}

    def __repr__(self) -> str:
        return f"<KeyRing {', '.join(self._by_kid)}>"

    def __len__(self) -> int:
        return len(self._by_kid)

    def __iter__(self) -> Iterator[Key]:
        """Every key, the sealing one first."""
        return iter(self._by_kid.values())

    @classmethod
    def parse(cls, text: str, *, source: str = "key ring") -> KeyRing:
        """Read the lines of a key file; blank lines and lines that begin with # are skipped.

        Args:
            text: The file's content.
            source: What messages call it.

        Raises:
            KeyFileError: for the first line that is no key, a key id used twice, or no key at all.
        """
        keys: dict[str, Key] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            key = _parse_line(line, f"{source}:{number}")
            if key.kid in keys:
                raise KeyFileError(f"{source}:{number}: key id {key.kid!r} is used twice")
            keys[key.kid] = key
        if not keys:
            raise KeyFileError(f"{source}: no key in it; heim-proxy keygen session prints a line")
        if len(keys) > MAX_KEYS:
            raise KeyFileError(f"{source}: {len(keys)} keys; {MAX_KEYS} are enough")
        return cls(tuple(keys.values()))

    @classmethod
    def load(cls, path: Path) -> KeyRing:
        """Read a key file.

        Raises:
            KeyFileError: when it cannot be read or is not a key ring.
        """
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
            if len(content) > MAX_FILE_BYTES:
                raise KeyFileError(f"{path}: over {MAX_FILE_BYTES} bytes is not a key ring")
            return cls.parse(content.decode("ascii"), source=str(path))
        except OSError as error:
            raise KeyFileError(f"{path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            # `from None`: the decode error carries the bytes, and those may be key material.
            raise KeyFileError(f"{path}: byte {error.start} is not ASCII; not a key ring") from None

    @classmethod
    def load_or_create(cls, path: Path) -> KeyRing:
        """Read `path`, generating it with one fresh key (mode 0600) when it does not exist.

        Raises:
            KeyFileError: as `load`, or when it cannot be written.
        """
        if not path.exists():
            write_secret(path, f"{cls.generate_line()}\n".encode("ascii"))
        return cls.load(path)

    @staticmethod
    def generate_line(kid: str | None = None) -> str:
        """One line for a key file, without line end; the key id is random when not given."""
        kid = kid or f"k{secrets.token_hex(4)}"
        if _KID.fullmatch(kid) is None:
            raise KeyFileError(f"key id {kid!r}: 1-32 letters, digits, _ or -")
        key = base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).rstrip(b"=")
        return f"{kid}:{key.decode('ascii')}"


def write_secret(path: Path, content: bytes) -> None:
    """Create `path` with mode 0600, complete or not at all; keeps a file that is already there.

    Two processes may start at once: `link` fails for the second, which then reads what the first
    wrote. Missing directories are created with mode 0700.

    Raises:
        KeyFileError: when it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            os.unlink(temporary)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be created: {error.strerror or error}") from error


def _parse_line(line: str, where: str) -> Key:
    kid, colon, encoded = line.partition(":")
    if not colon or _KID.fullmatch(kid) is None:
        raise KeyFileError(f"{where}: expected kid:base64url(32 bytes), kid of A-Z a-z 0-9 _ -")
    try:
        padding = "=" * (-len(encoded) % 4)
        secret = base64.b64decode(encoded + padding, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise KeyFileError(f"{where}: key {kid!r} is not base64url") from None
    if len(secret) != KEY_BYTES:
        raise KeyFileError(f"{where}: key {kid!r} has {len(secret)} bytes, not {KEY_BYTES}")
    return Key(kid, secret)
