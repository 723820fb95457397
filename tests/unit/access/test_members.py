from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import pytest

from heim_proxy.access.members import (
    DomainMember,
    GroupMember,
    IssuerMember,
    MemberSpec,
    ServiceAccountMember,
    UserMember,
    canonical_member,
    identities,
    label,
)
from heim_proxy.access.subject import Subject, SubjectKind


def person(
    email: str | None = "alice@example.com",
    domain: str | None = "example.com",
    groups: frozenset[str] = frozenset(("sre",)),
) -> Subject:
    return Subject(SubjectKind.USER, "https://idp", "42", "google", email, domain, groups)


ROBOT = Subject(SubjectKind.SERVICE_ACCOUNT, "heim", "ci", "heim")
DISGUISED = Subject(
    SubjectKind.SERVICE_ACCOUNT,
    "heim",
    "ci",
    "google",
    email="alice@example.com",
    domain="example.com",
    groups=frozenset(("sre",)),
)
NAMED_LIKE_ALICE = person(None, None, frozenset(("alice@example.com",)))
IN_A_COMMA_B = person(groups=frozenset(("a,b",)))

IS = [
    ("user by address", UserMember("alice@example.com"), person()),
    ("group of the provider", GroupMember("google", "sre"), person()),
    ("domain", DomainMember("example.com"), person()),
    ("issuer and subject", IssuerMember("https://idp", "42"), person()),
    ("service account", ServiceAccountMember("ci"), ROBOT),
    ("service account by issuer and subject", IssuerMember("heim", "ci"), ROBOT),
    (
        "group with a comma (J6)",
        GroupMember("google", "a,b"),
        person(groups=frozenset(("a,b", "c"))),
    ),
]

IS_NOT = [
    ("another address", UserMember("bob@example.com"), person()),
    ("no verified address (J5)", UserMember("alice@example.com"), person(email=None)),
    ("address in another case was not normalised", UserMember("a@x"), person(email="A@x")),
    ("Kelvin sign (J3)", UserMember("k@example.com"), person(email="\u212a@example.com")),
    ("full-width at sign (J3)", UserMember("a@example.com"), person(email="a\uff20example.com")),
    ("trailing dot (J3)", UserMember("alice@example.com"), person(email="alice@example.com.")),
    ("NUL (J3)", UserMember("alice@example.com"), person(email="alice@example.com\0")),
    ("address as group (J6)", UserMember("alice@example.com"), NAMED_LIKE_ALICE),
    ("group as address (J6)", GroupMember("google", "alice@example.com"), person()),
    ("group of another provider", GroupMember("okta", "sre"), person()),
    ("group in another case (J6)", GroupMember("google", "SRE"), person()),
    ("one of two groups with a comma (J6)", GroupMember("google", "a"), IN_A_COMMA_B),
    ("sub-domain (J3)", DomainMember("example.com"), person(domain="sub.example.com")),
    ("parent domain (J3)", DomainMember("sub.example.com"), person()),
    ("domain suffix (J3)", DomainMember("example.com"), person(domain="evilexample.com")),
    ("domain of the address alone", DomainMember("example.com"), person(domain=None)),
    ("empty domain", DomainMember("example.com"), person(domain="")),
    ("issuer with a slash (I7)", IssuerMember("https://idp/", "42"), person()),
    ("another subject (J4)", IssuerMember("https://idp", "43"), person()),
    ("person called like a service account", ServiceAccountMember("42"), person()),
    ("another service account", ServiceAccountMember("cd"), ROBOT),
    ("service account with an address", UserMember("alice@example.com"), DISGUISED),
    ("service account with a group", GroupMember("google", "sre"), DISGUISED),
    ("service account with a domain", DomainMember("example.com"), DISGUISED),
]


@pytest.mark.parametrize(("member", "subject"), [pytest.param(*c[1:], id=c[0]) for c in IS])
def test_subject_is_the_member(member: MemberSpec, subject: Subject) -> None:
    assert member in set(identities(subject))


@pytest.mark.parametrize(("member", "subject"), [pytest.param(*c[1:], id=c[0]) for c in IS_NOT])
def test_subject_is_not_the_member(member: MemberSpec, subject: Subject) -> None:
    assert member not in set(identities(subject))


@pytest.mark.parametrize("value", [None, ""], ids=["missing", "empty"])
def test_missing_attributes_make_nobody_a_member(value: str | None) -> None:
    """J5: a missing claim never equals the empty string."""
    nobody = person(value, value, frozenset())
    assert list(identities(nobody)) == [IssuerMember("https://idp", "42")]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param(UserMember("Alice@EXAMPLE.com"), UserMember("alice@example.com"), id="user"),
        pytest.param(DomainMember("Example.COM"), DomainMember("example.com"), id="domain"),
        pytest.param(GroupMember("okta", "SRE"), GroupMember("okta", "SRE"), id="group"),
        pytest.param(IssuerMember("https://I", "S"), IssuerMember("https://I", "S"), id="issuer"),
        pytest.param(ServiceAccountMember("CI"), ServiceAccountMember("CI"), id="service account"),
        pytest.param(
            UserMember("\u212a@example.com"),
            UserMember("\u212a@example.com"),
            id="Kelvin sign (J3)",
        ),
    ],
)
def test_only_addresses_and_domains_lose_their_ascii_case(
    given: MemberSpec, kept: MemberSpec
) -> None:
    assert canonical_member(given) == kept


@pytest.mark.parametrize(
    "member",
    [
        pytest.param(UserMember(""), id="user"),
        pytest.param(DomainMember(""), id="domain"),
        pytest.param(GroupMember("", "sre"), id="group without provider"),
        pytest.param(GroupMember("okta", ""), id="group without name"),
        pytest.param(ServiceAccountMember(""), id="service account"),
        pytest.param(IssuerMember("https://idp", ""), id="subject"),
        pytest.param(IssuerMember("", "42"), id="issuer"),
    ],
)
def test_member_with_an_empty_part_is_refused(member: MemberSpec) -> None:
    with pytest.raises(ValueError, match="empty"):
        canonical_member(member)


@pytest.mark.parametrize(
    ("member", "words"),
    [
        pytest.param(UserMember("a@example.com"), "user a@example.com", id="user"),
        pytest.param(GroupMember("okta", "sre"), "group sre of okta", id="group"),
        pytest.param(DomainMember("example.com"), "domain example.com", id="domain"),
        pytest.param(ServiceAccountMember("ci"), "service account ci", id="service account"),
        pytest.param(IssuerMember("https://idp", "42"), "subject 42 of https://idp", id="issuer"),
    ],
)
def test_member_is_labelled_in_words(member: MemberSpec, words: str) -> None:
    assert label(member) == words


@dataclass(frozen=True)
class StrangeMember:
    """A form that a later version adds without saying what it means here."""

    name: str = "x"


@pytest.mark.parametrize("use", [canonical_member, label], ids=["canonical", "label"])
def test_form_of_member_that_nobody_defined_is_an_error(
    use: Callable[[MemberSpec], object],
) -> None:
    with pytest.raises(AssertionError):
        use(cast("MemberSpec", StrangeMember()))


def test_an_agent_is_nobody_that_a_role_could_name() -> None:
    """A service account may have its name; serving is not asking."""
    agent = Subject(SubjectKind.AGENT, "heim", "ci", "heim", "alice@example.com", "example.com")
    assert list(identities(agent)) == []
