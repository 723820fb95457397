"""A permitted stream on its way to its upstream: it becomes a `TunnelStream`, or is refused.

It is in the live registry before it dials, so that whatever takes the permission away meanwhile (a
sign-out, another configuration) finds it and nothing is answered.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Final

from heim_proxy.edge.dial import AgentDialError, DialError, EndpointDialer, Errand
from heim_proxy.edge.limits import SWEEP_S
from heim_proxy.tunnel import refusals
from heim_proxy.tunnel.streams import TunnelStream
from heim_runtime.tasks import spawn
from heim_wire.aio.relay import Relay
from heim_wire.errors import Code

if TYPE_CHECKING:
    from heim_proxy.edge.connection import Front
    from heim_proxy.edge.dial import Dialer
    from heim_proxy.edge.responses import Refusal
    from heim_proxy.identity.session import Session
    from heim_proxy.live import EndReason
    from heim_proxy.routing import Backend
    from heim_proxy.tunnel.door import Tunnel
    from heim_proxy.tunnel.early import Early
    from heim_proxy.tunnel.passage import Passage

__all__ = ["DIAL_S", "Dialling"]

log = logging.getLogger(__name__)

# Below what load balancers wait for an answer; `timeouts.connect` may make it shorter.
DIAL_S: Final = 10.0


class Dialling:
    """Owns a client connection (`edge.door.Occupant`) while its upstream is dialled."""

    __slots__ = (
        "_early", "_front", "_passage", "_relay", "_stream", "_task", "_tunnel",
        "end_reason", "over", "request_id", "upstream_name",
    )  # fmt: skip

    def __init__(self, tunnel: Tunnel, front: Front, passage: Passage, early: Early) -> None:
        """Nothing is dialled yet; a place of the subject's must have been claimed."""
        self._tunnel = tunnel
        self._front = front
        self._passage = passage
        self._early = early
        self._stream = TunnelStream(tunnel, front, passage)
        self._relay: Relay | None = None
        self._task: asyncio.Task[None] | None = None
        self.upstream_name = str(passage.target.endpoint)
        self.request_id = front.request_id
        self.end_reason = ""
        self.over = False

    def start(self) -> None:
        """Register, and connect to the upstream."""
        patience = min(self.backend.timeouts.connect, DIAL_S)
        self._front.edge.live.add(self)
        # The task keeps its own deadline; this one only catches a dial that never ends.
        self._front.expect(patience + SWEEP_S, "dial")
        self._task = spawn("tunnel.dial", self._run(patience))

    async def _run(self, patience_s: float) -> None:
        try:
            await self._dial(patience_s)
        except Exception:
            # Fail closed: whatever went wrong here is not a stream.
            log.exception("tunnel.open_failed", extra={"request_id": self._passage.request_id})
            if not self.over:
                self._refuse(refusals.internal("the proxy failed to open this stream"))
            elif self._front.exchange is self._stream:
                self._stream.abort()

    async def _dial(self, patience_s: float) -> None:
        try:
            async with asyncio.timeout(patience_s):
                await self._dialer(patience_s).dial(self._make_relay)
        except (DialError, TimeoutError) as error:
            if not self.over:
                self._failed(error, patience_s)
            return
        relay = self._relay
        assert relay is not None
        if self.over:
            relay.end(Code.GOING_AWAY, "the client has gone")
            return
        if relay.over:
            self._failed(DialError("it closed the connection at once"), patience_s)
            return
        answer = self._stream.prepare()
        self._leave()
        self._front.exchange = self._stream
        self._stream.open(answer, relay, self._early.take())

    def _dialer(self, patience_s: float) -> Dialer:
        passage = self._passage
        endpoint = passage.target.endpoint
        if endpoint.scheme != "agent":
            return EndpointDialer(endpoint, None)
        errand = Errand(
            session=passage.session,
            backend=passage.backend.name,
            roles=passage.allow.roles,
            client=passage.client,
            request_id=passage.request_id,
            proto="tcp",
            patience_s=patience_s,
        )
        return self._front.edge.agents.dialer(endpoint, errand)

    def _make_relay(self) -> Relay:
        self._relay = Relay(self._stream.relay_over)
        return self._relay

    def _failed(self, error: DialError | TimeoutError, patience_s: float) -> None:
        timed_out = isinstance(error, TimeoutError)
        told = "connect timeout" if timed_out else str(error)
        self._front.edge.recorder.upstream_failed(self, f"dial failed: {told}")
        backend, user = self.backend.name, self._passage.user
        if isinstance(error, AgentDialError):
            self._refuse(refusals.agent_failed(backend, user, error))
            return
        if timed_out or isinstance(error.__cause__, TimeoutError):
            via = self._passage.target.endpoint.words
            self._refuse(refusals.no_answer(backend, user, patience_s, via=via))
            return
        unresolved = isinstance(error.__cause__, socket.gaierror | ValueError)
        code = Code.DNS if unresolved else Code.DIAL_REFUSED
        self._refuse(refusals.unreachable(backend, user, str(error), code=code))

    # -- for the live registry --------------------------------------------------------------

    @property
    def backend(self) -> Backend:
        """Whose upstream is dialled."""
        return self._passage.backend

    @property
    def live_session(self) -> Session:
        """The login it runs under."""
        return self._passage.session

    @property
    def valid_until(self) -> float:
        """Seconds since the epoch until which the permission holds."""
        return self._passage.valid_until(self._front.edge.snapshot)

    def review(self) -> EndReason | None:
        """Why it may not go on under the snapshot now in force; None when it may."""
        return self._passage.review(self._front.edge.judge)

    def end(self, reason: EndReason) -> None:
        """The permission no longer holds."""
        if not self.over:
            edge = self._front.edge
            ending = self._passage.ending(reason, edge.snapshot, edge.now())
            self.end_reason = ending.end
            self._refuse(refusals.ended(ending, self.backend.name, self._passage.user))

    # -- for the edge -----------------------------------------------------------------------

    @property
    def request_done(self) -> bool:
        """The request had no body."""
        return True

    @property
    def upgraded(self) -> bool:
        """Not yet."""
        return False

    def client_data(self, data: bytes) -> bytes:
        """Bytes that came before the answer."""
        self._early.add(data)
        return b""

    def hold_upstream(self) -> None:
        """The client's transport is full: the stream will find it so."""

    def release_upstream(self) -> None:
        """The client's transport takes more."""

    def client_gone(self) -> None:
        """The client's connection is gone: the upstream's goes with it."""
        if self.over:
            return
        self._give_up()
        self._front.keep_alive = False
        self._front.exchange_done(self)

    def timed_out(self, kind: str) -> None:
        """A deadline passed: `kind` is dial."""
        if not self.over:
            self._failed(TimeoutError(), min(self.backend.timeouts.connect, DIAL_S))

    # -- ends -------------------------------------------------------------------------------

    def _refuse(self, answer: Refusal) -> None:
        """Answer with a refusal instead of 101."""
        self._give_up()
        front = self._front
        if self._early:
            # Meant for a stream that there will not be; it is not a next request.
            front.keep_alive = False
        size = front.send_refusal(answer, self.request_id)
        front.edge.recorder.tunnel_refused(front, answer, size)
        front.exchange_done(self)

    def _give_up(self) -> None:
        self._leave()
        self._tunnel.places.leave(self._passage.session.subject)
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        if self._relay is not None:
            self._relay.end(Code.GOING_AWAY, "the client has gone")

    def _leave(self) -> None:
        self.over = True
        self._front.edge.live.discard(self)
