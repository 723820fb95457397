"""Who is asking, as policy sees them: proven facts only."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["Subject", "SubjectKind"]


class SubjectKind(enum.Enum):
    """What kind of principal a subject is."""

    USER = "user"
    SERVICE_ACCOUNT = "service_account"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Subject:
    """A principal and the facts that were proven about it at login.

    `issuer` and `subject` identify it (OIDC Core 1.0, 2); everything else are attributes. `email`
    is set only when the provider verified it and is authoritative for its domain; `domain` is what
    `domain:` members compare with: on Google the `hd` claim itself, elsewhere the domain of
    `email`. Both are ASCII-lowercased. `groups` are those of `provider` only.
    For a service account and an agent, `subject` is its configured name and `issuer` is "heim".
    """

    kind: SubjectKind
    issuer: str
    subject: str
    provider: str
    email: str | None = None
    domain: str | None = None
    groups: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What people call it: the e-mail if there is one, else the issuer's subject."""
        return self.email or self.subject
