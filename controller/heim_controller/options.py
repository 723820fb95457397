"""What `heim-controller` was started with: flags and their environment twins, understood."""

from __future__ import annotations

import argparse
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast
from urllib.parse import urlsplit

from heim_controller.translation.hosts import canonical_host
from heim_controller.translation.names import is_label, is_object_key
from heim_controller.translation.objects import Key
from heim_controller.translation.settings import Settings
from heim_runtime.complaints import UsageError

__all__ = ["Options", "SecretsMode", "settings_of"]

SecretsMode: TypeAlias = Literal["namespaces", "cluster", "none"]

_MODES: Final = ("namespaces", "cluster", "none")
_DEFAULT_CONFIG_MAP: Final = "heim-configuration"
_DEFAULT_HEALTH: Final = "127.0.0.1:9441"
# The ConfigMap's name is the value of a label, and those of its shards end in -1 to -8.
_MAX_CONFIG_MAP_CHARS: Final = 61
_PROVIDER: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Options:
    """What `run` was told.

    Attributes:
        settings: What translations need to know.
        config_map: The ConfigMap to write; its name is also the label's value of all that we make.
        status_url: The proxy's /status, or "".
        publish_service: Whose addresses go into Ingresses, unless there are `publish_addresses`.
        publish_addresses: What goes there in any case.
        secrets: Where TLS Secrets may be read, beside the Proxy's own namespace.
        secrets_namespaces: Those namespaces, for the mode of that name.
        health: Host and port to serve /livez, /readyz and /metrics on.
        lease_s: How long others wait for a leader that is silent, in whole seconds.
        pod: What this replica is called, in the Lease and in Events.
    """

    settings: Settings
    config_map: str = _DEFAULT_CONFIG_MAP
    status_url: str = ""
    publish_service: Key | None = None
    publish_addresses: tuple[str, ...] = ()
    secrets: SecretsMode = "namespaces"
    secrets_namespaces: tuple[str, ...] = ()
    health: tuple[str, int] = ("127.0.0.1", 9441)
    lease_s: int = 15
    pod: str = "heim-controller"

    @property
    def namespace(self) -> str:
        """The namespace of the Proxy, where everything is that we own."""
        return self.settings.proxy[0]

    @property
    def lease(self) -> str:
        """The Lease that candidates for this Proxy stand for."""
        return f"{self.settings.proxy[1]}-controller"

    @classmethod
    def of(cls, args: argparse.Namespace, environ: Mapping[str, str]) -> Options:
        """Understand the arguments of `run`; a flag wins over its environment twin.

        Raises:
            UsageError: Something is missing or cannot be understood.
        """
        said = _Said(args, environ)
        mode = said.one("secrets", "SECRETS") or "namespaces"
        if mode not in _MODES:
            raise UsageError(f"HEIM_CONTROLLER_SECRETS {mode!r} is not one of {', '.join(_MODES)}")
        namespaces = said.several("secrets_namespace", "SECRETS_NAMESPACES")
        for one in namespaces:
            if not is_label(one):
                raise UsageError(f"--secrets-namespace {one!r} is not a namespace")
        if namespaces and mode != "namespaces":
            raise UsageError(f"--secrets-namespace means nothing with --secrets {mode}")
        service = said.one("publish_service", "PUBLISH_SERVICE")
        return cls(
            settings_of(args, environ),
            config_map=_config_map(said.one("config_map", "CONFIG_MAP") or _DEFAULT_CONFIG_MAP),
            status_url=_url(said.one("proxy_status_url", "PROXY_STATUS_URL") or ""),
            publish_service=_key("--publish-service", service) if service else None,
            publish_addresses=tuple(
                _address(one) for one in said.several("publish_address", "PUBLISH_ADDRESSES")
            ),
            secrets=cast(SecretsMode, mode),
            secrets_namespaces=tuple(dict.fromkeys(namespaces)),
            health=_place(said.one("health_address", "HEALTH_ADDRESS") or _DEFAULT_HEALTH),
            lease_s=_lease(said.one("lease_duration", "LEASE_DURATION") or "15"),
            pod=environ.get("POD_NAME") or socket.gethostname(),
        )


