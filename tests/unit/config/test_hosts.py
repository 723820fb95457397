from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_config.hosts import (
    Upstream,
    is_loopback_host,
    parse_email,
    parse_host,
    parse_issuer,
    parse_origin,
    parse_tcp,
    parse_upstream,
)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("app.example.com", "app.example.com"),
        ("App.EXAMPLE.com", "app.example.com"),
        ("app.example.com.", "app.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("localhost", "localhost"),
        ("a-b.c1", "a-b.c1"),
    ],
)
def test_hosts_come_out_in_the_form_of_a_host_header(text: str, host: str) -> None:
    assert parse_host(text) == host


HOSTILE_HOSTS = [
    *("", ".", "..", "a..b", ".a", "a b", "a_b.example", "-a.example", "a-.example"),
    *("a" * 64 + ".example", "a." * 127 + "ab", "exa\nmple.com", "example.com\0", "example.com\n"),
    *("https://app.example.com", "app.example.com/x", "app.example.com:443", "user@example.com"),
    *("127.0.0.1", "::1", "[::1]", "1.2.3", "0x7f.1", "example.0x10", "4294967295"),
    *("*", "*.example.com", "a.*.example.com", "app*.example.com"),
    *("exa%6dple.com", "app.example.com?", "app.example.com#", "app\\.example.com"),
    *("\u202eexample.com", "a\u00ad\u200b", "☃\u0338.example", "xn--\u00fc.example"),
    *(None, 1, True, ["app.example.com"]),
]


@pytest.mark.parametrize("value", HOSTILE_HOSTS, ids=repr)
def test_what_is_not_a_host_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        parse_host(value)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("*.example.com", "*.example.com"),
        ("*.Bücher.example", "*.xn--bcher-kva.example"),
        ("app.example.com", "app.example.com"),
    ],
)
def test_a_wildcard_is_the_whole_first_label(text: str, host: str) -> None:
    assert parse_host(text, wildcard=True) == host


@pytest.mark.parametrize(
    "text", ["*", "*.", "**.example.com", "*.*.example.com", "a.*.b", "a*.b", "*a.b", "*.10.0.0.1"]
)
def test_other_wildcards_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_host(text, wildcard=True)


@given(st.text(max_size=40))
def test_a_host_that_is_accepted_is_canonical(text: str) -> None:
    try:
        host = parse_host(text)
    except ValueError:
        return
    assert parse_host(host) == host
    assert host.isascii()
    assert host == host.lower()


@pytest.mark.parametrize(
    ("text", "email"),
    [
        ("alice@example.com", "alice@example.com"),
        ("Alice.B+x@Example.COM", "alice.b+x@example.com"),
        ("alice@bücher.example", "alice@xn--bcher-kva.example"),
    ],
)
def test_email_addresses_are_compared_in_lower_case(text: str, email: str) -> None:
    assert parse_email(text) == email


@pytest.mark.parametrize(
    "value",
    [
        *("", "alice", "@example.com", "alice@", "alice@@example.com", "a b@example.com"),
        *("alice@exa mple.com", "*@example.com", "alice@example.com\n", "alıce@example.com"),
        *("\u212aelvin@example.com", "alice@*.example.com", "a" * 65 + "@example.com"),
        *("Alice <alice@example.com>", '"a b"@example.com', None, 7),
    ],
)
def test_what_is_not_an_email_address_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        parse_email(value)


@pytest.mark.parametrize(
    "text",
    [
        "https://accounts.google.com",
        "https://id.example.com/realms/x",
        "https://id.example.com:8443/",
        "http://127.0.0.1:9000",
        "http://127.3.2.1",
        "http://localhost:9000/oidc",
        "http://[::1]:9000",
    ],
)
def test_an_issuer_is_kept_as_it_is_written(text: str) -> None:
    assert parse_issuer(text) == text


