"""One connection of the agent to the proxy: it proves who it is, asks for proof, and serves.

The order is fixed, and each step has its deadline (docs/reference/wire.md, "Agents"): 101, HELLO of
both, our AUTH, the proxy's READY with its statement. Nothing is served before that is verified.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from dataclasses import dataclass, field

from heim_agent import proof, statement
from heim_agent.endings import Ending, Kind, NotConnected, refused, sent_away, untrusted
from heim_agent.renewal import Span
from heim_wire.agents import AGENT_PATH, MAX_LANES
from heim_wire.aio.connection import upgrade
from heim_wire.errors import Code
from heim_wire.events import Dead, GoAway, Hello, Notice, Opened, Ready
from heim_wire.handshake import Upgrade
from heim_wire.messages import printable
from heim_wire.problem import Refused
from heim_wire.session import Session
from heim_wire.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, Protocol

    from heim_agent.clock import ProxyClock
    from heim_agent.dialling import Carriage, Connected, Way
    from heim_agent.identity import Identity
    from heim_agent.proof import Introduction, Program
    from heim_wire.aio.channel import Channel
    from heim_wire.events import Event
    from heim_wire.messages import Message
    from heim_wire.stream import Stream
    from heim_wire.window import WindowBudget

    class Server(Protocol):
        """What serves the streams: `heim_agent.serving.Serving`."""

        def opened(self, channel: Channel, stream: Stream, message: Message, *, now: float) -> None:
            """Take over a stream that the proxy opened; `now` is the proxy's time."""

        async def finish(self, timeout_s: float) -> None:
            """Wait until every stream is over, `timeout_s` at most; then end the rest."""


__all__ = ["Grant", "Lane", "Terms"]

log = logging.getLogger(__name__)

ANSWER_S: Final = 10.0
"""For the answer to the request: a load balancer may have to connect first."""

READY_S: Final = 10.0
"""From the 101 to READY; the proxy gives 5 s to us, and looks into its store."""

RENEW_S: Final = 15.0
"""For the answer to a request for a newer certificate."""

