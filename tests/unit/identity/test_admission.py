"""security.md J1-J4: who a verified token makes somebody."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from heim_proxy.access.subject import Subject
from heim_proxy.identity.admission import MAX_GROUPS, Refusal, RefusalReason, admit, email_domain
from heim_proxy.identity.providers import Provider, ProviderType

TENANT = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"
ISSUER = "https://idp.example.test"

OIDC = Provider("idp", ProviderType.OIDC, ISSUER, "heim", groups_claim="groups")
BOUND = replace(OIDC, domains=frozenset({"example.test"}))
OKTA = replace(BOUND, type=ProviderType.OKTA)
GOOGLE = Provider(
    "google",
    ProviderType.GOOGLE,
    "https://accounts.google.com",
    "heim",
    hosted_domains=frozenset({"example.test"}),
)
AZURE = Provider(
    "azure",
    ProviderType.AZURE,
    f"https://login.microsoftonline.com/{TENANT}/v2.0",
    "heim",
    hosted_domains=frozenset({"example.test"}),
)
ALICE: dict[str, Any] = {"email": "alice@example.test", "email_verified": True}


def admitted(provider: Provider, claims: dict[str, Any]) -> Subject:
    found = admit(provider, provider.issuer, "1001", claims)
    assert isinstance(found, Subject), found
    return found


def refused(provider: Provider, claims: dict[str, Any]) -> RefusalReason:
    found = admit(provider, provider.issuer, "1001", claims)
    assert isinstance(found, Refusal), found
    assert found.detail.endswith(".")
    assert "@" not in found.detail
    return found.reason


@pytest.mark.parametrize(
    ("provider", "claims", "email", "domain"),
    [
        pytest.param(OIDC, ALICE, "alice@example.test", "example.test", id="oidc"),
        pytest.param(BOUND, ALICE, "alice@example.test", "example.test", id="oidc with domains"),
        pytest.param(OKTA, ALICE, "alice@example.test", "example.test", id="okta"),
        pytest.param(
            GOOGLE, {**ALICE, "hd": "example.test"}, "alice@example.test", "example.test", id="hd"
        ),
        pytest.param(
            GOOGLE,
            {"email": "alice@alias.test", "email_verified": True, "hd": "Example.Test"},
            "alice@alias.test",
            "example.test",
            id="hd of an organisation with a second domain",
        ),
        pytest.param(
            replace(GOOGLE, hosted_domains=frozenset()),
            ALICE,
            "alice@example.test",
            None,
            id="google account without an organisation has no domain",
        ),
        pytest.param(
            AZURE, {"tid": TENANT, "email": "alice@example.test"},
            "alice@example.test", "example.test", id="azure",
        ),
        pytest.param(
            AZURE, {"tid": TENANT.upper(), "upn": "alice@example.test", "xms_edov": True},
            "alice@example.test", "example.test", id="azure upn",
        ),
        pytest.param(OIDC, {}, None, None, id="no address and no rule that needs one"),
        pytest.param(
            replace(OIDC, insecure_skip_email_verified=True), {"email": "a@b.test"},
            "a@b.test", "b.test", id="verification switched off",
        ),
    ],
)  # fmt: skip
def test_somebody_is_admitted(
    provider: Provider, claims: dict[str, Any], email: str | None, domain: str | None
) -> None:
    found = admitted(provider, claims)
    assert (found.issuer, found.subject, found.provider) == (provider.issuer, "1001", provider.name)
    assert (found.email, found.domain) == (email, domain)


@pytest.mark.parametrize(
    "verified",
    [
        pytest.param(False, id="false"),
        pytest.param("false", id="the text false"),
        pytest.param("true", id="the text true"),
        pytest.param(0, id="0"),
        pytest.param(1, id="1"),
        pytest.param(None, id="null"),
        pytest.param([True], id="list"),
    ],
)
@pytest.mark.parametrize("provider", [OIDC, OKTA, GOOGLE], ids=["oidc", "okta", "google"])
def test_j1_an_address_that_is_not_strictly_verified_is_refused(
    provider: Provider, verified: object
) -> None:
    claims = {"email": "alice@example.test", "email_verified": verified, "hd": "example.test"}
    assert refused(provider, claims) is RefusalReason.EMAIL_UNVERIFIED


def test_j1_a_missing_email_verified_is_refused() -> None:
    assert refused(OIDC, {"email": "alice@example.test"}) is RefusalReason.EMAIL_UNVERIFIED


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({}, id="J2 missing"),
        pytest.param({"hd": "other.test"}, id="J2 other"),
        pytest.param({"hd": None}, id="J2 null"),
        pytest.param({"hd": ["example.test"]}, id="J2 list"),
        pytest.param({"hd": ""}, id="J2 empty"),
        pytest.param({"hd": "sub.example.test"}, id="J2 subdomain"),
        pytest.param({"hd": "example.test."}, id="J2 trailing dot"),
        pytest.param({"hd": "ｅxample.test"}, id="J2 full-width"),
    ],
)
def test_j2_google_is_judged_by_the_hd_claim_and_not_by_the_address(claims: dict[str, Any]) -> None:
    assert refused(GOOGLE, {**ALICE, **claims}) is RefusalReason.HOSTED_DOMAIN


@pytest.mark.parametrize(
    "email",
    [
        "a@evil.test@example.test",
        '"a@example.test"@evil.test',
        '"a"@example.test',
        "a@example.test.evil.test",
        "a@sub.example.test",
        "a@example.test.",
        "a@example.test\0",
        "a\0@example.test",
        "a@example.test\n",
        "a@evil.test\n@example.test",
        "a＠example.test",
        "a@exampleＮ.test",
        "a@example.te\u017ft",
        "a@\u212aexample.test",
        "\u212a@example.test",
        "a\u0131@example.test",
        "a@еxample.test",
        "a@example..test",
        "a@.example.test",
        "a@-example.test",
        "a@example",
        "a@[127.0.0.1]",
        "a@example.test ",
        " a@example.test",
        "a b@example.test",
        "a,b@example.test",
        "a<b>@example.test",
        "a@example.test>",
        ".a@example.test",
        "a..b@example.test",
        "@example.test",
        "a@",
        "a",
        "",
        "a" * 65 + "@example.test",
        "a@" + "b" * 64 + ".test",
        "a@" + "b." * 130 + "test",
        1,
        ["a@example.test"],
        {"a@example.test": 1},
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("provider", [BOUND, OKTA], ids=["oidc", "okta"])
def test_j3_an_address_that_is_not_exactly_of_the_domain_is_refused(
    provider: Provider, email: object
) -> None:
    reason = refused(provider, {"email": email, "email_verified": True})
    assert reason in (RefusalReason.EMAIL_MALFORMED, RefusalReason.DOMAIN)


@pytest.mark.parametrize("email", ["a@EXAMPLE.test", "A@example.TEST"])
def test_j3_ascii_case_does_not_matter(email: str) -> None:
    found = admitted(BOUND, {"email": email, "email_verified": True})
    assert (found.email, found.domain) == ("a@example.test", "example.test")


def test_j4_the_same_address_with_another_sub_is_another_subject() -> None:
    first = admit(OIDC, ISSUER, "1001", ALICE)
    second = admit(OIDC, ISSUER, "1002", ALICE)
    assert first != second


@pytest.mark.parametrize(
    ("provider", "claims", "reason"),
    [
        pytest.param(AZURE, {"tid": OTHER}, RefusalReason.TENANT, id="another tenant"),
        pytest.param(AZURE, {}, RefusalReason.TENANT, id="no tid"),
        pytest.param(AZURE, {"tid": [TENANT]}, RefusalReason.TENANT, id="tid a list"),
        pytest.param(
            replace(AZURE, issuer="https://login.microsoftonline.com/common/v2.0"),
            {"tid": "common"}, RefusalReason.TENANT, id="common is no fixed tenant",
        ),
        pytest.param(
            AZURE, {"tid": TENANT, "email": "a@evil.test"}, RefusalReason.DOMAIN, id="guest"
        ),
        pytest.param(
            AZURE, {"tid": TENANT, "email": "a@evil.test", "upn": "a@example.test"},
            RefusalReason.DOMAIN, id="the address decides, not the better of two",
        ),
        pytest.param(
            AZURE, {"tid": TENANT, "email": "a@example.test", "xms_edov": False},
            RefusalReason.EMAIL_UNVERIFIED, id="owner of the domain not verified",
        ),
        pytest.param(
            AZURE, {"tid": TENANT, "email": "a@example.test", "xms_edov": "0"},
            RefusalReason.EMAIL_UNVERIFIED, id="owner not verified, as text",
        ),
        pytest.param(AZURE, {"tid": TENANT}, RefusalReason.EMAIL_MISSING, id="no address"),
        pytest.param(
            replace(AZURE, hosted_domains=frozenset()), {"tid": TENANT, "email": "a@b.test"},
            RefusalReason.DOMAIN, id="no domain configured",
        ),
        pytest.param(BOUND, {}, RefusalReason.EMAIL_MISSING, id="a domain rule needs an address"),
        pytest.param(OKTA, {}, RefusalReason.EMAIL_MISSING, id="okta without an address"),
        pytest.param(
            replace(GOOGLE, domains=frozenset({"example.test"})),
            {"email": "a@b.test", "email_verified": True, "hd": "example.test"},
            RefusalReason.DOMAIN, id="provider is not believed for this domain",
        ),
        pytest.param(
            replace(OIDC, hosted_domains=frozenset({"a.test"}), domains=frozenset({"b.test"})),
            {"email": "x@a.test", "email_verified": True},
            RefusalReason.DOMAIN, id="both rules hold",
        ),
    ],
)  # fmt: skip
def test_somebody_is_refused(
    provider: Provider, claims: dict[str, Any], reason: RefusalReason
) -> None:
    assert refused(provider, claims) is reason


@pytest.mark.parametrize(
    ("value", "groups"),
    [
        pytest.param(["dev", "sre"], {"dev", "sre"}, id="list"),
        pytest.param("dev,sre", {"dev,sre"}, id="one string is one group, comma and all"),
        pytest.param(None, set(), id="null"),
        pytest.param({"dev": 1}, set(), id="object"),
        pytest.param([1, None, ["dev"], "ok"], {"ok"}, id="odd members"),
        pytest.param(["", "a\nb", "x" * 257, "Dev", "dev"], {"Dev", "dev"}, id="odd names"),
    ],
)
def test_groups_are_strings_and_never_split(value: object, groups: set[str]) -> None:
    assert admitted(OIDC, {**ALICE, "groups": value}).groups == groups


def test_groups_are_bounded() -> None:
    many = [f"g{number}" for number in range(MAX_GROUPS + 5)]
    assert len(admitted(OIDC, {**ALICE, "groups": many}).groups) == MAX_GROUPS


def test_groups_are_not_read_from_a_claim_that_was_not_configured() -> None:
    assert admitted(replace(OIDC, groups_claim=None), {**ALICE, "groups": ["x"]}).groups == set()


def test_the_domain_of_an_address_is_lowercased() -> None:
    assert email_domain("a@B.Test") == "b.test"
