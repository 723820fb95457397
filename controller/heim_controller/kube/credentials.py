"""Where the API server is and who we are there, read by `kubernetes.aio.config`.

In a pod that is the service account, whose token kubelet replaces every hour or so; elsewhere it
is a kubeconfig with whatever its user entry says (token, token file, client certificate, plugin).
Both can be read again at any time, which is what a 401 asks for.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import yaml
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.config import ConfigException, load_kube_config
from kubernetes.aio.config.incluster_config import InClusterConfigLoader

from heim_controller.kube.errors import Unconfigured

__all__ = ["Connection", "Credentials", "Kubeconfig", "ServiceAccount", "find_credentials"]

ACCOUNT_FOLDER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
KUBECONFIG: Final = Path("~/.kube/config")

# Dead peers behind a load balancer or NAT send no RST: the kernel asks after 30 s of silence, and
# gives up on bytes that nobody acknowledged for 20 s.
_KEEPALIVE: Final = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 30),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 20_000),
)

# One watch for each kind, and a few requests beside them.
_CONNECTIONS: Final = 100


class Credentials(Protocol):
    """Something that tells where the API server is and who we are, as of now."""

    @property
    def namespace(self) -> str:
        """The namespace that we are in, or that the kubeconfig's context names."""
        ...

    @property
    def proxied(self) -> bool:
        """Whether the proxy variables of the environment apply."""
        ...

    async def load(self) -> Configuration:
        """Read everything anew.

        Raises:
            Unconfigured: Something is missing or cannot be read.
        """
        ...


class ServiceAccount:
    """What kubelet mounts into every pod."""

    # The address is a ClusterIP, which no proxy leads to; and Python does not understand the
    # 10.96.0.0/12 with which people write that into NO_PROXY.
    proxied: Final = False

    def __init__(
        self, environ: Mapping[str, str] | None = None, *, folder: Path = ACCOUNT_FOLDER
    ) -> None:
        """Look in `folder`, and for the server's address in `environ`."""
        self._environ = os.environ if environ is None else environ
        self._folder = folder

    @property
    def namespace(self) -> str:
        """The namespace of the pod."""
        with contextlib.suppress(OSError):
            return (self._folder / "namespace").read_text().strip() or "default"
        return "default"

    async def load(self) -> Configuration:
        """Read token and CA; the configuration reads the token again every minute."""
        configuration = Configuration()
        loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]
            token_filename=str(self._folder / "token"),
            cert_filename=str(self._folder / "ca.crt"),
            environ=self._environ,
        )
        try:
            loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError) as e:
            raise Unconfigured(f"service account in {self._folder}: {e}") from e
        return configuration

    def __repr__(self) -> str:
        return f"<ServiceAccount {self._folder}>"


class Kubeconfig:
    """A kubeconfig file, as kubectl reads it."""

    proxied: Final = True

    def __init__(self, path: Path | None = None, *, context: str | None = None) -> None:
        """Use `context`, or the current one, of the file at `path`."""
        self._path = (path or KUBECONFIG).expanduser()
        self._context = context

    @property
    def namespace(self) -> str:
        """The namespace of the context."""
        try:
            told = yaml.safe_load(self._path.read_text())
            name = self._context or told["current-context"]
            contexts = {entry["name"]: entry["context"] for entry in told["contexts"]}
            return str(contexts[name].get("namespace") or "default")
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
            return "default"

    async def load(self) -> Configuration:
        """Read the file, and run its plugin if it has one."""
        configuration = Configuration()
        try:
            await load_kube_config(  # type: ignore[no-untyped-call]
                str(self._path), context=self._context, client_configuration=configuration
            )
        except (ConfigException, OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as e:
            raise Unconfigured(f"kubeconfig {self._path}: {e}") from e
        return configuration

    def __repr__(self) -> str:
        return f"<Kubeconfig {self._path}>"


def find_credentials(environ: Mapping[str, str] | None = None) -> Credentials:
    """$KUBECONFIG when it is set, else the service account when this is a pod, else ~/.kube/config.

    The order of controller-runtime: what somebody set is what somebody meant.

    Raises:
        Unconfigured: None of them is there, or $KUBECONFIG is no file.
    """
    env = os.environ if environ is None else environ
    told = env.get("KUBECONFIG")
    if not told and env.get("KUBERNETES_SERVICE_HOST"):
        return ServiceAccount(env)
    path = Path(told or KUBECONFIG).expanduser()
    if told and not path.is_file():
        raise Unconfigured(f"KUBECONFIG: there is no file {path}")
    if not path.is_file():
        raise Unconfigured(
            f"not in a pod (no KUBERNETES_SERVICE_HOST) and no kubeconfig at {path}; "
            "set KUBECONFIG to the file that kubectl uses"
        )
    return Kubeconfig(path)


class Connection:
    """A session with one API server: its address, TLS context, pool, and our token.

    Made inside a running event loop; whoever made it closes it.
    """

    def __init__(self, configuration: Configuration, *, proxied: bool) -> None:
        """Prepare to connect; nothing is sent yet.

        Raises:
            Unconfigured: A certificate cannot be read.
        """
        self._configuration = configuration
        try:
            # Theirs for the TLS context: which CA, which client certificate, how strict.
            tls = (
                RESTClientObject(configuration).ssl_context
                if self.host.startswith("https:")
                else True  # without TLS nothing is verified: kubectl proxy, and tests
            )
        except OSError as e:  # ssl.SSLError is one
            raise Unconfigured(f"TLS with {configuration.host}: {e}") from e
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=_CONNECTIONS, ssl=tls, socket_factory=_patient_socket
            ),
            trust_env=proxied,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    @property
    def host(self) -> str:
        """The base URL, for messages."""
        return str(self._configuration.host)

    @property
    def has_certificate(self) -> bool:
        """Whether the TLS context proves who we are, so that new credentials need a new one."""
        return bool(self._configuration.cert_file)

    def adopt(self, configuration: Configuration) -> None:
        """Go on with a token that was read again."""
        self._configuration = configuration

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str], **options: Any
    ) -> aiohttp.ClientResponse:
        """Send one request; redirects are not followed, because our token would go along."""
        sent = {**headers}
        if (token := await self._authorization()) is not None:
            sent["Authorization"] = token
        if self._configuration.tls_server_name:
            options["server_hostname"] = self._configuration.tls_server_name
        if self._configuration.proxy:
            options["proxy"] = self._configuration.proxy
        return await self._session.request(
            method, self.host + path, headers=sent, allow_redirects=False, **options
        )

    async def _authorization(self) -> str | None:
        try:
            value = await self._configuration.get_api_key_with_prefix("BearerToken")
        except (ConfigException, OSError):
            # kubelet is between two tokens, or the volume is gone: the last one may still do.
            value = self._configuration.api_key.get("BearerToken")
        return value.strip() if value else None

    async def close(self) -> None:
        """Close every connection, watches included."""
        await self._session.close()

    def __repr__(self) -> str:
        return f"<Connection {self.host}>"


def _patient_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    for level, name, value in _KEEPALIVE:
        option = getattr(socket, name, None)
        if option is not None:  # not every system has all of them
            with contextlib.suppress(OSError):
                sock.setsockopt(level, option, value)
    return sock
