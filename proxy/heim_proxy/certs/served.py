"""Everything about certificates in one process, joined: what `app` makes, changes and shows."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heim_config.model import Config
from heim_proxy.certs.load import CertificateFiles, Loaded
from heim_proxy.certs.own import own_certificate
from heim_proxy.certs.store import CertStore
from heim_proxy.certs.watch import CertWatcher, Selection
from heim_proxy.observe.admin import Admin
from heim_proxy.observe.metrics import Metrics
from heim_runtime.clock import Clock

__all__ = ["Certificates"]


class Certificates:
    """The certificates of the https listener."""

    __slots__ = ("_clock", "_own", "_store", "_watcher")

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._store = CertStore()
        self._watcher = CertWatcher(self._store, clock=clock)
        self._own: Loaded | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """What the https listener gets, for the life of the process."""
        return self._store.context

    def prepare(self, config: Config, secrets: Path | None) -> Selection:
        """Read what a configuration names, without putting it in force. Blocks.

        Args:
            config: The configuration.
            secrets: Where a source puts Secrets.

        Raises:
            NoCertificateError: When nothing could be served.
            CertificateProblem: When not even a certificate of our own can be made.
        """
        files = CertificateFiles.listed(config.tls.certificates, secrets)
        own = self._make_own(config.state.path.parent) if config.tls.self_signed else None
        return self._watcher.prepare(files, own=own)

    def adopt(self, selection: Selection) -> None:
        """Put what `prepare` read in force."""
        self._watcher.adopt(selection)

    async def watch(self) -> None:
        """Notice renewed files, until cancelled."""
        await self._watcher.run()

    def not_after(self) -> Mapping[str, float]:
        """When each pair in force expires, in seconds since the epoch, by its name."""
        return self._watcher.not_after()

    def show(self, admin: Admin) -> None:
        """Add /debug/certificates."""
        admin.debug("certificates", self.facts)

    def expose(self, metrics: Metrics) -> None:
        """Say where the figures come from. Our own certificate is in none of them."""
        metrics.expose("heim_certificate_not_after_seconds", self._watcher.not_after)
        metrics.expose("heim_certificate_rejected", self._watcher.rejected)
        metrics.expose("heim_certificate_info", self._info)

    def facts(self) -> dict[str, object]:
        """Each configured pair as it is in force, and which one each name gets."""
        own = self._watcher.own
        return {
            "certificates": [
                {
                    "name": files.name,
                    "cert_file": str(files.cert),
                    "hosts": list(pair.shown_for if pair is not None else files.hosts),
                    **_facts(pair),
                    "problem": problem,
                }
                for files, pair, problem in self._watcher.pairs()
            ],
            "self_signed": None if own is None else _facts(own),
            "hosts": {name: pair.files.name for name, pair in sorted(self._store.names().items())},
        }

    def _info(self) -> Mapping[tuple[str, ...], float]:
        return {
            (files.name, pair.serial, pair.fingerprint): 1.0
            for files, pair, _ in self._watcher.pairs()
            if pair is not None
        }

    def _make_own(self, directory: Path) -> Loaded:
        if self._own is None:
            self._own = own_certificate(directory, now=self._clock.now())
        return self._own


def _facts(pair: Loaded | None) -> dict[str, Any]:
    if pair is None:
        return {"serial": None, "sha256": None, "not_after": None, "loaded_at": None}
    return {
        "serial": pair.serial,
        "sha256": pair.fingerprint,
        "not_after": pair.not_after,
        "loaded_at": pair.loaded_at,
    }
