"""What `heim-tunnel doctor` knows while it looks, and what it tells."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from heim_runtime.webproxy import WebProxy
from heim_tunnel.credentials import Login
from heim_tunnel.dial import Way
from heim_tunnel.invocation import Invocation
from heim_tunnel.login import with_authorities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from heim_runtime.race import Address

__all__ = ["Case", "Finding", "milliseconds"]

Mark = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a step found. `advice` says what to do; a failure always has one."""

    mark: Mark
    step: str
    text: str
    advice: str = ""


@dataclass(slots=True)
class Case:
    """What is examined, and what the steps so far have learnt."""

    invocation: Invocation
    # None when only the way to the login host is examined.
    backend: str | None
    idle_s: float = 0.0
    login: Login | None = None
    proxied: WebProxy | None = None
    # Whom the proxy names as its login host: shown, and asked about a service token that is for it.
    named: str = ""
    addresses: list[Address] = field(default_factory=list)

    @property
    def host(self) -> str:
        """Whom we connect to."""
        return self.invocation.dialled.host

    @property
    def way(self) -> Way:
        """How, with the authorities of the login, as soon as that is known."""
        return with_authorities(self.invocation.way, self.login)

    @property
    def first_hop(self) -> tuple[str, int]:
        """The host and port that a TCP connection of ours goes to."""
        if self.proxied is not None:
            return self.proxied.host, self.proxied.port
        target = self.way.connect_to or self.invocation.dialled
        return target.host, target.port


def milliseconds(began: float) -> str:
    """How long it is since `began` on the monotonic clock, for people."""
    return f"{(time.monotonic() - began) * 1000:.0f} ms"
