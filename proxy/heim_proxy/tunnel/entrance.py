"""A tunnel request on its way in: who is it, may they, and then a stream or a refusal.

The token is judged first and in a task, since a login may have to be read from the store; whatever
the client sends meanwhile waits, within a bound. No answer is written before everything is known,
so that a refusal is an ordinary HTTP answer that people can read (tunnel.md, 5.2).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from heim_proxy.edge.limits import SESSION_LOAD_S
from heim_proxy.edge.responses import Refusal
from heim_proxy.identity.bearer import BearerProblem
from heim_proxy.identity.service_tokens import PREFIX as SERVICE_PREFIX
from heim_proxy.store.base import StoreUnavailable
from heim_proxy.tunnel import accept, refusals
from heim_proxy.tunnel.dialling import Dialling
from heim_proxy.tunnel.early import Early
from heim_proxy.tunnel.passage import Passage
from heim_runtime.tasks import spawn

if TYPE_CHECKING:
    from heim_proxy.edge.connection import Front
    from heim_proxy.tunnel.door import Tunnel

__all__ = ["Entrance"]

log = logging.getLogger(__name__)


class Entrance:
    """Owns a client connection from the request's head until it is refused or a stream."""

    __slots__ = ("_early", "_front", "_host", "_tunnel", "end_reason", "over")

    def __init__(self, tunnel: Tunnel, front: Front, host: str) -> None:
        self._tunnel = tunnel
        self._front = front
        self._host = host
        self._early = Early(front.gate)
        self.end_reason = ""
        self.over = False

    @property
    def request_done(self) -> bool:
        """A request with a body is refused, and its body not read."""
        return not self._front.head.has_body

    @property
    def upgraded(self) -> bool:
        """Not yet."""
        return False

    def begin(self, rest: bytes) -> bytes:
        """See `edge.door.Entrant`."""
        front = self._front
        head = front.head
        upgrade = head.upgrade is not None
        wish = accept.read(head, front.edge.snapshot.login_url)
        # The stream may last for days: the token is not to stay in memory as long.
        head.fields = []
        if front.edge.draining:
            wish = refusals.going_away()
        if isinstance(wish, Refusal):
            if upgrade and rest:
                # Meant for a stream that there will not be; it is not a next request.
                front.keep_alive = False
            self._refuse(wish)
            return rest
        if rest:
            self._early.add(rest)
        front.expect(SESSION_LOAD_S * 2, "load")
        spawn("tunnel.accept", self._run(wish))
        return b""

    async def _run(self, wish: accept.Wish) -> None:
        try:
            refused = await self._judge(wish)
        except Exception:
            # Fail closed: whatever went wrong in a decision is a refusal.
            log.exception(
                "tunnel.accept_failed", extra={"request_id": self._front.request_id.decode()}
            )
            refused = refusals.internal("the proxy failed to judge this request")
        if refused is not None and not self.over:
            self._refuse(refused)

    async def _judge(self, wish: accept.Wish) -> Refusal | None:
        """Hand over to a stream, or say why not."""
        front = self._front
        edge = front.edge
        tunnel = self._tunnel
        try:
            async with asyncio.timeout(SESSION_LOAD_S):
                bearer = await tunnel.bearers.authenticate(wish.token, edge.now())
        except (StoreUnavailable, TimeoutError) as error:
            edge.metrics.store_errors.add("authenticate")
            log.warning("tunnel.authenticate_failed", extra={"error": str(error) or "timeout"})
            return refusals.unavailable()
        if self.over:
            return None
        if edge.draining:
            return refusals.going_away()
        judge = edge.judge
        if isinstance(bearer, BearerProblem):
            return refusals.unauthenticated(
                bearer.detail,
                judge.snapshot.login_url,
                presented=True,
                program=wish.token.startswith(SERVICE_PREFIX),
            )
        session = bearer.session
        allowed = accept.authorise(judge, session, wish, host=self._host, now=edge.now())
        if isinstance(allowed, Refusal):
            return allowed
        target, allow = allowed
        limit = judge.snapshot.config.tunnel.streams_per_user
        if not tunnel.places.claim(session.subject, limit):
            return refusals.busy(target.backend.name, session.subject.name, limit)
        passage = Passage(
            session,
            target,
            allow,
            host=self._host,
            key=wish.key,
            token_end=bearer.expires,
            request_id=front.request_id.decode("ascii"),
            client=front.client.address,
        )
        self.over = True
        dialling = front.exchange = Dialling(tunnel, front, passage, self._early)
        dialling.start()
        return None

    def client_data(self, data: bytes) -> bytes:
        """Bytes that came before the answer."""
        self._early.add(data)
        return b""

    def hold_upstream(self) -> None:
        """There is none; the answer to come is small."""

    def release_upstream(self) -> None:
        """There is none."""

    def client_gone(self) -> None:
        """The client left before it was answered."""
        self.over = True

    def timed_out(self, kind: str) -> None:
        """The token was not judged in time: `kind` is load."""
        if not self.over:
            self._refuse(refusals.unavailable())

    def _refuse(self, answer: Refusal) -> None:
        self.over = True
        front = self._front
        if self._early:
            front.keep_alive = False
        size = front.send_refusal(answer, front.request_id)
        front.edge.recorder.tunnel_refused(front, answer, size)
        front.exchange_done(self)
