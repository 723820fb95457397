"""Secrets: read from a file or the environment, and never shown by accident."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from heim_config.identity import Provider

__all__ = ["Secret", "SecretError", "read_secret", "read_secret_file"]

# Client secrets are tens of bytes; a bound, so that the wrong path cannot fill the memory.
MAX_BYTES: Final = 64 * 1024


class SecretError(ValueError):
    """A secret that cannot be read; the text names the file or variable, never the secret."""


class Secret:
    """Text that only `reveal` gives away: its repr, str and format are redacted."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself, for the one place that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "<secret>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    # A hash of it would be a hint to it, in a repr of a set's order for instance.
    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written to a pickle")


def read_secret(provider: Provider, environment: Mapping[str, str] | None = None) -> Secret:
    """The client secret of `provider`.

    Raises:
        SecretError: When it cannot be read, is empty or is not one line of text.
    """
    if provider.client_secret_file is not None:
        return read_secret_file(provider.client_secret_file)
    name = provider.client_secret_env
    if name is None:
        raise SecretError(f"provider {provider.name} has no client secret")
    text = (os.environ if environment is None else environment).get(name)
    if text is None:
        raise SecretError(f"the environment variable {name} is not set")
    return _checked(text, f"the environment variable {name}")


def read_secret_file(path: Path) -> Secret:
    """The secret in a file; one line end at its end is not part of it.

    Raises:
        SecretError: When it cannot be read, is empty or is not one line of text.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SecretError(f"the file {path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise SecretError(f"the file {path} is larger than {MAX_BYTES} bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        # `from None`: the exception's text would quote the secret's bytes.
        raise SecretError(f"the file {path} is not UTF-8 at byte {error.start}") from None
    # Editors and `echo` end files with one; more than one is somebody's mistake, reported below.
    text = text.removesuffix("\n").removesuffix("\r")
    return _checked(text, f"the file {path}")


def _checked(text: str, where: str) -> Secret:
    if not text.strip():
        raise SecretError(f"{where} is empty")
    if not text.isprintable():
        raise SecretError(f"{where} holds more than one line of text")
    return Secret(text)
