"""Streams that the proxy opens: each is verified, looked up in our own list, dialled and relayed.

Nothing of what the proxy sends decides where a connection goes: it names a target, and the target
is in `agent.toml` or it is not (security.md, O7).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from heim_agent.assertions import AssertionRefused, Assertions, Caller
from heim_agent.complaints import clean
from heim_agent.dials import Dials
from heim_agent.journal import Journal
from heim_agent.stream import ServedStream
from heim_wire.errors import Code

if TYPE_CHECKING:
    from heim_agent.config import Settings
    from heim_agent.identity import Identity
    from heim_agent.targets import Target
    from heim_wire.aio.channel import Channel
    from heim_wire.messages import Message
    from heim_wire.stream import Stream

__all__ = ["Serving"]

# Of what the proxy sent, in our log.
_SHOWN: Final = 64


class Serving:
    """Serves the streams of every lane; one per process, in the running loop."""

    def __init__(self, identity: Identity, settings: Settings) -> None:
        """Serve `settings.targets` to whoever an assertion by `identity.keys` names."""
        self._agent = identity.agent
        self._settings = settings
        self._assertions = Assertions(identity)
        self._dials = Dials()
        self._journal = Journal(identity.agent, asyncio.get_running_loop().time)
        self._open: set[ServedStream] = set()
        self._leaving = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __repr__(self) -> str:
        return f"<Serving {len(self._settings.targets)} targets streams={self.streams}>"

    @property
    def streams(self) -> int:
        """How many are open just now, those that dial included."""
        return len(self._open)

    def swap(self, settings: Settings) -> None:
        """Have other targets from now on.

        Streams to a target that is there no more, that is another place now, or whose role the user
        does not hold, end.
        """
        self._settings = settings
        for served in tuple(self._open):
            name = served.target.name
            target = settings.targets.get(name)
            if target is None:
                served.end(Code.FORBIDDEN, f"{name} was taken out of the agent's targets")
            elif target.address != served.target.address:
                # What was asked for before may be dialled only now: the list is what it is now.
                served.end(Code.GOING_AWAY, f"{name} has moved; connect again")
            elif (reason := _missing_role(target, served.caller)) is not None:
                served.end(Code.FORBIDDEN, reason)

    def opened(self, channel: Channel, stream: Stream, message: Message, *, now: float) -> None:
        """Take over a stream that the proxy opened (the `Opened` event of a lane).

        Call it at once: it sets `stream.context`, so that nothing of the stream is lost, and
        answers by ACCEPT or RESET, now or later. Everything after that is not the lane's business.

        Args:
            channel: The lane's channel.
            stream: In state OFFERED.
            message: Of OPEN, unverified.
            now: The proxy's time, in seconds since the epoch: `iat` of the statement that was
                verified last, and what has passed since (suspended time included).
        """
        asked = message.get("target")
        name = asked if isinstance(asked, str) else ""
        request_id = _shown(message.get("request_id"))
        caller: Caller | None = None
        try:
            self._check_room()
            caller = self._assertions.verify(message.get("assertion"), target=name, now=now)
            target = self._target(caller)
        except AssertionRefused as refused:
            code, reason = Code.FORBIDDEN, f"the agent does not believe the proxy: {refused}"
        except _RefusedError as error:
            code, reason = error.code, error.reason
        else:
            patience_s = _patience(message.get("deadline_ms"), target)
            self._serve(channel, stream, target, caller, request_id).start(patience_s)
            return
        self._journal.refused(_shown(asked), request_id, code=code, reason=reason, caller=caller)
        stream.reset(code, reason)
        channel.wake()

    def _check_room(self) -> None:
        if self._leaving:
            raise _RefusedError(Code.GOING_AWAY, "the agent is stopping")
        # Before anything is verified: that is what a flood would have us do.
        if self._dials.full:
            raise _RefusedError(Code.BUSY, "the agent makes too many connections just now")

    def _target(self, caller: Caller) -> Target:
        """The place that a caller may reach. Nothing but the list says where that is."""
        target = self._settings.targets.get(caller.target)
        if target is None:
            raise _RefusedError(
                Code.NO_SUCH_TARGET,
                f"the agent {self._agent} does not serve {_shown(caller.target)}; its agent.toml "
                "says what it serves",
            )
        reason = _missing_role(target, caller)
        if reason is not None:
            raise _RefusedError(Code.FORBIDDEN, reason)
        return target

    def _serve(
        self, channel: Channel, stream: Stream, target: Target, caller: Caller, request_id: str
    ) -> ServedStream:
        served = ServedStream(
            channel,
            stream,
            target=target,
            caller=caller,
            request_id=request_id,
            dials=self._dials,
            journal=self._journal,
            over=self._ended,
        )
        self._open.add(served)
        self._empty.clear()
        return served

    def _ended(self, served: ServedStream) -> None:
        self._open.discard(served)
        if not self._open:
            self._empty.set()

    async def finish(self, timeout_s: float) -> None:
        """Take no more; wait until every stream is over, `timeout_s` at most; then end the rest."""
        self._leaving = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            for served in tuple(self._open):
                served.end(Code.GOING_AWAY, "the agent is stopping")


class _RefusedError(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def _missing_role(target: Target, caller: Caller) -> str | None:
    """Why somebody may not use a target by the agent's own rule; None when they may."""
    if target.role is None or target.role in caller.roles:
        return None
    return f"{target.name} needs the role {target.role}, by a rule of the agent's own"


def _patience(deadline_ms: object, target: Target) -> float:
    """Seconds for the dial: what the target may take, or less if the proxy gives up earlier."""
    # True is an int, and no duration.
    if type(deadline_ms) is int and deadline_ms > 0:
        return min(target.connect_timeout_s, deadline_ms / 1000)
    return target.connect_timeout_s


def _shown(value: object) -> str:
    return clean(value, _SHOWN) if isinstance(value, str) else ""
