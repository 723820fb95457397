"""What an agent serves: a name, a place on this machine or network, and who may use it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """One entry of the allow-list.

    Attributes:
        name: What the proxy calls it.
        host: Name or address; "" for a unix socket.
        port: 0 for a unix socket.
        path: Of the unix socket; "" for TCP.
        role: Role that the user must hold by the proxy's word, or None.
        proxy_protocol: Whether a PROXY v2 header with the user's address and name goes first.
        connect_timeout_s: For the dial, names and every address included.
    """

    name: str
    host: str = ""
    port: int = 0
    path: str = ""
    role: str | None = None
    proxy_protocol: bool = False
    connect_timeout_s: float = 5.0

    @property
    def address(self) -> str:
        """The place as agent.toml writes it."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
