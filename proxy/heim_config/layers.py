"""A boot file and a configuration document to one `Config`, each key from one of both.

The boot file is what an operator writes: listeners, sign-in, session, state. The document is what
a program writes: backends, roles, agents, certificates. Mistakes are told of the layer they are in.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from heim_config.backends import Backend
from heim_config.document import MAX_BYTES, Document, parse
from heim_config.load import as_problems, judge, line_of, load_parsed, read_text
from heim_config.model import Config
from heim_config.problems import ConfigError, Finding, Problem
from heim_config.source import DOCUMENT_KEYS, Source
from heim_wire.strict_json import StrictJsonError, read_object

__all__ = [
    "MAX_DOCUMENT_BYTES",
    "Boot",
    "Remembered",
    "combine",
    "digest_of",
    "read_boot",
    "read_document",
]

MAX_DOCUMENT_BYTES: Final = MAX_BYTES
"""As large as a whole configuration may be: nine ConfigMaps nearly full."""


@dataclass(frozen=True, slots=True, eq=False)
class Boot:
    """A boot file that has no mistake by itself.

    `config` is the configuration without what the document holds; `text` is as it was read.
    """

    file: Path
    text: str
    parsed: Document
    config: Config

    @property
    def source(self) -> Source | None:
        """Where the document is; None when this file is the whole configuration."""
        return self.config.source


class Remembered:
    """Backends of the last configuration without a mistake, by the data that they were made of.

    A change of one among thousands then takes little more than one takes. What backends mean
    together is judged anew each time. For one caller at a time.
    """

    def __init__(self) -> None:
        """Know none."""
        self._base: Path | None = None
        self._known: dict[bytes, Backend] = {}

    def recall(self, items: object, base: Path) -> tuple[list[bytes], dict[str, Any]]:
        """The marks of a document's backends, and what of the document is ready."""
        if not isinstance(items, list):
            return [], {}
        # Version 2 knows no references: equal data has equal bytes, and no other data has them.
        marks = [hashlib.sha256(marshal.dumps(item, 2)).digest() for item in items]
        if base != self._base:
            return marks, {}
        pairs = zip(marks, items, strict=True)
        return marks, {"backends": [self._known.get(mark, item) for mark, item in pairs]}

    def keep(self, marks: Iterable[bytes], config: Config, base: Path) -> None:
        """Remember the backends of a configuration without a mistake, and no others."""
        self._base = base
        self._known = dict(zip(marks, config.backends, strict=True))

    def __repr__(self) -> str:
        return f"<Remembered backends={len(self._known)}>"


def read_boot(path: Path, *, check_files: bool = True) -> Boot:
    """Read the boot file at `path`. A file without `source` is one, too, with everything in it.

    Raises:
        ConfigError: With every mistake, in line order.
    """
    text = read_text(path)
    parsed = parse(text)
    return Boot(path, text, parsed, load_parsed(parsed, file=path, check_files=check_files))


def read_document(content: bytes, *, name: str) -> dict[str, Any]:
    """The plain data of a document in JSON; `name` is what messages call it.

    Raises:
        ConfigError: It cannot be read.
    """
    if len(content) > MAX_DOCUMENT_BYTES:
        limit = f"is larger than {MAX_DOCUMENT_BYTES >> 20} MiB"
        raise ConfigError([Problem(name, None, "", limit)])
    try:
        return read_object(content)
    except StrictJsonError as error:
        raise ConfigError([Problem(name, None, "", str(error))]) from error


def combine(
    boot: Boot,
    document: Mapping[str, Any],
    *,
    name: str,
    check_files: bool = True,
    remembered: Remembered | None = None,
) -> Config:
    """The configuration that both make.

    Takes half a second for 5000 backends, so call it in a thread.

    Args:
        boot: The boot file.
        document: Plain data, as `read_document` gives it.
        name: What messages call the document.
        check_files: Also report files and environment variables that cannot be used.
        remembered: What an earlier call of the same caller made of the same data; it learns.

    Raises:
        ConfigError: With every mistake, of whichever layer it is.
    """
    of_boot = Config.model_fields.keys() - set(DOCUMENT_KEYS)
    misplaced = [
        Finding((key,), "belongs to the boot file, not to the document")
        for key in document
        if key in of_boot
    ]
    told = {finding.loc[0] for finding in misplaced}
    own = boot.parsed.data if isinstance(boot.parsed.data, dict) else {}
    taken = {key: value for key, value in document.items() if key not in told}
    base = boot.file.parent
    marks: list[bytes] = []
    ready: dict[str, Any] = {}
    if remembered is not None:
        marks, ready = remembered.recall(taken.get("backends"), base)
    config, found = judge({**own, **taken}, base, check_files=check_files, ready=ready)
    if config is not None and not misplaced and not found:
        if remembered is not None:
            remembered.keep(marks, config, base)
        return config

    def place(finding: Finding) -> tuple[str, int | None]:
        if finding in misplaced or (finding.loc and finding.loc[0] in (*taken, *DOCUMENT_KEYS)):
            return name, None
        return str(boot.file), line_of(finding, boot.parsed)

    files = () if config is None else (*config.files(), *config.certificate_files())
    raise ConfigError(as_problems([*misplaced, *found], place), files=files)


def digest_of(boot: Boot, document_sha256: str) -> str:
    """What names the configuration: SHA-256 over both layers, in hexadecimal."""
    own = hashlib.sha256(boot.text.encode()).hexdigest()
    return hashlib.sha256(f"{own} {document_sha256}".encode("ascii")).hexdigest()
