"""Where people may be sent after signing in: in every browser, the same origin (A1-A20)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_proxy.identity.redirect import MAX_RD_CHARACTERS, safe_rd
from tests.fakes.whatwg import resolve

BASE = "https://app1.example.test/"

# security.md A1-A19
NUMBERED = {
    "A1": "//evil.test",
    "A2": "/\\evil.test",
    "A3": "/%5cevil.test",
    "A4 encoded": "/%09/evil.test",
    "A4 raw": "/\t/evil.test",
    "A5": "/%0d%0aLocation:https://evil.test",
    "A5 raw": "/\r\nLocation: https://evil.test",
    "A6 no slashes": "https:evil.test",
    "A6 one slash": "https:/evil.test",
    "A6 http": "http:www.evil.test",
    "A7": "https://app1.example.test.evil.test/",
    "A8": "https://evil-example.test/",
    "A9": "https://app1.example.test@evil.test/",
    "A10": "https://evil.test\\.app1.example.test/",
    "A11": "https://app1.example.test:443@evil.test",
    "A12": "javascript:alert(1)",
    "A12 case": "JaVaScRiPt:alert(1)",
    "A12 data": "data:text/html,<script>alert(1)</script>",
    "A13": "https://app1.example.test%2eevil.test",
    "A14": "https://APP1.example.test./x",
    "A15": "https://аpp1.example.test",
    "A16": "https://app1.example.test:8443/",
    "A18": "/" + "a" * MAX_RD_CHARACTERS,
    "A19 login": "/.heim/login?rd=/",
    "A19 callback": "/.heim/callback",
    "A19 bare": "/.heim",
    "A19 encoded": "/%2eheim/logout",
    "A19 twice": "/%252eheim/logout",
    "A19 case": "/.HEIM/login",
    "A19 parameter": "/.heim;x=1/login",
    "A19 dots": "/x/../.heim/login",
    "empty": "",
    "relative": "evil.test",
    "query only": "?x=1",
    "dots": "/../../",
    "dots before slashes": "/..//evil.test",
    "encoded dots": "/%2e%2e//evil.test",
    "encoded slash": "/%2fevil.test",
    "encoded slash twice": "/%252fevil.test",
    "NUL": "/a%00b",
    "space": "/a b",
    "leading space": " /a",
    "not ASCII": "/größe",
    "lone surrogate": "/\ud800",
}

GOOD = [
    "/",
    "/dashboard",
    "/d/abc?orgId=1&from=now-6h&to=now",
    "/search?q=a%2Fb&next=https://other.test/path//x",
    "/search?q=%0d%0a%09",
    "/search?q=a\\b",
    "/a/b/;p=1/c.html#section",
    "/app#/route//deep",
    "/a//b",
    "/files/a%20b/%C3%B6.txt",
    "/.well-known/x",
    "/.heimdall/x",
    "/x/.heim/login",
    "/...",
    "/a/..b/.c",
    "/" + "a" * (MAX_RD_CHARACTERS - 1),
]


@pytest.mark.parametrize("value", NUMBERED.values(), ids=NUMBERED.keys())
def test_a_hostile_target_becomes_the_start_page(value: str) -> None:
    assert safe_rd(value) == "/"


@pytest.mark.parametrize("value", GOOD)
def test_a_path_of_this_host_is_kept_as_it_is(value: str) -> None:
    assert safe_rd(value) == value
    assert resolve(value, BASE).startswith(BASE)


def hostile_targets() -> Iterator[str]:
    """Scheme, slashes, userinfo, host and tail in every combination that browsers forgive."""
    schemes = ["", "https:", "http:", "HTTPS:", "javascript:", "ht\ntps:", "\x01https:", "//x:"]
    slashes = [
        *("", "/", "//", "///", "\\", "\\\\", "/\\", "\\/", "/\t/", "/\n/", "\t//", "/%09/"),
        *("/%2f", "/%5c", "%2f%2f", "/.//", "/..//", "/./\\", "/%2e//", "/;//", "/\r\n/", "/\x0b/"),
        *("/\u2215", "\uff0f\uff0f", "/\xa0/", " //", "/ /", "/%20//", "/%0a/"),
    ]
    hosts = [
        *("evil.test", "app1.example.test@evil.test", "app1.example.test.evil.test"),
        *("evil.test\\.app1.example.test", "evil.test#app1.example.test", "[::1]", "evil%2etest"),
        *("app1.example.test:443@evil.test", "ＥＶＩＬ.test", "evil。test", "2130706433"),
    ]
    for scheme, slash, host in itertools.product(schemes, slashes, hosts):
        yield f"{scheme}{slash}{host}/path"


TARGETS = sorted(set(hostile_targets()))


def test_there_are_enough_hostile_targets_and_they_are_hostile() -> None:
    """A20. A generator that makes harmless values, or a resolver that forgives, proves nothing."""
    leaving = [value for value in TARGETS if not resolve(value, BASE).startswith(BASE)]
    assert len(TARGETS) > 2000
    assert len(leaving) > 800


def test_no_hostile_target_leaves_the_origin() -> None:
    """A20: raw, percent-decoded, percent-encoded, and padded; followed by the browser's rules."""
    for target in TARGETS:
        for value in (
            target,
            unquote(target),
            quote(target, safe="/:@"),
            f" {target}",
            f"/{target}",
        ):
            location = safe_rd(value)
            where = resolve(location, BASE)
            assert where.startswith(BASE), (value, location, where)
            # The next hop may decode the path once before it redirects again.
            again = resolve(unquote(location), BASE)
            assert again.startswith(BASE), (value, location, again)


# Alphabet of the characters that mean something to URL parsers, and a few that do not.
URLISH = st.text(alphabet="/\\:@?#%;.&=\t\r\n\0 aeh2f5cCFim-_[]{}|^\"'<>\x7fä", max_size=60)


@given(URLISH)
def test_whatever_comes_out_stays_and_cannot_split_a_header(value: str) -> None:
    for rd in (safe_rd(value), safe_rd(f"/{value}")):
        assert resolve(rd, BASE).startswith(BASE)
        assert rd.isascii()
        assert rd.isprintable()
        assert " " not in rd
        assert len(rd) <= MAX_RD_CHARACTERS
        assert safe_rd(rd) == rd


@given(st.text(max_size=3000))
def test_nothing_raises(value: str) -> None:
    assert safe_rd(value).startswith("/")
