from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from heim_proxy.edge.head import BadRequest, RequestHead, head_end
from heim_proxy.edge.limits import HEADER_BYTES, HEADER_COUNT, REQUEST_LINE_BYTES
from tests.fakes.thorough import examples
from tests.unit.edge.heads import HOST, head_bytes, parsed, passed


def refused(data: bytes) -> int:
    """The status that a whole head is refused with; 0 when it is not."""
    try:
        assert head_end(data) == len(data)
        RequestHead().parse(data)
    except BadRequest as error:
        return error.status
    return 0


def with_line(line: bytes) -> bytes:
    return line + b"\r\nHost: app.example.test\r\n\r\n"


def with_header(line: bytes, *, method: bytes = b"GET") -> bytes:
    return method + b" / HTTP/1.1\r\nHost: app.example.test\r\n" + line + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("line", "status"),
    [
        pytest.param(b"GET / HTTP/1.1", 0, id="ordinary"),
        pytest.param(b"GET / HTTP/1.0", 0, id="HTTP/1.0"),
        pytest.param(b"PURGE /x HTTP/1.1", 0, id="a method beyond the common ones"),
        pytest.param(b"GET /", 400, id="D7 HTTP/0.9"),
        pytest.param(b"GET / HTTP/2.0", 400, id="HTTP/2.0"),
        pytest.param(b"GET / HTTP/1.2", 400, id="HTTP/1.2"),
        pytest.param(b"GET / HTTP/0.9", 400, id="HTTP/0.9 spelled out"),
        pytest.param(b"GET / HTTP/1.10", 400, id="HTTP/1.10"),
        pytest.param(b"GET / http/1.1", 400, id="lower-case protocol"),
        pytest.param(b"GET / RTSP/1.0", 400, id="RTSP"),
        pytest.param(b"SETUP / RTSP/1.0", 400, id="RTSP method"),
        pytest.param(b"SOURCE / ICE/1.0", 400, id="ICE"),
        pytest.param(b"PRI * HTTP/2.0", 400, id="HTTP/2 preface"),
        pytest.param(b"GET  / HTTP/1.1", 400, id="two spaces before the target"),
        pytest.param(b"GET /  HTTP/1.1", 400, id="two spaces after the target"),
        pytest.param(b"GET\t/\tHTTP/1.1", 400, id="tabs"),
        pytest.param(b"GET / HTTP/1.1 ", 400, id="space after the version"),
        pytest.param(b" GET / HTTP/1.1", 400, id="space before the method"),
        pytest.param(b"\nGET / HTTP/1.1", 400, id="bare line feed before"),
        pytest.param(b"\rGET / HTTP/1.1", 400, id="bare carriage return before"),
        pytest.param(b"\r\n\nGET / HTTP/1.1", 400, id="line end and line feed before"),
        pytest.param(b"\r\rGET / HTTP/1.1", 400, id="two carriage returns before"),
        pytest.param(b"get / HTTP/1.1", 400, id="C24 lower-case method"),
        pytest.param(b"FOO / HTTP/1.1", 400, id="C25 unknown method"),
        pytest.param(b"CONNECT app.example.test:443 HTTP/1.1", 405, id="C20 CONNECT authority"),
        pytest.param(b"CONNECT / HTTP/1.1", 405, id="C20 CONNECT path"),
        pytest.param(b"CONNECT \x01 HTTP/1.1", 405, id="C20 CONNECT nonsense"),
        pytest.param(b"TRACE / HTTP/1.1", 405, id="TRACE"),
        pytest.param(b"GET admin HTTP/1.1", 400, id="C19 no slash"),
        pytest.param(b"GET * HTTP/1.1", 400, id="C19 asterisk"),
        pytest.param(b"OPTIONS * HTTP/1.1", 400, id="C19 OPTIONS asterisk"),
        pytest.param(b"GET /a b HTTP/1.1", 400, id="space in the target"),
        pytest.param(b"GET /a\x00b HTTP/1.1", 400, id="NUL in the target"),
        pytest.param(b"GET /a\x7fb HTTP/1.1", 400, id="DEL in the target"),
        pytest.param(b"GET /\xff HTTP/1.1", 400, id="raw byte in the path"),
        pytest.param(b"GET /?q=\xff HTTP/1.1", 400, id="raw byte in the query"),
        pytest.param(b"GET /?q=\x01 HTTP/1.1", 400, id="control byte in the query"),
        pytest.param(b"GET /#x HTTP/1.1", 400, id="fragment"),
        pytest.param(b"GET /?a#x HTTP/1.1", 400, id="fragment after the query"),
        pytest.param(b"GET /%2e%2e%5cadmin HTTP/1.1", 400, id="C5 encoded backslash"),
    ],
)
def test_the_request_line_is_exactly_method_target_http_1(line: bytes, status: int) -> None:
    assert refused(with_line(line)) == status


