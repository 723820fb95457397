"""Names that nobody may send the proxy's connections to; addresses are `heim_config.addresses`.

Whoever may write ExternalName Services chooses where the proxy connects. Where a name leads is
found out when it is dialled, and judged once more by the proxy: this is the first line of two.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from heim_controller.translation.hosts import canonical_host

__all__ = ["joined", "usable_name"]

# Names of metadata services that are not addresses already.
_METADATA: Final = frozenset(("metadata.google.internal", "metadata.goog"))
_METADATA_SUFFIX: Final = "instance-data.ec2.internal"
# What the cluster's own names have before its domain.
_CLUSTER: Final = ("svc", "pod")
_LOCAL: Final = ("localhost", "localdomain", "local")


def usable_name(text: str, cluster_domain: str, namespaces: Container[str] = ()) -> bool:
    """Whether a DNS name from outside the cluster may be dialled.

    A pod's resolver tries names under svc.<cluster domain> first, so ``web`` and ``web.bank`` are
    Services: single labels are refused, and names whose last label is one of `namespaces`.
    """
    name = canonical_host(text)
    if name is None or "." not in name or name.startswith("*"):
        return False
    labels = name.split(".")
    if labels[-1] in _LOCAL or "localhost" in labels or ".svc." in name:
        return False
    if labels[-1] in _CLUSTER or labels[-1] in namespaces:
        return False
    if name in _METADATA or name == _METADATA_SUFFIX or name.endswith(f".{_METADATA_SUFFIX}"):
        return False
    own = cluster_domain.lower().strip(".")
    return name != own and not name.endswith(f".{own}")


def joined(address: str, port: int) -> str:
    """An address with its port as URLs have it: IPv6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
