"""A running stream: a client's WebSocket joined with an upstream, ended with words.

Bytes pass from the client's transport through `Channel` and `Relay` to the upstream's and back,
without a task or a future; here is what happens beside them: newer tokens, notices, deadlines, and
every way in which a stream ends.
"""

from __future__ import annotations

import asyncio
import math
from time import monotonic
from typing import TYPE_CHECKING, Final

from heim_proxy.edge.limits import SESSION_LOAD_S
from heim_proxy.identity.bearer import Bearer
from heim_proxy.store.base import StoreUnavailable
from heim_proxy.tunnel import record
from heim_proxy.tunnel.terms import Terms
from heim_runtime.tasks import spawn
from heim_wire.aio.channel import Channel
from heim_wire.aio.sockets import tune_carriage
from heim_wire.errors import FAILURES, Code
from heim_wire.events import Auth, Dead
from heim_wire.handshake import answer_upgrade
from heim_wire.session import Session as WireSession
from heim_wire.settings import Settings
from heim_wire.websocket import WebSocket

if TYPE_CHECKING:
    from heim_proxy.edge.connection import Front
    from heim_proxy.identity.session import Session
    from heim_proxy.live import EndReason
    from heim_proxy.tunnel.door import Tunnel
    from heim_proxy.tunnel.passage import Passage
    from heim_wire.aio.relay import Relay
    from heim_wire.events import Event
    from heim_wire.messages import Message

__all__ = ["GOODBYE_S", "TunnelStream"]

# A client whose permission ended has this long to close; then the connection is cut. With a
# revocation noticed late by a tick, and this by two sweeps, all is over within 2 s. (Where nobody
# has to go, `Channel.finish` gives a slow line more.)
GOODBYE_S: Final = 0.5
# The client may open no streams: its one was opened by the request.
_SETTINGS: Final = Settings(max_streams=0)
# HELLO, READY and a WINDOW are some 300 bytes.
_FIRST_BYTES: Final = 16 * 1024
# What logs call an end that is not our decision. A client may send any number in a RESET; it must
# not make the log say that access was withdrawn.
_ENDS: Final = {
    code: FAILURES[code].slug
    for code in (
        Code.PROTOCOL,
        Code.FLOW,
        Code.INTERNAL,
        Code.CONNECTION_RESET,
        Code.AGENT_LOST,
    )
}


