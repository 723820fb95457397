"""Who a verified token makes somebody: the rules between "the provider signed it" and a subject.

Pure: claims in, a `Subject` or a `Refusal` out. A refusal's detail is one sentence for the person
who is refused, so it names the rule and never another account.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from heim_proxy.access.subject import Subject, SubjectKind
from heim_proxy.identity.providers import Provider, ProviderType

__all__ = ["MAX_GROUPS", "Refusal", "RefusalReason", "admit", "email_domain"]

# A person in more groups than this exists in no directory we know; each is at most 256 characters.
MAX_GROUPS: Final = 1000
MAX_GROUP_CHARS: Final = 256
MAX_EMAIL_CHARS: Final = 254

# RFC 5321's dot-string and a host name in ASCII, nothing quoted, nothing that another program could
# read differently. `fullmatch` throughout: `$` would let a line end through.
_LOCAL: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_DOMAIN: Final = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+"
)


class RefusalReason(enum.Enum):
    """Why somebody who signed in is not let in; the value is what audit events show."""

    EMAIL_MISSING = "email_missing"
    EMAIL_UNVERIFIED = "email_unverified"
    EMAIL_MALFORMED = "email_malformed"
    HOSTED_DOMAIN = "hosted_domain"
    DOMAIN = "domain"
    TENANT = "tenant"
    PINNED = "pinned_to_another_account"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The provider vouched for this person, and it is not enough."""

    reason: RefusalReason
    detail: str


def admit(
    provider: Provider, issuer: str, subject: str, claims: Mapping[str, object]
) -> Subject | Refusal:
    """Decide who the holder of verified `claims` is.

    Args:
        provider: The provider that issued them, with its rules.
        issuer: Its verified `iss`.
        subject: The verified `sub`; with `issuer` it is the identity (Core 1.0, 5.7).
        claims: All claims of the verified token.
    """
    if provider.type is ProviderType.AZURE:
        refusal = _wrong_tenant(provider, claims)
        if refusal is not None:
            return refusal
    if provider.type is ProviderType.GOOGLE and provider.hosted_domains:
        refusal = _wrong_hosted_domain(provider, claims)
        if refusal is not None:
            return refusal
    email = _email(provider, claims)
    if isinstance(email, Refusal):
        return email
    if email is not None:
        refusal = _wrong_domain(provider, email)
        if refusal is not None:
            return refusal
    return Subject(
        kind=SubjectKind.USER,
        issuer=issuer,
        subject=subject,
        provider=provider.name,
        email=email,
        domain=_domain(provider, claims, email),
        groups=_groups(provider, claims),
    )


def email_domain(address: object) -> str | None:
    """The ASCII-lowercased domain of a plain address; None when it is not one.

    Quoted local parts, a second ``@``, anything outside ASCII (full-width ``＠``, the Kelvin sign
    that lowercases to k), control characters and a trailing dot are not plain.
    """
    if not isinstance(address, str) or len(address) > MAX_EMAIL_CHARS:
        return None
    local, at, domain = address.partition("@")
    if not at or len(local) > 64 or not _LOCAL.fullmatch(local) or not _DOMAIN.fullmatch(domain):
        return None
    return domain.lower()


def _wrong_tenant(provider: Provider, claims: Mapping[str, object]) -> Refusal | None:
    tenant = claims.get("tid")
    if provider.tenant is None or not isinstance(tenant, str) or tenant.lower() != provider.tenant:
        return Refusal(RefusalReason.TENANT, "This account is not of the configured Azure tenant.")
    return None


def _wrong_hosted_domain(provider: Provider, claims: Mapping[str, object]) -> Refusal | None:
    # The claim itself: the hd parameter of the request is a hint that the person can edit.
    hosted = claims.get("hd")
    if isinstance(hosted, str) and hosted.isascii() and hosted.lower() in provider.hosted_domains:
        return None
    return Refusal(
        RefusalReason.HOSTED_DOMAIN, "This Google account is not of an organisation allowed here."
    )


def _email(provider: Provider, claims: Mapping[str, object]) -> str | Refusal | None:
    """The address, lowercased and proven; None when the provider has none and none is needed."""
    names: tuple[str, ...] = ("email",)
    if provider.type is ProviderType.AZURE:
        names = ("email", "upn", "preferred_username")
    address = next((claims[name] for name in names if claims.get(name) is not None), None)
    if address is None:
        if provider.type is ProviderType.OIDC and not (provider.domains or provider.hosted_domains):
            # No rule needs an address; members can still name {issuer, subject} or a group.
            return None
        return Refusal(RefusalReason.EMAIL_MISSING, "The provider did not tell an e-mail address.")
    if email_domain(address) is None:
        return Refusal(
            RefusalReason.EMAIL_MALFORMED, "The provider told an e-mail address we do not accept."
        )
    if not _verified(provider, claims):
        return Refusal(
            RefusalReason.EMAIL_UNVERIFIED,
            "The provider has not verified this account's e-mail address.",
        )
    return str(address).lower()


def _verified(provider: Provider, claims: Mapping[str, object]) -> bool:
    if provider.type is ProviderType.AZURE:
        # Azure sends no email_verified; a fixed tenant and the domain rule stand in for it. Where
        # the optional claim "email domain owner verified" is present, it decides.
        return claims.get("xms_edov") in (None, True, 1, "1", "true")
    # Strictly the JSON true: "false" is a true string, and 1 is somebody's bug.
    return claims.get("email_verified") is True or provider.insecure_skip_email_verified


def _wrong_domain(provider: Provider, email: str) -> Refusal | None:
    domain = email_domain(email)
    hosted = provider.hosted_domains if provider.type is not ProviderType.GOOGLE else frozenset()
    rules = [rule for rule in (hosted, provider.domains) if rule]
    if provider.type is ProviderType.AZURE and not rules:
        # Nothing would stand in for the missing email_verified.
        return Refusal(RefusalReason.DOMAIN, "No e-mail domain is configured for this provider.")
    if all(domain in rule for rule in rules):
        return None
    return Refusal(RefusalReason.DOMAIN, "This e-mail address is not of a domain allowed here.")


def _domain(provider: Provider, claims: Mapping[str, object], email: str | None) -> str | None:
    if provider.type is ProviderType.GOOGLE:
        hosted = claims.get("hd")
        if isinstance(hosted, str) and hosted.isascii() and _DOMAIN.fullmatch(hosted):
            return hosted.lower()
        return None
    return email_domain(email)


def _groups(provider: Provider, claims: Mapping[str, object]) -> frozenset[str]:
    if provider.groups_claim is None:
        return frozenset()
    value = claims.get(provider.groups_claim)
    # One string is one group, commas and all; nothing is ever split.
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list):
        return frozenset()
    good = (
        item
        for item in listed
        if isinstance(item, str) and 0 < len(item) <= MAX_GROUP_CHARS and item.isprintable()
    )
    # Roles only ever add, so leaving out what is beyond the bound can only take away.
    return frozenset(list(good)[:MAX_GROUPS])
