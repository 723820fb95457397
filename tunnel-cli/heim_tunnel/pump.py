"""Join standard input and output with the one stream of a tunnel session, until both ended.

One thread, one `poll`: the link (TLS), standard input, standard output, and a pipe that wakes it
(signals, a new token). The link is always read, so that PONG and WINDOW get through; memory is
bounded by the windows one way and by the stream's queue the other way. A session is never taken up
again on another connection: ssh must learn that its connection is over.
"""

from __future__ import annotations

import os
import select
import time

from heim_runtime.complaints import FAILED, PROTOCOL, TRY_LATER, UNAVAILABLE, Complaint
from heim_tunnel.carriage import Carriage
from heim_tunnel.complaints import clean, reset, say, with_id
from heim_tunnel.stdio import Sink, Source
from heim_wire.errors import Code
from heim_wire.events import Closed, Data, Dead, Ended, GoAway, Notice, Ready, Reset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final

    from heim_runtime.link import Link
    from heim_wire.events import Event
    from heim_wire.messages import Message

__all__ = ["Pump"]

LOOK_S: Final = 5.0
"""The longest sleep, so that waking from suspend is noticed before somebody types."""

GOODBYE_S: Final = 1.0
"""For what is still on its way when a signal, a RESET or a lost connection ends it all."""

UNREAD_S: Final = 5.0
"""For the server to end, when all was sent and nobody reads its answer."""

_RESTARTING: Final = (1001, 1012, 1013)
"""Close codes of a proxy, or of what is in front of it, that will be back (RFC 6455, 7.4.1)."""

