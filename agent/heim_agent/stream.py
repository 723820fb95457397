"""One stream at work: dialled, answered, relayed, and told about in the log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from heim_agent.proxy_header import proxy_header
from heim_agent.reach import NotReached, connect
from heim_runtime.tasks import spawn
from heim_wire.aio.relay import Relay
from heim_wire.errors import Code

if TYPE_CHECKING:
    from collections.abc import Callable

    from heim_agent.assertions import Caller
    from heim_agent.dials import Dials
    from heim_agent.journal import Journal
    from heim_agent.targets import Target
    from heim_wire.aio.channel import Channel
    from heim_wire.stream import Stream

__all__ = ["ServedStream"]

_BUSY: Final = "too many connections to it are being made already"


class ServedStream:
    """Joins a stream that was let through with its target; over when both sides are.

    Attributes:
        caller: Who it is for.
        target: Where it goes.
    """

    __slots__ = (
        "_begun", "_channel", "_dials", "_journal", "_loop", "_opened", "_over", "_relay",
        "_request_id", "_stream", "_task", "_told", "caller", "target",
    )  # fmt: skip

    def __init__(
        self,
        channel: Channel,
        stream: Stream,
        *,
        target: Target,
        caller: Caller,
        request_id: str,
        dials: Dials,
        journal: Journal,
        over: Callable[[ServedStream], None],
    ) -> None:
        """Own the stream from now on; nothing is dialled yet.

        Args:
            channel: Of the lane.
            stream: In state OFFERED.
            target: Where it goes.
            caller: Who it is for.
            request_id: What the proxy's log calls it.
            dials: Its place is taken at once, and given back when it is answered.
            journal: Is told what happened.
            over: Called once, at the end.
        """
        self.caller = caller
        self.target = target
        self._channel = channel
        self._stream = stream
        self._request_id = request_id
        self._dials = dials
        self._journal = journal
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._begun = self._loop.time()
        # Whether it was answered with ACCEPT.
        self._opened = False
        # Whether the log has its last line.
        self._told = False
        self._task: asyncio.Task[None] | None = None
        # What comes before the target is there waits in the relay, 64 KiB at most.
        self._relay = Relay(self._relay_over, connected=self._connected)
        self._relay.join(channel, stream)

    def __repr__(self) -> str:
        return f"<ServedStream {self.target.name} for {self.caller.user!r}>"

    def start(self, patience_s: float) -> None:
        """Dial, for `patience_s` at most, the wait for a place included."""
        self._dials.unanswered += 1
        self._task = spawn("agent-stream", self._run(self._begun + patience_s))

    def end(self, code: int, reason: str) -> None:
        """End both sides now; idempotent."""
        self._relay.end(code, reason)

    async def _run(self, deadline: float) -> None:
        try:
            try:
                await self._dial(deadline)
            finally:
                self._dials.unanswered -= 1
        except NotReached as error:
            self._fail(error.code, error.reason)
        except Exception:
            self._fail(Code.INTERNAL, "the agent failed to open this stream; its log says why")
            raise

    async def _dial(self, deadline: float) -> None:
        """Connect the relay with the target; `_connected` follows."""
        dials, name = self._dials, self.target.name
        try:
            await dials.take(name, deadline)
        except TimeoutError as e:
            raise NotReached(Code.BUSY, _BUSY) from e
        try:
            # A deadline that has passed means one turn of the loop.
            left = max(0.0, deadline - self._loop.time())
            told_s = deadline - self._begun
            await connect(self.target, self._relayed, timeout_s=left, told_s=told_s)
        finally:
            dials.give_back(name)

    def _connected(self, transport: asyncio.Transport) -> None:
        """The target is there: tell it who it is for, and answer. Bytes pass after that."""
        target, caller = self.target, self.caller
        if target.proxy_protocol:
            peer = transport.get_extra_info("peername")
            transport.write(proxy_header(source=caller.source, user=caller.user, peer=peer))
        self._opened = True
        self._stream.accept({"peer": target.address})
        self._channel.wake()
        self._journal.opened(
            caller,
            self._request_id,
            address=target.address,
            seconds=self._loop.time() - self._begun,
        )

    def _relayed(self) -> Relay:
        return self._relay

    def _fail(self, code: int, reason: str) -> None:
        """There will be no stream: tell the log and the proxy."""
        self._tell_failure(code, reason)
        self._relay.end(code, reason)

    def _tell_failure(self, code: int, reason: str) -> None:
        if not self._told:
            self._told = True
            address = self.target.address
            self._journal.failed(
                self.caller, self._request_id, address=address, code=code, reason=reason
            )

    def _relay_over(self, relay: Relay, code: int, reason: str) -> None:
        if self._opened and not self._told:
            self._told = True
            self._journal.ended(
                self.caller,
                self._request_id,
                received=relay.received,
                sent=relay.sent,
                seconds=self._loop.time() - self._begun,
                code=code,
                reason=reason,
            )
        # Nobody wants it any more.
        self._tell_failure(code, reason)
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        self._over(self)
