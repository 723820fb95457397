from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from heim_proxy.edge.answer import AnswerHead, BadAnswer, status_line
from tests.fakes.thorough import examples

LINE = b"HTTP/1.1 200 OK"


def parse(data: bytes, *, drop_cors: bool = False, protect_cookies: bool = True) -> AnswerHead:
    answer = AnswerHead()
    answer.parse(data, drop_cors=drop_cors, protect_cookies=protect_cookies)
    return answer


def with_lines(*lines: bytes, line: bytes = LINE) -> bytes:
    return b"\r\n".join((line, *lines, b"", b""))


def passed(answer: AnswerHead) -> list[bytes]:
    return list(answer.fields)


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/2.0 200 OK",
        b"HTTP/1.2 200 OK",
        b"HTTP/0.9 200 OK",
        b"RTSP/1.0 200 OK",
        b"ICY 200 OK",
        b"http/1.1 200 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 99 X",
        b"HTTP/1.1 000 X",
        b"HTTP/1.1 600 X",
        b"HTTP/1.1 1000 X",
        b"HTTP/1.1 -200 X",
        b"hello",
        b"<html>",
        b"GET / HTTP/1.1",
        b"\r\nHTTP/1.1 200 OK",
        b" HTTP/1.1 200 OK",
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_a_status_line_that_is_not_http_1_is_refused(line: bytes) -> None:
    with pytest.raises(BadAnswer):
        parse(with_lines(line=line))


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param((b"Content-Length: 5", b"Transfer-Encoding: chunked"), id="F20 CL+TE"),
        pytest.param((b"Transfer-Encoding: chunked", b"Content-Length: 5"), id="F20 TE+CL"),
        pytest.param((b"Content-Length: 5", b"Content-Length: 5"), id="F20 two lengths"),
        pytest.param((b"Content-Length: 5", b"Content-Length: 6"), id="F20 two other lengths"),
        pytest.param((b"Content-Length: +5",), id="sign"),
        pytest.param((b"Content-Length: -5",), id="negative"),
        pytest.param((b"Content-Length: 5,5",), id="list"),
        pytest.param((b"Content-Length: 0x5",), id="hexadecimal"),
        pytest.param((b"Content-Length:",), id="empty length"),
        pytest.param((b"Content-Length: 99999999999999999999",), id="overflow"),
        pytest.param((b"Transfer-Encoding: gzip, chunked",), id="coding list"),
        pytest.param((b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"), id="two codings"),
        pytest.param(
            (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), id="chunked twice"
        ),
        pytest.param((b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip"), id="gzip last"),
        pytest.param((b"Transfer-Encoding: identity",), id="identity"),
        pytest.param((b"Transfer-Encoding:",), id="no coding"),
        pytest.param((b"Transfer-Encoding: \x0bchunked",), id="vertical tab"),
        pytest.param((b"A: b\r\n c",), id="obs-fold"),
        pytest.param((b"A: b\n c",), id="obs-fold after a bare LF"),
        pytest.param((b"A: b\nX: y",), id="F20 bare LF"),
        pytest.param((b"A: b\rX: y",), id="bare CR"),
        pytest.param((b"A: b\x00c",), id="NUL in a value"),
        pytest.param((b"A\x00: b",), id="NUL in a name"),
        pytest.param((b"A: \x01",), id="control byte"),
        pytest.param((b"A : b",), id="space before the colon"),
        pytest.param((b" A: b",), id="space before the name"),
        pytest.param((b": b",), id="no name"),
        pytest.param((b"A b",), id="no colon"),
    ],
)
def test_a_head_with_two_readings_is_refused(lines: tuple[bytes, ...]) -> None:
    with pytest.raises(BadAnswer):
        parse(with_lines(*lines))


@pytest.mark.parametrize(
    ("line", "lines", "keep", "length", "chunked"),
    [
        pytest.param(LINE, (), True, -1, False, id="until close"),
        pytest.param(LINE, (b"Content-Length: 5",), True, 5, False, id="length"),
        pytest.param(LINE, (b"content-length:5 ",), True, 5, False, id="other spelling"),
        pytest.param(LINE, (b"Transfer-Encoding: Chunked",), True, -1, True, id="chunked"),
        pytest.param(LINE, (b"Connection: close",), False, -1, False, id="close"),
        pytest.param(LINE, (b"Connection: Foo, CLOSE",), False, -1, False, id="close in a list"),
        pytest.param(LINE, (b"Connection: x", b"Connection: close"), False, -1, False, id="lines"),
        pytest.param(b"HTTP/1.0 200 OK", (), False, -1, False, id="HTTP/1.0"),
        pytest.param(
            b"HTTP/1.0 200 OK",
            (b"Connection: Keep-Alive", b"Content-Length: 0"),
            True, 0, False, id="HTTP/1.0 kept alive",
        ),
        pytest.param(
            b"HTTP/1.0 200 OK", (b"Connection: keep-alive",), False, -1, False,
            id="HTTP/1.0 kept alive without a length",
        ),
        pytest.param(b"HTTP/1.1 200", (), True, -1, False, id="no reason"),
        pytest.param(b"HTTP/1.1 200 ", (), True, -1, False, id="empty reason"),
        pytest.param(b"HTTP/1.1 299 \xc3\xa4", (), True, -1, False, id="reason of other bytes"),
    ],
)  # fmt: skip
def test_framing_and_keep_alive_are_understood(
    line: bytes, lines: tuple[bytes, ...], keep: bool, length: int, chunked: bool
) -> None:
    answer = parse(with_lines(*lines, line=line))
    assert (answer.keep_alive, answer.length, answer.chunked) == (keep, length, chunked)
    assert passed(answer) == []


@pytest.mark.parametrize("status", [100, 103, 204, 304, 404, 418, 599])
def test_every_status_passes_with_a_reason_of_ours(status: int) -> None:
    answer = parse(with_lines(line=b"HTTP/1.1 %d Evil<script>" % status))
    assert answer.status == status
    assert b"Evil" not in status_line(status)
    assert status_line(status).startswith(b"HTTP/1.1 %d " % status)
    assert b"\n" not in status_line(status)


@pytest.mark.parametrize(
    "line",
    [
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: close",
        b"Proxy-Authenticate: Basic",
        b"TE: x",
        b"Trailer: X",
        b"X-Request-Id: theirs",
        b'Alt-Svc: h2="evil.test:443"',
        b"Set-Cookie: __Host-heim=planted; Path=/; Secure",
        b"set-cookie: __HOST-HEIM=planted",
        b'Set-Cookie: "__Host-heim"=planted',
        b"Set-Cookie:  __Host-heim-flow-1=planted",
        b"Set-Cookie: __Host-heim",
        b"Upgrade: h2c",
        b"Connection: keep-alive",
    ],
)
def test_what_an_upstream_must_not_say_does_not_pass(line: bytes) -> None:
    assert passed(parse(with_lines(b"A: 1", line, b"B: 2"))) == [b"A: 1", b"B: 2"]


@pytest.mark.parametrize(
    "line",
    [
        b"Set-Cookie: session=1; Domain=.example.test",
        b"Set-Cookie: heim=x",
        b"Set-Cookie: a=__Host-heim=1",
        b"Access-Control-Allow-Origin: *",
        b"Server: x",
        b"X-Auth-Id: theirs to say",
        b"X_Odd: names are the upstream's own",
        b"Value: \xe4\xff",
    ],
)
def test_everything_else_passes_as_it_came(line: bytes) -> None:
    assert passed(parse(with_lines(line))) == [line]


def test_headers_that_connection_names_are_dropped() -> None:
    lines = (b"Connection: keep-alive, X-Hop", b"x-hop: 1", b"A: 2", b"Connection: B", b"B: 3")
    assert passed(parse(with_lines(*lines))) == [b"A: 2"]


CORS = (
    b"Access-Control-Allow-Origin: *",
    b"access-control-allow-credentials: true",
    b"Access-Control-Expose-Headers: X",
)


def test_cors_headers_are_the_upstreams_unless_we_answer_cors() -> None:
    assert passed(parse(with_lines(*CORS))) == list(CORS)
    assert passed(parse(with_lines(*CORS, b"A: 1"), drop_cors=True)) == [b"A: 1"]


def test_the_portal_may_set_our_cookies() -> None:
    line = b"Set-Cookie: __Host-heim=sealed; Path=/"
    assert passed(parse(with_lines(line), protect_cookies=False)) == [line]


def test_a_switch_to_no_protocol_is_refused() -> None:
    with pytest.raises(BadAnswer):
        parse(with_lines(line=b"HTTP/1.1 101 Switching Protocols"))


def test_an_upgrade_is_named_in_lower_case() -> None:
    head = with_lines(b"Connection: Upgrade", b"Upgrade: WebSocket", line=b"HTTP/1.1 101 Switching")
    assert parse(head).upgrade == b"websocket"


ANSWERS = [
    with_lines(b"Content-Length: 5", b"A: 1"),
    with_lines(b"Transfer-Encoding: chunked", b"Connection: close"),
    with_lines(b"Connection: keep-alive, X-Hop", b"X-Hop: 1"),
    with_lines(b"Connection: keep-alive", line=b"HTTP/1.0 200 OK"),
    with_lines(b"Connection: Upgrade", b"Upgrade: websocket", line=b"HTTP/1.1 101 Switching"),
    with_lines(b"Set-Cookie: a=b", b"Access-Control-Allow-Origin: *", line=b"HTTP/1.1 404 No"),
    with_lines(line=b"HTTP/1.1 204 No Content"),
]


def told(answer: AnswerHead) -> tuple[object, ...]:
    return (
        answer.status, answer.keep_alive, answer.length, answer.chunked, answer.upgrade,
        answer.fields,
    )  # fmt: skip


@settings(
    phases=(Phase.explicit, Phase.generate, Phase.shrink), deadline=None, max_examples=examples(200)
)
@given(st.lists(st.tuples(st.sampled_from(ANSWERS), st.booleans()), min_size=2, max_size=6))
def test_a_reused_head_reads_every_answer_as_a_fresh_one_would(
    answers: list[tuple[bytes, bool]],
) -> None:
    reused = AnswerHead()
    for data, drop_cors in answers:
        reused.parse(data, drop_cors=drop_cors, protect_cookies=True)
        assert told(reused) == told(parse(data, drop_cors=drop_cors))


@settings(
    phases=(Phase.explicit, Phase.generate, Phase.shrink), deadline=None, max_examples=examples(500)
)
@given(st.data())
def test_noise_is_refused_or_cannot_split_what_the_client_gets(data: st.DataObject) -> None:
    raw = bytearray(with_lines(b"Content-Length: 12", b"Set-Cookie: a=b", b"X-Value: c"))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        noise = st.binary(max_size=3) | st.sampled_from([b"\r\n", b"\n", b"\r", b"\x00", b":"])
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(noise)
    end = raw.find(b"\r\n\r\n") + 4
    try:
        answer = parse(bytes(raw[:end]))
    except BadAnswer:
        return
    for line in answer.fields:
        assert line.partition(b":")[0].strip()
        assert not set(line) & set(b"\r\n\x00")
