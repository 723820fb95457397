"""The version of this installation, as `--version`, logs and metrics show it."""

from __future__ import annotations

__all__ = ["version"]


def version() -> str:
    """The installed distribution's version; ``0+unknown`` when run from an unpacked tree."""
    # Imported here: importlib.metadata pulls in email and zipfile, which light commands never need.
    from importlib import metadata

    try:
        return metadata.version("heim")
    except metadata.PackageNotFoundError:
        return "0+unknown"
