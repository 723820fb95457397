"""A configuration document in the fake cluster, as the controller publishes one."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trustme

from heim_controller.kube.resources import CONFIG_MAPS, SECRETS
from heim_controller.translation.document import canonical, digest
from heim_proxy.sources.kubernetes import LABEL
from tests.fakes.heim import authority
from tests.fakes.kube import FakeKube

__all__ = ["NAME", "NAMESPACE", "Published", "account_folder", "api_tls", "index", "issued"]

NAME = "heim-configuration"
NAMESPACE = "heim"
TOKEN = "secret-token"


def api_tls() -> ssl.SSLContext:
    """TLS of an API server on 127.0.0.1, by the tests' authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1").configure_cert(context)
    return context


def account_folder(folder: Path, *, token: str = TOKEN) -> Path:
    """A service account as kubelet mounts it."""
    folder.mkdir(exist_ok=True)
    (folder / "token").write_text(token)
    (folder / "namespace").write_text(NAMESPACE)
    authority().cert_pem.write_to_path(folder / "ca.crt")
    return folder


def issued(*hosts: str) -> dict[str, bytes]:
    """The data of a TLS Secret."""
    leaf: trustme.LeafCert = authority().issue_cert(*hosts)
    chain = b"".join(one.bytes() for one in leaf.cert_chain_pems)
    return {"tls.crt": chain, "tls.key": leaf.private_key_pem.bytes()}


def index(content: bytes, shards: Sequence[str]) -> str:
    """The index of a document."""
    return json.dumps({"version": 1, "sha256": digest(content), "shards": list(shards)})


class Published:
    """Writes documents and Secrets into a fake cluster."""

    def __init__(self, kube: FakeKube, *, name: str = NAME, namespace: str = NAMESPACE) -> None:
        self.kube = kube
        self.name = name
        self.namespace = namespace
        self.hash = ""

    def document(self, document: Mapping[str, Any]) -> bytes:
        """Publish a document in one ConfigMap."""
        content = canonical(document)
        whole = {"index.json": index(content, ["document.json"])}
        self.pieces({**whole, "document.json": content.decode()})
        self.hash = digest(content)
        return content

    def sharded(self, document: Mapping[str, Any], shards: int) -> bytes:
        """Publish it in several, the index first, as a writer that is half done would have it."""
        content = canonical(document)
        size = -(-len(content) // shards)
        parts = [content[start : start + size].decode() for start in range(0, len(content), size)]
        names = [f"document-{number}" for number in range(len(parts))]
        self.pieces({"index.json": index(content, names), names[0]: parts[0]})
        for number, part in enumerate(parts[1:], 1):
            self.pieces({names[number]: part}, number)
        self.hash = digest(content)
        return content

    def pieces(self, data: Mapping[str, str], number: int = 0) -> None:
        """Write one ConfigMap: the first, or a further one."""
        self.kube.store.put(
            CONFIG_MAPS, {"metadata": self._metadata(self.map_name(number)), "data": dict(data)}
        )

    def map_name(self, number: int) -> str:
        return self.name if number == 0 else f"{self.name}-{number}"

    def secret(self, name: str, data: Mapping[str, bytes]) -> None:
        """Write a Secret."""
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        manifest = {"metadata": self._metadata(name), "type": "kubernetes.io/tls", "data": encoded}
        self.kube.store.put(SECRETS, manifest)

    def _metadata(self, name: str) -> dict[str, Any]:
        return {"name": name, "namespace": self.namespace, "labels": {LABEL: self.name}}
