"""Members of roles: the forms a role names people and machines by, and who a subject is in them.

A subject is translated into the members it *is* (`identities`); being in a role is then nothing but
equality with one of the role's members, so no form can be compared loosely by accident.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from typing import Final, assert_never

from heim_proxy.access.subject import Subject, SubjectKind

__all__ = [
    "DomainMember",
    "GroupMember",
    "IssuerMember",
    "MemberSpec",
    "ServiceAccountMember",
    "UserMember",
    "canonical_member",
    "identities",
    "label",
]

# Not str.lower(): it turns the Kelvin sign into "k", and with it a stranger's address into ours.
_ASCII_LOWER: Final = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@dataclass(frozen=True, slots=True)
class UserMember:
    """A person by verified e-mail."""

    email: str


@dataclass(frozen=True, slots=True)
class GroupMember:
    """Everybody in a group of one provider; groups of the same name elsewhere are other groups."""

    provider: str
    group: str


@dataclass(frozen=True, slots=True)
class DomainMember:
    """Everybody of a domain, as `Subject.domain` defines it; sub-domains are other domains."""

    domain: str


@dataclass(frozen=True, slots=True)
class ServiceAccountMember:
    """A configured service account by name."""

    name: str


@dataclass(frozen=True, slots=True)
class IssuerMember:
    """A principal by the pair that identifies it (OIDC Core 1.0, 2)."""

    issuer: str
    subject: str


MemberSpec = UserMember | GroupMember | DomainMember | ServiceAccountMember | IssuerMember


def canonical_member(member: MemberSpec) -> MemberSpec:
    """A member as subjects are compared with it: e-mail and domain ASCII-lowercased.

    Raises:
        ValueError: A part of it is empty; it would otherwise equal a missing attribute.
    """
    if not all(astuple(member)):
        raise ValueError(f"{member!r}: no part of a member may be empty")
    match member:
        case UserMember():
            return replace(member, email=member.email.translate(_ASCII_LOWER))
        case DomainMember():
            return replace(member, domain=member.domain.translate(_ASCII_LOWER))
        case GroupMember() | ServiceAccountMember() | IssuerMember():
            return member
        case _:
            assert_never(member)


def identities(subject: Subject) -> Iterator[MemberSpec]:
    """Every member a subject is. Attributes that are missing or empty yield nothing (J5).

    A service account is only itself: it carries no e-mail, domain or group that a person proved,
    whatever its attributes say. An agent is nobody: what it may do is serve, and never ask.
    """
    if subject.kind is SubjectKind.AGENT:
        return
    if subject.kind is SubjectKind.SERVICE_ACCOUNT:
        yield ServiceAccountMember(subject.subject)
    else:
        if subject.email:
            yield UserMember(subject.email)
        for group in sorted(subject.groups):
            yield GroupMember(subject.provider, group)
        if subject.domain:
            yield DomainMember(subject.domain)
    yield IssuerMember(subject.issuer, subject.subject)


def label(member: MemberSpec) -> str:
    """A member in words, in the spelling of the configuration."""
    match member:
        case UserMember(email):
            return f"user {email}"
        case GroupMember(provider, group):
            return f"group {group} of {provider}"
        case DomainMember(domain):
            return f"domain {domain}"
        case ServiceAccountMember(name):
            return f"service account {name}"
        case IssuerMember(issuer, subject):
            return f"subject {subject} of {issuer}"
        case _:
            assert_never(member)
