"""The transport's side of a channel: handshake first, then every byte to the `Channel`.

`Connection` is the protocol of a transport that is, or becomes, the carriage of a session.
"""

from __future__ import annotations

import asyncio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from heim_wire.aio.channel import Channel, Handler
    from heim_wire.handshake import Upgrade
    from heim_wire.session import Session

__all__ = ["Connection", "upgrade"]


class Connection(asyncio.Protocol):
    """Carries a channel. The server's side is made with `serve`, the client's with `upgrade`."""

    channel: Channel

    @classmethod
    def serve(
        cls,
        transport: asyncio.Transport,
        session: Session,
        handler: Handler,
        *,
        early: bytes = b"",
        single: bool = False,
    ) -> Connection:
        """Take over a server's transport right after its 101 was written.

        Sets the transport's protocol. `early` is what came behind the request's head.
        """
        raise NotImplementedError


async def upgrade(
    transport: asyncio.Transport,
    request: Upgrade,
    session: Session,
    handler: Handler,
    *,
    single: bool = False,
    timeout_s: float,
) -> Channel:
    """Turn a fresh client connection into a channel; takes over `transport` and its protocol.

    Raises:
        Refused: The answer was not 101. The transport is closed.
        TimeoutError: No answer within `timeout_s`. The transport is closed.
    """
    raise NotImplementedError
