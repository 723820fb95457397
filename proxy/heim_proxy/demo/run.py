"""`heim-proxy demo`: sets the stage, starts the real proxy on it, and clears it away.

Nothing of the proxy is faked: it is given the path of an ordinary configuration. The identity
provider and the application run in the same process, on loopback sockets of their own.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol, TextIO

from aiohttp import web

from heim_config.load import load_file
from heim_proxy.demo.agent import DemoAgent
from heim_proxy.demo.banner import banner
from heim_proxy.demo.certificates import issue
from heim_proxy.demo.echo import EchoApp
from heim_proxy.demo.files import (
    APP_HOST,
    CLIENT_ID,
    LOGIN_HOST,
    OFFICE_HOST,
    DemoFiles,
    DemoPorts,
    hosts_of,
    public_url,
)
from heim_proxy.demo.grants import DemoClient
from heim_proxy.demo.idp import DemoProvider
from heim_proxy.demo.loopback import LOOPBACK, free_port, listen, require_loopback
from heim_proxy.demo.programs import Programs
from heim_proxy.demo.proof import AssertionVerifier, fetch_keys
from heim_proxy.demo.signing import IdTokenKey
from heim_proxy.demo.talkback import TalkBack
from heim_runtime.clock import SystemClock

__all__ = [
    "DEFAULT_PORT",
    "NoSshdError",
    "RunningProxy",
    "Stage",
    "StartProxy",
    "require_loopback_configuration",
    "run_demo",
    "stage",
]

DEFAULT_PORT: Final = 8443
HTTP_PORT: Final = 8080
ADMIN_PORT: Final = 9440

SSHD_S: Final = 2.0
"""To find out whether this machine has an sshd."""

SHUTDOWN_S: Final = 0.5
"""How long open streams of the echo application may hold up the end of the demo."""


class NoSshdError(ValueError):
    """The demo was asked to show this machine's sshd, and there is none."""


class RunningProxy(Protocol):
    """A proxy whose listeners are open."""

    async def wait(self) -> None:
        """Return when it has been asked to stop (SIGTERM, SIGINT) and has drained."""
        ...

    async def close(self) -> None:
        """Stop it; harmless when it has stopped already."""
        ...


StartProxy = Callable[[Path], Awaitable[RunningProxy]]
"""Starts the proxy of a configuration file and returns once it accepts connections."""


class Stage:
    """Everything of a demo but the proxy: files, provider and application, up and listening."""

    def __init__(
        self, *, files: DemoFiles, ports: DemoPorts, provider: DemoProvider, kept: bool
    ) -> None:
        self.files = files
        self.ports = ports
        self.provider = provider
        self.kept = kept

    def text(self, programs: Programs) -> str:
        """What to print once the proxy is up."""
        return banner(
            files=self.files,
            ports=self.ports,
            start_url=self.provider.start_url,
            programs=programs,
            kept=self.kept,
        )


async def run_demo(
    start_proxy: StartProxy,
    *,
    out: TextIO,
    programs: Programs,
    port: int = DEFAULT_PORT,
    directory: Path | None = None,
    ssh_port: int | None = None,
) -> None:
    """Run the demo until the proxy ends or this task is cancelled.

    Args:
        start_proxy: Starts the real proxy.
        out: Where people read; the links on it include the run's secret.
        programs: What people paste to start, and what the demo's agent is started with.
        port: The https port people would like; another one when it is busy.
        directory: Kept afterwards. None makes a temporary one and removes it.
        ssh_port: Let alice reach this machine's own sshd, which listens there on loopback.

    Raises:
        NoSshdError: when nothing listens on `ssh_port`.
        NotADemoDirectoryError: when `directory` holds other files.
        NotLoopbackError: when anything would listen beyond this machine.
        OSError: when the directory or a socket cannot be had.
    """
    async with stage(port=port, directory=directory, ssh_port=ssh_port) as scene:
        if scene.ports.https != port:
            out.write(f"port {port} is busy, using {scene.ports.https} instead\n")
        proxy = await start_proxy(scene.files.configuration)
        try:
            out.write(scene.text(programs))
            out.flush()
            login_url = public_url(LOGIN_HOST, scene.ports)
            async with DemoAgent(scene.files, programs, login_url=login_url, out=out):
                await proxy.wait()
        finally:
            await proxy.close()