class TunnelStream:
    """Owns a client connection (`edge.door.Occupant`) and its channel, from `open` to `_finish`.

    `prepare` and then `open` begin it.
    """

    __slots__ = (
        "_channel", "_front", "_leaving", "_passage", "_refreshing", "_relay", "_running", "_terms",
        "_tunnel", "_wire", "due", "end_reason", "over", "started", "upstream_name", "valid_until",
    )  # fmt: skip

    _channel: Channel
    _relay: Relay
    _terms: Terms
    _wire: WireSession

    def __init__(self, tunnel: Tunnel, front: Front, passage: Passage) -> None:
        """Prepare; nothing runs before `open`."""
        self._tunnel = tunnel
        self._front = front
        self._passage = passage
        # From `open` until both its sides are done with; then only goodbyes are left.
        self._running = False
        # It was ended, and the client has until a deadline to close.
        self._leaving = False
        self._refreshing = False
        self.upstream_name = str(passage.target.endpoint)
        # Both are asked for twice a second, of every stream there is: plain attributes, kept up to
        # date by `_renew` and `tick`. Until when it may run (the live registry's), and when `tick`
        # has something to do next; seconds since the epoch.
        self.valid_until = math.inf
        self.due = math.inf
        self.started = monotonic()
        self.end_reason = ""
        self.over = False

    def prepare(self) -> bytes:
        """The answer's head; nothing has changed for anybody when this fails.

        Raises:
            ValueError: A name or an id does not fit into what is to be said.
        """
        self._wire = WireSession(
            initiator=False,
            now=monotonic(),
            settings=_SETTINGS,
            budget=self._tunnel.places.budget(self._passage.session.subject),
        )
        self._wire.ready(self._ready())
        headers = (("Heim-Request-Id", self._passage.request_id),)
        return answer_upgrade(self._passage.key, headers)

    def open(self, answer: bytes, relay: Relay, early: bytes) -> None:
        """Answer 101, HELLO and READY in one write, and relay.

        Args:
            answer: From `prepare`, this turn.
            relay: Connected to the upstream.
            early: What the client sent before it was answered.
        """
        front = self._front
        edge = front.edge
        wire = self._wire
        stream = wire.adopt()
        websocket = WebSocket(client=False)
        parts, total = wire.take(_FIRST_BYTES)
        front.write(answer + websocket.frame(parts, total))
        tune_carriage(front.transport.get_extra_info("socket"))
        self._relay = relay
        self._channel = Channel(wire, websocket, front.transport, self, single=True)
        self._terms = Terms(self._passage.target, edge.now(), again=self._passage.again)
        self._running = True
        self._renew()
        edge.live.add(self)
        self._tunnel.opened(self)
        record.opened(self._tunnel.audit, front, self._passage)
        # From here on the session's own pings find out whether the client is there.
        front.expect(math.inf, "stream")
        if front.write_paused:
            self._channel.pause_writing()
        relay.join(self._channel, stream)
        if early:
            self._channel.feed(early)

    def _ready(self) -> Message:
        passage = self._passage
        end = passage.token_end
        return {
            "user": passage.user,
            "backend": passage.backend.name,
            "expires": int(end) if math.isfinite(end) else None,
            "request_id": passage.request_id,
        }

    # -- for the live registry --------------------------------------------------------------

    @property
    def live_session(self) -> Session:
        """The login it runs under."""
        return self._passage.session

    def review(self) -> EndReason | None:
        """Why it may not go on under the snapshot now in force; None when it may."""
        reason = self._passage.review(self._front.edge.judge)
        self._terms.change(self._passage.target)
        self._renew()
        return reason

    def _renew(self) -> None:
        """Something changed that says how long it may run."""
        self.valid_until = self._passage.valid_until(self._front.edge.snapshot)
        if self._running:
            self.due = -math.inf

    def end(self, reason: EndReason) -> None:
        """The permission no longer holds: stop both sides now."""
        edge = self._front.edge
        ending = self._passage.ending(reason, edge.snapshot, edge.now())
        self._stop(ending.code, ending.end, ending.words)

    # -- for the edge -----------------------------------------------------------------------

    @property
    def request_done(self) -> bool:
        """The request had no body."""
        return True

    @property
    def upgraded(self) -> bool:
        """The connection is a byte stream."""
        return True

    def client_data(self, data: bytes) -> bytes:
        """Bytes from the client."""
        self._channel.feed(data)
        return b""

    def hold_upstream(self) -> None:
        """The client's transport is full."""
        self._channel.pause_writing()

    def release_upstream(self) -> None:
        """The client's transport takes more."""
        self._channel.resume_writing()

    def client_gone(self) -> None:
        """The client's connection is gone."""
        self._channel.connection_lost(None)
        self._finish("client_gone")

    def timed_out(self, kind: str) -> None:
        """A deadline passed: `kind` is goodbye."""
        self.abort()

    # -- for the channel and the relay ------------------------------------------------------

    def event(self, channel: Channel, event: Event) -> None:
        """What is for nobody else: of a client, only AUTH says anything to us."""
        if type(event) is Auth and self._running:
            self._refresh(event.message)
        elif type(event) is Dead:
            self.end_reason = self.end_reason or FAILURES[Code.PEER_LOST].slug

    def closed(self, channel: Channel, code: int, reason: str) -> None:
        """The channel ended, and `relay_over` was told why."""
        self._finish("client_gone")

    def relay_over(self, relay: Relay, code: int, reason: str) -> None:
        """Both directions are done with: close in good order once everything was written."""
        if not self._running:
            return
        self._running = False
        self.due = math.inf
        if code:
            self.end_reason = self.end_reason or _ENDS.get(code, "client_gone")
        self._channel.finish()

    # -- while it runs ----------------------------------------------------------------------

    @property
    def bytes_in(self) -> int:
        """Bytes of the client's that the upstream was given."""
        return self._relay.received

    @property
    def bytes_out(self) -> int:
        """Bytes of the upstream's that were taken for the client."""
        return self._relay.sent

    def tick(self, now: float) -> None:
        """Tell what is to be told, and stop when it is time."""
        login_end = self._passage.login_end(self._front.edge.snapshot)
        moved = self.bytes_in + self.bytes_out
        notices, stop = self._terms.check(now, moved=moved, login_end=login_end)
        self.due = self._terms.due
        if stop is not None:
            self._stop(stop.code, stop.end, stop.reason)
        for text in notices:
            self._notice(text)

    def go_away(self, patience_s: float) -> None:
        """The proxy shuts down: the stream may go on for `patience_s` seconds."""
        if not self._running:
            return
        reason = "the proxy is restarting"
        self._wire.goaway(Code.GOING_AWAY, reason, drain=patience_s)
        self._notice(f"{reason}; this connection ends in {patience_s:.0f} s at the latest")

    def _notice(self, text: str) -> None:
        if self._running:
            self._wire.notice(text)
            self._channel.wake()

    def _refresh(self, message: Message) -> None:
        """AUTH: the client has a newer token. One is judged at a time; others are dropped."""
        token = message.get("token")
        if message.get("kind") != "bearer" or not isinstance(token, str):
            self._notice("your client sent a credential that this proxy does not know")
        elif not self._refreshing:
            self._refreshing = True
            spawn("tunnel.refresh", self._judge_again(token))

    async def _judge_again(self, token: str) -> None:
        edge = self._front.edge
        passage = self._passage
        try:
            async with asyncio.timeout(SESSION_LOAD_S):
                bearer = await self._tunnel.bearers.authenticate(token, edge.now())
        except (StoreUnavailable, TimeoutError):
            edge.metrics.store_errors.add("authenticate")
            self._notice("your login cannot be checked just now")
            return
        finally:
            self._refreshing = False
        if not isinstance(bearer, Bearer):
            self._notice(f"the new access token was refused: {bearer.detail}")
        elif bearer.session.sid != passage.session.sid:
            # Somebody else's, or another login's: what this stream may do was asked for this one.
            self._notice("the new access token was refused: it is of another login")
        elif self._running:
            passage.token_end = max(passage.token_end, bearer.expires)
            self._renew()
            self._wire.ready(self._ready())
            self._channel.wake()

    # -- ends -------------------------------------------------------------------------------

    def _stop(self, code: int, end: str, reason: str) -> None:
        """Reset the stream both ways, telling the client why."""
        if self._running:
            self.end_reason = end
            # Calls `relay_over`.
            self._relay.end(code, reason)
        if not self._leaving:
            # Once: the registry says "expired" with every sweep, and must not move the deadline.
            self._leaving = True
            self._front.expect(GOODBYE_S, "goodbye")

    def abort(self) -> None:
        """End without a word."""
        if self._running:
            self.end_reason = FAILURES[Code.INTERNAL].slug
        self._channel.abort()
        self._front.abort()
        self._finish("client_gone")

    def _finish(self, end: str) -> None:
        if self.over:
            return
        self.over = True
        if self._running:
            self._running = False
            # A client that said goodbye has no part in how long the upstream takes for the rest.
            if not self._relay.complete:
                self.end_reason = self.end_reason or end
                self._relay.end(Code.PEER_LOST, "the client has gone")
        front = self._front
        front.edge.live.discard(self)
        self._tunnel.closed(self)
        self._tunnel.places.leave(self._passage.session.subject)
        record.closed(self._tunnel.audit, front, self._passage, self)
        front.keep_alive = False
        front.exchange_done(self)
