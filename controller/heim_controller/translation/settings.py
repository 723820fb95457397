"""What a translation is told by whoever runs the controller, not by objects of the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from heim_controller.translation.objects import Key

__all__ = ["CONTROLLER", "GROUP", "Settings"]

# `spec.controller` of the IngressClasses that are ours; immutable there, so fixed here.
CONTROLLER: Final = "heim.dev/ingress-controller"
# The API group of our own kinds, and the prefix of our annotations.
GROUP: Final = "heim.dev"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the boot configuration and the command line say.

    `proxy` is the one Proxy object that is translated for; its namespace is where the proxy runs,
    and whose objects speak for the installation. `domain` and `login_host` are those of the boot
    configuration; the login host defaults to auth.<domain>. `cluster_domain` is what the cluster's
    own names end in. `providers` are the identity providers with the domains each is authoritative
    for, `service_accounts` the programs that act under their own name: members of roles must be
    among them, or the whole document could not be loaded. `plain_http` says that there is a plain
    listener. `without_class` adopts Ingresses that name no class, as long as exactly one of
    our classes is the default. `address_map` replaces addresses of endpoints when they are written
    down: for tests, whose servers live on loopback, which no real endpoint can.
    """

    proxy: Key
    domain: str
    login_host: str = ""
    cluster_domain: str = "cluster.local"
    providers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    service_accounts: frozenset[str] = frozenset()
    plain_http: bool = True
    without_class: bool = True
    address_map: Mapping[str, str] = field(default_factory=dict)
