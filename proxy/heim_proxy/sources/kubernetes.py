"""A configuration document in ConfigMaps and its certificates in Secrets, from the API server.

It may read exactly that: ConfigMaps of given names, and Secrets of one namespace, of which only
those with the document's label come, and only those that it names reach a file.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from heim_proxy.sources.answers import Selection
from heim_proxy.sources.api import Api
from heim_proxy.sources.document import IncompleteError, Sheet, assemble, shards_of
from heim_proxy.sources.follower import Follower
from heim_proxy.sources.loss import Loss
from heim_proxy.sources.secrets import SecretFolder

__all__ = ["LABEL", "MAX_FURTHER", "KubernetesFeed"]

log = logging.getLogger(__name__)

LABEL: Final = "heim.dev/part-of"
MAX_FURTHER: Final = 8
"""How many ConfigMaps a document may have beyond the first: RBAC lists them by name."""

# How often it is looked at whether what was passing has lasted.
_TICK_S: Final = 1.0


class KubernetesFeed:
    """Follows the ConfigMaps of one document, and the Secrets with its label."""

    def __init__(self, api: Api, namespace: str, config_map: str, folder: SecretFolder) -> None:
        """Prepare; nothing is asked yet. `run` closes `api` when it ends."""
        self._api = api
        self._namespace = namespace
        self._config_map = config_map
        self._folder = folder
        self._awake = asyncio.Event()
        self._maps = [self._follow("configmaps", name=config_map)]
        self._secrets = self._follow("secrets", label=f"{LABEL}={config_map}")
        # Secrets that the configuration names, and what of them is in files.
        self._names: frozenset[str] = frozenset()
        self._written: dict[str, Mapping[str, bytes]] = {}
        # Their pairs, with the data that they were decoded from.
        self._decoded: dict[str, tuple[Mapping[str, Any], Mapping[str, bytes]]] = {}
        self._unwritable = ""
        self._writing = asyncio.Lock()
        self._loss = Loss(self.name)
        self.sheet: Sheet | None = None

    @property
    def name(self) -> str:
        """The ConfigMap, with its namespace."""
        return f"ConfigMap {self._namespace}/{self._config_map}"

    @property
    def secrets(self) -> Path:
        """Where Secrets become files."""
        return self._folder.path

    @property
    def trouble(self) -> str:
        """Why there may be a later document."""
        return self._loss.reason

    async def run(self, changed: Callable[[], None]) -> None:
        """Follow until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for follower in (*self._maps, self._secrets):
                    group.create_task(follower.run())
                while True:
                    self._awake.clear()
                    if await self._look():
                        changed()
                    for follower in self._further():
                        self._maps.append(follower)
                        group.create_task(follower.run())
                    await self._rest()
        finally:
            await self._api.close()

    async def provide(self, names: frozenset[str]) -> None:
        """Write these Secrets, as far as they are known."""
        async with self._writing:
            self._names |= names
            await self._write()

    async def drop_others(self, names: frozenset[str]) -> None:
        """Remove the files of every Secret but these."""
        async with self._writing:
            self._names = frozenset(names)
            self._written = {name: one for name, one in self._written.items() if name in names}
            await asyncio.to_thread(self._folder.keep, self._names)

    def _follow(
        self, plural: str, *, name: str | None = None, label: str | None = None
    ) -> Follower:
        wanted = Selection(plural, self._namespace, name, label)
        return Follower(self._api, wanted, changed=self._awake.set)

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(_TICK_S):
                await self._awake.wait()
        except TimeoutError:
            return

    def _further(self) -> list[Follower]:
        """Followers of ConfigMaps that the index says a document continues in."""
        wanted = min(len(shards_of(self._pieces())) - 1, MAX_FURTHER)
        return [
            self._follow("configmaps", name=f"{self._config_map}-{number}")
            for number in range(len(self._maps), wanted + 1)
        ]

    def _pieces(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for follower in self._maps:
            for data in follower.data.values():
                for key, text in data.items():
                    if isinstance(text, str):
                        found[key] = text.encode("utf-8", "surrogatepass")
        return found

    async def _look(self) -> bool:
        """Take in what the followers have; true when there is another document."""
        async with self._writing:
            await self._write()
        followers = (*self._maps, self._secrets)
        reason = next((one.trouble for one in followers if one.trouble), "")
        sheet: Sheet | None = None
        passing = False
        # Nothing is taken before all of it has been seen once: a document without its Secrets
        # would serve no certificate.
        if all(one.synced for one in followers):
            try:
                sheet = await asyncio.to_thread(assemble, self._pieces())
            except IncompleteError as error:
                passing = not reason and bool(self._maps[0].data)
                reason = reason or self._incomplete(str(error))
        reason = reason or self._unwritable
        self._loss.note(reason, now=time.monotonic(), passing=passing)
        if sheet is None or (self.sheet is not None and sheet.sha256 == self.sheet.sha256):
            return False
        self.sheet = sheet
        return True

    def _incomplete(self, why: str) -> str:
        if not self._maps[0].data:
            return f"there is no {self.name}; the controller writes it"
        return f"{self.name}: {why}"

    async def _write(self) -> None:
        """Write the Secrets that are named and are not in files as they are in the cluster."""
        known = self._secrets.data
        fresh = self._pairs(known)
        due = {name: pair for name, pair in fresh.items() if self._written.get(name) != pair}
        for name in self._written.keys() - known.keys():
            # Its files stay: the last good certificate serves until it expires.
            log.warning("config.secret_gone", extra={"source": self.name, "secret": name})
            del self._written[name]
        if not due:
            return
        self._unwritable = await asyncio.to_thread(self._put, due)

    def _pairs(self, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, bytes]]:
        """The pairs of the Secrets that are named; thousands, of which one or none has changed."""
        before, self._decoded = self._decoded, {}
        for name in self._names:
            data = known.get(name)
            if data is not None:
                found = before.get(name)
                if found is None or found[0] is not data:
                    found = (data, _pair(data))
                self._decoded[name] = found
        return {name: pair for name, (_, pair) in self._decoded.items()}

    def _put(self, due: Mapping[str, Mapping[str, bytes]]) -> str:
        """Write; returns what went wrong, "" when nothing did."""
        for name, pair in due.items():
            try:
                self._folder.put(name, pair)
            except OSError as error:
                return (
                    f"Secrets cannot be written to {self._folder.path}: {error.strerror or error}"
                )
            self._written[name] = pair
        return ""

    def __repr__(self) -> str:
        return f"<KubernetesFeed {self.name}>"


def _pair(data: Mapping[str, Any]) -> Mapping[str, bytes]:
    """The certificate and the key in a Secret, as far as they are there."""
    found: dict[str, bytes] = {}
    for key in ("tls.crt", "tls.key"):
        text = data.get(key)
        if isinstance(text, str):
            try:
                found[key] = base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                continue
    return found
