"""What programs are told about a configuration: where they may go, and where tokens may be sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from heim_config.model import Config
from heim_proxy.access.subject import Subject
from heim_proxy.snapshot import Snapshot

__all__ = ["Reachable", "reachable", "service_domains", "token_domains"]


@dataclass(frozen=True, slots=True)
class Reachable:
    """A backend that somebody may use, and how: `tcp` with heim-tunnel, `http` with a browser.

    `host` is what to call it by; for `tcp` it may be a wildcard (``*.example.com``). `url` is the
    origin that carries tcp, or the page to begin with.
    """

    name: str
    kind: Literal["tcp", "http"]
    host: str
    url: str


def reachable(snapshot: Snapshot, subject: Subject) -> tuple[Reachable, ...]:
    """What `subject` may use, by name; a backend that does both is there twice."""
    found = [
        Reachable(name, "tcp", host, snapshot.public_url(host))
        for name, host in snapshot.reachable_tcp(subject)
    ]
    found += [
        Reachable(one.name, "http", urlsplit(one.url).hostname or "", one.url)
        for one in snapshot.applications(subject)
    ]
    return tuple(sorted(found, key=lambda one: (one.name, one.kind)))


def token_domains(config: Config) -> tuple[str, ...]:
    """The domains whose hosts are ours: the configured one, and hosts of backends outside it.

    A program sends its tokens there and nowhere else (decision 29). A wildcard stays one: what is
    beside or deeper than its one label is somebody else's.
    """
    hosts = {host for backend in config.backends for host in config.backend_hosts(backend)}
    outside = {host for host in hosts if not f".{host}".endswith(f".{config.domain}")}
    return (config.domain, *sorted(outside))


def service_domains(config: Config) -> tuple[str, ...]:
    """`token_domains`, and the login host where it is below none of them.

    A login knows its login host; a service token has to be told.
    """
    domains = token_domains(config)
    login_host = config.login_host
    below = any(f".{login_host}".endswith(f".{domain}") for domain in domains)
    return domains if below else (*domains, login_host)
