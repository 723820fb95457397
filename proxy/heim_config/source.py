"""Where the configuration document comes from, when backends are not in the boot file itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic import model_validator

from heim_config.fields import FilePath, Name, ObjectName, Section
from heim_config.problems import Finding, mistake

__all__ = ["DOCUMENT_KEYS", "DocumentFiles", "KubernetesObjects", "Source", "boot_part"]

DOCUMENT_KEYS: Final = ("acme_challenges", "agents", "backends", "roles", "tls")
"""What the document holds, and then the boot file does not: each key is in one of both."""

# ConfigMaps that a large document continues in are called after the first one: <name>-1.
_MAX_CONFIG_MAP_CHARS: Final = 251


class KubernetesObjects(Section):
    """A ConfigMap that the controller writes, and the Secrets of its certificates."""

    config_map: ObjectName
    """The ConfigMap with the document; a large one continues in further ConfigMaps, called like it
    with -1 to -8 at the end. Required. Secrets of its certificates have the label
    `heim.dev/part-of` with its name."""

    namespace: Name | None = None
    """Where they are. Default: the namespace of the pod."""

    account: FilePath | None = None
    """The directory with the `token`, `ca.crt` and `namespace` to use. Default:
    /var/run/secrets/kubernetes.io/serviceaccount, where they are in every pod that has them."""

    @model_validator(mode="after")
    def _check_length(self) -> KubernetesObjects:
        if len(self.config_map) > _MAX_CONFIG_MAP_CHARS:
            limit = f"is longer than {_MAX_CONFIG_MAP_CHARS} characters"
            raise mistake(limit, at=("config_map",))
        return self


class DocumentFiles(Section):
    """The same objects, mounted: for pods that may not speak to the API server."""

    path: FilePath
    """The directory with `index.json` and what it lists: the ConfigMap mounted, or all of them in
    one `projected` volume. Required."""

    secrets: FilePath | None = None
    """The directory with a directory for each Secret, called like it, with tls.crt and tls.key.
    Default: `path`."""

    @property
    def secrets_directory(self) -> Path:
        """Where the directories of Secrets are."""
        return self.path if self.secrets is None else self.secrets


class Source(Section):
    """Where the configuration document is. Exactly one of both."""

    kubernetes: KubernetesObjects | None = None
    """From the API server of the cluster that the proxy runs in, as its own service account."""

    file: DocumentFiles | None = None
    """From files that somebody keeps up to date, such as kubelet."""

    @model_validator(mode="after")
    def _check_one(self) -> Source:
        if (self.kubernetes is None) == (self.file is None):
            raise mistake("needs exactly one of kubernetes and file")
        return self


def boot_part(data: dict[str, Any]) -> tuple[dict[str, Any], list[Finding]]:
    """What a file may say itself, and what it says of the document's although it has a source."""
    if data.get("source") is None:
        return data, []
    findings = [
        Finding((key,), "comes from the configuration document, which source names", "remove it")
        for key in DOCUMENT_KEYS
        if key in data
    ]
    return {key: value for key, value in data.items() if key not in DOCUMENT_KEYS}, findings