@pytest.mark.parametrize(
    ("line", "status"),
    [
        pytest.param(b"A: b", 0, id="ordinary"),
        pytest.param(b"A:b", 0, id="no space"),
        pytest.param(b"A:", 0, id="empty value"),
        pytest.param(b"A: b\xff", 0, id="obs-text in a value"),
        pytest.param(b"A: b\tc", 0, id="tab in a value"),
        pytest.param(b"A: b\r\n c", 400, id="F6 obs-fold"),
        pytest.param(b"A: b\r\n\tc", 400, id="F6 obs-fold with a tab"),
        pytest.param(b"A: b\nC: d", 400, id="F7 bare LF"),
        pytest.param(b"A: b\rC: d", 400, id="F7 bare CR"),
        pytest.param(b"A: b\x00", 400, id="F8 NUL in a value"),
        pytest.param(b"A\x00: b", 400, id="F8 NUL in a name"),
        pytest.param(b"A: \x01", 400, id="control byte in a value"),
        pytest.param(b"A : b", 400, id="F9 space before the colon"),
        pytest.param(b"A\t: b", 400, id="F9 tab before the colon"),
        pytest.param(b" A: b", 400, id="space before the name"),
        pytest.param(b": b", 400, id="no name"),
        pytest.param(b"A", 400, id="no colon"),
        pytest.param(b"A(: b", 400, id="delimiter in a name"),
        pytest.param("Ä: b".encode(), 400, id="non-ASCII name"),
        pytest.param(b"Host: app.example.test", 400, id="D6 two equal hosts"),
        pytest.param(b"Host: other.example.test", 400, id="D6 two hosts"),
        pytest.param(b"HOST: other.example.test", 400, id="D6 two hosts in other spelling"),
    ],
)
def test_header_lines_are_strict(line: bytes, status: int) -> None:
    assert refused(with_header(line)) == status


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        pytest.param(b"Content-Length: 5", 0, id="length"),
        pytest.param(b"Content-Length:  5 ", 0, id="length with white space"),
        pytest.param(b"Transfer-Encoding: chunked", 0, id="chunked"),
        pytest.param(b"Transfer-Encoding: CHUNKED", 0, id="chunked in capitals"),
        pytest.param(b"Content-Length: 5\r\nTransfer-Encoding: chunked", 400, id="F1 CL+TE"),
        pytest.param(b"Transfer-Encoding: chunked\r\nContent-Length: 5", 400, id="F2 TE+CL"),
        pytest.param(b"Content-Length: 5\r\nContent-Length: 5", 400, id="F3 two equal"),
        pytest.param(b"Content-Length: 5\r\nContent-Length: 6", 400, id="F3 two different"),
        pytest.param(b"Content-Length: +5", 400, id="F4 sign"),
        pytest.param(b"Content-Length: -5", 400, id="F4 negative"),
        pytest.param(b"Content-Length: 0x5", 400, id="F4 hexadecimal"),
        pytest.param(b"Content-Length: 5,5", 400, id="F4 list"),
        pytest.param(b"Content-Length: 5 5", 400, id="F4 two numbers"),
        pytest.param(b"Content-Length: 5_0", 400, id="F4 underscore"),
        pytest.param(b"Content-Length: \xb2", 400, id="F4 superscript two"),
        pytest.param(b"Content-Length:", 400, id="F4 empty"),
        pytest.param(b"Content-Length: 99999999999999999999", 400, id="beyond 64 bit"),
        pytest.param(b"Content-Length: 9223372036854775807", 400, id="beyond 62 bit"),
        pytest.param(b"Transfer-Encoding: xchunked", 400, id="F5 other coding"),
        pytest.param(b"Transfer-Encoding: chunked, identity", 400, id="F5 chunked not last"),
        pytest.param(b"Transfer-Encoding: gzip, chunked", 400, id="F5 list"),
        pytest.param(b"Transfer-Encoding: \x0bchunked", 400, id="F5 vertical tab"),
        pytest.param(b"Transfer-Encoding: identity", 400, id="F5 identity"),
        pytest.param(b"Transfer-Encoding:", 400, id="F5 empty"),
        pytest.param(b"Transfer-Encoding: chunked,", 400, id="F5 trailing comma"),
        pytest.param(b"Transfer-Encoding: chunked;q=1", 400, id="F5 parameter"),
        pytest.param(b'Transfer-Encoding: "chunked"', 400, id="F5 quoted"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400, id="F5 twice"
        ),
        pytest.param(
            b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 400, id="F5 two lines"
        ),
        pytest.param(b"Transfer-Encoding : chunked", 400, id="F5 space before the colon"),
        pytest.param(b"Content-Length: 5\r\nExpect: 100-continue", 0, id="expect"),
        pytest.param(b"Content-Length: 5\r\nExpect: 100-Continue", 0, id="expect in capitals"),
        pytest.param(b"Content-Length: 5\r\nExpect: 200-ok", 417, id="unknown expectation"),
        pytest.param(b"Content-Length: 5\r\nExpect: 100-continue, x", 417, id="two expectations"),
    ],
)
def test_the_framing_of_a_body_has_one_reading(lines: bytes, status: int) -> None:
    assert refused(with_header(lines, method=b"POST")) == status


