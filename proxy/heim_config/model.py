"""The whole configuration of a proxy. What each key means is said under it.

A `Config` is immutable, its paths are resolved, its hosts canonical. `heim_config.load` makes one
from a file and is the only place that finds every mistake; building sections in code checks each
by itself, not how they fit together.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from heim_config.access import Role, ServiceAccount
from heim_config.agents import Agent, AgentsCa
from heim_config.backends import Backend
from heim_config.challenges import AcmeChallenge
from heim_config.fields import (
    DomainName,
    Duration,
    FilePath,
    Flag,
    Host,
    ObjectName,
    Section,
    TrustedNetwork,
    Whole,
    WildcardHost,
)
from heim_config.hosts import parse_host
from heim_config.identity import Assertion, Identity, Session, State
from heim_config.listeners import Listeners
from heim_config.problems import mistake
from heim_config.source import Source
from heim_config.tunnel import Tunnel

__all__ = ["Certificate", "Config", "Tls"]


class Certificate(Section):
    """A certificate with its key: two files, a mounted TLS Secret, or the Secret itself."""

    cert_file: FilePath | None = None
    """PEM file with the certificate and its chain. Needs `key_file`."""

    key_file: FilePath | None = None
    """PEM file with the certificate's private key."""

    directory: FilePath | None = None
    """Directory with tls.crt and tls.key, as Kubernetes mounts a TLS Secret, instead of files."""

    secret: ObjectName | None = None
    """Name of a TLS Secret beside the configuration document, instead of files. Needs `source`. One
    that is missing or cannot be used refuses nothing: the log says so, and the last good one
    stays."""

    hosts: tuple[WildcardHost, ...] = ()
    """The names it is shown for, of those that it has. A certificate that lists a name comes before
    one that merely has it. Default: all that it has."""

    @model_validator(mode="after")
    def _check_form(self) -> Certificate:
        pair = (self.cert_file is not None, self.key_file is not None)
        whole = (self.directory is not None, self.secret is not None)
        if (pair, sum(whole)) in (((True, True), 0), ((False, False), 1)):
            return self
        raise mistake("needs cert_file and key_file, or directory, or secret")

    @property
    def pair(self) -> tuple[Path, Path]:
        """The certificate's file and the key's; a Secret's are where its source puts them."""
        if self.directory is not None:
            return self.directory / "tls.crt", self.directory / "tls.key"
        if self.cert_file is None or self.key_file is None:
            raise AssertionError("a Secret, or the validator let half a pair through")
        return self.cert_file, self.key_file


class Tls(Section):
    """The certificates of the https listener."""

    certificates: tuple[Certificate, ...] = ()
    """Chosen by the name the client asks for: exact before one-label wildcard, the first one when
    nothing fits. Files are re-read within 2 s of a change; a pair that does not fit keeps the last
    good one. At least one is required."""

    self_signed: Flag = False
    """Show a certificate that the proxy makes for itself where none fits. Default: false; true lets
    a proxy begin before its first certificate is there, and browsers warn until then."""


def _drop_login_host_from_required(schema: dict[str, Any]) -> None:
    schema["required"] = [name for name in schema["required"] if name != "login_host"]