_TARGETS: Final = 1024
# What a clock that is kept right may be set back by between two statements.
_SET_BACK_S: Final = 30.0
# Notices of one lane that are logged in a minute: the proxy chooses how many it sends.
_NOTICES: Final = 10
_NOTICES_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What all lanes of the program share; `carriages` is every connection that is not closed."""

    identity: Identity
    server: Server
    program: Program
    clock: ProxyClock
    way: Way
    budget: WindowBudget
    carriages: set[Carriage] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Grant:
    """What READY said.

    Attributes:
        replica: Which of the proxy's replicas this is.
        targets: Names that the proxy's configuration lets it ask for.
        whole: Whether `targets` is all of them, as the proxy says.
        expires: When the certificate of this lane ends, by the proxy's time.
        lanes: How many lanes the proxy wants at most.
    """

    replica: str
    targets: tuple[str, ...]
    expires: float
    lanes: int
    whole: bool = False


class Lane:
    """One connection; a `heim_wire` handler.

    Attributes:
        number: Which of the agent's lanes this is, from 0.
        grant: What the proxy granted; None before READY.
        span: Life of the certificate that the proxy knows this lane by.
        since: When it became ready, seconds since the epoch by our own clock (for people).
        ended: Done when the connection is over, with how it ended.
        leaving: Done when another connection should take this one's place.
    """

    __slots__ = (
        "_awaited", "_began", "_changed", "_channel", "_fault", "_goaway",
        "_introduction", "_noticed", "_renewing", "_said", "_spki", "_stated_at", "_terms",
        "ended", "grant", "leaving", "number", "since", "span",
    )  # fmt: skip

    def __init__(self, terms: Terms, number: int, changed: Callable[[], None]) -> None:
        """Prepare; in the loop's own thread.

        Args:
            terms: Shared by all lanes.
            number: Which it is.
            changed: Called when what the attributes say has changed.
        """
        loop = asyncio.get_running_loop()
        self._terms = terms
        self._changed = changed
        self._said = proof.hello(terms.identity.agent, terms.program, lane=number)
        self._spki = b""
        self._introduction: Introduction | None = None
        self._channel: Channel | None = None
        self._began = 0.0
        self._goaway: GoAway | None = None
        # Why we ended it ourselves.
        self._fault: Ending | None = None
        # When the latest statement on this connection was made, by the proxy's time.
        self._stated_at = float("-inf")
        self._awaited: asyncio.Future[None] = loop.create_future()
        self._renewing: asyncio.Future[str] | None = None
        self._noticed: list[float] = []
        self.number = number
        self.grant: Grant | None = None
        self.span = Span(terms.identity.not_before, terms.identity.expires)
        self.since = 0.0
        self.ended: asyncio.Future[Ending] = loop.create_future()
        self.leaving: asyncio.Future[Ending] = loop.create_future()

    def __repr__(self) -> str:
        state = "ended" if self.ended.done() else "ready" if self.grant else "opening"
        return f"<Lane {self.number} {state}>"

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._channel.session.streams) if self._channel is not None else 0

    @property
    def drain_s(self) -> float:
        """How long streams may go on once the proxy said GOAWAY; 0 when it did not say."""
        return self._goaway.drain if self._goaway is not None else 0.0

    @property
    def rtt(self) -> float | None:
        """Round trip to the proxy in seconds, or None."""
        return self._channel.session.rtt if self._channel is not None else None

    async def open(self, connected: Connected) -> Grant:
        """Ask for the tunnel, introduce ourselves and wait to be let in.

        Raises:
            NotConnected: It ended before; the connection is closed.
        """
        terms = self._terms
        self._spki = connected.spki
        # Those that are closed for good are forgotten here: one or two are left.
        terms.carriages.intersection_update(
            [carriage for carriage in terms.carriages if not carriage.gone.is_set()]
        )
        terms.carriages.add(connected.connection)
        session = Session(
            initiator=True,
            now=time.monotonic(),
            settings=Settings(),
            budget=terms.budget,
            hello=self._said,
        )
        request = Upgrade(terms.way.authority, token="", path=AGENT_PATH)
        try:
            self._channel = await upgrade(
                connected.connection, request, session, self, timeout_s=ANSWER_S
            )
        except Refused as e:
            raise NotConnected(refused(e)) from e
        except TimeoutError as e:
            text = f"{terms.way.authority} does not answer the request for a tunnel"
            raise NotConnected(Ending(Kind.UNREACHABLE, text)) from e
        try:
            async with asyncio.timeout(READY_S):
                await self._awaited
        except TimeoutError as e:
            self._fail(Ending(Kind.LOST, f"{terms.way.authority} does not say READY"))
            raise NotConnected(await self.ended) from e
        except asyncio.CancelledError:
            self._channel.abort()
            raise
        assert self.grant is not None
        return self.grant

    async def renew(self) -> str:
        """Ask for a newer certificate; why there is none, or "" when it is in force.

        One at a time. Streams are not touched.
        """
        channel = self._channel
        assert channel is not None
        if channel.over:
            return "the connection has ended"
        renewing: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._renewing = renewing
        channel.session.auth(proof.renewal(self._terms.identity))
        channel.wake()
        try:
            async with asyncio.timeout(RENEW_S):
                return await renewing
        except TimeoutError:
            return "the proxy does not answer"
        finally:
            self._renewing = None

    def leave(self, drain_s: float) -> None:
        """Say that we go; streams may go on, and no new ones come."""
        if self._channel is not None and not self._channel.over:
            self._channel.session.goaway(Code.GOING_AWAY, "the agent is stopping", drain=drain_s)
            self._channel.wake()

    def finish(self) -> None:
        """Close in good order; `ended` follows."""
        if self._channel is not None:
            self._channel.finish()

    def abort(self) -> None:
        """Cut the connection."""
        if self._channel is not None:
            self._channel.abort()

    # From the channel.

    def event(self, channel: Channel, event: Event) -> None:
        """heim_wire: what happened on the session."""
        if isinstance(event, Opened):
            self._opened(channel, event)
        elif isinstance(event, Hello):
            self._hello(channel, event.message)
        elif isinstance(event, Ready):
            self._ready(event.message)
        elif isinstance(event, GoAway):
            self._sent_away(event)
        elif isinstance(event, Notice):
            self._notice(event.text)
        elif isinstance(event, Dead):
            log.debug("lane.dead", extra={"lane": self.number, "reason": event.reason})

    def closed(self, channel: Channel, code: int, reason: str) -> None:
        """heim_wire: the connection is over."""
        ending = self._fault
        if ending is None and self._goaway is not None:
            ending = sent_away(self._goaway)
        if ending is None:
            ending = Ending(Kind.LOST, printable(reason, 256) or "the proxy closed the connection")
        if self.grant is not None:
            ending = ending.after(time.monotonic() - self._began)
        if not self._awaited.done():
            self._awaited.set_exception(NotConnected(ending))
            # Nobody may be waiting any more.
            self._awaited.exception()
        if self._renewing is not None and not self._renewing.done():
            self._renewing.set_result("the connection ended")
        if not self.ended.done():
            self.ended.set_result(ending)
        self._changed()

    # Within.

    def _hello(self, channel: Channel, message: Message) -> None:
        try:
            self._introduction = proof.Introduction.read(message)
        except ValueError as e:
            self._fail(untrusted(self._terms.way.authority, str(e)))
            return
        channel.session.auth(
            proof.proof(
                self._terms.identity,
                self._said,
                self._introduction,
                host=self._terms.way.host,
                spki=self._spki,
            )
        )
        channel.wake()

    def _ready(self, message: Message) -> None:
        if self._introduction is None:
            return
        try:
            if "statement" in message:
                self._believe(message["statement"])
            if self.grant is None:
                self._begin(message)
                return
            self._renewed(message)
            self.grant = self._granted(message)
        except statement.StatementRefused as e:
            self._fail(untrusted(self._terms.way.authority, str(e)))
            return
        self._changed()

    def _believe(self, token: object) -> None:
        """Verify a statement; then its keys are pinned, and its time is the time.

        Raises:
            StatementRefused: Nothing has changed.
        """
        identity = self._terms.identity
        stated = statement.verify(
            token if isinstance(token, str) else "",
            roots=identity.roots,
            issuer=identity.login_url,
            audience=identity.key.thumbprint,
            nonce=str(self._said["nonce"]),
        )
        # The nonce is the lane's: whoever opens TLS on the way may say an earlier one again, for
        # keys that were dropped since, and for a time in which old assertions are good.
        if stated.issued_at < self._stated_at - _SET_BACK_S:
            raise statement.StatementRefused("its statement is older than the one before")
        try:
            identity.pin(roots=stated.roots, keys=stated.keys)
        except ValueError as e:
            raise statement.StatementRefused(f"its statement cannot be kept: {e}") from e
        self._stated_at = max(self._stated_at, stated.issued_at)
        self._terms.clock.set(stated.issued_at)

    def _begin(self, message: Message) -> None:
        if "statement" not in message:
            raise statement.StatementRefused("it made no statement")
        if message.get("agent") != self._terms.identity.agent:
            raise statement.StatementRefused("it takes this agent for another one")
        self.grant = self._granted(message)
        self._began = time.monotonic()
        self.since = time.time()
        if not self._awaited.done():
            self._awaited.set_result(None)
        self._changed()

    def _granted(self, message: Message) -> Grant:
        """What a READY grants; what it does not say stays as it was."""
        assert self._introduction is not None
        before = self.grant or Grant(self._introduction.replica, (), self.span.ends, 1)
        targets, lanes = message.get("targets"), message.get("lanes")
        expires = message.get("expires")
        names = [printable(name, 255) for name in targets if isinstance(name, str)] if isinstance(
            targets, list
        ) else before.targets  # fmt: skip
        return Grant(
            replica=before.replica,
            targets=tuple(names[:_TARGETS]),
            expires=float(expires) if isinstance(expires, int | float) else before.expires,
            lanes=max(1, min(lanes, MAX_LANES)) if type(lanes) is int else before.lanes,
            whole=message.get("targets_whole") is True and len(names) <= _TARGETS
            if isinstance(targets, list)
            else before.whole,
        )

    def _renewed(self, message: Message) -> None:
        """A READY may bring the newer certificate that was asked for."""
        found = message.get("certificate")
        if found is None or self._renewing is None or self._renewing.done():
            return
        self._renewing.set_result(self._take(found))

    def _take(self, found: object) -> str:
        identity = self._terms.identity
        try:
            der = base64.b64decode(str(found), validate=True)
            span = Span.of(der)
            if span.ends <= self.span.ends:
                raise ValueError("a certificate that ends no later than the one before")
            if span.ends > identity.expires:
                # Not so if another lane has got one in the meantime.
                identity.renew(der)
        except ValueError as e:
            return f"the proxy sent what is of no use: {e}"
        self.span = span
        return ""

    def _opened(self, channel: Channel, event: Opened) -> None:
        if self.grant is None:
            self._fail(untrusted(self._terms.way.authority, "it opened a stream before that"))
            return
        self._terms.server.opened(channel, event.stream, event.message, now=self._terms.clock.now())

    def _sent_away(self, event: GoAway) -> None:
        self._goaway = event
        ending = sent_away(event)
        if self.grant is not None and ending.kind is Kind.AWAY and not self.leaving.done():
            self.leaving.set_result(ending.after(time.monotonic() - self._began))
        self._changed()

    def _notice(self, text: str) -> None:
        if self._renewing is not None and not self._renewing.done():
            self._renewing.set_result(text or "the proxy refused without a reason")
            return
        now = time.monotonic()
        self._noticed = [then for then in self._noticed if now - then < _NOTICES_S]
        if len(self._noticed) < _NOTICES:
            self._noticed.append(now)
            log.warning("lane.notice", extra={"lane": self.number, "text": text})

    def _fail(self, ending: Ending) -> None:
        """We end it: say so to the proxy, and keep why."""
        assert self._channel is not None
        self._fault = self._fault or ending
        code = Code.UNAUTHENTICATED if ending.kind is Kind.UNTRUSTED else Code.PROTOCOL
        self._channel.close(code, ending.text)
