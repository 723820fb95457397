"""The 25 scenarios of ingress-controller-conformance, through controller and proxy.

They know of no login: the class has parameters that lead to a Proxy with `defaultAuth: None` and
`allowPublic`. Names and numbers follow the five features of that suite, so that what it says of us
can be looked up here. Its client follows redirects, as `ask` does.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from heim_controller.kube import resources
from tests.fakes import kube_objects
from tests.fakes.heim import Answer
from tests.integration.cluster import Cluster, Pods, cluster, tls_secret

pytestmark = [pytest.mark.timeout(60), pytest.mark.asyncio(loop_scope="module")]

Made = dict[str, Any]

NAMESPACE = "conformance"
AGENT = ("User-Agent", "Go-http-client/1.1")
PROXY = {
    "defaultAuth": "None",
    "ingress": {"allowPublic": {}, "allowCatchAll": True},
    "certificates": ["default"],
}
PARAMETERS = {
    "apiGroup": "heim.dev", "kind": "Proxy", "name": "main", "namespace": "heim",
    "scope": "Namespace",
}  # fmt: skip
HERE = {"ingress": [{"ip": "192.0.2.1"}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path_factory.mktemp("cluster"), proxy=PROXY) as started:
        await started.apply(kube_objects.ingress_class(parameters=PARAMETERS))
        yield started


async def deployed(kube: Cluster, name: str, *services: str, **spec: Any) -> dict[str, Pods]:
    """One feature's Ingress and Services, in a cluster that has nothing else of the suite."""
    await kube.clear(NAMESPACE)
    rules = spec.pop("rules", ())
    found = {one: await kube.pods(f"{NAMESPACE}/{one}") for one in services}
    port = {"name": "http", "port": 8080, "targetPort": 3000, "protocol": "TCP"}
    objects = [pods.objects(port) for pods in found.values()]
    if "tls" in spec:
        objects.append([tls_secret(f"{NAMESPACE}/conformance-tls", "foo.bar.com")])
    await kube.apply(*objects, kube_objects.ingress(f"{NAMESPACE}/{name}", *rules, **spec))
    await kube.heim.until(lambda: address(kube, name) == HERE)
    return found


def address(kube: Cluster, name: str) -> object:
    return kube.status(resources.INGRESSES, f"{NAMESPACE}/{name}").get("loadBalancer")


def service(name: str, port: int | str = 8080) -> Made:
    chosen = {"number": port} if isinstance(port, int) else {"name": port}
    return {"service": {"name": name, "port": chosen}}


async def ask(kube: Cluster, url: str, method: str = "GET") -> Answer:
    """Ask as the suite's client does: redirects are followed, with the method."""
    for _ in range(10):
        parts = urlsplit(url)
        found = await kube.get(
            parts.path or "/",
            parts.netloc,
            method=method,
            plain=parts.scheme == "http",
            headers=(AGENT,),
        )
        if found.status not in (301, 302, 303, 307, 308):
            return found
        url = found.get("location") or ""
    raise AssertionError(f"{url} redirects for ever")


async def leads_to(kube: Cluster, url: str) -> tuple[int, str]:
    """The status; and the service that answered, which saw the host and the path as they are."""
    found = await ask(kube, url)
    if found.status != 200:
        return found.status, ""
    told, parts = json.loads(found.body), urlsplit(url)
    assert told["namespace"] == NAMESPACE
    assert (told["host"], told["path"]) == (parts.netloc, parts.path or "/")
    return found.status, told["service"]


@pytest_asyncio.fixture(scope="class", loop_scope="module")
async def default_backend(shared: Cluster) -> Cluster:
    await deployed(
        shared, "default-backend", "echo-service", defaultBackend=service("echo-service")
    )
    return shared


