"""The agent's configuration: what it serves by which name (agent.toml)."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from heim_agent import files
from heim_agent.complaints import clean
from heim_agent.targets import FIELDS, Field, Target, is_name, parse_target
from heim_runtime.complaints import USAGE, Complaint
from heim_wire.agents import MAX_LANES

__all__ = ["SAMPLE", "TOP_FIELDS", "Settings", "SettingsError", "load", "parse"]

SAMPLE: Final = """\
[targets.ssh]
address = "127.0.0.1:22"
"""
"""The least that is a configuration."""

TOP_FIELDS: Final = (
    Field(
        "lanes",
        "1",
        f"connections that are kept to the proxy, 1 to {MAX_LANES}; several help where one TCP "
        "connection does not fill the line",
    ),
    Field("targets", "", "what is served, a table for each name. At least one"),
)
"""The keys at the top of agent.toml."""

# A line per mistake; nobody mends more at a time.
_MAX_PROBLEMS: Final = 20
# Far more than one machine has; it bounds what a wrong file makes us hold.
_MAX_TARGETS: Final = 1000


@dataclass(frozen=True, slots=True)
class Settings:
    """One reading of agent.toml.

    Attributes:
        lanes: Connections to the proxy that are kept up, 1 to 4.
        targets: What is served, by name; the only places that are ever dialled.
    """

    lanes: int = 1
    targets: Mapping[str, Target] = field(default_factory=dict)


class SettingsError(Complaint):
    """agent.toml cannot be used; every mistake at once.

    Attributes:
        problems: One line each, with file and line.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems), USAGE)

    @property
    def lines(self) -> tuple[str, ...]:
        """Every mistake."""
        return self.problems


def load(path: str) -> Settings:
    """Read agent.toml.

    Raises:
        Complaint: It cannot be read, or everybody may write to it.
        SettingsError: It is missing, or there are mistakes in it.
    """
    # A ConfigMap's files are symbolic links, a container's may belong to whoever started it.
    data = files.read(path, mounted=True, anybodys=True)
    if data is None:
        sample = SAMPLE.strip().replace("\n", " and below it ")
        raise SettingsError((f"there is no {path}; write what to serve into it, such as {sample}",))
    return parse(data, path)


def parse(data: bytes, path: str) -> Settings:
    """The settings of a file's content.

    Raises:
        SettingsError: There are mistakes in it.
    """
    try:
        text = data.decode()
        document = tomllib.loads(text)
    except UnicodeDecodeError as e:
        raise SettingsError((f"{path}: it is not UTF-8",)) from e
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        told = clean(str(e), 200)
        if told.startswith(("Invalid value", "Expected newline")):
            told += '; texts stand in quotes, as in address = "127.0.0.1:22"'
        raise SettingsError((f"{path}: {told}",)) from e
    reader = _Reader(text, path)
    settings = reader.settings(document)
    if reader.problems:
        raise SettingsError(reader.problems[:_MAX_PROBLEMS])
    return settings


class _Reader:
    """Collects mistakes, each with its place."""

    def __init__(self, text: str, path: str) -> None:
        self._lines = text.splitlines()
        self._path = path
        self.problems: list[str] = []

    def settings(self, document: Mapping[str, object]) -> Settings:
        self._unknown((), document, TOP_FIELDS)
        lanes = document.get("lanes", 1)
        # True is an int, and no number of anything.
        if type(lanes) is not int or not 1 <= lanes <= MAX_LANES:
            self._problem(("lanes",), f"must be a number from 1 to {MAX_LANES}")
            lanes = 1
        tables = document.get("targets", {})
        if not isinstance(tables, dict) or not tables:
            self._problem(("targets",), "there is none; write one, such as [targets.ssh]")
            tables = {}
        elif len(tables) > _MAX_TARGETS:
            self._problem(("targets",), f"there are more than {_MAX_TARGETS}")
            tables = {}
        targets = {target.name: target for target in self._targets(tables)}
        return Settings(lanes=lanes, targets=targets)

    def _targets(self, tables: Mapping[str, object]) -> Iterator[Target]:
        for name, table in tables.items():
            place = ("targets", name)
            if not is_name(name):
                self._problem(
                    place, "a name has lower-case letters, digits and hyphens, 63 at most"
                )
            elif not isinstance(table, dict):
                self._problem(place, f"must be a table, as in [targets.{name}]")
            else:
                self._unknown(place, table, FIELDS)
                target, problems = parse_target(name, table)
                for key, problem in problems.items():
                    self._problem((*place, key) if key else place, problem)
                if target is not None:
                    yield target

    def _unknown(
        self, place: tuple[str, ...], found: Mapping[str, object], fields: Iterable[Field]
    ) -> None:
        known = [one.name for one in fields]
        for key in found:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
                self._problem((*place, key), f"there is no such key{hint}")

    def _problem(self, place: tuple[str, ...], text: str) -> None:
        line = self._line(place)
        where = f"{self._path}, line {line}" if line else self._path
        self.problems.append(f"{where}: {clean('.'.join(place), 200)}: {text}")

    def _line(self, place: tuple[str, ...]) -> int:
        """Where a key is written, as people write TOML; 0 when it is not found so."""
        table: tuple[str, ...] = ()
        for number, line in enumerate(self._lines, 1):
            bare = line.partition("#")[0].strip()
            if bare.startswith("["):
                table = tuple(part.strip().strip("\"'") for part in bare.strip("[]").split("."))
                if table == place:
                    return number
                continue
            key, equals, _ = bare.partition("=")
            keys = tuple(part.strip().strip("\"'") for part in key.split("."))
            if equals and (*table, *keys) == place:
                return number
        return 0
