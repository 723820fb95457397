"""A certificate that is replaced every second under connections that stay and handshakes."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.fakes.heim import DOMAIN, Wire, trusting_context
from tests.fakes.kube_cluster import populate
from tests.fakes.kube_objects import ingress, path, rule
from tests.integration.cluster import Cluster, cluster, comes, tls_secret

__all__ = ["RotationSample", "measure"]

_HOST: Final = f"web.{DOMAIN}"
# Each connection asks so often; with 1,000 that is 500 requests a second.
_EVERY_S: Final = 2.0
# New connections beside them, each verified, with one request.
_FRESH_S: Final = 0.05
_CONNECTING: Final = 20


@dataclass(frozen=True, slots=True)
class RotationSample:
    """What came of it.

    Attributes:
        connections: Connections that stayed.
        seconds: How long.
        rotated: How many certificates were put into the Secret.
        shown: How many of them new handshakes were shown.
        back: Handshakes that were shown an older one than a handshake before that had ended.
        requests: On connections that stayed.
        handshakes: New ones, each with a request.
        failed: What went wrong, counted; nothing is retried.
    """

    connections: int
    seconds: float
    rotated: int
    shown: int
    back: int
    requests: int
    handshakes: int
    failed: dict[str, int]


class _Rotation:
    def __init__(self, kube: Cluster, context: ssl.SSLContext) -> None:
        self._kube = kube
        self._context = context
        self._leaves: dict[bytes, int] = {}
        self._newest = 0
        self.rotated = 0
        self.back = 0
        self.requests = 0
        self.handshakes = 0
        self.seen: set[int] = set()
        self.failed: Counter[str] = Counter()

    async def connect(self) -> Wire:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._kube.heim.https_port, ssl=self._context, server_hostname=_HOST
        )
        return Wire(reader, writer)

    async def ask(self, wire: Wire, how: str) -> None:
        wire.send(f"GET / HTTP/1.1\r\nHost: {_HOST}\r\n\r\n".encode())
        async with asyncio.timeout(10):
            found = await wire.answer()
        if found.status != 200 or b'"shop"' not in found.body:
            self.failed[f"{how}: {found.status}"] += 1

    async def keep(self, wire: Wire, delay_s: float) -> None:
        """Ask again and again over one connection."""
        await asyncio.sleep(delay_s)
        try:
            while True:
                await self.ask(wire, "kept")
                self.requests += 1
                await asyncio.sleep(_EVERY_S)
        except (OSError, EOFError) as error:
            self.failed[f"kept: {error!r}"] += 1

    async def arrive(self) -> None:
        """Connect again and again."""
        while True:
            await asyncio.sleep(_FRESH_S)
            newest = self._newest
            try:
                async with asyncio.timeout(10):
                    wire = await self.connect()
                self._note(wire, newest)
                await self.ask(wire, "new")
                wire.close()
                self.handshakes += 1
            except (OSError, EOFError) as error:
                self.failed[f"new: {error!r}"] += 1

    def _note(self, wire: Wire, newest: int) -> None:
        """`newest` is what had been shown before this handshake began."""
        shown: bytes = wire.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        number = self._leaves.get(shown, 0)
        self.seen.add(number)
        if number < newest:
            self.back += 1
        self._newest = max(self._newest, number)

    async def rotate(self, seconds: int) -> None:
        """Put a new certificate into the Secret every second; all are issued beforehand."""
        issued = [tls_secret("shop/tls", _HOST) for _ in range(seconds)]
        for number, one in enumerate(issued, 1):
            chain = base64.b64decode(one["data"]["tls.crt"])
            leaf = x509.load_pem_x509_certificates(chain)[0].public_bytes(Encoding.DER)
            self._leaves[leaf] = number
        due = time.monotonic()
        for one in issued:
            populate(self._kube.kube.store, one)
            self.rotated += 1
            due += 1.0
            await asyncio.sleep(max(0.0, due - time.monotonic()))


async def measure(
    directory: Path, *, connections: int, seconds: int, tell: Callable[[str], None]
) -> RotationSample:
    """A cluster of its own, with one Ingress."""
    directory.mkdir(parents=True, exist_ok=True)
    async with cluster(directory, proxy={"ingress": {"allowPublic": {}}}) as kube:
        await kube.echo("shop/one")
        await kube.apply(
            tls_secret("shop/tls", _HOST),
            ingress(
                "shop/web",
                rule(_HOST, path("/", "one", port=8080)),
                notes={"auth": "none"},
                tls=[{"hosts": [_HOST], "secretName": "tls"}],
            ),
        )
        rotation = _Rotation(kube, trusting_context())

        async def served() -> bool:
            return await kube.leads_to(_HOST, plain=False) == "shop/one"

        await comes(served)
        wires: list[Wire] = []
        while len(wires) < connections:
            more = min(_CONNECTING, connections - len(wires))
            wires += await asyncio.gather(*(rotation.connect() for _ in range(more)))
        tell(f"rotation: {len(wires)} connections")
        tasks = [
            asyncio.ensure_future(rotation.keep(wire, _EVERY_S * number / connections))
            for number, wire in enumerate(wires)
        ]
        tasks.append(asyncio.ensure_future(rotation.arrive()))
        try:
            await rotation.rotate(seconds)
            # Everybody has asked once more after the last one.
            await asyncio.sleep(_EVERY_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for wire in wires:
                wire.close()
        return RotationSample(
            connections=len(wires),
            seconds=float(seconds),
            rotated=rotation.rotated,
            shown=len(rotation.seen - {0}),
            back=rotation.back,
            requests=rotation.requests,
            handshakes=rotation.handshakes,
            failed=dict(rotation.failed),
        )
