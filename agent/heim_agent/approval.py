"""Joining without a token: show a code, and wait until somebody who may has typed it."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Final

from heim_agent.complaints import clean, say, with_hint
from heim_agent.exchange import Host, Reply, post
from heim_agent.key import AgentKey
from heim_runtime.complaints import AUTH, UNAVAILABLE, Complaint
from heim_runtime.version import version
from heim_wire.agents import ENROL_PATH, ENROLLED_PATH

__all__ = ["ask_to_be_let_in"]

# RFC 8628, 3.5: what `slow_down` adds, for this and all later requests.
_SLOWER_S: Final = 5.0
_MAX_INTERVAL_S: Final = 60.0
_MAX_LIFE_S: Final = 3600.0
_PROGRESS_S: Final = 60.0


def ask_to_be_let_in(
    host: Host,
    name: str,
    key: AgentKey,
    *,
    device: str,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Reply:
    """The answer with the certificate, once somebody approved.

    Args:
        host: Whom to ask.
        name: Who we would like to be.
        key: Whose fingerprint people compare.
        device: What this machine calls itself.
        sleep: Between questions.
        clock: Seconds, for how long it has been.

    Raises:
        Complaint: It was refused or not approved in time, or the host cannot be reached.
    """
    reply = post(
        host,
        ENROL_PATH,
        {
            "name": name,
            "csr": base64.b64encode(key.request()).decode("ascii"),
            "device": device,
            "version": version(),
        },
    )
    if reply.status != 200:
        raise reply.refusal()
    code, page = reply.text("device_code"), reply.text("verification_uri")
    life = min(reply.number("expires_in"), _MAX_LIFE_S)
    interval = min(max(1.0, reply.number("interval")), _MAX_INTERVAL_S)
    if reply.text("fingerprint") != key.fingerprint:
        raise Complaint(
            f"{host.name} saw another key than this machine's: something on the way changes what "
            "is sent; nothing was joined",
            AUTH,
        )
    if not (host.is_at(page) or host.is_plain):
        # People would sign in there.
        raise Complaint(
            f"{host.name} sends people to {clean(page, 200)}, which is another host; nothing was "
            "joined",
            AUTH,
        )
    say(
        f"to let this machine in as agent {name}, open {clean(page, 200)} and type the code "
        f"{reply.said('user_code', 32)} (good for {_minutes(life)})"
    )
    say(
        f"whoever approves sees there whether the name {name} is configured (agents:), which is "
        "told to nobody else"
    )
    say(f"the page must show this machine's key, {key.fingerprint}; waiting (Ctrl-C gives up)")
    return _wait(host, code, interval=interval, until=clock() + life, sleep=sleep, clock=clock)


def _wait(
    host: Host,
    code: str,
    *,
    interval: float,
    until: float,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> Reply:
    said = clock()
    while clock() + interval < until:
        sleep(interval)
        try:
            reply = post(host, ENROLLED_PATH, {"device_code": code})
        except Complaint as complaint:
            # RFC 8628, 3.5: ask half as often. Somebody who is on the way to a browser should not
            # start over because the network had a hiccup.
            if complaint.status != UNAVAILABLE:
                raise
            say(with_hint(complaint.text, "trying again"))
            interval = min(interval * 2, _MAX_INTERVAL_S)
            continue
        if reply.status == 200:
            return reply
        if reply.status == 429:
            interval = min(max(interval + _SLOWER_S, reply.retry_after_s), _MAX_INTERVAL_S)
        elif reply.status == 503:
            interval = min(max(interval, reply.retry_after_s), _MAX_INTERVAL_S)
        elif reply.status != 202:
            raise reply.refusal()
        if clock() - said >= _PROGRESS_S:
            said = clock()
            say(f"still waiting for somebody to type the code ({_minutes(until - said)} left)")
    raise Complaint("nobody typed the code in time; run: heim-agent join", AUTH)


def _minutes(seconds: float) -> str:
    return "a minute" if seconds < 90 else f"{seconds / 60:.0f} minutes"
