"""Who may do what: roles, their members and their bindings."""

from __future__ import annotations

from pydantic import model_validator

from heim_config.fields import DomainName, Email, Flag, Issuer, Name, QualifiedName, Section, Text
from heim_config.problems import mistake

__all__ = ["Binding", "Member", "Role", "ServiceAccount"]


class Member(Section):
    """Who is in a role; exactly one of the forms user, group, domain, service_account, subject."""

    user: Email | None = None
    """A person by verified e-mail. The first account seen with an address is pinned to it."""

    group: Text | None = None
    """Everybody in a group, as the provider's groups claim spells it."""

    provider: Name | None = None
    """Whose group is meant. Default: the only provider; required with `group` when there are
    several, because a group of the same name elsewhere is another group."""

    domain: DomainName | None = None
    """Everybody of a domain; on google the `hd` claim, so private accounts are not in it."""

    service_account: Name | None = None
    """A program, by its name under `service_accounts`."""

    issuer: Issuer | None = None
    """Together with `subject`: a person by the pair that never changes hands."""

    subject: Text | None = None
    """The subject identifier that the issuer gives; needs `issuer`."""

    @model_validator(mode="after")
    def _check_form(self) -> Member:
        forms = {
            "user": self.user,
            "group": self.group,
            "domain": self.domain,
            "service_account": self.service_account,
            "subject": self.subject or self.issuer,
        }
        given = [name for name, value in forms.items() if value is not None]
        if len(given) != 1:
            raise mistake(
                f"names {' and '.join(given) or 'nobody'}",
                "a member is exactly one of user, group, domain, service_account, subject",
            )
        if (self.issuer is None) != (self.subject is None):
            raise mistake("needs both issuer and subject", "a subject means nothing without issuer")
        if self.provider is not None and self.group is None:
            raise mistake("has a provider without a group", "only groups belong to a provider")
        return self


class Binding(Section):
    """What a role gives on a backend: one of its permissions, or its tcp."""

    backend: QualifiedName
    """The backend's name. Required."""

    permission: Name | None = None
    """The name of one of the backend's permissions. Required for what backends serve over http: a
    binding says what may be done, never everything by omission. Without it the binding gives the
    backend's `tcp`, and nothing of its http."""


class Role(Section):
    """A named set of members with bindings."""

    name: QualifiedName
    """How logs, explanations and assertions call it. Required, unique."""

    members: tuple[Member, ...] = ()
    """Who is in it. Default: nobody."""

    bindings: tuple[Binding, ...] = ()
    """What they may do. Default: nothing; access is what bindings give and nothing else."""

    approve_agents: Flag = False
    """Members may let agents in, by typing the code that an agent shows. Default: false; members of
    break-glass roles may."""

    break_glass: Flag = False
    """Members may do everything on every backend, over http and tcp, and each use is audited as
    break-glass. Default: false; meant for the few people who must get in when the configuration is
    wrong."""


class ServiceAccount(Section):
    """A program that acts under its own name: it signs in with a service token, for tcp only."""

    name: Name
    """How members and logs call it. Required, unique."""
