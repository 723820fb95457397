"""Who we are to the API server: the service account that kubelet mounts into the pod."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from heim_config.secrets import Secret, SecretError, read_secret_file

__all__ = ["ACCOUNT_FOLDER", "Account", "AccountError", "Credentials"]

ACCOUNT_FOLDER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# A bundle of authorities is a few KiB.
MAX_CA_BYTES: Final = 1024 * 1024


class AccountError(Exception):
    """The service account cannot be used; the text names what is missing."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The API server's URL, the authorities it is verified by (PEM), and our token."""

    url: str
    ca: str
    token: Secret = field(repr=False)


class Account:
    """A mounted service account. kubelet replaces its token every hour or so."""

    def __init__(
        self, folder: Path = ACCOUNT_FOLDER, environment: Mapping[str, str] | None = None
    ) -> None:
        """Look in `folder`, and for the server's address in `environment`."""
        self._folder = folder
        self._environment = os.environ if environment is None else environment

    def read(self) -> Credentials:
        """Read everything anew; blocks for as long as the files take.

        Raises:
            AccountError: Something is missing or cannot be used.
        """
        host = self._environment.get("KUBERNETES_SERVICE_HOST", "")
        port = self._environment.get("KUBERNETES_SERVICE_PORT", "")
        if not host or not port.isdigit():
            raise AccountError("this is no pod: KUBERNETES_SERVICE_HOST and _PORT are not set")
        try:
            token = read_secret_file(self._folder / "token")
        except SecretError as error:
            raise AccountError(f"service account: {error}") from error
        shown = f"[{host}]" if ":" in host else host
        return Credentials(f"https://{shown}:{port}", self._text("ca.crt", MAX_CA_BYTES), token)

    def namespace(self) -> str:
        """The namespace of the pod.

        Raises:
            AccountError: It is not known.
        """
        name = self._text("namespace", 4096).strip()
        if not name:
            raise AccountError(f"service account: {self._folder / 'namespace'} is empty")
        return name

    def _text(self, name: str, limit: int) -> str:
        path = self._folder / name
        try:
            with path.open("rb") as file:
                return file.read(limit).decode("utf-8")
        except OSError as error:
            raise AccountError(
                f"service account: {path} cannot be read: {error.strerror}"
            ) from error
        except UnicodeDecodeError as error:
            raise AccountError(f"service account: {path} is not text") from error

    def __repr__(self) -> str:
        return f"<Account {self._folder}>"
