"""Addresses and names that nobody may send the proxy's connections to.

Whoever may write EndpointSlices or ExternalName Services chooses where the proxy connects. What
only the proxy's own machine can reach must not come within their reach: loopback (the admin
listener), link-local and other addresses of clouds' metadata services, multicast. Where a name
leads is found out when it is dialled, so for names this is the first line and not the last.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Container
from functools import lru_cache
from typing import Final

from heim_controller.translation.hosts import canonical_host

__all__ = ["joined", "usable_address", "usable_name"]

# IPv4 as the API server writes it, without 0/8, loopback, link-local and multicast upwards.
_IPV4: Final = re.compile(
    r"(?!0\.|127\.|169\.254\.|22[4-9]\.|2[3-5][0-9]\.)"
    r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}"
    r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])",
    re.ASCII,
)
# Metadata services of clouds that are not on link-local addresses: AWS and Google over IPv6,
# Azure's agent, Alibaba, Oracle.
_METADATA_ADDRESSES: Final = frozenset(
    map(
        ipaddress.ip_address,
        ("fd00:ec2::254", "fd20:ce::254", "168.63.129.16", "100.100.100.200", "192.0.0.192"),
    )
)
_WITHIN_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
# Names of metadata services that are not addresses already.
_METADATA: Final = frozenset(("metadata.google.internal", "metadata.goog"))
_METADATA_SUFFIX: Final = "instance-data.ec2.internal"
# What the cluster's own names have before its domain.
_CLUSTER: Final = ("svc", "pod")
# Every endpoint of a large cluster is looked at in each translation.
_REMEMBERED: Final = 16384
_LOCAL: Final = ("localhost", "localdomain", "local")


@lru_cache(_REMEMBERED)
def usable_address(text: str) -> bool:
    """Whether an IP address may be dialled."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address in _METADATA_ADDRESSES:
        return False
    if address.version == 4:
        return _IPV4.fullmatch(text) is not None
    if address.scope_id:
        return False
    # ::ffff:127.0.0.1 and what 6to4, Teredo and NAT64 wrap lead to the IPv4 address inside.
    if address.ipv4_mapped or address.sixtofour or address.teredo or address in _WITHIN_NAT64:
        return False
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_unspecified
        or address.is_multicast
        or address.is_site_local
        # ::127.0.0.1, which some stacks still route.
        or address.packed.startswith(bytes(12))
    )


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