_GONE: Final = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Pump:
    """One `heim-tunnel proxy` from the 101 on. Not thread-safe but for `offer` and `stop`.

    Attributes:
        wake_fd: A byte written here ends the sleep (`signal.set_wakeup_fd`).
        request_id: What the proxy's log calls this connection, or "".
        on_ready: Told every READY: as whom the proxy knows us, until when.
    """

    def __init__(
        self,
        link: Link,
        source: Source,
        sink: Sink,
        *,
        target: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take over a link after its 101; `run` closes it.

        Args:
            link: The connection.
            source: Standard input.
            sink: Standard output.
            target: What lines on standard error are about.
            clock: Gives the seconds that deadlines are counted in.
        """
        self.request_id = ""
        self.on_ready: Callable[[Message], None] | None = None
        self._target = target
        self._clock = clock
        self._carriage = Carriage(link, clock)
        self._session = self._carriage.session
        self._stream = self._carriage.stream
        self._source = source
        self._sink = sink
        self._poll = select.poll()
        self._watched: dict[int, int] = {}
        self._wake_read, self.wake_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._tokens: list[str] = []
        self._stopping = False
        # Both directions ended with EOF; what is left is to say goodbye.
        self._complete = False
        self._peer_ended = False
        self._leaving: str | None = None
        # When to give up waiting, once there is nothing to wait for but a quick end.
        self._until: float | None = None
        self._failure: Complaint | None = None

    # From other threads and signal handlers.

    def offer(self, token: str) -> None:
        """Send a new token in band."""
        self._tokens.append(token)
        self._wake()

    def stop(self) -> None:
        """End soon and quietly: what was read is sent, `run` returns within GOODBYE_S."""
        self._stopping = True
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self.wake_fd, b"\0")
        except OSError:
            return  # Full: it is awake. Closed: it is over.

    # The loop.

    def run(self, early: bytes = b"") -> None:
        """Run until both directions ended, standard output has no reader, or `stop`.

        Args:
            early: What came behind the 101.

        Raises:
            Complaint: It ended otherwise.
        """
        try:
            self._watch(self._wake_read, select.POLLIN)
            self._handle(self._carriage.unpack([early] if early else []))
            self._look_at_carriage()
            while not self._over():
                self._turn()
            if self._sink.gone and not self._complete:
                self._stream.reset(Code.CONNECTION_RESET, "standard output was closed")
                self._carriage.send()
        finally:
            self._carriage.close()
            self._close_wake()
        if self._failure is not None:
            raise self._failure

    def _close_wake(self) -> None:
        # The renewing thread may have a token to offer yet, and the number be another file's soon.
        wake_fd, self.wake_fd = self.wake_fd, -1
        os.close(wake_fd)
        os.close(self._wake_read)

    def _over(self) -> bool:
        """Whether there is nothing left to do or to wait for."""
        if self._until is not None and self._clock() >= self._until:
            return True
        if self._failure is not None:
            # What came before the failure belongs to the reader still.
            return not self._sink.waiting or self._sink.gone
        sink = self._sink
        if self._complete and (sink.fd < 0 or sink.gone):
            return self._carriage.ended
        # A byte for nobody ends it, as SIGPIPE would.
        return sink.gone and sink.waiting > 0

    def _turn(self) -> None:
        # What the reader took becomes a WINDOW to send; our last frame may complete the stream.
        self._look_after_output()
        self._send()
        self._say_goodbye()
        if self._over():
            return
        self._set_watches()
        now = self._clock()
        until = min(self._session.deadline, now + LOOK_S)
        if self._until is not None:
            until = min(until, self._until)
        # Told to stop: what is in the pipe now is the last of it. Asked before poll, since a signal
        # after it has seen nothing.
        last = self._stopping and not self._source.ended and not self._stream.full
        if last:
            until = now
        ready = dict(self._poll.poll(max(0, (until - now) * 1000)))
        if self._wake_read in ready:
            self._woken()
        if self._carriage.fileno() in ready:
            self._handle(self._carriage.receive())
            self._look_at_carriage()
        if self._sink.fd in ready:
            self._output_ready(ready[self._sink.fd])
        if self._source.fd in ready and not self._source.ended:
            self._read_input()
        elif last:
            self._end_input()
        self._handle(self._session.tick(self._clock(), time.time()))

    def _set_watches(self) -> None:
        carriage = self._carriage
        alive = self._failure is None and not carriage.ended
        mask = select.POLLIN | (select.POLLOUT if carriage.unsent else 0)
        self._watch(carriage.fileno(), mask if alive else None)
        reading = alive and not self._source.ended and not self._stream.full
        self._watch(self._source.fd, select.POLLIN if reading else None)
        if self._sink.fd >= 0:
            # Without POLLOUT poll still tells when the reader is gone; once is enough.
            watch = select.POLLOUT if self._sink.waiting else 0
            self._watch(self._sink.fd, None if self._sink.gone else watch)

    def _watch(self, fd: int, mask: int | None) -> None:
        """Watch a descriptor for `mask` besides errors; None: not at all."""
        if self._watched.get(fd) == mask:
            return
        if mask is None:
            del self._watched[fd]
            self._poll.unregister(fd)
        else:
            self._watched[fd] = mask
            self._poll.register(fd, mask)

    def _woken(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            return
        while self._tokens:
            self._session.auth({"kind": "bearer", "token": self._tokens.pop(0)})
        if self._stopping and self._until is None:
            self._until = self._clock() + GOODBYE_S

    # Towards the proxy.

    def _read_input(self) -> None:
        data = self._source.read()
        if data:
            self._stream.send(data)
        elif self._source.ended:
            if self._source.problem:
                # Half an input must not look like all of it to the other end.
                self._stream.reset(Code.CONNECTION_RESET, "standard input broke")
                self._send()
                problem = f"cannot read standard input: {self._source.problem}"
                self._failure = Complaint(problem, FAILED)
            self._end_input()

    def _end_input(self) -> None:
        self._source.ended = True
        self._stream.end()
        self._handle(self._session.events())

    def _send(self) -> None:
        if self._failure is None:
            self._handle(self._carriage.send())
            self._look_at_carriage()

    # From the proxy.

    def _look_at_carriage(self) -> None:
        carriage = self._carriage
        if carriage.broken is not None:
            reason = clean(carriage.broken.reason)
            self._fail(f"protocol error: {reason}; update heim-tunnel", PROTOCOL)
        elif carriage.code in _RESTARTING:
            self._leaving = self._leaving or "the proxy is going away"
            self._lost(carriage.why)
        elif carriage.ended:
            self._lost(carriage.why)

    def _handle(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, Data):
                self._sink.push(event.payload)
            elif isinstance(event, Ended):
                self._peer_ended = True
            elif isinstance(event, Closed):
                self._complete = True
            elif isinstance(event, Reset):
                self._failure = reset(event, self.request_id)
                self._hurry()
            else:
                self._handle_talk(event)

    def _handle_talk(self, event: Event) -> None:
        """What happens a few times in the life of a session."""
        if isinstance(event, Ready):
            found = event.message.get("request_id")
            if isinstance(found, str):
                self.request_id = clean(found, 64)
            if self.on_ready is not None:
                self.on_ready(event.message)
        elif isinstance(event, Notice):
            say(self._target, event.text)
        elif isinstance(event, GoAway):
            self._leaving = clean(event.reason) or "the proxy is restarting"
            say(self._target, f"{self._leaving}; this connection may go on for {event.drain:.0f} s")
        elif isinstance(event, Dead):
            # Even after both EOFs: it was not confirmed that ours arrived.
            self._fail(f"the connection to the proxy was lost: {event.reason}")

    def _look_after_output(self) -> None:
        """Write what has come; close standard output after the peer's EOF."""
        sink = self._sink
        if sink.waiting and not sink.gone:
            self._write_output()
        if self._peer_ended and not sink.waiting and sink.fd >= 0:
            self._watch(sink.fd, None)
            sink.close()

    def _say_goodbye(self) -> None:
        if self._complete:
            self._carriage.say_close()
        if self._sink.gone and self._source.ended and self._carriage.all_sent:
            # Without a reader what we were given is still delivered (ssh's last words, an upload),
            # but an answer is not waited for for long.
            self._hurry(UNREAD_S)

    def _output_ready(self, what: int) -> None:
        if self._sink.waiting:
            self._write_output()
        elif what & _GONE:
            self._sink.gone = True

    def _write_output(self) -> None:
        written = self._sink.write()
        if self._sink.problem:
            self._failure = Complaint(f"cannot write standard output: {self._sink.problem}", FAILED)
        if written:
            self._stream.consumed(written)
            self._handle(self._session.events())
        self._stream.sink_paused = self._sink.waiting > 0

    # How it ends.

    def _lost(self, why: str) -> None:
        """The connection is no more; that is as it should be once both directions have ended."""
        if self._complete or self._failure is not None:
            return
        if self._leaving is not None:
            self._fail(f"{self._leaving}; connect again", TRY_LATER)
        else:
            self._fail(f"the connection to the proxy was lost{': ' + why if why else ''}")

    def _fail(self, text: str, status: int = UNAVAILABLE) -> None:
        if self._stopping or self._sink.gone:
            # Nobody is left who could read it.
            self._until = 0.0
        elif self._failure is None:
            self._failure = Complaint(with_id(text, self.request_id), status)
            self._hurry()

    def _hurry(self, within_s: float = GOODBYE_S) -> None:
        if self._until is None:
            self._until = self._clock() + within_s