@pytest.mark.parametrize(
    "value",
    [
        "http://id.example.com",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://0.0.0.0:9000",
        "http://2130706433",
        "http://127.1",
        "http://idp.localhost",
        "https://id.example.com?x=1",
        "https://id.example.com?",
        "https://id.example.com#x",
        "https://id.example.com#",
        "https://user:hunter2@id.example.com",
        "ftp://id.example.com",
        "id.example.com",
        "https:id.example.com",
        "https://",
        "https:///x",
        "https://id.example.com:99999",
        "https://id.example.com:x",
        "https://id.exa mple.com",
        "https://id.example.com\n",
        "https://id.example.com\\@evil.example",
        "javascript://x",
        "",
        None,
        1,
    ],
)
def test_what_is_not_a_safe_issuer_is_refused(value: object) -> None:
    with pytest.raises(ValueError) as caught:
        parse_issuer(value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("127.255.0.3", True),
        ("::1", True),
        ("idp.localhost", False),
        ("localhost.", False),
        ("0.0.0.0", False),
        ("127.0.0.1.example.com", False),
        ("", False),
    ],
)
def test_loopback_is_literal(host: str, loopback: bool) -> None:
    assert is_loopback_host(host) is loopback


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.com:443", "https://app.example.com"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://a.example:80", "http://a.example"),
        ("https://[::1]:8443", "https://[::1]:8443"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_origins_come_out_as_browsers_send_them(text: str, origin: str) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "value",
    [
        *("*", "null", "", "app.example.com", "https://", "https://a.example/", "file:///x"),
        *("https://a.example/x", "https://a.example?x", "https://a.example#", "https://*.example"),
        *("https://u@a.example", "https://a.example:", "https://a.example:0x50", None, 1),
    ],
)
def test_what_is_not_an_origin_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        parse_origin(value)


@pytest.mark.parametrize(
    ("text", "upstream", "shown"),
    [
        ("http://127.0.0.1:3000", Upstream("http", "127.0.0.1", 3000), "http://127.0.0.1:3000"),
        ("http://app", Upstream("http", "app", 80), "http://app:80"),
        ("https://App.internal/", Upstream("https", "app.internal", 443), None),
        ("http://my_app:80", Upstream("http", "my_app", 80), None),
        ("http://[::1]:3000", Upstream("http", "::1", 3000), "http://[::1]:3000"),
        ("unix:/run/app.sock", Upstream("unix", "/run/app.sock", 0), "unix:/run/app.sock"),
        ("unix:///run/app.sock", Upstream("unix", "/run/app.sock", 0), None),
        ("unix:app.sock", Upstream("unix", "/etc/heim/app.sock", 0), None),
    ],
)
def test_upstreams_are_understood(text: str, upstream: Upstream, shown: str | None) -> None:
    parsed = parse_upstream(text, base=Path("/etc/heim"))
    assert parsed == upstream
    assert shown is None or str(parsed) == shown
    assert parse_upstream(str(parsed)) == upstream


