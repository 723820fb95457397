"""The last document that was in force, kept beside the state: a restart needs no API server."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Final

from heim_config.layers import MAX_DOCUMENT_BYTES
from heim_proxy.sources.document import Sheet
from heim_wire.strict_json import StrictJsonError, read_object

__all__ = ["KeptCopy"]

FILE: Final = "configuration-document"
MAX_HEADER_BYTES: Final = 4096


class KeptCopy:
    """One file: a line of JSON that says what it is, and the document's bytes."""

    def __init__(self, directory: Path, source: str) -> None:
        """Keep it in `directory`; `source` names where it is from, and another's is not taken."""
        self.path = directory / FILE
        self._source = source

    def read(self) -> Sheet | None:
        """The copy; None when there is none that is whole and from this source."""
        try:
            with self.path.open("rb") as file:
                header = read_object(file.readline(MAX_HEADER_BYTES))
                content = file.read(MAX_DOCUMENT_BYTES + 1)
        except (OSError, StrictJsonError):
            return None
        sha256 = hashlib.sha256(content).hexdigest()
        if header != self._header(sha256):
            return None
        return Sheet(content, sha256)

    def write(self, sheet: Sheet) -> None:
        """Replace the copy in one step; what it says is on the disk afterwards.

        Raises:
            OSError: It cannot be written; the one before stays.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{FILE}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        header = json.dumps(self._header(sheet.sha256), sort_keys=True).encode("ascii")
        try:
            with os.fdopen(os.open(fresh, flags, 0o600), "wb") as file:
                file.write(header + b"\n" + sheet.content)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise

    def _header(self, sha256: str) -> dict[str, object]:
        return {"version": 1, "source": self._source, "sha256": sha256}
