"""Addresses that nobody but the operator may send the proxy's connections to.

Whoever may write EndpointSlices, or names that resolve to what they like, chooses where the proxy
connects. What only the proxy's own machine can reach must not come within their reach: loopback
(the admin listener), link-local and other addresses of clouds' metadata services, multicast.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final

__all__ = ["usable_address"]

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
# Every endpoint of a large cluster is looked at in each translation.
_REMEMBERED: Final = 16384


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