def test_chunked_in_http_1_0_is_refused() -> None:
    data = head_bytes(method="POST", version="HTTP/1.0", headers=("Transfer-Encoding: chunked",))
    assert refused(data) == 400


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
@pytest.mark.parametrize("lines", [(), ("Host:",), ("Host:   ",)], ids=["absent", "empty", "blank"])
def test_a_request_without_a_host_is_refused(lines: tuple[str, ...], version: str) -> None:
    assert refused(head_bytes(host=None, headers=lines, version=version)) == 400


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        pytest.param(f"http://{HOST}/x?y", b"/x", b"?y", id="path and query"),
        pytest.param(f"https://{HOST}/", b"/", b"", id="https"),
        pytest.param(f"http://{HOST}", b"/", b"", id="no path"),
        pytest.param(f"http://{HOST}?x", b"/", b"?x", id="query without a path"),
        pytest.param(f"HTTP://{HOST.upper()}/x", b"/x", b"", id="capitals"),
        pytest.param(f"http://{HOST}//x/../y", b"/y", b"", id="canonicalised like any other"),
    ],
)
def test_absolute_form_of_the_same_host_is_origin_form(
    target: str, path: bytes, query: bytes
) -> None:
    head = parsed(target)
    assert (head.target.path, head.target.query) == (path, query)


@pytest.mark.parametrize(
    "target",
    [
        "http://other.example.test/x",
        f"http://{HOST}:443/x",
        f"http://{HOST}./x",
        f"http://user@{HOST}/x",
        f"http://{HOST}@other.example.test/x",
        f"http://{HOST}?x=/y",
        f"http:/{HOST}/x",
        f"http:///{HOST}/x",
        f"ftp://{HOST}/x",
        f"{HOST}:443",
        f"http://{HOST}\\@other.example.test/",
        f"http://{HOST}/#x",
    ],
)
def test_absolute_form_of_another_authority_is_refused(target: str) -> None:
    assert refused(head_bytes(target)) == 400


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        pytest.param(("Connection: close, X-A", "X-A: 1", "X-B: 2"), [b"X-B: 2"], id="named"),
        pytest.param(("Connection: x-a,\tX-b ", "X-A: 1", "X-B: 2"), [], id="tabs and case"),
        pytest.param(
            ("Connection: X-A", "Connection: X-B", "X-A: 1", "X-B: 2"), [], id="two lines"
        ),
        pytest.param(("X-A: 1", "x-a: 2", "Connection: X-A"), [], id="every spelling"),
        pytest.param(("Connection: close, keep-alive", "X-A: 1"), [b"X-A: 1"], id="only options"),
        pytest.param(("Connection: ,,", "X-A: 1"), [b"X-A: 1"], id="empty elements"),
        pytest.param(("Connection: X-Forwarded-For", "X-A: 1"), [b"X-A: 1"], id="what is ours"),
        pytest.param(("Keep-Alive: 5", "TE: trailers", "Trailer: X"), [], id="hop by hop"),
        pytest.param(("Proxy-Connection: close", "Proxy-Authorization: x"), [], id="proxy"),
        pytest.param(("X_A: 1", "X.A: 1", "X!A: 1", "X-A: 2"), [b"X-A: 2"], id="odd names"),
        pytest.param(("X-Auth-Id: root", "x-auth-id: root", "X--Auth-Id: x"), [], id="B1-B7"),
        pytest.param(("Traceparent: nonsense",), [], id="invalid traceparent"),
        pytest.param(
            ("traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",),
            [b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            id="valid traceparent",
        ),
        pytest.param(("HTTP2-Settings: AAMAAABk",), [], id="F17 h2c settings"),
        pytest.param(("X-HTTP-Method-Override: DELETE",), [], id="C23 method override"),
        pytest.param(("A:two  spaces ",), [b"A:two  spaces "], id="value as it came"),
    ],
)
def test_only_what_may_pass_is_passed_on(lines: tuple[str, ...], kept: list[bytes]) -> None:
    head = parsed(headers=lines)
    assert passed(head) == kept