@asynccontextmanager
async def stage(
    *, port: int = DEFAULT_PORT, directory: Path | None = None, ssh_port: int | None = None
) -> AsyncIterator[Stage]:
    """Write the files and serve the provider and the applications until the block is left."""
    if ssh_port is not None:
        await _require_sshd(ssh_port)
    async with AsyncExitStack() as stack:
        if directory is None:
            temporary = tempfile.TemporaryDirectory(prefix="heim-demo-")
            files = DemoFiles(Path(stack.enter_context(temporary)))
        else:
            files = DemoFiles(directory)
        sockets = idp_socket, echo_socket, tcp_socket, office_socket = tuple(
            listen() for _ in range(4)
        )
        for sock in sockets:
            stack.callback(sock.close)
        ports = _choose_ports(port, taken=sockets, ssh=ssh_port)
        certificates = issue(hosts_of(ports), now=datetime.now(UTC))
        client = _client(ports)
        files.write(ports=ports, certificates=certificates, client_secret=client.client_secret)
        require_loopback_configuration(files.configuration)
        clock = SystemClock()
        provider = DemoProvider(
            port=ports.idp,
            client=client,
            key=IdTokenKey(),
            clock=clock,
            start_at=f"{public_url(APP_HOST, ports)}/",
        )
        login_url = public_url(LOGIN_HOST, ports)

        def echo(host: str) -> web.Application:
            keys = fetch_keys(f"{login_url}/.heim/jwks.json", certificates.ca_pem.decode())
            verifier = AssertionVerifier(keys, issuer=login_url, audience=host, clock=clock)
            return EchoApp(verifier).app()

        for app, sock in (
            (provider.app(), idp_socket),
            (echo(APP_HOST), echo_socket),
            (echo(OFFICE_HOST), office_socket),
        ):
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.SockSite(runner, sock).start()
        talkback = TalkBack()
        stack.push_async_callback(talkback.close)
        await talkback.start(tcp_socket)
        yield Stage(files=files, ports=ports, provider=provider, kept=directory is not None)


def require_loopback_configuration(path: Path) -> None:
    """The last door: what the proxy will read must not listen beyond this machine.

    Raises:
        NotLoopbackError: when it would.
    """
    listeners = load_file(path).listeners
    for listener in (listeners.https, listeners.http, listeners.admin):
        if listener is not None:
            require_loopback(listener.address.host)


async def _require_sshd(port: int) -> None:
    try:
        async with asyncio.timeout(SSHD_S):
            _, writer = await asyncio.open_connection(LOOPBACK, port)
    except (OSError, TimeoutError):
        raise NoSshdError(
            f"--ssh: nothing listens on {LOOPBACK}:{port}; install or start openssh-server"
        ) from None
    writer.close()


def _choose_ports(https: int, *, taken: tuple[socket.socket, ...], ssh: int | None) -> DemoPorts:
    idp, echo, tcp, office = (sock.getsockname()[1] for sock in taken)
    used = {idp, echo, tcp, office}
    chosen = []
    for wanted in (https, HTTP_PORT, ADMIN_PORT):
        chosen.append(free_port(wanted, taken=frozenset(used)))
        used.add(chosen[-1])
    https, http, admin = chosen
    return DemoPorts(
        https=https, http=http, admin=admin, idp=idp, echo=echo, tcp=tcp, office=office, ssh=ssh
    )


def _client(ports: DemoPorts) -> DemoClient:
    login_url = public_url(LOGIN_HOST, ports)
    return DemoClient(
        client_id=CLIENT_ID,
        client_secret=secrets.token_urlsafe(32),
        redirect_uri=f"{login_url}/.heim/callback",
        post_logout_redirect_uri=f"{login_url}/.heim/signed-out",
    )
