from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from heim_proxy.target import BadTarget, Target, canonical_host, canonicalise
from tests.fakes.thorough import examples


def read(raw: bytes) -> tuple[bytes, bytes] | None:
    """Canonical path and query; None when the target is refused."""
    try:
        target = canonicalise(raw)
    except BadTarget:
        return None
    return target.path, target.query


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        pytest.param(b"/", b"/", id="root"),
        pytest.param(b"/a/b", b"/a/b", id="plain"),
        pytest.param(b"/a/b/", b"/a/b/", id="C15 trailing slash is kept"),
        pytest.param(b"/public/../admin", b"/admin", id="C1"),
        pytest.param(b"/public/%2e%2e/admin", b"/admin", id="C2"),
        pytest.param(b"/public/%2E%2E/admin", b"/admin", id="C2 capitals"),
        pytest.param(b"/public/.%2e/admin", b"/admin", id="C3"),
        pytest.param(b"/public/%2e./admin", b"/admin", id="C3 other half"),
        pytest.param(b"/public/%2e%2e%2fadmin", b"/admin", id="C4"),
        pytest.param(b"/public/..%5cadmin", None, id="C5 encoded backslash"),
        pytest.param(b"/public/..%5Cadmin", None, id="C5 in capitals"),
        pytest.param(b"/public\\..\\admin", None, id="C5 raw backslash"),
        pytest.param(b"//admin", b"/admin", id="C6 double slash"),
        pytest.param(b"/public//../admin", b"/admin", id="C6 within"),
        pytest.param(b"///admin", b"/admin", id="C6 three"),
        pytest.param(b"/%2f/admin", b"/admin", id="C6 encoded"),
        pytest.param(b"/admin//", b"/admin/", id="C6 at the end"),
        pytest.param(b"/./admin", b"/admin", id="C7"),
        pytest.param(b"/admin/.", b"/admin/", id="C7 at the end"),
        pytest.param(b"/admin/..", b"/", id="C7 up at the end"),
        pytest.param(b"/a/b/..", b"/a/", id="C7 up to a folder"),
        pytest.param(b"/%61dmin", b"/admin", id="C8"),
        pytest.param(b"/%41DMIN", b"/ADMIN", id="C8 capitals"),
        pytest.param(b"/%7euser", b"/~user", id="C8 tilde"),
        pytest.param(b"/public/..;/admin", None, id="C9 dots with a parameter"),
        pytest.param(b"/public/..;x=1/admin", None, id="C9 dots with a named parameter"),
        pytest.param(b"/public/.;/admin", None, id="C9 one dot with a parameter"),
        pytest.param(b"/public/%2e%2e;/admin", None, id="C9 encoded dots"),
        pytest.param(b"/public/..%3b/admin", None, id="C9 encoded semicolon"),
        pytest.param(b"/public/..%3B/admin", None, id="C9 encoded semicolon in capitals"),
        pytest.param(b"/public/..;", None, id="C9 at the end"),
        pytest.param(b"/public/%2f..;/admin", None, id="C9 after an encoded slash"),
        pytest.param(b"/admin%00", None, id="C10"),
        pytest.param(b"/public%00/../admin", None, id="C10 before dots"),
        pytest.param(b"/public/a%0d%0ab", None, id="C10 line end"),
        pytest.param(b"/admin%7f", None, id="C10 DEL"),
        pytest.param(b"/public%23/../admin", b"/admin", id="C11 encoded fragment"),
        pytest.param(b"/public#/../admin", None, id="C11 raw fragment"),
        pytest.param(b"/x?a#b", None, id="C11 fragment after the query"),
        pytest.param(b"/public%3f/../admin", b"/admin", id="C12"),
        pytest.param(b"/public%3F", b"/public%3F", id="C12 stays encoded"),
        pytest.param(b"/public/%252e%252e/admin", None, id="C13"),
        pytest.param(b"/public/%25%32%65%25%32%65/admin", None, id="C13 hidden behind digits"),
        pytest.param(b"/public/%25%32e%25%32e/admin", None, id="C13 hidden behind one digit"),
        pytest.param(b"/public/%252%65", None, id="C13 hidden behind the other digit"),
        pytest.param(b"/public/%2525", None, id="C13 of the percent sign"),
        pytest.param(b"/public/100%25", b"/public/100%25", id="C13 not doubly"),
        pytest.param(b"/public/100%25zz", b"/public/100%25zz", id="C13 no digits after it"),
        pytest.param(b"/%c0%ae%c0%ae/", None, id="C14 overlong"),
        pytest.param(b"/%ff", None, id="C14 no UTF-8"),
        pytest.param(b"/%ed%a0%80", None, id="C14 surrogate"),
        pytest.param(b"/%c3/%bc", None, id="C14 divided by a slash"),
        pytest.param(b"/%zz", None, id="C14 no hexadecimal"),
        pytest.param(b"/%4", None, id="C14 one digit"),
        pytest.param(b"/%", None, id="C14 no digit"),
        pytest.param(b"/%%34%31", None, id="C14 percent before an escape"),
        pytest.param(b"/%u0041", None, id="C14 IIS form"),
        pytest.param(b"/%c3%bc", b"/%C3%BC", id="C14 valid UTF-8"),
        pytest.param(b"/\xc3\xbc", None, id="raw UTF-8"),
        pytest.param(b"/admin%20", b"/admin%20", id="C15 space stays"),
        pytest.param(b"/admin%09", None, id="C15 tab"),
        pytest.param(b"/admin x", None, id="C15 raw space"),
        pytest.param(b"/a\tb", None, id="raw tab"),
        pytest.param(b"/ADMIN", b"/ADMIN", id="C16 case is kept"),
        pytest.param(b"admin", None, id="C19 no slash"),
        pytest.param(b"*", None, id="C19 asterisk"),
        pytest.param(b"", None, id="empty"),
        pytest.param(b"?x", None, id="only a query"),
        pytest.param(b"http://app1/admin", None, id="C17 absolute form is not for us"),
        pytest.param(b"/../../../etc/passwd", b"/etc/passwd", id="never above the root"),
        pytest.param(b"/..", b"/", id="up from the root"),
        pytest.param(b"/.", b"/", id="dot at the root"),
        pytest.param(b"/...", b"/...", id="three dots are a name"),
        pytest.param(b"/.hidden/..x", b"/.hidden/..x", id="names that begin with dots"),
        pytest.param(b"/a%2fb", b"/a/b", id="encoded slash"),
        pytest.param(b"/.heim/../admin", b"/admin", id="D9"),
        pytest.param(b"/admin/../.heim/me", b"/.heim/me", id="D9 into the reserved prefix"),
        pytest.param(b"/%2eheim/me", b"/.heim/me", id="reserved prefix in disguise"),
        pytest.param(b"/a|b[c]{d}^`<>\"'", b"/a|b[c]{d}^`<>\"'", id="what browsers send raw"),
        pytest.param(b"/a%7Cb%2c", b"/a%7Cb%2C", id="what is reserved stays encoded"),
    ],
)  # fmt: skip
def test_paths_have_one_reading_or_none(raw: bytes, path: bytes | None) -> None:
    found = read(raw)
    assert (found[0] if found else None) == path
    if found:
        assert canonicalise(raw).raw == raw.partition(b"?")[0]