@pytest_asyncio.fixture(scope="class", loop_scope="module")
async def host_rules(shared: Cluster) -> Cluster:
    def rule(host: str, backend: Made) -> Made:
        paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
        return {"host": host, "http": {"paths": paths}}

    await deployed(
        shared,
        "host-rules",
        "wildcard-foo-com",
        "foo-bar-com",
        tls=[{"hosts": ["foo.bar.com"], "secretName": "conformance-tls"}],
        rules=[
            rule("*.foo.com", service("wildcard-foo-com")),
            rule("foo.bar.com", service("foo-bar-com", "http")),
        ],
    )
    return shared


@pytest_asyncio.fixture(scope="class", loop_scope="module")
async def path_rules(shared: Cluster) -> Cluster:
    def rule(host: str, *paths: tuple[str, str, str]) -> Made:
        made = [
            {"path": path, "pathType": kind, "backend": service(name)} for kind, path, name in paths
        ]
        return {"host": host, "http": {"paths": made}}

    rules = [
        rule("exact-path-rules", ("Exact", "/foo", "foo-exact")),
        rule(
            "prefix-path-rules",
            ("Prefix", "/foo", "foo-prefix"),
            ("Prefix", "/aaa/bbb", "aaa-slash-bbb-prefix"),
            ("Prefix", "/aaa", "aaa-prefix"),
        ),
        rule("mixed-path-rules", ("Prefix", "/foo", "foo-prefix"), ("Exact", "/foo", "foo-exact")),
        rule(
            "trailing-slash-path-rules",
            ("Prefix", "/aaa/bbb/", "aaa-slash-bbb-slash-prefix"),
            ("Exact", "/foo/", "foo-slash-exact"),
        ),
    ]
    names = {path["backend"]["service"]["name"] for one in rules for path in one["http"]["paths"]}
    await deployed(shared, "path-rules", *sorted(names), rules=rules)
    return shared


class TestDefaultBackend:
    @pytest.mark.parametrize(
        ("method", "host", "path"),
        [
            ("GET", "my-host", "/"),
            ("GET", "my-host", "/sub-path"),
            ("POST", "some-host", "/"),
            ("PUT", "", "/resource"),
            ("DELETE", "some-host", "/resource"),
            ("PATCH", "my-host", "/resource"),
        ],
        ids=lambda value: value.replace("/", "") or "none",
    )
    async def test_an_ingress_with_no_rules_sends_all_requests_to_the_default_backend(
        self, default_backend: Cluster, method: str, host: str, path: str
    ) -> None:
        kube = default_backend
        # Without a host its client names the address.
        host = host or f"127.0.0.1:{kube.heim.http_port}"
        found = await ask(kube, f"http://{host}{path}", method)
        assert found.status == 200
        assert found.raw.startswith(b"HTTP/1.1 ")
        for name in ("Content-Length", "Content-Type", "Date", "Server"):
            assert found.get(name), name
        told = json.loads(found.body)
        assert told["service"] == "echo-service"
        assert (told["method"], told["path"], told["proto"]) == (method, path, "HTTP/1.1")
        assert told["headers"]["User-Agent"] == [AGENT[1]]


class TestLoadBalancing:
    async def test_an_ingress_uses_all_the_pods_of_a_service(self, shared: Cluster) -> None:
        await shared.clear(NAMESPACE)
        pods = await shared.pods(f"{NAMESPACE}/echo-service", *range(100, 110))
        whole = pods.objects()
        # As the Deployment is scaled: one pod first.
        [own, all_of_them] = whole
        one = {**all_of_them, "endpoints": all_of_them["endpoints"][:1]}
        await shared.apply(
            own,
            one,
            kube_objects.ingress(
                f"{NAMESPACE}/load-balancing", defaultBackend=service("echo-service")
            ),
        )
        await shared.heim.until(lambda: address(shared, "load-balancing") == HERE)
        await shared.apply(all_of_them)
        seen = set()
        for _ in range(100):
            found = await ask(shared, "http://load-balancing/")
            assert found.status == 200
            seen.add(json.loads(found.body)["pod"])
        assert seen == set(pods.addresses)


