"""Configurations as the documentation shows them, made whole enough to be loaded.

A yaml block is a complete configuration, unless its first line says `# part of a configuration`
(then it is merged into a minimal one) or something of `ELSEWHERE`: `# kubernetes` are manifests,
`# values` and `# part of the values` are the chart's (`test_manifests`), `# not heim` is another
program's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

__all__ = [
    "ELSEWHERE",
    "KUBERNETES",
    "NOT_HEIM",
    "PART",
    "PART_OF_VALUES",
    "VALUES",
    "parts_of",
    "whole",
    "with_files",
]

PART = "# part of a configuration"
NOT_HEIM = "# not heim"
KUBERNETES = "# kubernetes"
VALUES = "# values"
PART_OF_VALUES = "# part of the values"
ELSEWHERE = (NOT_HEIM, KUBERNETES, VALUES, PART_OF_VALUES)

_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n"

Data = dict[str, Any]


def _minimal() -> Data:
    return {
        "version": 1,
        "domain": "x.example.com",
        "tls": {"certificates": [{"cert_file": "tls.crt", "key_file": "tls.key"}]},
        "identity": {
            "providers": [
                {
                    "name": "google",
                    "type": "google",
                    "client_id": "1234",
                    "client_secret_file": "secrets/google",
                    "hosted_domains": ["example.com"],
                }
            ]
        },
    }


def parts_of(data: Data) -> tuple[list[Data], list[Data]]:
    """The roles and the backends of a configuration."""
    return data.get("roles") or [], data.get("backends") or []


def whole(text: str) -> Data:
    """The configuration that a block shows; what a part only refers to is made up."""
    data: Data = yaml.safe_load(text)
    if not text.startswith(PART):
        return data
    data = {**_minimal(), **data}
    roles, backends = parts_of(data)
    known = {backend["name"]: backend for backend in backends}
    for role in roles:
        for binding in role.get("bindings", ()):
            name = binding["backend"]
            if name not in known and "permission" not in binding:
                known[name] = {"name": name, "tcp": {"upstream": "127.0.0.1:1"}}
            if "permission" not in binding:
                continue
            if name not in known:
                known[name] = {
                    "name": name,
                    "http": [{"path": "/", "upstream": "http://127.0.0.1:1"}],
                    "permissions": [],
                }
            permissions = known[name].setdefault("permissions", [])
            if binding["permission"] not in {one["name"] for one in permissions}:
                permissions.append({"name": binding["permission"], "locations": [{"any": "/"}]})
    return {**data, "backends": list(known.values())}


def with_files(data: Data, directory: Path) -> Data:
    """The same with every file it names made, absolute ones moved below `directory`."""
    for section, key in list(_files(data)):
        path = directory / str(section[key]).lstrip("/")
        section[key] = str(path)
        if key == "webroot":
            path.mkdir(parents=True, exist_ok=True)
        elif key == "directory":
            path.mkdir(parents=True, exist_ok=True)
            (path / "tls.crt").write_text(_CERTIFICATE)
            (path / "tls.key").write_text("a key")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_CERTIFICATE if key == "ca_file" else "a secret")
    return data


def _files(value: Any) -> Iterator[tuple[Data, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            folder = key in ("directory", "webroot") and isinstance(inner, str)
            if key.endswith("_file") or folder:
                yield value, key
            yield from _files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _files(inner)
