"""What the portal works with: services of the process, and settings of one configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from heim_proxy.access.applications import Application
from heim_proxy.access.policy import Approver
from heim_proxy.access.subject import Subject
from heim_proxy.agents.authority import Authority
from heim_proxy.agents.enrolment import Enrolments
from heim_proxy.agents.presence import Presence
from heim_proxy.identity.handoff import Tickets
from heim_proxy.identity.oidc import OidcLogin
from heim_proxy.identity.programs import ProgramIdentity
from heim_proxy.identity.providers import Provider
from heim_proxy.identity.seal import Sealer
from heim_proxy.identity.session import Sessions
from heim_proxy.identity.signing import SigningKeys
from heim_proxy.observe.audit import Audit
from heim_proxy.portal.reachable import Reachable
from heim_proxy.routing import AgentGrant
from heim_proxy.store.base import Store
from heim_runtime.clock import Clock

__all__ = ["PortalContext", "PortalSettings"]


@dataclass(frozen=True, slots=True)
class PortalSettings:
    """What the portal needs of one configuration; taken once per request.

    `public_url` gives "https://host[:port]" of a canonical host; `backend_for` the name of the
    backend that a canonical host leads to, or None; `max_session_age` a backend's limit in seconds,
    or None; `applications` what somebody may open, in the order it is shown; `reachable` what they
    may use with programs, too; `token_domains` where programs may send their tokens; `agents` which
    agents may exist, by name, and `approver` by what right somebody lets them in, or None.
    """

    login_host: str
    public_url: Callable[[str], str]
    backend_for: Callable[[str], str | None]
    max_session_age: Callable[[str], float | None]
    applications: Callable[[Subject], Sequence[Application]]
    reachable: Callable[[Subject], Sequence[Reachable]]
    token_domains: tuple[str, ...]
    providers: tuple[Provider, ...]
    agents: Mapping[str, AgentGrant]
    approver: Callable[[Subject], Approver | None]

    @property
    def login_url(self) -> str:
        """The login host's origin, with the port that people's URLs carry."""
        return self.public_url(self.login_host)

    def origin_of(self, host: str) -> str | None:
        """The public origin of a backend's host; None when the host is not a backend's."""
        return None if self.backend_for(host) is None else self.public_url(host)

    def age_limit(self, host: str | None) -> float | None:
        """How old a login may be for a backend's host, in seconds; None when any age will do."""
        backend = None if host is None else self.backend_for(host)
        return None if backend is None else self.max_session_age(backend)

    def provider(self, name: str) -> Provider | None:
        """The provider called `name`."""
        return next((one for one in self.providers if one.name == name), None)


@dataclass(frozen=True, slots=True)
class PortalContext:
    """Everything the portal's handlers use. One per process.

    `count_login` is told the outcome of every sign-in: succeeded, refused or failed. `authority` is
    the agents' one in the present configuration, and `agents` which machines are connected.
    """

    settings: Callable[[], PortalSettings]
    sessions: Sessions
    sealer: Sealer
    tickets: Tickets
    store: Store
    login: OidcLogin
    programs: ProgramIdentity
    enrolments: Enrolments
    authority: Callable[[], Authority]
    agents: Callable[[], Sequence[Presence]]
    keys: Callable[[], SigningKeys]
    audit: Audit
    clock: Clock
    count_login: Callable[[str], None]
