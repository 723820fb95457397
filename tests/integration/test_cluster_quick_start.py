"""The last steps of docs/howto/kubernetes.md: what the page has people apply, applied.

Controller and proxy are the real programs; pods and the API server are made up, and so is Google.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from heim_controller.kube import resources
from tests.docs.pages import page
from tests.docs.snippets import KUBERNETES
from tests.fakes import kube_objects
from tests.fakes.heim import DOMAIN, user
from tests.integration.cluster import Cluster, cluster, tls_secret

pytestmark = pytest.mark.timeout(60)

HOST = f"whoami.{DOMAIN}"
# What the cluster of the tests needs for its own marker; the page does without.
PROXY = {"ingress": {"allowPublic": {}}, "certificates": ["default"]}
KEPT = ("Service", "Role", "RoleBinding", "Ingress")


def manifests() -> list[dict[str, Any]]:
    """What the page calls whoami.yaml, with the domain of the tests, as an API server keeps it."""
    [fence] = [
        fence
        for fence in page("docs/howto/kubernetes.md").of("yaml")
        if fence.first_line == KUBERNETES and "kind: Ingress" in fence.text
    ]
    text = fence.text.replace("x.example.com", DOMAIN)
    kept = {"creationTimestamp": kube_objects.T0, "generation": 1}
    return [
        {**made, "metadata": {**made["metadata"], **kept}}
        for made in yaml.safe_load_all(text)
        if made["kind"] in KEPT
    ]


async def whoami(kube: Cluster) -> None:
    pods = await kube.pods("demo/whoami")
    ready = kube_objects.endpoint_slice(
        "demo/whoami", *pods.addresses, port=pods.port, port_name="http"
    )
    await kube.apply(manifests(), ready, tls_secret("demo/whoami-tls", HOST))


async def test_the_first_ingress_is_behind_a_login_and_lets_in_who_is_named(tmp_path: Path) -> None:
    async with cluster(tmp_path, proxy=PROXY) as kube:
        await whoami(kube)
        stranger = await kube.get("/", HOST, headers=(("Accept", "text/html"),))
        assert stranger.status == 303
        assert (stranger.get("Location") or "").startswith(f"https://auth.{DOMAIN}")

        alice = await kube.heim.signed_in(user("alice"), HOST)
        answer = await kube.get("/", HOST, cookie=alice)
        assert answer.status == 200
        told = json.loads(answer.body)
        assert told["headers"]["X-Auth-Id"] == ["alice@example.com"]
        assert told["headers"]["X-Auth-Token"]
        # The controller writes these a moment later.
        await kube.heim.until(lambda: "Synced" in kube.told("whoami"))
        await kube.heim.until(
            lambda: bool(kube.status(resources.INGRESSES, "demo/whoami").get("loadBalancer"))
        )
        assert set(kube.told("whoami")) == {"Synced"}

        # "Now take somebody's access away": the page's own change.
        [binding] = [made for made in manifests() if made["kind"] == "RoleBinding"]
        binding["spec"]["subjects"] = [{"user": "alice@example.com"}]
        binding["metadata"]["generation"] = 2
        await kube.apply(binding)
        bob = await kube.heim.signed_in(user("bob"), HOST)
        assert (await kube.get("/", HOST, cookie=alice)).status == 200
        assert (await kube.get("/", HOST, cookie=bob)).status == 403
