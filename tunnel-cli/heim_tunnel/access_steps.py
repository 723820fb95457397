"""The steps of `heim-tunnel doctor` behind the door: who I am, what I may, a real tunnel."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from heim_tunnel import credentials, tokens
from heim_tunnel.complaints import clean
from heim_tunnel.entrance import Entrance
from heim_tunnel.finding import Case, Finding, milliseconds
from heim_tunnel.listing import ask
from heim_tunnel.login import until
from heim_tunnel.loginhost import Backend, backends
from heim_wire.errors import Code
from heim_wire.events import Ended, Event, Reset

__all__ = ["identity", "rights", "tunnel"]

# For the RESET to leave and the proxy to close.
_GOODBYE_S: Final = 2.0


def identity(case: Case) -> list[Finding]:
    """Which token would be sent, and whether the login host still takes it."""
    token_file = case.invocation.token_file
    if token_file is not None:
        credentials.service_token(token_file, case.host)
        return [Finding("ok", "identity", f"the service token in {clean(token_file, 200)}")]
    # Again, and this time a file that cannot be read is told.
    case.login = credentials.for_host(case.host)
    if case.login is None:
        return [
            Finding(
                "fail",
                "identity",
                f"no login on this machine is for {case.host}",
                f"run: heim-tunnel login {case.named or 'LOGIN_HOST'}"
                + (" (the proxy names it; make sure that it is yours)" if case.named else ""),
            )
        ]
    case.login = tokens.current(case.login.login_host, case.way, target=None, sign_in=False)
    login = case.login
    return [
        Finding(
            "ok",
            "identity",
            f"{clean(login.user, 200)} at {login.login_host} until {until(login.session_expires)}",
        )
    ]


def rights(case: Case) -> list[Finding]:
    """What the login host says I may reach."""
    asked = _ask(case)
    if asked is None:
        return []
    user, listed = asked
    tcp = [one for one in listed if one.kind == "tcp"]
    if case.backend is None:
        text = f"{user} may reach {len(listed)} backends, {len(tcp)} of them by tunnel"
        return [Finding("ok", "rights", text)]
    if any(one.is_called(case.backend) for one in tcp):
        return [Finding("ok", "rights", f"{user} may reach {case.backend}")]
    # No failure: a backend may have more names than the list tells, and the proxy says best why.
    return [
        Finding(
            "warn",
            "rights",
            f"{case.backend} is not among what {user} may reach",
            "`heim-tunnel list` shows what there is; whoever runs the proxy gives out roles",
        )
    ]


def _ask(case: Case) -> tuple[str, list[Backend]] | None:
    """What the identity may reach; None where it is not known whom to ask."""
    token_file = case.invocation.token_file
    if token_file is None:
        if case.login is None:
            return None
        return backends(case.login.login_host, case.login.access_token, case.way)
    # The proxy that this very token is for says who its login host is: a name that the token
    # does not cover is refused where the token is read.
    login_host = case.named or (str(case.invocation.dialled) if case.backend is None else "")
    return ask(login_host, case.way, token_file=token_file) if login_host else None


def tunnel(case: Case) -> list[Finding]:
    """A real tunnel to the backend, kept idle for a while if that was asked for."""
    if case.backend is None:
        return []
    return asyncio.run(_try_tunnel(Entrance(case.invocation), case.idle_s))


class _Watch:
    """Owner of a channel that is only watched."""

    def __init__(self) -> None:
        # The backend or something on the way ended it; the connection is gone.
        self.over = asyncio.Event()
        self.gone = asyncio.Event()
        self.reason = ""

    def event(self, channel: object, event: Event) -> None:
        """See `Handler.event`: what the backend says is of no interest, but that it leaves is."""
        if isinstance(event, Ended | Reset):
            self.over.set()

    def closed(self, channel: object, code: int, reason: str) -> None:
        """See `Handler.closed`."""
        self.reason = reason
        self.over.set()
        self.gone.set()


async def _try_tunnel(entrance: Entrance, idle_s: float) -> list[Finding]:
    watch = _Watch()
    began = time.monotonic()
    channel, stream, _ = await entrance.open(watch)
    findings = [Finding("ok", "tunnel", f"open in {milliseconds(began)}")]
    try:
        if idle_s:
            findings.append(await _keep_idle(watch, idle_s))
    finally:
        if not channel.over:
            stream.reset(Code.GOING_AWAY, "heim-tunnel doctor is done")
            channel.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await watch.gone.wait()
        channel.abort()
        # The loop ends with us: the transport closes in its last turns.
        for _ in range(3):
            await asyncio.sleep(0)
    return findings


async def _keep_idle(watch: _Watch, idle_s: float) -> Finding:
    began = time.monotonic()
    try:
        async with asyncio.timeout(idle_s):
            await watch.over.wait()
    except TimeoutError:
        return Finding("ok", "idle", f"still open after {idle_s:.0f} s")
    lasted = f"{time.monotonic() - began:.0f} s"
    if not watch.gone.is_set():
        return Finding(
            "warn",
            "idle",
            f"the backend ended it after {lasted}",
            "servers end connections that do not say anything; heim-tunnel cannot change that",
        )
    return Finding(
        "fail",
        "idle",
        f"cut after {lasted}: {clean(watch.reason)}",
        "something on the way ends connections although heim-tunnel pings every 15 s: raise the "
        "idle timeout of load balancers and web proxies above 30 s",
    )
