"""Where the proxy listens, and whom it believes about addresses."""

from __future__ import annotations

from pydantic import Field, model_validator

from heim_config.fields import (
    BindAddress,
    BindAddressOrSocket,
    FilePath,
    Section,
    TrustedNetwork,
    UpstreamUrl,
)
from heim_config.problems import mistake
from heim_config.units import Address

__all__ = ["Acme", "AdminListener", "HttpListener", "HttpsListener", "Listeners", "ProxyProtocol"]


class ProxyProtocol(Section):
    """Load balancers that announce the client's address with the PROXY protocol, v1 or v2."""

    from_: tuple[TrustedNetwork, ...] = Field(default=(), alias="from")
    """Networks whose connections must begin with a PROXY header. Default: none, because whoever is
    listed chooses the client address that logs, limits and upstreams see."""


class HttpsListener(Section):
    """The public listener: TLS, HTTP/1.1 and everything that is upgraded from it."""

    address: BindAddress = Field(default="0.0.0.0:443", validate_default=True)
    """IP address and port to bind. Default 0.0.0.0:443: being reached is what this listener is for.
    Changing it needs a restart."""

    proxy_protocol: ProxyProtocol = ProxyProtocol()
    """Who announces client addresses below TLS. Default: nobody."""


class Acme(Section):
    """Who answers an ACME authority's HTTP-01 challenges: a directory or a program, not both.

    GET and HEAD of /.well-known/acme-challenge/<token>, 16 to 128 of A-Z, a-z, 0-9, - and _, for
    the login host and the hosts of backends. Nobody is asked who they are.
    """

    webroot: FilePath | None = None
    """The directory that an ACME client is given as webroot. Files below .well-known/acme-challenge
    are answered if they hold what an authority asks for, and no others."""

    upstream: UpstreamUrl | None = None
    """Where an ACME client listens by itself, such as http://127.0.0.1:8402."""

    @model_validator(mode="after")
    def _check_form(self) -> Acme:
        if (self.webroot is None) == (self.upstream is None):
            raise mistake("needs webroot or upstream, one of them")
        return self


class HttpListener(Section):
    """The plain listener: 308 to https, ACME, and public backends with `allow_http`."""

    address: BindAddress = Field(default="0.0.0.0:80", validate_default=True)
    """IP address and port to bind. Default 0.0.0.0:80, where browsers try first. Changing it needs
    a restart."""

    acme: Acme | None = None
    """Who answers HTTP-01 challenges. Default: nobody, but for `acme_challenges`. Changing it needs
    a restart."""


class AdminListener(Section):
    """For operators and probes: /livez /readyz /metrics /status, never on the public listeners."""

    address: BindAddressOrSocket = Field(default="127.0.0.1:9440", validate_default=True)
    """IP address and port, or unix:/path. Default 127.0.0.1:9440; bind it to the pod's address for
    kubelet and Prometheus, /debug/* still answers on loopback or a unix socket only. Changing it
    needs a restart."""


class Listeners(Section):
    """Every socket the proxy binds. Each change needs a restart."""

    https: HttpsListener = HttpsListener()
    """The public listener."""

    http: HttpListener | None = HttpListener()
    """The plain listener. Default: port 80; null binds nothing, and then no backend can have
    `allow_http`."""

    admin: AdminListener = AdminListener()
    """The operators' listener. Default: loopback, because it needs no login."""

    def addresses(self) -> tuple[Address, ...]:
        """Every address that is bound, https first."""
        plain = () if self.http is None else (self.http.address,)
        return (self.https.address, *plain, self.admin.address)
