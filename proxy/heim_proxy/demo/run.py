"""`heim-proxy demo`: sets the stage, starts the real proxy on it, and clears it away.

Nothing of the proxy is faked: it is given the path of an ordinary configuration. The identity
provider and the application run in the same process, on loopback sockets of their own.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol, TextIO

from aiohttp import web

from heim_config.load import load_file
from heim_proxy.demo.banner import banner
from heim_proxy.demo.certificates import issue
from heim_proxy.demo.echo import EchoApp
from heim_proxy.demo.files import (
    APP_HOST,
    CLIENT_ID,
    HOSTS,
    LOGIN_HOST,
    DemoFiles,
    DemoPorts,
    public_url,
)
from heim_proxy.demo.grants import DemoClient
from heim_proxy.demo.idp import DemoProvider
from heim_proxy.demo.loopback import free_port, listen, require_loopback
from heim_proxy.demo.proof import AssertionVerifier, fetch_keys
from heim_proxy.demo.signing import IdTokenKey
from heim_runtime.clock import SystemClock

__all__ = [
    "DEFAULT_PORT",
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

SHUTDOWN_S: Final = 0.5
"""How long open streams of the echo application may hold up the end of the demo."""


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

    def text(self, program: str) -> str:
        """What to print once the proxy is up; `program` starts heim-proxy when it is pasted."""
        return banner(
            files=self.files,
            ports=self.ports,
            start_url=self.provider.start_url,
            program=program,
            kept=self.kept,
        )


async def run_demo(
    start_proxy: StartProxy,
    *,
    out: TextIO,
    program: str = "heim-proxy",
    port: int = DEFAULT_PORT,
    directory: Path | None = None,
) -> None:
    """Run the demo until the proxy ends or this task is cancelled.

    Args:
        start_proxy: Starts the real proxy.
        out: Where people read; the links on it include the run's secret.
        program: What people paste to start heim-proxy again, quoted for a shell.
        port: The https port people would like; another one when it is busy.
        directory: Kept afterwards. None makes a temporary one and removes it.

    Raises:
        NotADemoDirectoryError: when `directory` holds other files.
        NotLoopbackError: when anything would listen beyond this machine.
        OSError: when the directory or a socket cannot be had.
    """
    async with stage(port=port, directory=directory) as scene:
        if scene.ports.https != port:
            out.write(f"port {port} is busy, using {scene.ports.https} instead\n")
        proxy = await start_proxy(scene.files.configuration)
        try:
            out.write(scene.text(program))
            out.flush()
            await proxy.wait()
        finally:
            await proxy.close()


@asynccontextmanager
async def stage(*, port: int = DEFAULT_PORT, directory: Path | None = None) -> AsyncIterator[Stage]:
    """Write the files and serve the provider and the application until the block is left."""
    async with AsyncExitStack() as stack:
        if directory is None:
            temporary = tempfile.TemporaryDirectory(prefix="heim-demo-")
            files = DemoFiles(Path(stack.enter_context(temporary)))
        else:
            files = DemoFiles(directory)
        idp_socket, echo_socket = listen(), listen()
        stack.callback(idp_socket.close)
        stack.callback(echo_socket.close)
        ports = _choose_ports(
            port, idp=idp_socket.getsockname()[1], echo=echo_socket.getsockname()[1]
        )
        certificates = issue(HOSTS, now=datetime.now(UTC))
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
        verifier = AssertionVerifier(
            fetch_keys(f"{login_url}/.heim/jwks.json", certificates.ca_pem.decode()),
            issuer=login_url,
            audience=APP_HOST,
            clock=clock,
        )
        for app, sock in ((provider.app(), idp_socket), (EchoApp(verifier).app(), echo_socket)):
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.SockSite(runner, sock).start()
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


def _choose_ports(https: int, *, idp: int, echo: int) -> DemoPorts:
    taken = {idp, echo}
    chosen = []
    for wanted in (https, HTTP_PORT, ADMIN_PORT):
        chosen.append(free_port(wanted, taken=frozenset(taken)))
        taken.add(chosen[-1])
    return DemoPorts(https=chosen[0], http=chosen[1], admin=chosen[2], idp=idp, echo=echo)


def _client(ports: DemoPorts) -> DemoClient:
    login_url = public_url(LOGIN_HOST, ports)
    return DemoClient(
        client_id=CLIENT_ID,
        client_secret=secrets.token_urlsafe(32),
        redirect_uri=f"{login_url}/.heim/callback",
        post_logout_redirect_uri=f"{login_url}/.heim/signed-out",
    )
