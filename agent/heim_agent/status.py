"""`heim-agent status`: is it connected, since when, until when, and what went wrong last."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Final

from heim_agent import files
from heim_agent.complaints import clean, with_hint
from heim_agent.differences import Differences, of_status
from heim_agent.places import SYSTEM_STATE, Places
from heim_runtime.complaints import FAILED, OK, Complaint

__all__ = ["command", "describe", "running"]

_FILE: Final = "status.json"
_IDENTITY: Final = "identity.json"


def command(args: argparse.Namespace, places: Places) -> int:
    """Print it on standard output; FAILED when no lane is connected."""
    runs = _runs(places.state)
    found = _read(f"{places.state}/{_FILE}") if runs else None
    connected = found is not None and found.get("connected") is True
    if args.json:
        shown = dict(found) if found is not None else {"connected": False}
        sys.stdout.write(json.dumps({"running": runs, **shown}, indent=1) + "\n")
    elif found is None and runs:
        sys.stdout.write(
            f"it runs, and has written no {places.state}/{_FILE}: it began just now, or cannot "
            "write there (a full disk?); its log says which\n"
        )
    elif found is None:
        sys.stdout.write(f"{_idle(places)}\n")
    else:
        first, *rest = describe(found, time.time())
        lines = [clean(first), *(f"  {clean(line)}" for line in rest)]
        sys.stdout.write("\n".join(lines) + "\n")
    return OK if connected else FAILED


def describe(found: Mapping[str, object], now: float) -> Iterator[str]:
    """What `status.json` says, in lines; the first says who."""
    yield f"agent {_text(found, 'agent')} of {_text(found, 'login_url')}"
    lanes = [lane for lane in _list(found, "lanes") if isinstance(lane, Mapping)]
    ready = [lane for lane in lanes if lane.get("state") == "connected"]
    if ready:
        since = min(_number(lane, "since") for lane in ready)
        streams = sum(int(_number(lane, "streams")) for lane in ready)
        yield f"connected since {_when(since, now)} ({len(ready)} of {len(lanes)} lanes)"
        yield f"streams: {streams}"
        named = sorted({str(one) for lane in ready for one in _list(lane, "targets")})
        yield f"targets that the proxy knows of: {', '.join(named) or 'none'}"
        yield from (of_status(found) or Differences()).lines()
    else:
        yield "not connected"
    for lane in lanes:
        if lane.get("state") != "connected" and _text(lane, "error"):
            retry = _number(lane, "retry_at") - now
            again = f"trying again in {_span(retry)}" if retry > 0 else "trying again"
            yield f"lane {int(_number(lane, 'lane'))}: {with_hint(_text(lane, 'error'), again)}"
    codes = {_text(lane, "code") for lane in lanes} if not ready else set()
    yield from _certificate(found, now, connected=bool(ready), gone="revoked" in codes)
    if ready and _text(found, "last_error"):
        yield f"last error: {_text(found, 'last_error')}"
    off = _number(found, "clock_off_s")
    if abs(off) >= 60:
        ahead = "ahead of" if off > 0 else "behind"
        yield f"this machine's clock is {_span(abs(off))} {ahead} the proxy's"
    yield f"running since {_when(_number(found, 'started'), now)}, process " + str(
        int(_number(found, "pid"))
    )


def _certificate(
    found: Mapping[str, object], now: float, *, connected: bool, gone: bool
) -> Iterator[str]:
    """Until when it is good; not at all when the enrolment is `gone`."""
    certificate = found.get("certificate")
    if not isinstance(certificate, Mapping):
        return
    expires = _number(certificate, "expires")
    if gone:
        yield "certificate: worth nothing any more, as this machine is not enrolled"
    elif expires <= now:
        # The proxy still takes it for a renewal (heim_proxy.agents.judging.RENEWABLE_S).
        yield (
            f"certificate: ended {_when(expires, now)}; the next connection renews it, up to 30 "
            "days later; then run: heim-agent join"
        )
    else:
        renewed = "renewed by itself" if connected else "renewed once it is connected"
        yield f"certificate: until {_when(expires, now)}, {renewed}"
    if _text(certificate, "problem"):
        yield f"the last renewal failed: {_text(certificate, 'problem')}"
    if _text(certificate, "unsaved"):
        yield f"{_text(certificate, 'unsaved')}"


def running(directory: str) -> dict[str, object] | None:
    """What the agent that runs with a state directory says; None when none does, or nobody may see.

    For commands that say more if there is one.
    """
    try:
        return _read(f"{directory}/{_FILE}") if _runs(directory) else None
    except Complaint:
        return None


def _idle(places: Places) -> str:
    """Why there is nothing to tell."""
    for directory in dict.fromkeys((places.state, places.seed)):
        try:
            known = _read(f"{directory}/{_IDENTITY}")
        except Complaint:
            known = None
        if known is not None:
            named = f"agent {_text(known, 'agent')} of {_text(known, 'login_url')}"
            return clean(
                f"{named}: not running; run: heim-agent run, or: systemctl start heim-agent"
            )
    hint = "" if os.geteuid() == 0 else f" (the machine's own, in {SYSTEM_STATE}, is root's to see)"
    return f"not joined: there is no identity in {places.seed}{hint}; run: heim-agent join"


def _runs(directory: str) -> bool:
    """Whether an agent holds the lock of a state directory."""
    try:
        descriptor = os.open(
            f"{directory}/{files.LOCK}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        )
    except PermissionError as e:
        raise Complaint(f"cannot look into {directory}; run it as its owner or root", FAILED) from e
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _read(path: str) -> dict[str, object] | None:
    data = files.read(path, mounted=True, anybodys=True)
    if data is None:
        return None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Complaint(f"{path} is damaged; restart heim-agent", FAILED)
    return found


def _text(found: Mapping[str, object], name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) else ""


def _number(found: Mapping[str, object], name: str) -> float:
    value = found.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _list(found: Mapping[str, object], name: str) -> list[object]:
    value = found.get(name)
    return value if isinstance(value, list) else []


def _when(when: float, now: float) -> str:
    """A time for people: `17:00` today, else with its date; local time."""
    try:
        there = time.localtime(when)
    except (OverflowError, ValueError, OSError):
        return "the end of time"
    day, minute = time.strftime("%Y-%m-%d", there), time.strftime("%H:%M", there)
    today = time.strftime("%Y-%m-%d", time.localtime(now))
    ago = f" ({_span(abs(now - when))}{'' if when > now else ' ago'})"
    return f"{minute if day == today else f'{day} {minute}'}{ago}"


def _span(seconds: float) -> str:
    """A length of time for people, in its largest unit."""
    for name, size in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds >= size * 0.95:
            count = round(seconds / size)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return "a moment"
