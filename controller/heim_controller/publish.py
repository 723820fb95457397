"""The configuration document in ConfigMaps: written when it changed, whole or not at all.

Further shards are written first and the index last; the index says how the whole must hash, so the
proxy never takes half of a change. Every write says which version it replaces: one that a former
leader sent and that arrives late is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heim_controller.kube.apply import owner_reference
from heim_controller.kube.client import Client
from heim_controller.kube.errors import Conflict, KubeError, NotFound
from heim_controller.kube.resources import CONFIG_MAPS, Manifest, stripped, version_of
from heim_controller.mirror import PART_OF
from heim_controller.options import Options
from heim_controller.sharding import MAX_SHARDS, Sheet, join
from heim_controller.translation.objects import annotations_of, labels_of, listed, mapping, text

__all__ = ["TOLD", "Publisher"]

log = logging.getLogger(__name__)

# On the first ConfigMap: which diagnostics were last told in Events, and when; see `reporting`.
TOLD = "heim.dev/told"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One ConfigMap as it should be."""

    name: str
    data: Mapping[str, str]
    annotations: Mapping[str, str]


class Publisher:
    """Knows what the ConfigMaps hold, and makes them hold something else.

    Attributes:
        sheet: The document that is published, None when there is none.
        told: What stands there of diagnostics told.
        written: ConfigMaps written.
    """

    def __init__(self, client: Client, options: Options) -> None:
        """Know nothing yet: `load` first."""
        self._client = client
        self._options = options
        # As the API server has them; None for those that it does not have.
        self._known: dict[str, Manifest | None] = {}
        self.sheet: Sheet | None = None
        self.told = ""
        self.written = 0

    @property
    def names(self) -> list[str]:
        """Every ConfigMap that a document may be in, the first one first."""
        name = self._options.config_map
        return [name, *(f"{name}-{number}" for number in range(1, MAX_SHARDS))]

    async def load(self) -> None:
        """Read what is published.

        Raises:
            KubeError: It cannot be read.
        """
        known: dict[str, Manifest | None] = {}
        for name in self.names:
            try:
                known[name] = stripped(
                    await self._client.get(CONFIG_MAPS, name, namespace=self._options.namespace)
                )
            except NotFound:
                known[name] = None
        self._known = known
        self._understand()

    async def refresh(self) -> bool:
        """Look whether somebody else changed the first ConfigMap, and read everything anew if so.

        Raises:
            KubeError: It cannot be read.

        Returns:
            Whether that was so.
        """
        name = self._options.config_map
        try:
            found = await self._client.get(CONFIG_MAPS, name, namespace=self._options.namespace)
        except NotFound:
            found = None
        known = self._known.get(name)
        if _version(found) == _version(known):
            return False
        await self.load()
        return True

    async def publish(
        self, data: list[dict[str, str]], *, owner: Manifest | None, told: str
    ) -> bool:
        """Make the ConfigMaps hold `data`; True when something had to be written.

        Args:
            data: Of each ConfigMap, the first one first.
            owner: The Proxy object, so that Kubernetes removes them with it; None without one.
            told: What to remember of diagnostics.

        Raises:
            KubeError: Not everything could be written; what the proxy has in force stays.
        """
        wanted = [
            _Wanted(name, part, {TOLD: told} if not number and told else {})
            for number, (name, part) in enumerate(zip(self.names, data, strict=False))
        ]
        due = [one for one in wanted if not self._agrees(one, owner)]
        try:
            for one in reversed(due):
                await self._write(one, owner)
            for name in self.names[len(wanted) :]:
                await self._remove(name)
        except Conflict:
            # Somebody else wrote: what we know is not what is there.
            await self.load()
            raise
        finally:
            self._understand()
        return bool(due)

    async def _write(self, wanted: _Wanted, owner: Manifest | None) -> None:
        metadata: dict[str, Any] = {
            "name": wanted.name,
            "namespace": self._options.namespace,
            "labels": {PART_OF: self._options.config_map},
        }
        if wanted.annotations:
            metadata["annotations"] = dict(wanted.annotations)
        if owner is not None:
            metadata["ownerReferences"] = [owner_reference(owner)]
        known = self._known.get(wanted.name)
        if known is not None:
            metadata["resourceVersion"] = version_of(known)
        manifest = {"metadata": metadata, "data": dict(wanted.data)}
        self._known[wanted.name] = stripped(await self._client.apply(CONFIG_MAPS, manifest))
        self.written += 1

    async def _remove(self, name: str) -> None:
        known = self._known.get(name)
        if known is None or labels_of(known).get(PART_OF) != self._options.config_map:
            return
        try:
            await self._client.delete(
                CONFIG_MAPS,
                name,
                namespace=self._options.namespace,
                uid=known["metadata"].get("uid"),
            )
        except (NotFound, Conflict):
            log.debug("controller.config_map_gone", extra={"config_map": name})
        except KubeError as e:
            # Nothing refers to it any more: it costs a megabyte, and no change waits for it.
            log.warning("controller.config_map_left", extra={"config_map": name, "error": str(e)})
            return
        self._known[name] = None

    def _agrees(self, wanted: _Wanted, owner: Manifest | None) -> bool:
        found = self._known.get(wanted.name)
        if found is None:
            return False
        owners = listed(mapping(found.get("metadata")).get("ownerReferences"))
        return (
            found.get("data") == wanted.data
            and labels_of(found).get(PART_OF) == self._options.config_map
            and all(
                annotations_of(found).get(key) == value for key, value in wanted.annotations.items()
            )
            and (
                owner is None
                or any(mapping(one).get("uid") == owner["metadata"]["uid"] for one in owners)
            )
        )

    def _understand(self) -> None:
        data: dict[str, Any] = {}
        for found in self._known.values():
            data.update(mapping((found or {}).get("data")))
        sheet = join(data)
        if sheet is not None or not data:
            self.sheet = sheet
        first = self._known.get(self._options.config_map) or {}
        self.told = text(annotations_of(first).get(TOLD))

    def __repr__(self) -> str:
        return f"<Publisher {self._options.namespace}/{self._options.config_map} {self.sheet}>"


def _version(found: Manifest | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    return str(found["metadata"].get("uid")), version_of(found)
