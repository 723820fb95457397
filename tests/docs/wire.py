"""Tables and the picture of docs/reference/wire.md, made from the tables that the code runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from heim_wire import liveness, pace, scheduler, streams, window
from heim_wire.errors import FAILURES
from heim_wire.frames import HEAD_BYTES, KINDS, MAX_DATA, MAX_PAYLOAD, MAX_REASON, MAX_TEXT
from heim_wire.messages import MAX_DEPTH
from heim_wire.settings import Settings
from heim_wire.stream import TRANSITIONS, Act, State

__all__ = ["WIRE_BLOCKS"]

_RESERVED = {14: "DGRAM", 15: "RESUME", 16: "ACK"}


def _rows(head: str, rows: Iterator[tuple[object, ...]]) -> str:
    lines = [head, "|" + " --- |" * (head.count("|") - 1)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _frames() -> str:
    def rows() -> Iterator[tuple[object, ...]]:
        for number, kind in KINDS.items():
            sizes = str(kind.smallest)
            if kind.largest != kind.smallest:
                sizes += f" to {kind.largest}"
            yield number, f"`{kind.name}`", kind.scope, sizes, kind.payload
        for number, name in _RESERVED.items():
            yield number, f"`{name}`", "", "", "reserved"

    return _rows("| type | name | stream | payload bytes | payload |", rows())


def _failures() -> str:
    return _rows(
        "| code | slug | HTTP | exit | meaning |",
        (
            (one.code, f"`{one.slug}`", one.http_status, one.exit_status, one.meaning)
            for one in FAILURES.values()
        ),
    )


def _states() -> str:
    acts = [value for name, value in vars(Act).items() if name.isupper()]
    states = [value for name, value in vars(State).items() if name.isupper()]
    return _rows(
        "| | " + " | ".join(f"*{state}*" for state in states[:-1]) + " |",
        ((act, *(TRANSITIONS.get((state, act), "") for state in states[:-1])) for act in acts),
    )


def _picture() -> str:
    def name(state: str) -> str:
        return {State.IDLE: "[*]", State.CLOSED: "closed"}.get(state, state.replace(" ", "_"))

    arrows: dict[tuple[str, str], list[str]] = {}
    for (before, act), after in TRANSITIONS.items():
        if before != after and not act.endswith("RESET"):
            arrows.setdefault((before, after), []).append(act)
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [
        f"    {name(before)} --> {name(after)}: {', '.join(acts)}"
        for (before, after), acts in arrows.items()
    ]
    return "\n".join([*lines, "    closed --> [*]", "```"])


def _size(count: int) -> str:
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit and count % unit == 0:
            return f"{count // unit} {name}"
    return f"{count:,} bytes"


def _limits() -> str:
    ours = Settings()
    return _rows(
        "| limit | | beyond it |",
        iter([
            ("head of a frame", _size(HEAD_BYTES), ""),
            ("payload of DATA", _size(MAX_DATA), "not possible"),
            ("payload of other frames, known or not", _size(MAX_PAYLOAD), "session ends, PROTOCOL"),
            ("reason in RESET and GOAWAY", _size(MAX_REASON), "session ends, PROTOCOL"),
            ("text in NOTICE", _size(MAX_TEXT), "session ends, PROTOCOL"),
            ("depth of a message", MAX_DEPTH, "session ends, PROTOCOL"),
            ("time until HELLO", f"{liveness.HELLO_WITHIN:g} s", "connection ends"),
            ("first window", _size(window.INITIAL), "RESET, FLOW"),
            ("window of an open stream", _size(ours.window), "RESET, FLOW"),
            ("window that has grown", _size(ours.max_window), "RESET, FLOW"),
            ("windows of a session", _size(ours.session_window), "no more is granted"),
            ("windows of a process", _size(window.WindowBudget().limit), "no more is granted"),
            ("credit of one stream", _size(window.MAX_CREDIT), "RESET, FLOW"),
            ("streams of the peer", ours.max_streams, "RESET, BUSY"),
            ("OPENs without an answer", streams.MAX_OPENING, "RESET, BUSY"),
            ("queued in a session", _size(streams.SESSION_FULL), "new streams: RESET, BUSY"),
            ("queued for one stream", _size(scheduler.HIGH_MARK), "its source is not read"),
            ("counted control frames", f"{pace.PER_SECOND} a second, {pace.BURST} at once",
             "session ends, PROTOCOL"),
            ("frames of unknown streams", f"{streams.MAX_UNKNOWN:,} in a session",
             "session ends, PROTOCOL"),
            ("closed streams are remembered", f"{streams.REMEMBERED_S:g} s",
             "their frames count as unknown"),
        ]),
    )  # fmt: skip


WIRE_BLOCKS: Mapping[str, Callable[[], str]] = {
    "wire_failures": _failures,
    "wire_frames": _frames,
    "wire_limits": _limits,
    "wire_picture": _picture,
    "wire_states": _states,
}
