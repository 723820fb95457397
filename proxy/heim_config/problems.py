"""What is wrong in a configuration, told so that a person can go and mend it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic_core import PydanticCustomError

__all__ = ["ConfigError", "Finding", "Loc", "Problem", "mistake", "nearest", "show", "show_path"]

# A place in the configuration: keys and list positions from the top.
Loc = tuple[str | int, ...]

# Values in messages are there to be recognised; longer ones would bury the message.
MAX_SHOWN_CHARS: Final = 60
# difflib is quadratic; with more names than this the guess is not worth the wait.
MAX_CANDIDATES: Final = 2000

_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it is and what to do about it.

    `line` counts from 1 and is None when the mistake is not on a line (an unreadable file). `path`
    is written as in ``backends[2].http[0].upstream`` and empty when the whole file is meant.
    """

    file: str
    line: int | None
    path: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        what = f"{self.path}: {self.message}" if self.path else self.message
        return f"{where}: {what}; {self.hint}" if self.hint else f"{where}: {what}"


class ConfigError(Exception):
    """A configuration that cannot be used; `problems` holds every mistake, in line order.

    `files` are the files it names, as far as they are known: it may become usable when one of them
    changes.
    """

    def __init__(self, problems: Iterable[Problem], *, files: Iterable[Path] = ()) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        self.files: tuple[Path, ...] = tuple(files)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake before its file is known; `line` is set only where `loc` cannot tell it."""

    loc: Loc
    message: str
    hint: str | None = None
    line: int | None = None


def mistake(message: str, hint: str | None = None, *, at: Loc = ()) -> PydanticCustomError:
    """An error for validators to raise; `at` continues the place where the validator stands."""
    return PydanticCustomError("heim", "{message}", {"message": message, "hint": hint, "at": at})


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """``did you mean x?`` for the candidate closest to `word`; None when nothing is close."""
    known = list(candidates)
    if len(known) > MAX_CANDIDATES or len(word) > MAX_SHOWN_CHARS:
        return None
    found = difflib.get_close_matches(word, known, n=1)
    if not found:
        by_case = {name.lower(): name for name in known}
        found = difflib.get_close_matches(word.lower(), by_case, n=1)
        found = [by_case[name] for name in found]
    return f"did you mean {found[0]}?" if found else None


def show(value: object) -> str:
    """`value` for a message: one line, printable, quoted, short."""
    text = json.dumps(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."


def show_path(loc: Loc) -> str:
    """`loc` as people write it: ``backends[2].http[0].upstream``."""
    shown = ""
    for part in loc:
        if isinstance(part, int):
            shown += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            shown += f".{part}" if shown else part
        else:
            shown += f"[{show(part)}]"
    return shown
