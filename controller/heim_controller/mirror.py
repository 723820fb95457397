"""Copies of the TLS Secrets in use, in the Proxy's namespace: all that the proxy may read.

A mirror holds nothing but a certificate and its key, and only ever a good pair: what its Secret
turned into afterwards does not reach it. A Secret of that name that is not ours is left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from heim_controller.certificates import Book
from heim_controller.kube.apply import owner_reference
from heim_controller.kube.client import Client
from heim_controller.kube.errors import (
    Busy,
    Conflict,
    KubeError,
    LeadershipLost,
    NotFound,
    Unreachable,
)
from heim_controller.kube.resources import SECRETS, Key, Manifest
from heim_controller.options import Options
from heim_controller.translation.certificates import mirror_name
from heim_controller.translation.objects import annotations_of, labels_of, listed, mapping, text

__all__ = ["MIRROR_OF", "PART_OF", "Mirrors", "Plan", "mirrors_of", "plan"]

log = logging.getLogger(__name__)

# The proxy follows the Secrets that have this label, with the ConfigMap's name as value.
PART_OF: Final = "heim.dev/part-of"
# On a mirror: namespace/name of the Secret it is of.
MIRROR_OF: Final = "heim.dev/mirror-of"


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to be done to the mirrors.

    Attributes:
        write: Mirrors that are not as they should be; True for those that are there and ours.
        remove: Mirrors that nothing needs any more.
        foreign: Names that somebody else's Secret has.
    """

    write: list[tuple[Manifest, bool]] = field(default_factory=list)
    remove: list[Manifest] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def mirrors_of(own: Mapping[Key, Manifest]) -> dict[Key, Manifest]:
    """Our mirrors among the Secrets of the Proxy's namespace, by the Secret that each is of."""
    found = {}
    for secret in own.values():
        origin = text(annotations_of(secret).get(MIRROR_OF))
        namespace, slash, name = origin.partition("/")
        if (
            slash
            and PART_OF in labels_of(secret)
            and _name(secret) == mirror_name((namespace, name))
        ):
            found[namespace, name] = secret
    return found


def plan(
    own: Mapping[Key, Manifest],
    book: Book,
    needed: Iterable[Key],
    options: Options,
    owner: Manifest | None,
) -> Plan:
    """What separates the mirrors that are there from those that are needed. Pure.

    Args:
        own: The Secrets of the Proxy's namespace.
        book: Where the good pairs are.
        needed: The Secrets that the document refers to.
        options: Namespace and label.
        owner: The Proxy object, so that Kubernetes removes the mirrors with it; None without one.
    """
    made = Plan()
    names = set()
    for key in sorted(needed):
        name = mirror_name(key)
        names.add(name)
        pair = book.pair(key)
        if pair is None:
            continue
        wanted = _mirror(key, (pair.certificate, pair.key), options, owner)
        found = own.get((options.namespace, name))
        if found is None:
            made.write.append((wanted, False))
        elif labels_of(found).get(PART_OF) != options.config_map:
            made.foreign.append(name)
        elif not _agrees(wanted, found):
            made.write.append((wanted, True))
    for secret in own.values():
        ours = labels_of(secret).get(PART_OF) == options.config_map
        if ours and MIRROR_OF in annotations_of(secret) and _name(secret) not in names:
            made.remove.append(secret)
    return made


class Mirrors:
    """Carries plans out.

    Attributes:
        written: Mirrors written.
        removed: Mirrors removed.
        failed: Writes and removals that the API server refused.
    """

    def __init__(self, client: Client, options: Options) -> None:
        """Write nothing yet."""
        self._client = client
        self._options = options
        self._warned: frozenset[str] = frozenset()
        self.written = 0
        self.removed = 0
        self.failed = 0

    async def write(self, todo: Plan) -> bool:
        """Write what is needed; True when everything is as it should be.

        One that is refused does not stop the others: its certificate is missing, and theirs are
        not.

        Raises:
            KubeError: There is no API server to write to.
        """
        foreign = frozenset(todo.foreign)
        for name in sorted(foreign - self._warned):
            log.warning("controller.mirror_name_taken", extra={"secret": name})
        self._warned = foreign
        good = not foreign
        for wanted, ours in todo.write:
            name = wanted["metadata"]["name"]
            try:
                # One that was not there a moment ago may be there now, and be somebody else's.
                await self._client.apply(SECRETS, wanted, force=ours)
            except (Unreachable, Busy, LeadershipLost):
                raise
            except KubeError as e:
                good = False
                self._refused(name, e)
            else:
                self.written += 1
                log.info("controller.mirrored", extra={"secret": name})
        return good

    async def sweep(self, todo: Plan) -> None:
        """Remove what is not needed; call it once the document does not name it any more.

        Raises:
            KubeError: There is no API server to ask.
        """
        for secret in todo.remove:
            metadata = secret["metadata"]
            try:
                await self._client.delete(
                    SECRETS,
                    metadata["name"],
                    namespace=metadata["namespace"],
                    uid=metadata.get("uid"),
                )
            except (NotFound, Conflict):
                continue  # somebody was faster, or it is another Secret by now
            except (Unreachable, Busy, LeadershipLost):
                raise
            except KubeError as e:
                self._refused(metadata["name"], e)
            else:
                self.removed += 1
                log.info("controller.unmirrored", extra={"secret": metadata["name"]})

    def _refused(self, name: str, error: KubeError) -> None:
        self.failed += 1
        log.warning("controller.mirror_failed", extra={"secret": name, "error": str(error)})


def _mirror(key: Key, pair: tuple[str, str], options: Options, owner: Manifest | None) -> Manifest:
    metadata: dict[str, Any] = {
        "name": mirror_name(key),
        "namespace": options.namespace,
        "labels": {PART_OF: options.config_map},
        "annotations": {MIRROR_OF: "/".join(key)},
    }
    if owner is not None:
        metadata["ownerReferences"] = [owner_reference(owner)]
    return {
        "metadata": metadata,
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": pair[0], "tls.key": pair[1]},
    }


def _agrees(wanted: Manifest, found: Manifest) -> bool:
    metadata = wanted["metadata"]
    owners = listed(mapping(found.get("metadata")).get("ownerReferences"))
    return (
        found.get("data") == wanted["data"]
        and annotations_of(found).get(MIRROR_OF) == metadata["annotations"][MIRROR_OF]
        and all(
            any(mapping(one).get("uid") == owner["uid"] for one in owners)
            for owner in metadata.get("ownerReferences", ())
        )
    )


def _name(secret: Manifest) -> str:
    return str(secret["metadata"]["name"])
