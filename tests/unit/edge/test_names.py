from __future__ import annotations

import pytest

from heim_proxy.edge.names import (
    REQUEST_NAMES,
    RESPONSE_NAMES,
    NameTable,
    RequestField,
    ResponseField,
    sets_our_cookie,
)
from heim_proxy.identity.families import FAMILIES


def spellings(name: str) -> list[bytes]:
    """The same name to a server that folds separators and case (B3-B7)."""
    return [
        one.encode()
        for one in (
            name, name.lower(), name.upper(), name.replace("-", "_"), name.replace("-", "."),
            name.replace("-", "--"), name.replace("-", ""), name + "-", "-" + name,
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "X-Auth-Id", "X-Auth-Token", "Remote-User", "Remote-Groups", "X-Forwarded-User",
        "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username",
        "X-Forwarded-Access-Token", "X-Auth-Request-User", "X-WEBAUTH-USER", "X-Pomerium-Jwt",
        "Cf-Access-Jwt-Assertion", "X-Goog-Iap-Jwt-Assertion", "X-authentik-username",
        "X-Vouch-User", "OIDC_CLAIM_email", "Teleport-Jwt-Assertion", "X-Amzn-Oidc-Data",
        "X-Remote-User", "Impersonate-User", "X-SSL-Client-Cert", "X-Client-Cert", "X-Heim-Session",
        "X-Heim-Host", "X-Heim-Anything",
    ],
)  # fmt: skip
def test_identity_headers_of_every_product_are_dropped_in_every_spelling(name: str) -> None:
    for spelling in spellings(name):
        assert REQUEST_NAMES[spelling] == RequestField.DROP, spelling


def test_the_table_of_families_is_what_is_dropped() -> None:
    assert FAMILIES
    assert REQUEST_NAMES[b"x-heim-new"] == RequestField.DROP


@pytest.mark.parametrize(
    "name",
    [
        "Forwarded", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP", "X-Client-IP",
        "X-Envoy-External-Address", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Uri",
        "X-Forwarded-Path", "X-Forwarded-Prefix", "X-Forwarded-Port", "X-Forwarded-Host",
        "X-Forwarded-Proto", "X-Forwarded-Scheme", "X-Forwarded-Method", "X-Forwarded-Ssl",
        "X-Forwarded-Whatever", "Front-End-Https", "X-HTTP-Method-Override", "X-HTTP-Method",
        "X-Method-Override", "X-Original-Host", "X-Host", "HTTP2-Settings", "TE", "Trailer",
        "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate",
    ],
)  # fmt: skip
def test_headers_that_tell_another_story_are_dropped(name: str) -> None:
    for spelling in (name, name.lower(), name.upper()):
        assert REQUEST_NAMES[spelling.encode()] == RequestField.DROP


@pytest.mark.parametrize("name", ["X_A", "X.A", "X!A", "X A", "_", "X-Ä", "X~", "X|A", "X'A", "X*"])
def test_names_beyond_letters_digits_and_hyphens_are_dropped(name: str) -> None:
    assert REQUEST_NAMES[name.encode()] == RequestField.DROP


@pytest.mark.parametrize(
    "name",
    [
        "Accept", "User-Agent", "Authorization", "Origin", "Referer", "Range", "If-None-Match",
        "Content-Type", "Sec-WebSocket-Key", "Sec-Fetch-Mode", "X-Requested-With", "X-CSRF-Token",
        "Tracestate", "Baggage", "DNT", "X-Author", "1",
    ],
)  # fmt: skip
def test_ordinary_headers_pass(name: str) -> None:
    for spelling in (name, name.lower(), name.upper()):
        assert REQUEST_NAMES[spelling.encode()] == RequestField.PASS


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("Host", RequestField.HOST),
        ("Content-Length", RequestField.CONTENT_LENGTH),
        ("Transfer-Encoding", RequestField.TRANSFER_ENCODING),
        ("Connection", RequestField.CONNECTION),
        ("Cookie", RequestField.COOKIE),
        ("Upgrade", RequestField.UPGRADE),
        ("X-Forwarded-For", RequestField.FORWARDED),
        ("X-Request-Id", RequestField.FORWARDED),
        ("Traceparent", RequestField.TRACEPARENT),
    ],
)
def test_headers_with_a_meaning_are_known_in_every_case(name: str, field: RequestField) -> None:
    for spelling in (name, name.lower(), name.upper()):
        assert REQUEST_NAMES[spelling.encode()] == field


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("Set-Cookie", ResponseField.SET_COOKIE),
        ("Connection", ResponseField.CONNECTION),
        ("X-Request-Id", ResponseField.DROP),
        ("Alt-Svc", ResponseField.DROP),
        ("Trailer", ResponseField.DROP),
        ("Access-Control-Allow-Origin", ResponseField.CORS),
        ("X-Auth-Id", ResponseField.PASS),
        ("X_Odd", ResponseField.PASS),
        ("Strict-Transport-Security", ResponseField.PASS),
    ],
)
def test_answers_have_a_table_of_their_own(name: str, field: ResponseField) -> None:
    for spelling in (name, name.lower(), name.upper()):
        assert RESPONSE_NAMES[spelling.encode()] == field


def test_passing_is_zero_because_the_hot_path_tests_for_it() -> None:
    assert not RequestField.PASS
    assert not ResponseField.PASS


def test_a_client_that_invents_names_does_not_fill_memory() -> None:
    table = NameTable({}, from_client=True)
    for index in range(10_000):
        assert table[b"x-invented-%d" % index] == RequestField.PASS
        assert table[b"x_invented-%d" % index] == RequestField.DROP
    assert len(table) <= 2048
    # What came too late to be remembered is judged all the same.
    assert table[b"X-Auth-Id"] == RequestField.DROP


@pytest.mark.parametrize(
    ("value", "ours"),
    [
        (b"__Host-heim=x", True),
        (b" __Host-heim=x", True),
        (b'"__Host-heim"=x', True),
        (b"__host-HEIM_1=x", True),
        (b"__Host-heim", True),
        (b"a=__Host-heim", False),
        (b"heim=x; a=__Host-heim", False),
        (b"", False),
        (b"=__Host-heim=x", True),
        (b" = =__host-heim=x", True),
        (b"=a=__Host-heim", False),
    ],
)
def test_a_set_cookie_of_ours_is_recognised(value: bytes, ours: bool) -> None:
    assert sets_our_cookie(value) is ours