def test_a_credential_of_ours_does_not_pass_by_itself() -> None:
    ours = ("Authorization: Bearer heim_st_x", "aUTHORIZATION: Heim y")
    head = parsed(headers=("A: 1", *ours, "Authorization: Basic eDp5", "B: 2"))
    assert passed(head) == [b"A: 1", b"Authorization: Basic eDp5", b"B: 2"]
    # For our own doors.
    assert head.credentials == tuple(line.encode() for line in ours)
    head.clear()
    assert head.credentials == ()


def test_a_credential_that_is_not_ours_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bytes] = []
    monkeypatch.setattr("heim_proxy.edge.head.is_ours", lambda value: looked.append(value))
    head = RequestHead()
    long = b"b" * 3000
    for value in (b"a", b"a", long, long, b"a"):
        head.parse(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\n\r\n" % value)
        assert passed(head) == [b"Authorization: " + value]
        head.clear()
    assert looked == [b"a", long, long, b"a"]


def test_names_and_order_of_what_passes_are_kept() -> None:
    head = parsed(headers=("b-B: 1", "A: 2", "b-b: 3"))
    assert passed(head) == [b"b-B: 1", b"A: 2", b"b-b: 3"]


@pytest.mark.parametrize(
    ("lines", "upgrade"),
    [
        pytest.param(("Connection: Upgrade", "Upgrade: WebSocket"), b"websocket", id="asked"),
        pytest.param(("Connection: keep-alive, UPGRADE", "Upgrade: x"), b"x", id="in a list"),
        pytest.param(("Upgrade: websocket",), None, id="connection does not say so"),
        pytest.param(("Connection: close", "Upgrade: websocket"), None, id="other connection"),
        pytest.param(("Connection: Upgrade",), None, id="no protocol"),
        pytest.param(
            ("Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"), b"", id="two protocols"
        ),
    ],
)
def test_an_upgrade_counts_only_as_connection_says(
    lines: tuple[str, ...], upgrade: bytes | None
) -> None:
    head = parsed(headers=lines)
    assert head.upgrade == upgrade
    assert passed(head) == []


@pytest.mark.parametrize(
    ("version", "lines", "keep"),
    [
        ("HTTP/1.1", (), True),
        ("HTTP/1.1", ("Connection: close",), False),
        ("HTTP/1.1", ("Connection: CLOSE, x",), False),
        ("HTTP/1.0", (), False),
        ("HTTP/1.0", ("Connection: keep-alive",), True),
        ("HTTP/1.0", ("Connection: Keep-Alive, x",), True),
        ("HTTP/1.1", ("Connection: keep-alive", "Connection: close"), False),
        ("HTTP/1.0", ("Connection: close, keep-alive",), False),
    ],
)
def test_keep_alive_follows_version_and_connection(
    version: str, lines: tuple[str, ...], keep: bool
) -> None:
    assert parsed(version=version, headers=lines).keep_alive is keep
    body = (*lines, "Content-Length: 3")
    assert parsed(method="POST", version=version, headers=body).keep_alive is keep


@pytest.mark.parametrize(
    ("lines", "length", "chunked", "has_body", "expects"),
    [
        pytest.param((), 0, False, False, False, id="none"),
        pytest.param(("Content-Length: 0",), 0, False, False, False, id="zero"),
        pytest.param(("Content-Length: 7",), 7, False, True, False, id="length"),
        pytest.param(("Transfer-Encoding: chunked",), 0, True, True, False, id="chunked"),
        pytest.param(
            ("Content-Length: 7", "Expect: 100-continue"), 7, False, True, True, id="expects"
        ),
        pytest.param(("Expect: 100-continue",), 0, False, False, False, id="expects for nothing"),
    ],
)
def test_the_body_that_follows_is_known(
    lines: tuple[str, ...], length: int, chunked: bool, has_body: bool, expects: bool
) -> None:
    head = parsed(method="POST", headers=lines)
    assert (head.length, head.chunked, head.has_body, head.expect_continue) == (
        length,
        chunked,
        has_body,
        expects,
    )
    # Framing is ours to write.
    assert not any(b"content-length" in one.lower() or b"coding" in one for one in passed(head))


class TestLimits:
    def test_as_many_headers_as_are_allowed_pass_and_one_more_does_not(self) -> None:
        lines = tuple(f"X-{index}: 1" for index in range(HEADER_COUNT - 1))
        assert refused(head_bytes(headers=lines)) == 0
        assert refused(head_bytes(headers=(*lines, "X-More: 1"))) == 431

    def test_dropped_headers_count_too(self) -> None:
        lines = tuple(f"X_{index}: 1" for index in range(HEADER_COUNT))
        assert refused(head_bytes(headers=lines)) == 431

    def test_a_request_line_that_is_too_long_is_414(self) -> None:
        fits = "/" + "a" * (REQUEST_LINE_BYTES - len("GET / HTTP/1.1"))
        assert refused(head_bytes(fits)) == 0
        assert refused(head_bytes(fits + "a")) == 414

    def test_a_request_line_without_an_end_is_414_as_soon_as_that_is_known(self) -> None:
        assert head_end(b"G" * REQUEST_LINE_BYTES) == 0
        with pytest.raises(BadRequest) as caught:
            head_end(b"G" * (REQUEST_LINE_BYTES + 1))
        assert caught.value.status == 414

    def test_headers_that_are_too_long_are_431(self) -> None:
        spare = HEADER_BYTES - len("\r\nHost: \r\nA: \r\n\r\n") - len(HOST)
        assert refused(head_bytes(headers=("A: " + "x" * spare,))) == 0
        assert refused(head_bytes(headers=("A: " + "x" * (spare + 1),))) == 431

    def test_headers_without_an_end_are_431_as_soon_as_that_is_known(self) -> None:
        line = b"GET / HTTP/1.1"
        assert head_end(line + b"\r\n" + b"x" * (HEADER_BYTES - 2)) == 0
        with pytest.raises(BadRequest) as caught:
            head_end(line + b"\r\n" + b"x" * (HEADER_BYTES - 1))
        assert caught.value.status == 431

    def test_a_pipelined_body_does_not_count_towards_the_head(self) -> None:
        data = head_bytes(method="POST", headers=("Content-Length: 100000",))
        assert head_end(data + b"x" * 100_000) == len(data)


@pytest.mark.parametrize("cut", range(len(head_bytes()) - 1))
def test_an_incomplete_head_is_waited_for(cut: int) -> None:
    assert head_end(head_bytes()[:cut]) == 0


def test_only_the_first_of_several_heads_is_taken() -> None:
    first = head_bytes("/1")
    assert head_end(first + head_bytes("/2")) == len(first)


def test_one_empty_line_before_a_request_is_skipped_and_nothing_but_one_is_no_request() -> None:
    head = RequestHead()
    head.parse(b"\r\n" + head_bytes("/x"))
    assert head.target.path == b"/x"
    assert refused(b"\r\n\r\n") == 400


class TestCookies:
    def test_a_cookie_line_is_divided(self) -> None:
        head = parsed(headers=("Cookie: a=1; __Host-heim=s; b=2",))
        assert head.cookies.session == b"s"
        assert head.cookies.rest == b"a=1; b=2"
        assert head.cookie_line == b"a=1; __Host-heim=s; b=2"
        assert passed(head) == []

    def test_several_cookie_lines_are_one(self) -> None:
        head = parsed(headers=("Cookie: a=1; __Host-heim=s", "cookie: b=2"))
        assert head.cookies.session == b"s"
        assert head.cookies.rest == b"a=1; b=2"
        assert head.cookie_line == b"a=1; __Host-heim=s; b=2"

    def test_a_second_session_cookie_on_a_second_line_spoils_both(self) -> None:
        head = parsed(headers=("Cookie: __Host-heim=s", "Cookie: __Host-heim=t"))
        assert (head.cookies.session, head.cookies.presented) == (None, 2)

    def test_connection_that_names_cookie_takes_it_away(self) -> None:
        head = parsed(headers=("Connection: Cookie", "Cookie: a=1; __Host-heim=s"))
        assert (head.cookies.session, head.cookies.rest) == (None, None)

    def test_no_cookie_is_left_over_from_the_request_before(self) -> None:
        head = RequestHead()
        head.parse(head_bytes(headers=("Cookie: a=1; __Host-heim=s",)))
        head.clear()
        assert (head.cookies.session, head.cookie_line) == (None, None)
        head.parse(head_bytes())
        assert (head.cookies.session, head.cookie_line) == (None, None)

    def test_a_repeated_line_is_divided_the_same_and_another_one_afresh(self) -> None:
        head = RequestHead()
        for value, session in (("s", b"s"), ("s", b"s"), ("t", b"t"), ("s", b"s")):
            head.parse(head_bytes(headers=(f"Cookie: __Host-heim={value}",)))
            assert head.cookies.session == session
            head.clear()


@pytest.mark.parametrize(
    ("name", "value"), [("X-Forwarded-For", "10.0.0.1"), ("X-Request-Id", "abcdefgh")]
)
def test_forwarding_headers_are_set_aside(name: str, value: str) -> None:
    head = parsed(headers=(f"{name}: {value}",))
    assert head.forwarded == [(name.lower().encode(), value.encode())]
    assert passed(head) == []


REQUESTS = [
    head_bytes("/plain", headers=("A: 1",)),
    head_bytes("/post", method="POST", headers=("Content-Length: 3",)),
    head_bytes("/chunked", method="PUT", headers=("Transfer-Encoding: chunked", "B: 2")),
    head_bytes("/zero", method="POST", headers=("Content-Length: 0",)),
    head_bytes("/up", headers=("Connection: Upgrade", "Upgrade: websocket")),
    head_bytes("/ten", version="HTTP/1.0", headers=("Connection: keep-alive",)),
    head_bytes("/cookie", headers=("Cookie: __Host-heim=s; c=1", "X-Forwarded-For: 1.2.3.4")),
    b"\r\n" + head_bytes("/empty-line-first", method="HEAD"),
    head_bytes("/expect", method="POST", headers=("Content-Length: 9", "Expect: 100-continue")),
]


def told(head: RequestHead) -> tuple[object, ...]:
    return (
        head.method, head.target.raw, head.target.path, head.version, head.host, head.keep_alive,
        head.length, head.chunked, head.expect_continue, head.upgrade, head.cookies,
        head.forwarded, head.fields, head.cookie_line,
    )  # fmt: skip


@settings(
    phases=(Phase.explicit, Phase.generate, Phase.shrink), deadline=None, max_examples=examples(300)
)
@given(st.lists(st.sampled_from(REQUESTS), min_size=2, max_size=6))
def test_a_reused_head_reads_every_request_as_a_fresh_one_would(requests: list[bytes]) -> None:
    reused = RequestHead()
    for data in requests:
        fresh = RequestHead()
        fresh.parse(data)
        reused.parse(data)
        assert told(reused) == told(fresh)
        reused.clear()
        assert told(reused) == told(RequestHead())


@settings(
    phases=(Phase.explicit, Phase.generate, Phase.shrink), deadline=None, max_examples=examples(500)
)
@given(st.data())
def test_noise_is_refused_with_a_status_and_nothing_else(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from(REQUESTS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    status = 0
    try:
        end = head_end(bytes(raw))
        if end:
            RequestHead().parse(bytes(raw[:end]))
    except BadRequest as error:
        status = error.status
    assert status in (0, 400, 405, 414, 417, 431)


def test_a_whole_url_as_target_is_remembered_for_its_request_alone() -> None:
    head = RequestHead()
    for target, absolute in ((f"http://{HOST}/x", True), ("/x", False), (f"https://{HOST}", True)):
        head.parse(head_bytes(target))
        assert head.absolute is absolute
        head.clear()
        assert head.absolute is False
