"""Certificates that are issued and renewed while people are connected.

There is no certificate at first: the Proxy names none, as in a cluster where cert-manager has yet
to begin. cert-manager is this test: it writes Secrets as that does, certificate and key at once.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from heim_controller.kube import resources
from tests.fakes.heim import Wire
from tests.fakes.kube_cluster import basics
from tests.fakes.kube_objects import ingress, path, rule
from tests.integration.cluster import Cluster, cluster, comes, secret, tls_secret

pytestmark = [pytest.mark.timeout(60), pytest.mark.asyncio(loop_scope="module")]

Made = dict[str, Any]

HOST = "web.example.test"
SPEC = {"ingress": {"allowPublic": {}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path_factory.mktemp("cluster"), proxy=SPEC) as started:
        await started.echo("shop/one")
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def kube(shared: Cluster) -> AsyncIterator[Cluster]:
    """The cluster with an Ingress whose Secret is not there."""
    await shared.apply(
        ingress(
            "shop/web",
            rule(HOST, path("/", "one", port=8080)),
            notes={"auth": "none"},
            tls=[{"hosts": [HOST], "secretName": "tls"}],
        )
    )
    yield shared
    await shared.remove(resources.INGRESSES, "shop/web")
    if shared.kube.store.get(resources.SECRETS, "tls", "shop"):
        await shared.remove(resources.SECRETS, "shop/tls")


def pem_of(made: Made) -> bytes:
    """The leaf in a Secret, as the wire has it."""
    chain = base64.b64decode(made["data"]["tls.crt"])
    return x509.load_pem_x509_certificates(chain)[0].public_bytes(serialization.Encoding.DER)


def temporary(host: str) -> Made:
    """What cert-manager puts into the Secret while it issues, when it is asked to."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, host),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, "1234567890"),
        ]
    )
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    return secret(
        "shop/tls", {"tls.crt": made.public_bytes(serialization.Encoding.PEM), "tls.key": pem}
    )


async def shown(kube: Cluster, made: Made, host: str = HOST) -> bool:
    return await kube.certificate(host) == pem_of(made)


async def test_the_first_certificate_comes_into_a_proxy_that_has_none(kube: Cluster) -> None:
    # It speaks TLS, with a certificate that nobody trusts: people see a warning and no reset.
    own = x509.load_der_x509_certificate(await kube.certificate(HOST))
    assert own.issuer == own.subject
    with pytest.raises(ssl.SSLCertVerificationError):
        await kube.get("/", HOST)
    assert (await kube.get("/", HOST, plain=True)).status == 308

    first = temporary(HOST)
    await kube.apply(first)
    await comes(lambda: shown(kube, first))
    issued = tls_secret("shop/tls", HOST)
    await kube.apply(issued)
    await comes(lambda: shown(kube, issued))
    assert await kube.leads_to(HOST, plain=False) == "shop/one"


async def test_the_login_host_has_the_certificate_that_the_proxys_issuer_makes(
    kube: Cluster,
) -> None:
    store, login = kube.kube.store, "auth.example.test"
    for one in basics(**SPEC, certificateIssuer={"name": "letsencrypt"}):
        if one["kind"] == "Proxy":
            store.put(resources.PROXIES, one)
    await kube.heim.until(lambda: store.get(resources.CERTIFICATES, "main-tls", "heim"), 12)
    wanted = store.get(resources.CERTIFICATES, "main-tls", "heim")
    assert wanted is not None
    assert wanted["spec"]["dnsNames"] == [login]
    made = tls_secret(f"heim/{wanted['spec']['secretName']}", login)
    await kube.apply(made)
    await comes(lambda: shown(kube, made, login))


@pytest.mark.parametrize(
    ("times", "connections", "every_s"),
    [
        pytest.param(10, 40, 0.5, id="10-times"),
        pytest.param(
            60, 1000, 1.0, id="a-minute", marks=[pytest.mark.slow, pytest.mark.timeout(300)]
        ),
    ],
)
async def test_a_certificate_renewed_every_second_costs_no_request(
    kube: Cluster, times: int, connections: int, every_s: float
) -> None:
    made = tls_secret("shop/tls", HOST)
    await kube.apply(made)
    await comes(lambda: shown(kube, made))
    load = Load(kube)
    seen = [pem_of(made)]
    async with load.running(connections):
        for _ in range(times):
            # The key is another one each time: cert-manager's default.
            made = tls_secret("shop/tls", HOST)
            seen.append(pem_of(made))
            kube.kube.store.put(resources.SECRETS, made)
            await asyncio.sleep(every_s)
            await comes(lambda made=made: shown(kube, made))
    assert load.failed == []
    assert load.asked > connections * 2
    # New handshakes saw them change, and nothing else.
    assert set(load.shown) <= set(seen)
    assert len(load.shown) > times / 2
    # No connection was closed for it.
    assert load.opened == connections


class Load:
    """People who stay connected and ask again and again, and others who keep coming.

    Attributes:
        asked: Requests that were answered.
        failed: What went wrong.
        shown: How often which certificate was shown to those who came.
        opened: Connections of those who stay.
    """

    def __init__(self, kube: Cluster) -> None:
        self.asked = 0
        self.failed: list[str] = []
        self.shown: Counter[bytes] = Counter()
        self.opened = 0
        self._kube = kube

    @contextlib.asynccontextmanager
    async def running(self, connections: int) -> AsyncIterator[None]:
        """Ask for the length of the block."""
        wires = [await self._open() for _ in range(connections)]
        # Each kept connection about once a second, whatever their number.
        tasks = [asyncio.create_task(self._stays(share)) for share in shares(wires)]
        tasks += [asyncio.create_task(self._come()) for _ in range(2)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for wire in wires:
                wire.close()

    async def _open(self) -> Wire:
        self.opened += 1
        return await self._kube.heim.connect(HOST)

    async def _ask(self, wire: Wire) -> None:
        wire.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        async with asyncio.timeout(10):
            found = await wire.answer()
        self.asked += 1
        if found.status != 200:
            self.failed.append(str(found.status))

    async def _stays(self, wires: list[Wire]) -> None:
        while True:
            for wire in wires:
                try:
                    await self._ask(wire)
                except (OSError, EOFError, TimeoutError) as e:
                    self.failed.append(f"kept: {e!r}")
                    return
                await asyncio.sleep(0.01)

    async def _come(self) -> None:
        while True:
            try:
                wire = await self._kube.heim.connect(HOST)
                tls: Any = wire.writer.get_extra_info("ssl_object")
                self.shown[tls.getpeercert(binary_form=True)] += 1
                await self._ask(wire)
                wire.close()
            except (OSError, EOFError, TimeoutError) as e:
                self.failed.append(f"fresh: {e!r}")
            await asyncio.sleep(0.02)


def shares(wires: list[Wire]) -> Iterator[list[Wire]]:
    for number in range(4):
        yield wires[number::4]
