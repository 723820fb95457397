from __future__ import annotations

import pytest

from heim_proxy.edge.names import (
    REQUEST_NAMES,
    RESPONSE_FIELDS,
    NameTable,
    RequestField,
    ResponseField,
    response_field,
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
        "Accept", "User-Agent", "Origin", "Referer", "Range", "If-None-Match",
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
        ("Authorization", RequestField.AUTHORIZATION),
    ],
)
def test_headers_with_a_meaning_are_known_in_every_case(name: str, field: RequestField) -> None:
    for spelling in (name, name.lower(), name.upper()):
        assert REQUEST_NAMES[spelling.encode()] == field


def meaning(name: bytes) -> int | None:
    """How an answer's header of that name is treated; None when its line passes unread."""
    lines = b"\r\nA: 1\r\n%b: 2\r\nB: 3" % name
    run, *found = RESPONSE_FIELDS.split(lines)
    if not found:
        assert run == lines
        return None
    assert (run, *found[1:]) == (b"\r\nA: 1", b": 2", b"\r\nB: 3")
    return response_field(found[0])


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("Set-Cookie", ResponseField.SET_COOKIE),
        ("Connection", ResponseField.CONNECTION),
        ("Content-Length", ResponseField.CONTENT_LENGTH),
        ("Transfer-Encoding", ResponseField.TRANSFER_ENCODING),
        ("Upgrade", ResponseField.UPGRADE),
        ("X-Request-Id", ResponseField.DROP),
        ("Alt-Svc", ResponseField.DROP),
        ("Clear-Site-Data", ResponseField.CLEAR_SITE_DATA),
        ("Keep-Alive", ResponseField.DROP),
        ("Proxy-Connection", ResponseField.DROP),
        ("Proxy-Authorization", ResponseField.DROP),
        ("Proxy-Authenticate", ResponseField.DROP),
        ("TE", ResponseField.DROP),
        ("Trailer", ResponseField.DROP),
        ("Access-Control-Allow-Origin", ResponseField.CORS),
        ("Access-Control-Allow-Credentials", ResponseField.CORS),
        ("Access-Control-Expose-Headers", ResponseField.CORS),
    ],
)
def test_an_answers_headers_with_a_meaning_are_found_in_every_case(name: str, field: int) -> None:
    for spelling in (name, name.lower(), name.upper(), name.swapcase()):
        assert meaning(spelling.encode()) == field, spelling


@pytest.mark.parametrize(
    "name",
    [
        "X-Auth-Id", "X_Odd", "Strict-Transport-Security", "Date", "Server", "Content-Type",
        "Set-Cookie2", "XSet-Cookie", "Set-Cooki", "Connectio", "Content-Lengthy", "T", "TEA",
        "Upgrade-Insecure-Requests", "Trailers", "Access-Control-Allow-Methods", "Vary",
    ],
)  # fmt: skip
def test_other_headers_of_an_answer_pass(name: str) -> None:
    for spelling in (name, name.lower(), name.upper()):
        assert meaning(spelling.encode()) is None, spelling


def test_a_name_in_a_value_means_nothing() -> None:
    line = b"\r\nX: Set-Cookie: a=b"
    assert RESPONSE_FIELDS.split(line) == [line]


def test_passing_is_zero_because_the_hot_path_tests_for_it() -> None:
    assert not RequestField.PASS


def test_a_client_that_invents_names_does_not_fill_memory() -> None:
    table = NameTable()
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
