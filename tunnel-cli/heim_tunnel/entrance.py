"""Open tunnels to one backend on asyncio: what `proxy` does for one stream, for those of `forward`.

Names, web proxies, tokens and signing in are `proxy`'s own, blocking code; they run in threads that
are left behind when nobody waits for them any more, so that Ctrl-C never waits for a name server.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

from heim_runtime import trust
from heim_runtime.complaints import AUTH, Complaint
from heim_tunnel import credentials, tokens
from heim_tunnel.complaints import UNAUTHENTICATED, refusal, token_refused
from heim_tunnel.dial import TLS_S, connect, untrusted
from heim_tunnel.grant import Login
from heim_tunnel.invocation import Invocation
from heim_tunnel.login import with_authorities
from heim_tunnel.proxy import login_for
from heim_tunnel.upgrade import ANSWER_S
from heim_wire.aio.channel import Channel
from heim_wire.aio.connection import Connection, upgrade
from heim_wire.handshake import Upgrade
from heim_wire.problem import Refused
from heim_wire.session import Session
from heim_wire.settings import Settings
from heim_wire.stream import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from heim_wire.aio.channel import Handler

__all__ = ["Entrance", "Opened", "in_thread"]

T = TypeVar("T")


class Opened(NamedTuple):
    """A tunnel that is open: its channel, its only stream, and the login that opened it, if any."""

    channel: Channel
    stream: Stream
    login: Login | None


class Entrance:
    """Where the tunnels to one backend begin, and the token that opens them."""

    def __init__(self, invocation: Invocation) -> None:
        """Find the login, signing in if that is needed; blocks.

        Raises:
            Complaint: There is no token that may be sent there.
        """
        self.invocation = invocation
        self.login_host: str | None = None
        self._way = invocation.way
        if invocation.token_file is None:
            login = login_for(invocation)
            self.login_host = login.login_host
            self._way = with_authorities(invocation.way, login)
        else:
            self._service_token()
        # The whole bundle: 18 ms once, and no second attempt where the directory has no hashes.
        self._context = trust.context(self._way.ca_file, bundle=True)

    def login(self, *, refused: str | None = None, sign_in: bool = True) -> Login | None:
        """The login whose token opens tunnels; None where a service token does. Blocks.

        Args:
            refused: A token that is not good any more, or not for much longer: another is fetched.
            sign_in: False to complain instead of opening a browser.

        Raises:
            Complaint: There is none that may be sent there.
        """
        if self.login_host is None:
            return None
        invocation = self.invocation
        login = tokens.current(
            self.login_host, self._way, target=invocation.target, refused=refused, sign_in=sign_in
        )
        # Asked of the newest answer: a login host may have stopped vouching for a host.
        if not login.covers(invocation.dialled.host):
            raise Complaint(
                f"{self.login_host} does not vouch for {invocation.dialled.host}; nothing was "
                "sent to it",
                AUTH,
            )
        return login

    async def open(self, handler: Handler) -> Opened:
        """Open one tunnel. What the proxy sends right away may reach `handler` before this returns.

        Raises:
            Complaint: It could not be opened; the text says at which step and what to do.
        """
        login = await in_thread(self.login)
        try:
            return await self._attempt(login, handler)
        except Refused as refused:
            if login is None:
                raise token_refused(refused, self.invocation.token_file or "") from refused
            if refused.status != UNAUTHENTICATED:
                raise refusal(refused) from refused
        # The token's time is not over, but its session is.
        login = await in_thread(partial(self.login, refused=login.access_token))
        try:
            return await self._attempt(login, handler)
        except Refused as refused:
            raise refusal(refused) from refused

    async def _attempt(self, login: Login | None, handler: Handler) -> Opened:
        invocation = self.invocation
        token = self._service_token() if login is None else login.access_token
        sock = await in_thread(partial(connect, invocation.dialled, self._way))
        connection = await self._secure(sock, invocation.dialled.host)
        backend = invocation.backend
        headers = (("Heim-Backend", backend),) if backend is not None else ()
        request = Upgrade(str(invocation.dialled), token=token, headers=headers)
        session = Session(initiator=True, now=time.monotonic(), settings=Settings(max_streams=0))
        stream = session.adopt()
        try:
            channel = await upgrade(
                connection, request, session, handler, timeout_s=ANSWER_S, single=True
            )
        except TimeoutError as error:
            raise Complaint(
                f"{invocation.dialled.host} does not answer within {ANSWER_S:.0f} s"
            ) from error
        return Opened(channel, stream, login)

    def _service_token(self) -> str:
        """Read anew each time: whoever mounts it may replace it."""
        invocation = self.invocation
        assert invocation.token_file is not None
        return credentials.service_token(invocation.token_file, invocation.dialled.host)

    async def _secure(self, sock: socket.socket, host: str) -> Connection:
        """TLS on a connection from `connect`; the socket is closed on failure."""
        try:
            _, connection = await asyncio.get_running_loop().create_connection(
                Connection,
                sock=sock,
                ssl=self._context,
                server_hostname=host,
                ssl_handshake_timeout=TLS_S,
            )
        except ssl.SSLError as error:
            endpoint = self.invocation.dialled
            raise await in_thread(partial(untrusted, error, endpoint, self._way)) from error
        except OSError as error:
            raise Complaint(f"no TLS with {host}: {error or 'it was closed'}") from error
        return connection


async def in_thread(call: Callable[[], T]) -> T:
    """The result of a blocking call, in a thread that dies with the process.

    Unlike `asyncio.to_thread`, whose threads the interpreter waits for at its end. A socket that
    arrives when nobody waits for it is closed.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            if isinstance(result, socket.socket):
                result.close()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failure = None, None
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            failure = error
        # The loop may be closed: then nobody waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=work, name="heim-tunnel", daemon=True).start()
    return await future
