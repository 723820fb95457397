"""One forwarded connection: the local program on one side, its own tunnel on the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from heim_runtime.complaints import AUTH, Complaint
from heim_runtime.tasks import spawn
from heim_tunnel.complaints import clean, joined
from heim_tunnel.entrance import in_thread
from heim_wire.aio.relay import Relay
from heim_wire.errors import Code
from heim_wire.events import Data, Ended, Event, GoAway, Notice, Reset

if TYPE_CHECKING:
    from heim_tunnel.entrance import Entrance
    from heim_tunnel.grant import Login
    from heim_wire.aio.channel import Channel

__all__ = ["Passage"]

# When a token is replaced: so much of what it had left when it was first used.
_RENEW_PART: Final = 2 / 3
# Between attempts while the login host cannot be reached, and between renewals at least.
_RETRY_S: Final = 30.0
_PAUSE_S: Final = 1.0
# The longest sleep: monotonic clocks stand still while a laptop sleeps, a token's time does not.
_NAP_S: Final = 30.0


class Passage(Relay):
    """The relay of a local connection, and the owner of its channel."""

    __slots__ = ("_channel_over", "_entrance", "_left", "_renewal", "_say", "_told", "_tunnel")

    def __init__(self, entrance: Entrance, say: Callable[[str], None]) -> None:
        """Wait for the local connection; `run` opens the tunnel.

        Args:
            entrance: Opens it.
            say: Puts a line in front of the person.
        """
        super().__init__(self._settled)
        self._entrance = entrance
        self._say = say
        self._tunnel: Channel | None = None
        self._channel_over = asyncio.Event()
        self._renewal: asyncio.Task[None] | None = None
        # The local program went away by itself: nothing to complain about.
        self._left = False
        # The person knows why it ends.
        self._told = False

    async def run(self) -> None:
        """Open the tunnel and stay until both sides are done with."""
        try:
            channel, stream, login = await self._entrance.open(self)
            self._tunnel = channel
            if login is not None and not channel.over:
                self._renewal = spawn("renewal", self._renew(channel, login))
            if stream.context is None:
                self.join(channel, stream)
            if self.over:
                channel.finish()
            await self._channel_over.wait()
        except Complaint as complaint:
            self._tell(complaint.text)
            self.end(Code.INTERNAL, complaint.text)
        finally:
            self.end(Code.INTERNAL, "given up")
            if self._tunnel is not None and not self._tunnel.over:
                self._tunnel.abort()

    def stop(self) -> None:
        """End both sides because the person said so."""
        self._told = True
        self.end(Code.GOING_AWAY, "heim-tunnel was stopped")

    # -- the local connection -----------------------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the local connection is gone."""
        self._left = self._left or not self.over
        super().connection_lost(exc)

    # -- the channel --------------------------------------------------------------------------

    def event(self, channel: Channel, event: Event) -> None:
        """See `Handler.event`."""
        if isinstance(event, Notice):
            self._say(clean(event.text))
        elif isinstance(event, GoAway):
            self._say(
                joined(
                    clean(event.reason) or "the proxy is restarting",
                    f"this connection may go on for {event.drain:.0f} s",
                )
            )
        elif isinstance(event, Data | Ended | Reset):
            # It came so close behind the 101 that `run` has not joined the stream yet.
            self.join(channel, event.stream)
            if isinstance(event, Data):
                self.data(event.payload)
            elif isinstance(event, Ended):
                self.ended()
            else:
                self.reset(event.code, event.reason)

    def closed(self, channel: Channel, code: int, reason: str) -> None:
        """See `Handler.closed`."""
        if self._renewal is not None:
            self._renewal.cancel()
        self._channel_over.set()

    def _settled(self, relay: Relay, code: int, reason: str) -> None:
        """The local connection and the stream are done with; so is the tunnel, then."""
        if self._tunnel is not None:
            self._tunnel.finish()
        if code and not self._left:
            self._tell(f"a connection was cut: {clean(reason)}")

    def _tell(self, text: str) -> None:
        if not self._told:
            self._told = True
            self._say(text)

    # -- the token ----------------------------------------------------------------------------

    async def _renew(self, channel: Channel, login: Login) -> None:
        """Send new tokens in band before the proxy would have to end the tunnel.

        When it is time is counted by our clock, from what the login host said that the token has
        left: the proxy's clock may be another.
        """
        used = time.time()
        due = used + (login.access_expires - used) * _RENEW_PART
        warned = False
        while True:
            while (left := due - time.time()) > 0:  # noqa: ASYNC110 - a clock gives no event
                await asyncio.sleep(min(left, _NAP_S))
            call = partial(self._entrance.login, refused=login.access_token, sign_in=False)
            try:
                fresh = await in_thread(call)
            except Complaint as complaint:
                if not warned:
                    warned = True
                    end = time.strftime("%H:%M", time.localtime(login.access_expires))
                    self._say(f"{complaint.text} (a connection may end at {end})")
                if complaint.status == AUTH:
                    # Only the person can do something about it.
                    return
                due = time.time() + _RETRY_S
                continue
            assert fresh is not None
            warned, login, used = False, fresh, time.time()
            # Not at once again, whatever the login host says: that would be a storm.
            due = used + max(_PAUSE_S, (login.access_expires - used) * _RENEW_PART)
            channel.session.auth({"kind": "bearer", "token": login.access_token})
            channel.wake()