class Config(Section):
    """Everything a proxy is told."""

    model_config = ConfigDict(json_schema_extra=_drop_login_host_from_required)

    version: Literal[1] = 1
    """The version of this format. Default: 1, the only one."""

    domain: DomainName
    """The domain that backends without a host of their own live under. Required."""

    login_host: Host
    """The host people sign in on. Default: auth.<domain>. Never a backend: its pages hold the
    login, and a backend shares an origin with an upstream we do not trust."""

    public_port: Whole = Field(default=443, ge=1, le=65535)
    """The port that people's URLs carry. Default 443; another one when something in front of the
    proxy, or a laptop, uses another."""

    source: Source | None = None
    """Where `acme_challenges`, `agents`, `backends`, `roles` and `tls` come from, when they are not
    in this file: it must have none of them then. Default: nowhere, this file holds all. Changing it
    needs a restart."""

    listeners: Listeners = Listeners()
    """Where the proxy listens. Each change needs a restart."""

    trusted_proxies: tuple[TrustedNetwork, ...] = ()
    """Networks whose X-Forwarded-For is believed. Default: nobody's, because whoever is listed
    chooses the client address that logs and limits see."""

    tls: Tls = Tls()
    """Certificates."""

    identity: Identity = Identity()
    """How people sign in. Default: not at all, which only public backends can do with."""

    session: Session = Session()
    """How long a login lasts."""

    state: State = Field(default_factory=State)
    """Where durable facts live."""

    assertion: Assertion | None = None
    """What signs identities for upstreams. Default: a key generated once beside the state."""

    roles: tuple[Role, ...] = ()
    """Who may do what. Default: nobody anything."""

    backends: tuple[Backend, ...] = ()
    """What people reach. Default: nothing."""

    acme_challenges: tuple[AcmeChallenge, ...] = ()
    """Challenges that are let through on the plain listener. Default: none."""

    service_accounts: tuple[ServiceAccount, ...] = ()
    """Programs that act under their own name. Default: none."""

    agents: tuple[Agent, ...] = ()
    """Machines that nothing can dial into and that dial out instead. Default: none."""

    agents_ca: AgentsCa | None = None
    """What lets agents in. Default: an authority generated once beside the state, agents-ca.pem and
    agents-ca.key with mode 0600."""

    tunnel: Tunnel = Tunnel()
    """Limits of TCP streams."""

    drain: Duration = Field(default="30s", validate_default=True)
    """How long SIGTERM waits for exchanges that are under way. Default 30s, what Kubernetes waits
    before it kills."""

    @model_validator(mode="before")
    @classmethod
    def _fill_login_host(cls, data: Any) -> Any:
        if isinstance(data, dict) and "login_host" not in data:
            try:
                domain = parse_host(data.get("domain"))
            except ValueError:
                # The domain's own mistake is enough; a second one here would only repeat it.
                domain = "invalid"
            return {**data, "login_host": f"auth.{domain}"}
        return data

    def public_url(self, host: str) -> str:
        """The origin people use for `host`: ``https://host``, with the port when it is not 443."""
        return (
            f"https://{host}" if self.public_port == 443 else f"https://{host}:{self.public_port}"
        )

    def backend_hosts(self, backend: Backend) -> tuple[str, ...]:
        """The canonical hosts of `backend`, wildcards as ``*.example.com``; never empty."""
        if backend.host is None and not backend.hosts:
            return (f"{backend.name}.{self.domain}",)
        return (*(() if backend.host is None else (backend.host,)), *backend.hosts)

    def files(self) -> tuple[Path, ...]:
        """Every file whose change must lead to a reload: secrets, keys, authorities.

        Certificates are not among them (they have a watcher of their own), nor is the configuration
        itself, nor key files that are generated beside the state.
        """
        return tuple(dict.fromkeys(self._files()))

    def certificate_files(self) -> tuple[Path, ...]:
        """The files of every certificate and key of the https listener, Secrets left out."""
        return tuple(
            path
            for certificate in self.tls.certificates
            if certificate.secret is None
            for path in certificate.pair
        )

    def _files(self) -> Iterator[Path]:
        for provider in self.identity.providers:
            for path in (provider.client_secret_file, provider.ca_file):
                if path is not None:
                    yield path
        if self.session.key_file is not None:
            yield self.session.key_file
        if self.assertion is not None and self.assertion.key_file is not None:
            yield self.assertion.key_file
        if self.agents_ca is not None:
            yield self.agents_ca.cert_file
            yield self.agents_ca.key_file
        for backend in self.backends:
            if backend.upstream_tls is not None and backend.upstream_tls.ca_file is not None:
                yield backend.upstream_tls.ca_file
