"""A boot file and a configuration document to one `Config`, each key from one of both.

The boot file is what an operator writes: listeners, sign-in, session, state. The document is what
a program writes: backends, roles, agents, certificates. Mistakes are told of the layer they are in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from heim_config.crosscheck import Judged
from heim_config.document import MAX_BYTES, Document, parse
from heim_config.fields import Section
from heim_config.lines import Lines
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
    """Parts of the last configuration without a mistake, by the data that they were made of.

    A change of one backend among thousands then takes little more than one takes. What parts mean
    together is judged anew each time. For one caller at a time.
    """

    def __init__(self) -> None:
        """Know none."""
        self.lines = Lines()
        self.judged = Judged()
        self._base: Path | None = None
        # By the `id` of their data, which is kept with them, so that it is nobody else's.
        self._known: dict[int, tuple[object, Section]] = {}

    def recall(self, document: Mapping[str, Any], base: Path) -> dict[str, Any]:
        """What of a document is ready: the values of some keys, partly made into models."""
        if base != self._base:
            return {}
        ready: dict[str, Any] = {
            key: [self._ready(item) for item in value]
            for key, value in document.items()
            if isinstance(value, list)
        }
        tls = document.get("tls")
        if isinstance(tls, dict) and isinstance(tls.get("certificates"), list):
            ready["tls"] = {**tls, "certificates": [*map(self._ready, tls["certificates"])]}
        return ready

    def _ready(self, item: Any) -> Any:
        known = self._known.get(id(item))
        return item if known is None else known[1]

    def keep(self, document: Mapping[str, Any], config: Config, base: Path) -> None:
        """Remember the parts of a configuration without a mistake, and no others."""
        pairs: list[tuple[object, Section]] = []
        for key in document.keys() - {"tls"}:
            pairs += zip(document[key], getattr(config, key), strict=True)
        certificates = document.get("tls", {}).get("certificates", ())
        pairs += zip(certificates, config.tls.certificates, strict=True)
        self._base = base
        self._known = {id(pair[0]): pair for pair in pairs}

    def __repr__(self) -> str:
        return f"<Remembered parts={len(self._known)}>"


def read_boot(path: Path, *, check_files: bool = True) -> Boot:
    """Read the boot file at `path`. A file without `source` is one, too, with everything in it.

    Raises:
        ConfigError: With every mistake, in line order.
    """
    text = read_text(path)
    parsed = parse(text)
    return Boot(path, text, parsed, load_parsed(parsed, file=path, check_files=check_files))


def read_document(content: bytes, *, name: str, lines: Lines | None = None) -> dict[str, Any]:
    """The plain data of a document in JSON; nobody may change it.

    Args:
        content: Its bytes.
        name: What messages call it.
        lines: What was read before, of which nothing is read twice.

    Raises:
        ConfigError: It cannot be read.
    """
    if len(content) > MAX_DOCUMENT_BYTES:
        limit = f"is larger than {MAX_DOCUMENT_BYTES >> 20} MiB"
        raise ConfigError([Problem(name, None, "", limit)])
    try:
        return read_object(content) if lines is None else lines.read(content)
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
        remembered: What an earlier call of the same caller made of the same objects; it learns.

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
    memory = remembered or Remembered()
    ready = memory.recall(taken, base)
    config, found = judge(
        {**own, **taken}, base, check_files=check_files, ready=ready, judged=memory.judged
    )
    if config is not None and not misplaced and not found:
        memory.keep(taken, config, base)
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
