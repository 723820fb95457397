"""`heim-tunnel proxy HOST[:PORT]`: what ssh runs as its ProxyCommand.

Finds a token that may be sent to the host, dials, asks for the tunnel and joins it with standard
input and output. Imports only what a connection needs: ssh waits for it every time.
"""

from __future__ import annotations

import gc
import os
import signal

from heim_runtime.complaints import AUTH, INTERRUPTED, NO_HOST, OK, SOFTWARE, Complaint
from heim_tunnel import credentials
from heim_tunnel.complaints import UNAUTHENTICATED, joined, refusal, say, token_refused
from heim_tunnel.dial import Endpoint, Way, dial
from heim_tunnel.invocation import Invocation, read
from heim_tunnel.pump import Pump
from heim_tunnel.stdio import Sink, Source, fill_standard
from heim_tunnel.upgrade import upgrade
from heim_wire.problem import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from heim_runtime.link import Link
    from heim_tunnel.credentials import Login
    from heim_wire.messages import Message

__all__ = ["command", "login_for", "main"]


def main(arguments: Sequence[str]) -> int:
    """Run with what follows `proxy`; the exit status."""
    fill_standard()
    _watch_signals(None)
    target = None
    try:
        invocation = read(arguments)
        target = invocation.target
        run(invocation)
    except Complaint as e:
        say(target, e.text)
        if e.detail and target is not None and invocation.way.verbose:
            say(target, e.detail)
        return e.status
    except Exception as e:  # noqa: BLE001 - the root: a person gets a line, not a traceback
        say(target, f"internal error: {type(e).__name__}: {e}; please report it, with -v")
        if "-v" in arguments or "--verbose" in arguments:
            import traceback

            traceback.print_exc()
        return SOFTWARE
    return OK


def command(args: argparse.Namespace, way: Way) -> int:
    """The same by way of argparse (`heim_tunnel.arguments`). Raises Complaint."""
    fill_standard()
    _watch_signals(None)
    run(Invocation(args.host, way, token_file=args.token_file))
    return OK


def run(invocation: Invocation) -> None:
    """Open the tunnel and run it to its end. Raises Complaint."""
    if invocation.token_file is not None:
        token = credentials.service_token(invocation.token_file, invocation.dialled.host)
        try:
            link, early = _open(invocation, invocation.way, token)
        except Refused as e:
            raise token_refused(e, invocation.token_file) from e
        _join(invocation, link, early, None)
        return
    login = login_for(invocation)
    way = invocation.way.with_authorities(login)
    try:
        link, early = _open(invocation, way, login.access_token)
    except Refused as e:
        if e.status != UNAUTHENTICATED:
            raise refusal(e) from e
        # Its time is not over, but its session is: revoked, or the proxy's state is another.
        invocation.way.tell(joined(e.detail, "asking for a new token"))
        login = _current(invocation, login.login_host, way, refused=login.access_token)
        try:
            link, early = _open(invocation, way, login.access_token)
        except Refused as again:
            raise refusal(again) from again
    _join(invocation, link, early, login)


def login_for(invocation: Invocation) -> Login:
    """The login whose token may be sent to the host that is dialled.

    Raises:
        Complaint: There is none, and signing in failed or was not agreed to.
    """
    host = invocation.dialled.host
    login = credentials.for_host(host)
    if login is not None:
        invocation.serve_on(Endpoint.parse(login.login_host).port)
        return _current(invocation, login.login_host, invocation.way.with_authorities(login))
    if invocation.backend is not None:
        # HEIM_PROXY is the login host that the person named.
        return _current(invocation, str(invocation.dialled), invocation.way)
    from heim_tunnel.introduction import introduced, meant

    try:
        link, _ = _open(invocation, invocation.way, "")
    except Refused as e:
        if e.status != UNAUTHENTICATED:
            raise refusal(e) from e
        login_host = introduced(host, e)
    except Complaint as e:
        if e.status == NO_HOST:
            e.text = joined(e.text, meant(host))
        raise
    else:
        link.close()
        raise Complaint(f"{host} opens tunnels for everybody; that is no Heim proxy")
    return _current(invocation, login_host, invocation.way)


def _current(
    invocation: Invocation, login_host: str, way: Way, *, refused: str | None = None
) -> Login:
    """A login with a good token, which may be sent to the host that is dialled."""
    from heim_tunnel.tokens import current

    login = current(login_host, way, target=invocation.target, refused=refused)
    # Asked of the newest answer: a login host may have stopped vouching for a host.
    host = invocation.dialled.host
    if not login.covers(host):
        raise Complaint(f"{login_host} does not vouch for {host}; nothing was sent to it", AUTH)
    return login


def _open(invocation: Invocation, way: Way, token: str) -> tuple[Link, bytes]:
    """A link after its 101, and what followed that. Raises Refused and Complaint."""
    link = dial(invocation.dialled, way)
    try:
        return link, upgrade(link, invocation.dialled, token=token, backend=invocation.backend)
    except BaseException:
        link.close()
        raise


def _join(invocation: Invocation, link: Link, early: bytes, login: Login | None) -> None:
    invocation.way.tell("the tunnel is open")
    pump = Pump(link, Source(), Sink(), target=invocation.target)
    if login is not None:
        from heim_tunnel.renewal import Renewal

        way = invocation.way.with_authorities(login)
        renewal = Renewal(login, way, target=invocation.target, offer=pump.offer)

        def accepted(message: Message) -> None:
            if message.get("expires") is not None:
                renewal.start()

        pump.on_ready = accepted
    _watch_signals(pump)
    # A signal just before poll must not be slept over.
    signal.set_wakeup_fd(pump.wake_fd, warn_on_full_buffer=False)
    gc.freeze()
    gc.enable()
    try:
        pump.run(early)
    finally:
        signal.set_wakeup_fd(-1)


def _watch_signals(pump: Pump | None) -> None:
    """Ctrl-C ends at once, without a trace; what ssh sends when it is done ends quietly.

    Nothing has to be put in order on the way out: terminal modes and descriptor flags are never
    changed, locks end with the process, files are replaced whole.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, lambda *_: pump.stop() if pump is not None else os._exit(OK))