@pytest.mark.parametrize(
    "value",
    [
        "http://127.0.0.1:3000/base",
        "http://127.0.0.1:3000?x=1",
        "http://127.0.0.1:3000#",
        "http://127.0.0.1:0",
        "http://127.0.0.1:",
        "http://127.0.0.1:70000",
        "http://user:hunter2@127.0.0.1",
        "ftp://127.0.0.1",
        "tcp://127.0.0.1:1",
        "127.0.0.1:3000",
        "http:127.0.0.1",
        "//127.0.0.1",
        "http://",
        "http://[::1",
        "http://[zz]:1",
        "http://exa mple",
        "http://app\r\nHost: evil",
        "http://*.app",
        "unix:",
        "unix:a\0b",
        "unix:/" + "a" * 200,
        "",
        None,
        3000,
        ["http://127.0.0.1"],
    ],
)
def test_what_is_not_an_upstream_is_refused(value: object) -> None:
    with pytest.raises(ValueError) as caught:
        parse_upstream(value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "upstream", "shown"),
    [
        ("10.0.0.5:22", Upstream("tcp", "10.0.0.5", 22), "10.0.0.5:22"),
        ("[::1]:22", Upstream("tcp", "::1", 22), "[::1]:22"),
        ("[2001:DB8:0::5]:65535", Upstream("tcp", "2001:db8::5", 65535), "[2001:db8::5]:65535"),
        ("Name:22", Upstream("tcp", "name", 22), "name:22"),
        ("my_db.internal.:5432", Upstream("tcp", "my_db.internal", 5432), "my_db.internal:5432"),
        ("bücher.example:1", Upstream("tcp", "xn--bcher-kva.example", 1), None),
        ("unix:/run/db", Upstream("unix", "/run/db", 0), "unix:/run/db"),
        ("unix:///run/db", Upstream("unix", "/run/db", 0), "unix:/run/db"),
        ("unix:db.sock", Upstream("unix", "/etc/heim/db.sock", 0), None),
    ],
)
def test_addresses_of_tcp_are_understood(text: str, upstream: Upstream, shown: str | None) -> None:
    parsed = parse_tcp(text, base=Path("/etc/heim"))
    assert parsed == upstream
    assert shown is None or str(parsed) == shown
    assert parse_tcp(str(parsed)) == upstream


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("10.0.0.5", "write both"),
        ("10.0.0.5:", "write both"),
        (":22", "write both"),
        ("", "write both"),
        (22, 'write it as "10.0.0.5:22"'),
        (None, 'write it as "10.0.0.5:22"'),
        (["10.0.0.5:22"], 'write it as "10.0.0.5:22"'),
        ("::1:22", "write IPv6 as [::1]:22"),
        ("[::1:22", "write IPv6 as [::1]:22"),
        ("a:b:22", "write IPv6 as [::1]:22"),
        ("[10.0.0.5]:22", "only IPv6 is in brackets"),
        ("[name]:22", "labels are letters"),
        ("10.0.0.5:0", "port 0 cannot be dialled"),
        ("10.0.0.5:65536", "is not a port"),
        ("10.0.0.5:ssh", "is not a port"),
        ("10.0.0.5:-1", "is not a port"),
        ("10.0.0.5: 22", "is not a port"),
        ("10.0.0.5:\uff12\uff12", "is not a port"),
        ("010.0.0.5:22", "would be read as an address"),
        ("10.0.5:22", "would be read as an address"),
        ("tcp://10.0.0.5:22", "write 10.0.0.5:22"),
        ("ssh://desktop", "write 10.0.0.5:22"),
        ("ssh://root:hunter2@desktop:22", "is a URL"),
        ("a b:22", "labels are letters"),
        ("a/b:22", "labels are letters"),
        ("a\r\nb:22", "labels are letters"),
        ("*.internal:22", "labels are letters"),
        ("unix:", "is not a socket's path"),
        ("unix:a\0b", "is not a socket's path"),
        ("unix:/" + "a" * 200, "is not a socket's path"),
    ],
)
def test_what_is_not_an_address_of_tcp_is_refused_with_what_to_write(
    value: object, part: str
) -> None:
    with pytest.raises(ValueError) as caught:
        parse_tcp(value)
    context = getattr(caught.value, "context", None) or {}
    told = f"{context['message']}; {context['hint']}"
    assert part in told
    assert "hunter2" not in told
    assert told.isprintable()


@pytest.mark.parametrize("again", range(2))
def test_what_was_read_before_is_read_in_the_same_way(again: int, tmp_path: Path) -> None:
    assert parse_host("*.Example.com", wildcard=True) == "*.example.com"
    assert str(parse_upstream("http://10.0.0.1")) == "http://10.0.0.1:80"
    # These depend on more than the text.
    assert parse_upstream("unix:x", base=tmp_path / str(again)).host == f"{tmp_path}/{again}/x"
    with pytest.raises(ValueError, match="wildcard is not possible"):
        parse_host("*.Example.com")
    with pytest.raises(ValueError, match="not a host name"):
        parse_host(["a.example"])
    with pytest.raises(ValueError, match="not an upstream"):
        parse_upstream({})