@pytest.mark.parametrize(
    "query",
    [
        b"", b"?", b"??", b"?a=1&b=2&a=3", b"?b&a", b"?a=b+c%20d;e", b"?x=/../admin", b"?%zz",
        b"?%00%ff", b"?a=%252e", b"?next=//evil.test", b"?\\", b"?a=b?c",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [b"/x", b"/a/../x", b"/%78"])
def test_the_query_is_kept_byte_for_byte(path: bytes, query: bytes) -> None:
    assert read(path + query) == (b"/x", query)


@pytest.mark.parametrize(
    ("raw", "alias"),
    [
        pytest.param(b"/admin", None, id="nothing to misread"),
        pytest.param(b"/a/../admin", None, id="dots are resolved, not misread"),
        pytest.param(b"/admin;x=1", b"/admin", id="C9 parameter"),
        pytest.param(b"/;/admin", b"/admin", id="C9 empty segment with a parameter"),
        pytest.param(b"/admin;a/b;c", b"/admin/b", id="parameters of every segment"),
        pytest.param(b"/admin%3Bx", b"/admin", id="encoded semicolon"),
        pytest.param(b"/admin;/", b"/admin/", id="trailing slash is kept"),
        pytest.param(b"/a;b/../c", None, id="parameter of a segment that is gone"),
        pytest.param(b"/a%26b", b"/a&b", id="encoded sub-delimiter"),
        pytest.param(b"/a%7Cb", b"/a|b", id="encoded bar"),
        pytest.param(b"/a%40b%3a", b"/a@b:", id="encoded at sign"),
        pytest.param(b"/a%20b", None, id="a space cannot be anything else"),
        pytest.param(b"/a%3Fb%23%25", None, id="delimiters of the target stay"),
        pytest.param(b"/%C3%BC", None, id="letters beyond ASCII stay"),
        pytest.param(b"/...;x", b"/...", id="three dots are a name"),
    ],
)
def test_the_alias_is_what_a_lenient_server_would_read(raw: bytes, alias: bytes | None) -> None:
    assert canonicalise(raw).alias == alias


@pytest.mark.parametrize(
    ("raw", "encoded"),
    [(b"/a%2Fb", True), (b"/a%2fb", True), (b"/a/b", False), (b"/a?b=%2F", False),
     (b"/%2e%2e%2fx", True), (b"/a%20b", False)],
)  # fmt: skip
def test_encoded_slashes_are_told(raw: bytes, encoded: bool) -> None:
    assert canonicalise(raw).encoded_slash is encoded


PIECES = st.sampled_from(
    [b"/", b"/", b".", b"..", b";", b"a", b"B", b"admin", b"%", b"%2e", b"%2E", b"%2f", b"%25",
     b"%32", b"%65", b"%3b", b"%5c", b"%00", b"%c3%bc", b"%ff", b"%41", b"%7C", b"%26", b"%20",
     b"\\", b"#", b"?", b"=", b"&", b"~", b"x=1", b"|", b"\x7f", b" ", b"5", b"e"]
)  # fmt: skip
TARGETS = st.lists(PIECES, max_size=12).map(lambda pieces: b"/" + b"".join(pieces))


def check(raw: bytes) -> None:
    """The promises of a target, for any bytes."""
    try:
        target = canonicalise(raw)
    except BadTarget:
        return
    path = target.path
    # Idempotent: what was judged is what a second look at what is forwarded would judge.
    again = canonicalise(path)
    assert (again.path, again.query, again.alias) == (path, b"", target.alias)
    assert not again.encoded_slash
    assert target.raw + target.query == raw
    assert path.startswith(b"/")
    for view in (path, target.alias or path):
        assert not {b".", b".."} & set(view.split(b"/"))
        assert b"//" not in view
        assert not set(view) & set(b"\\#?\x00\r\n ")
        assert max(view) < 0x7F
    assert b"%2F" not in path
    assert b"%2f" not in path
    if target.alias is not None:
        assert b";" not in target.alias


@settings(
    phases=(Phase.explicit, Phase.generate, Phase.shrink), deadline=None, max_examples=examples(800)
)
@given(TARGETS)
def test_any_target_is_refused_or_canonical(raw: bytes) -> None:
    check(raw)


@settings(
    phases=(Phase.explicit, Phase.generate, Phase.shrink), deadline=None, max_examples=examples(200)
)
@given(st.binary(max_size=40))
def test_any_bytes_are_refused_or_canonical(raw: bytes) -> None:
    check(raw)
    check(b"/" + raw)


@pytest.mark.parametrize("middle", PIECES.elements)
def test_every_triple_of_pieces_is_refused_or_canonical(middle: bytes) -> None:
    # C30: 45,000 short targets, each piece beside every other, in the middle of a path.
    for first in PIECES.elements:
        for last in PIECES.elements:
            check(b"/p/" + first + middle + last + b"/q")


def test_a_target_that_is_canonical_already_is_not_copied() -> None:
    raw = b"/api/v1/items"
    target = canonicalise(raw)
    assert isinstance(target, Target)
    assert target.path is target.raw


@pytest.mark.parametrize(
    ("value", "host"),
    [
        pytest.param(b"app1.example.test", "app1.example.test", id="plain"),
        pytest.param(b"APP1.EXAMPLE.TEST", "app1.example.test", id="D1 capitals"),
        pytest.param(b"app1.example.test.", "app1.example.test", id="D1 trailing dot"),
        pytest.param(b"app1.example.test:443", "app1.example.test", id="D1 port"),
        pytest.param(b"app1.example.test.:443", "app1.example.test", id="D1 dot and port"),
        pytest.param(b"xn--bcher-kva.example.test", "xn--bcher-kva.example.test", id="D11"),
        pytest.param(
            b"XN--BCHER-KVA.example.test", "xn--bcher-kva.example.test", id="D11 capitals"
        ),
        pytest.param("bücher.example.test".encode(), None, id="D11 raw UTF-8"),
        pytest.param(b"localhost", "localhost", id="one label"),
        pytest.param(b"127.0.0.1:8080", "127.0.0.1", id="IPv4"),
        pytest.param(b"[::1]", "[::1]", id="IPv6"),
        pytest.param(b"[::1]:8443", "[::1]", id="IPv6 with a port"),
        pytest.param(b"[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]", id="mapped"),
        pytest.param(b"app1.example.test@evil", None, id="D2 user information"),
        pytest.param(b"evil@app1.example.test", None, id="D2 user information before"),
        pytest.param(b"app1.example.test/", None, id="D2 slash"),
        pytest.param(b"app1 .example.test", None, id="D2 space"),
        pytest.param(b" app1.example.test", None, id="D2 leading space"),
        pytest.param(b"", None, id="D2 empty"),
        pytest.param(b":443", None, id="D2 only a port"),
        pytest.param(b".", None, id="D2 only a dot"),
        pytest.param(b"app1.example.test..", None, id="two trailing dots"),
        pytest.param(b".app1.example.test", None, id="leading dot"),
        pytest.param(b"app1..example.test", None, id="empty label"),
        pytest.param(b"[::1", None, id="D2 open bracket"),
        pytest.param(b"[::1]x", None, id="bracket and more"),
        pytest.param(b"[::1]:", None, id="bracket and an empty port"),
        pytest.param(b"[fe80::1%25eth0]", None, id="zone"),
        pytest.param(b"[]", None, id="empty bracket"),
        pytest.param(b"::1", None, id="IPv6 without brackets"),
        pytest.param(b"a." * 150 + b"test", None, id="D2 300 characters"),
        pytest.param(b"a" * 64 + b".test", None, id="label of 64"),
        pytest.param(b"a" * 63 + b".test", "a" * 63 + ".test", id="label of 63"),
        pytest.param(b"-app.test", None, id="leading hyphen"),
        pytest.param(b"app-.test", None, id="trailing hyphen"),
        pytest.param(b"app_1.test", None, id="underscore"),
        pytest.param(b"*.example.test", None, id="wildcard"),
        pytest.param(b"app1.example.test:", None, id="empty port"),
        pytest.param(b"app1.example.test:0", None, id="port 0"),
        pytest.param(b"app1.example.test:65536", None, id="port too high"),
        pytest.param(b"app1.example.test:+1", None, id="port with a sign"),
        pytest.param("app1.example.test:４４３".encode(), None, id="port in other digits"),
        pytest.param(b"app1.example.test:443:443", None, id="two ports"),
        pytest.param(b"app1.example.test\x00", None, id="NUL"),
        pytest.param(b"app1.example.test\n", None, id="line end"),
        pytest.param(b"app1.example.test,app2.example.test", None, id="list"),
        pytest.param(b"app1.example.test#", None, id="fragment"),
        pytest.param(b"app1.example.test?", None, id="query"),
        pytest.param(b"app1%2eexample.test", None, id="percent-encoding"),
    ],
)
def test_hosts_have_one_form_or_none(value: bytes, host: str | None) -> None:
    assert canonical_host(value) == host


@settings(
    phases=(Phase.explicit, Phase.generate, Phase.shrink), deadline=None, max_examples=examples(200)
)
@given(
    st.lists(
        st.sampled_from(
            [b"a", b"B", b"-", b".", b":", b"1", b"443", b"[", b"]", b"::", b"@", b"_"]
        ),
        max_size=8,
    ).map(b"".join)
)
def test_a_canonical_host_is_its_own_canonical_form(value: bytes) -> None:
    host = canonical_host(value)
    if host is not None:
        assert canonical_host(host.encode()) == host
        assert host == host.lower()
        assert not host.endswith(".")
