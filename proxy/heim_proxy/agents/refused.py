"""Why a connection of an agent is not let in, or is ended: a code, and words for its log."""

from __future__ import annotations

from typing import Final

from heim_proxy.live import EndReason
from heim_wire.errors import FAILURES, Code

__all__ = ["ENDINGS", "LaneRefused", "ending"]


class LaneRefused(Exception):  # noqa: N818 - what happened to it
    """The agent is not let in; it is told GOAWAY.

    Attributes:
        code: A number of `heim_wire.errors.Code`.
        reason: One line that says what to do, where something can be done.
        reconnect_in: Seconds after which it is worth trying again; 0 leaves that to the agent.
    """

    def __init__(self, code: int, reason: str, *, reconnect_in: float = 0.0) -> None:
        super().__init__(reason)
        self.code: Final = code
        self.reason: Final = reason
        self.reconnect_in: Final = reconnect_in

    @property
    def slug(self) -> str:
        """The word for logs and metrics."""
        return FAILURES[self.code].slug


# What the end of a permission means to a lane. In the words, `{name}` is the agent's.
ENDINGS: Final = {
    EndReason.REVOKED: (Code.REVOKED, "agent {name} was revoked on this machine; join again"),
    EndReason.LOGOUT: (Code.REVOKED, "agent {name} was revoked on this machine; join again"),
    EndReason.EXPIRED: (Code.EXPIRED, "the certificate has expired and was not renewed"),
    EndReason.POLICY_CHANGED: (Code.FORBIDDEN, "agent {name} is not configured any more"),
    EndReason.SHUTDOWN: (Code.GOING_AWAY, "the proxy is restarting"),
}


def ending(reason: EndReason, name: str) -> tuple[int, str]:
    """The code and the words for a lane that must end."""
    code, words = ENDINGS.get(reason, (Code.REVOKED, "this connection of agent {name} must end"))
    return code, words.format(name=name)
