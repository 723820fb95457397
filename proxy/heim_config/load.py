"""A configuration file to a `Config`, or to every mistake in it at once."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from heim_config.crosscheck import Judged, Names, crosscheck, duplicate_names
from heim_config.document import MAX_BYTES, Document, parse
from heim_config.files import check_files as check_files_of
from heim_config.model import Config
from heim_config.problems import ConfigError, Finding, Problem, show_path
from heim_config.source import boot_part
from heim_config.validation import Outcome, scope, validate

__all__ = [
    "ConfigError",
    "Problem",
    "as_problems",
    "judge",
    "line_of",
    "load_file",
    "load_parsed",
    "load_text",
    "read_text",
]

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
    return load_parsed(parse(text), file=file, check_files=check_files)


def load_parsed(document: Document, *, file: Path, check_files: bool = False) -> Config:
    """Make a configuration of what was read from `file`.

    With a `source` it is that of the boot file alone, without backends.

    Raises:
        ConfigError: With every mistake, in line order.
    """
    findings = list(document.findings)
    config: Config | None = None
    if isinstance(document.data, dict):
        data, misplaced = boot_part(document.data)
        config, found = judge(data, file.parent, check_files=check_files)
        findings.extend((*misplaced, *found))
    elif not findings:
        findings.append(Finding((), "is not a mapping of keys to values", None, 1))
    if findings or config is None:
        files = () if config is None else (*config.files(), *config.certificate_files())
        told = {finding.loc for finding in document.findings if finding.loc}
        # What is wrong with how it is written comes first; the rest follows from it.
        first = [one for one in findings if one in document.findings or one.loc not in told]
        problems = as_problems(first, lambda one: (str(file), line_of(one, document)))
        raise ConfigError(problems, files=files)
    return config


def judge(
    data: dict[str, Any],
    base: Path,
    *,
    check_files: bool,
    ready: Mapping[str, Any] | None = None,
    judged: Judged | None = None,
) -> tuple[Config | None, list[Finding]]:
    """A configuration of plain data, whose relative paths start at `base`, and what is wrong.

    It is complete only without findings; None when nothing usable was left. `ready` as `validate`
    has it, `judged` as `crosscheck`.
    """
    outcome = validate(data, base, ready=ready)
    fitting = _fitting(outcome, data, check_files=check_files, judged=judged)
    return outcome.config, [*outcome.findings, *fitting]


def as_problems(
    findings: Iterable[Finding], place: Callable[[Finding], tuple[str, int | None]]
) -> list[Problem]:
    """Findings as people are told them, each once, in order; `place` gives file and line."""
    found: dict[tuple[str, int, str, str], Problem] = {}
    for finding in findings:
        file, line = place(finding)
        path = show_path(finding.loc)
        problem = Problem(file, line, path, finding.message, finding.hint)
        found.setdefault((file, line or 0, path, finding.message), problem)
    problems = [found[key] for key in sorted(found)]
    if len(problems) > MAX_PROBLEMS:
        rest = len(problems) - MAX_PROBLEMS
        last = problems[-1].file
        problems[MAX_PROBLEMS:] = [Problem(last, None, "", f"and {rest} more mistakes")]
    return problems


def line_of(finding: Finding, document: Document) -> int:
    """The line of a finding, or of the nearest thing above it that is written down."""
    loc = finding.loc
    for length in range(len(loc), -1, -1):
        line = document.lines.get(loc[:length])
        if finding.line is None and line is not None:
            return line
    return finding.line or 1


def _fitting(
    outcome: Outcome, data: dict[str, Any], *, check_files: bool, judged: Judged | None
) -> Iterator[Finding]:
    """What can be said only once there is a model, at its place in the data."""
    yield from duplicate_names(data)
    config = outcome.config
    if config is None:
        return
    found: list[Finding] = list(crosscheck(config, Names(data), judged))
    if check_files:
        found.extend(check_files_of(config))
    for finding in found:
        place = outcome.original(finding.loc)
        if scope(place) not in outcome.damaged:
            yield Finding(place, finding.message, finding.hint)


def _unreadable(path: Path, message: str, hint: str | None = None) -> ConfigError:
    return ConfigError([Problem(str(path), None, "", message, hint)])
