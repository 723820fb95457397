"""A configuration file to a `Config`, or to every mistake in it at once."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from heim_config.crosscheck import Names, crosscheck, duplicate_names
from heim_config.document import MAX_BYTES, Document, parse
from heim_config.files import check_files as check_files_of
from heim_config.model import Config
from heim_config.problems import ConfigError, Finding, Loc, Problem, show_path
from heim_config.validation import Outcome, scope, validate

__all__ = ["ConfigError", "Problem", "load_file", "load_text", "read_text"]

# A file of another kind altogether makes thousands; nobody reads past the first screens.
MAX_PROBLEMS: Final = 100


def load_file(path: Path, *, check_files: bool = True) -> Config:
    """Read the configuration at `path`.

    Args:
        path: The YAML (or JSON) file; relative paths in it start at its directory.
        check_files: Also report files and environment variables it names that cannot be used.

    Raises:
        ConfigError: With every mistake, in line order.
    """
    return load_text(read_text(path), file=path, check_files=check_files)


def read_text(path: Path) -> str:
    """The text of the configuration file at `path`, at most 8 MiB of UTF-8.

    Raises:
        ConfigError: When it cannot be read.
    """
    try:
        # A pipe would make us wait for somebody to write; a device never ends.
        if not stat.S_ISREG(path.stat().st_mode):
            raise _unreadable(path, "is not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        hint = "`heim-proxy init` writes one" if isinstance(error, FileNotFoundError) else None
        raise _unreadable(path, f"cannot be read: {error.strerror}", hint) from error
    if len(content) > MAX_BYTES:
        raise _unreadable(path, f"is larger than {MAX_BYTES >> 20} MiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(str(path), line, "", "is not UTF-8 text")]) from error


def load_text(text: str, *, file: Path, check_files: bool = False) -> Config:
    """Read a configuration from `text`, as if it stood in `file`.

    Raises:
        ConfigError: With every mistake, in line order.
    """
    document = parse(text)
    findings = list(document.findings)
    config: Config | None = None
    if isinstance(document.data, dict):
        outcome = validate(document.data, file.parent)
        findings.extend(outcome.findings)
        findings.extend(_fitting(outcome, document.data, check_files=check_files))
        config = outcome.config
    elif not findings:
        findings.append(Finding((), "is not a mapping of keys to values", None, 1))
    if findings or config is None:
        files = () if config is None else (*config.files(), *config.certificate_files())
        raise ConfigError(_problems(findings, document, file), files=files)
    return config


def _fitting(outcome: Outcome, data: dict[str, Any], *, check_files: bool) -> Iterator[Finding]:
    """What can be said only once there is a model, at its place in the data."""
    yield from duplicate_names(data)
    config = outcome.config
    if config is None:
        return
    found: list[Finding] = list(crosscheck(config, Names(data)))
    if check_files:
        found.extend(check_files_of(config))
    for finding in found:
        place = outcome.original(finding.loc)
        if scope(place) not in outcome.damaged:
            yield Finding(place, finding.message, finding.hint)


def _problems(findings: Iterable[Finding], document: Document, file: Path) -> list[Problem]:
    found: dict[tuple[int, str, str], Problem] = {}
    told: set[Loc] = {finding.loc for finding in document.findings if finding.loc}
    for finding in findings:
        if finding.loc in told and finding not in document.findings:
            # What is wrong with how it is written comes first; the rest follows from it.
            continue
        line = finding.line or _line(finding.loc, document)
        path = show_path(finding.loc)
        problem = Problem(str(file), line, path, finding.message, finding.hint)
        found.setdefault((line, path, finding.message), problem)
    problems = [found[key] for key in sorted(found)]
    if len(problems) > MAX_PROBLEMS:
        rest = len(problems) - MAX_PROBLEMS
        problems[MAX_PROBLEMS:] = [Problem(str(file), None, "", f"and {rest} more mistakes")]
    return problems


def _line(loc: Loc, document: Document) -> int:
    """The line of `loc`, or of the nearest thing above it that is written down."""
    for length in range(len(loc), -1, -1):
        line = document.lines.get(loc[:length])
        if line is not None:
            return line
    return 1


def _unreadable(path: Path, message: str, hint: str | None = None) -> ConfigError:
    return ConfigError([Problem(str(path), None, "", message, hint)])
