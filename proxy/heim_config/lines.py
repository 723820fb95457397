"""A configuration document read again: only its lines that are new are parsed.

The controller writes every backend, role, agent and certificate on a line of its own. No string in
JSON has a line end in it, so a line that is an object by itself is that object wherever it stands
between other values: what it was read as before is what it is now.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from heim_runtime.kept import Kept
from heim_wire.strict_json import StrictJsonError, read_object

__all__ = ["Lines"]


class Lines:
    """Reads one document after the other. For one caller at a time.

    What it returns shares the objects of equal lines; nobody may change them.
    """

    def __init__(self) -> None:
        """Know no line."""
        self._known: Kept[bytes, dict[str, Any]] = Kept()
        # Stands for lines while the rest is read; no document can guess it.
        self._mark = secrets.token_hex(16)

    def read(self, content: bytes) -> dict[str, Any]:
        """The same as `read_object`, which judges whatever is not written in lines.

        Raises:
            StrictJsonError: As `read_object`.
        """
        self._known.now.clear()
        rest, runs = self._without_objects(content.split(b"\n"))
        try:
            found = read_object(rest) if runs else None
        except StrictJsonError:
            found = None
        used: list[str] = []
        filled = _filled(found, runs, used)
        if not isinstance(filled, dict) or len(used) != len(runs):
            return read_object(content)
        self._known.turn()
        return filled

    def _without_objects(
        self, lines: Iterable[bytes]
    ) -> tuple[bytes, Mapping[str, list[dict[str, Any]]]]:
        """A document with a mark instead of each run of objects, and those by their marks."""
        rest: list[bytes] = []
        runs: dict[str, list[dict[str, Any]]] = {}
        run: list[dict[str, Any]] = []
        goes_on = False
        for line in lines:
            item = self._object_in(line)
            if item is None:
                if goes_on:
                    rest.append(b",")
                rest.append(line)
                goes_on = False
                continue
            if not goes_on:
                mark = f"{self._mark}{len(runs)}"
                run = runs[mark] = []
                rest.append(f'"{mark}"'.encode("ascii"))
            run.append(item)
            goes_on = line.endswith(b",")
        if goes_on:
            rest.append(b",")
        return b"\n".join(rest), runs

    def _object_in(self, line: bytes) -> dict[str, Any] | None:
        """The object that a line is, with or without a comma after it; None for other lines."""
        text = line.removesuffix(b",")
        if not text.startswith(b"{") or not text.endswith(b"}"):
            return None
        found = self._known.before.get(text)
        if found is None:
            try:
                found = read_object(text)
            except StrictJsonError:
                return None
        self._known.now[text] = found
        return found

    def __repr__(self) -> str:
        return f"<Lines known={len(self._known.before)}>"


def _filled(value: Any, runs: Mapping[str, list[dict[str, Any]]], used: list[str]) -> Any:
    """`value` with the objects of each run where its mark is an item of a list."""
    if isinstance(value, dict):
        return {key: _filled(item, runs, used) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    items: list[Any] = []
    for item in value:
        run = runs.get(item) if isinstance(item, str) else None
        if run is None:
            items.append(_filled(item, runs, used))
        else:
            used.append(item)
            items += run
    return items