class TestHostRules:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            # The client verifies that the certificate is for foo.bar.com.
            pytest.param("https://foo.bar.com", (200, "foo-bar-com"), id="tls-to-the-host"),
            pytest.param("http://foo.bar.com", (200, "foo-bar-com"), id="to-the-host"),
            pytest.param("http://subdomain.bar.com", (404, ""), id="another-host"),
            pytest.param("http://bar.foo.com", (200, "wildcard-foo-com"), id="wildcard"),
            pytest.param("http://baz.bar.foo.com", (404, ""), id="wildcard-is-one-label"),
            pytest.param("http://foo.com", (404, ""), id="wildcard-is-not-no-label"),
        ],
    )
    async def test_an_ingress_with_host_rules(
        self, host_rules: Cluster, url: str, expected: tuple[int, str]
    ) -> None:
        assert await leads_to(host_rules, url) == expected


class TestPathRules:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            pytest.param("exact-path-rules/foo", (200, "foo-exact"), id="exact"),
            pytest.param("exact-path-rules/foo/", (404, ""), id="exact-not-with-slash"),
            pytest.param("exact-path-rules/FOO", (404, ""), id="exact-is-case-sensitive"),
            pytest.param("exact-path-rules/bar", (404, ""), id="exact-not-another"),
            pytest.param("prefix-path-rules/foo", (200, "foo-prefix"), id="prefix"),
            pytest.param("prefix-path-rules/foo/", (200, "foo-prefix"), id="prefix-with-slash"),
            pytest.param("prefix-path-rules/FOO", (404, ""), id="prefix-is-case-sensitive"),
            pytest.param(
                "prefix-path-rules/aaa/bbb", (200, "aaa-slash-bbb-prefix"), id="longest-prefix"
            ),
            pytest.param(
                "prefix-path-rules/aaa/bbb/ccc",
                (200, "aaa-slash-bbb-prefix"),
                id="below-the-longest-prefix",
            ),
            pytest.param("prefix-path-rules/aaa/ccc", (200, "aaa-prefix"), id="below-the-prefix"),
            pytest.param("prefix-path-rules/aaaccc", (404, ""), id="prefix-is-of-elements"),
            pytest.param(
                "prefix-path-rules/foo/", (200, "foo-prefix"), id="prefix-with-slash-once-more"
            ),
            pytest.param("mixed-path-rules/foo", (200, "foo-exact"), id="exact-before-prefix"),
            pytest.param(
                "trailing-slash-path-rules/aaa/bbb",
                (200, "aaa-slash-bbb-slash-prefix"),
                id="slash-of-the-prefix-means-nothing",
            ),
            pytest.param(
                "trailing-slash-path-rules/aaa/bbb/",
                (200, "aaa-slash-bbb-slash-prefix"),
                id="slash-of-both-means-nothing",
            ),
            pytest.param(
                "trailing-slash-path-rules/foo", (404, ""), id="slash-of-the-exact-path-counts"
            ),
        ],
    )
    async def test_an_ingress_with_path_rules(
        self, path_rules: Cluster, url: str, expected: tuple[int, str]
    ) -> None:
        assert await leads_to(path_rules, f"http://{url}") == expected


class TestIngressClass:
    async def test_an_ingress_with_an_invalid_class_is_nobodys(self, shared: Cluster) -> None:
        await shared.clear(NAMESPACE)
        pods = await shared.pods(f"{NAMESPACE}/echo-service")
        made = kube_objects.ingress(
            f"{NAMESPACE}/test-ingress-class",
            ingressClassName="some-invalid-class-name",
            defaultBackend=service("echo-service"),
        )
        await shared.apply(pods.objects(), made)
        # By now one of ours would have its address.
        ours = kube_objects.ingress(f"{NAMESPACE}/ours", kube_objects.rule("ours.example.test"))
        await shared.apply(ours)
        await shared.heim.until(lambda: address(shared, "ours") == HERE)
        assert not address(shared, "test-ingress-class")
        assert (await ask(shared, "http://my-host/")).status == 404