def settings_of(
    args: argparse.Namespace, environ: Mapping[str, str], *, proxy: str = ""
) -> Settings:
    """What translations need to know of the command line; `proxy` is the default for `--proxy`.

    Raises:
        UsageError: Something is missing or cannot be understood.
    """
    said = _Said(args, environ)
    domain = said.one("domain", "DOMAIN")
    if not domain:
        raise UsageError("--domain is missing: the domain that backends live under")
    told = said.one("proxy", "PROXY") or proxy
    if not told:
        raise UsageError("--proxy is missing: the Proxy object to serve, NAMESPACE/NAME")
    login = said.one("login_host", "LOGIN_HOST")
    # In the environment a list of providers has spaces: commas separate a provider's domains.
    providers = said.several("provider", "PROVIDERS", by=None)
    without_class = args.without_class
    if without_class is None:
        without_class = _yes(environ, "HEIM_CONTROLLER_INGRESS_WITHOUT_CLASS", default=True)
    return Settings(
        _key("--proxy", told),
        _host("--domain", domain),
        login_host=_host("--login-host", login) if login else "",
        cluster_domain=_host(
            "--cluster-domain", said.one("cluster_domain", "CLUSTER_DOMAIN") or "cluster.local"
        ),
        providers=dict(_provider(one) for one in providers),
        service_accounts=frozenset(said.several("service_account", "SERVICE_ACCOUNTS")),
        without_class=without_class,
    )


class _Said:
    """Flags, and what the environment says where they say nothing."""

    def __init__(self, args: argparse.Namespace, environ: Mapping[str, str]) -> None:
        self._args = vars(args)
        self._environ = environ

    def one(self, flag: str, twin: str) -> str:
        value = self._args.get(flag)
        return str(value if value is not None else self._environ.get(_twin(twin), "")).strip()

    def several(self, flag: str, twin: str, *, by: str | None = ",") -> tuple[str, ...]:
        told: Iterable[str] | None = self._args.get(flag)
        values = told if told is not None else self._environ.get(_twin(twin), "").split(by)
        return tuple(value.strip() for value in values if value.strip())


def _twin(name: str) -> str:
    return f"HEIM_CONTROLLER_{name}"


def _yes(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = environ.get(name, "").strip().lower()
    if value in ("true", "false", ""):
        return default if not value else value == "true"
    raise UsageError(f"{name} {value!r} is not true or false")


def _key(flag: str, value: str) -> Key:
    namespace, _, name = value.partition("/")
    if not is_object_key(namespace, name):
        raise UsageError(f"{flag} {value!r} is not NAMESPACE/NAME")
    return namespace, name


def _host(flag: str, value: str) -> str:
    host = canonical_host(value)
    if host is None or host.startswith("*"):
        raise UsageError(f"{flag} {value!r} is not a host name")
    return host


def _provider(value: str) -> tuple[str, frozenset[str]]:
    name, _, domains = value.partition("=")
    if not _PROVIDER.fullmatch(name):
        raise UsageError(f"--provider {value!r} is not NAME or NAME=DOMAIN,DOMAIN")
    found = (one.strip() for one in domains.split(","))
    return name, frozenset(_host("--provider", one) for one in found if one)


def _config_map(value: str) -> str:
    if not is_label(value) or len(value) > _MAX_CONFIG_MAP_CHARS:
        raise UsageError(
            f"--config-map {value!r} is not a name of lower-case letters, digits and - of at most "
            f"{_MAX_CONFIG_MAP_CHARS} characters"
        )
    return value


def _url(value: str) -> str:
    if value:
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            usable = False
        if not usable:
            raise UsageError(f"--proxy-status-url {value!r} is not an http or https URL")
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        return _host("--publish-address", value)


def _lease(value: str) -> int:
    # As long as the longest that candidates believe in.
    if not (value.isascii() and value.isdigit()) or not 1 <= int(value) <= 300:
        raise UsageError(f"--lease-duration {value!r} is not a number of seconds from 1 to 300")
    return int(value)


def _place(value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise UsageError(f"--health-address {value!r} is not HOST:PORT")
    return host, int(port)
