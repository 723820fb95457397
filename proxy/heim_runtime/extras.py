"""A readable answer when an optional part of the distribution is not installed."""

from __future__ import annotations

import importlib.util

__all__ = ["MissingExtraError", "require"]


class MissingExtraError(Exception):
    """A program needs modules of an extra that is not installed; the text says what to run."""


def require(program: str, extra: str, *modules: str) -> None:
    """Check, without importing them, that top-level `modules` of `extra` are installed.

    Raises:
        MissingExtraError: With one sentence for people that names `program` and the command to run.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{program} needs {', '.join(missing)}, which this installation does not have; "
            f"run: pip install 'heim[{extra}]'"
        )
