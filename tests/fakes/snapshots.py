"""Configurations and snapshots in memory: nothing is opened, no file is read."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

from heim_config.load import load_text
from heim_config.model import Config
from heim_proxy.identity.signing import SigningKeys
from heim_proxy.snapshot import Snapshot, build

__all__ = ["app", "configured", "role", "signing_keys", "snapshot", "tcp"]

FILE = Path("/etc/heim/heim.yaml")
IDP = "https://idp.example.test"


@functools.cache
def signing_keys() -> SigningKeys:
    return SigningKeys.parse(SigningKeys.generate_pem())


def app(name: str = "app", **keys: Any) -> dict[str, Any]:
    """A backend on <name>.example.test with one permission, `all`."""
    backend: dict[str, Any] = {
        "name": name,
        "http": [{"path": "/", "upstream": "http://127.0.0.1:3000"}],
    }
    if not keys.get("public"):
        backend["permissions"] = [{"name": "all", "locations": [{"any": "/"}]}]
    return {**backend, **keys}


def tcp(name: str = "ssh", upstream: str = "10.0.0.5:22", **keys: Any) -> dict[str, Any]:
    """A backend on <name>.example.test with tcp alone; `keys` are further ones of the backend."""
    return {"name": name, "tcp": {"upstream": upstream}, **keys}


def role(name: str, *bindings: str, members: list[dict[str, str]] | None = None) -> dict[str, Any]:
    """A role of alice's (or of `members`) with bindings as backend/permission, tcp as backend."""
    pairs = [binding.partition("/") for binding in bindings]
    return {
        "name": name,
        "members": members or [{"user": "alice@example.test"}],
        "bindings": [
            {"backend": name, "permission": permission} if slash else {"backend": name}
            for name, slash, permission in pairs
        ],
    }


def configured(backends: list[dict[str, Any]], roles: Any = (), **keys: Any) -> Config:
    """A configuration of example.test, as if it had been read from `FILE`."""
    document: dict[str, Any] = {
        "version": 1,
        "domain": "example.test",
        "tls": {"certificates": [{"cert_file": "tls.crt", "key_file": "tls.key"}]},
        "identity": {
            "providers": [
                {
                    "name": "idp",
                    "type": "oidc",
                    "issuer": IDP,
                    "client_id": "heim",
                    "client_secret_env": "IDP_SECRET",
                }
            ]
        },
        "roles": list(roles),
        "backends": backends,
        **keys,
    }
    return load_text(yaml.safe_dump(document), file=FILE)


def snapshot(config: Config, *, generation: int = 1) -> Snapshot:
    return build(config, generation=generation, signing_keys=signing_keys(), providers=())
