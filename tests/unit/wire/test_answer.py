"""Answers as they may come: in any pieces, of any size, from anybody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_wire.answer import BODY_BYTES, HEAD_BYTES, Answer, Head
from heim_wire.problem import Refused

PROBLEM = b'{"status": 403, "code": "forbidden", "detail": "alice may not"}'


class Teapot(Answer):
    """Wants to hear that it speaks to a teapot."""

    def wanted(self, head: Head) -> bool:
        return head.status == 418


def answer(status: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"HTTP/1.1 " + status, *fields, b"", body))


def problem(body: bytes = PROBLEM, *fields: bytes, length: bool = True) -> bytes:
    size = (b"Content-Length: %d" % len(body),) if length else ()
    kind = b"Content-Type: application/problem+json; charset=utf-8"
    return answer(b"403 Forbidden", kind, *size, *fields, body=body)


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end
    return problem(body, b"Transfer-Encoding: gzip, Chunked", length=False)


def refused(*chunks: bytes) -> Refused:
    """The refusal that `chunks` lead to."""
    teapot = Teapot("heim.test")
    try:
        for chunk in chunks:
            assert teapot.receive(chunk) is None
    except Refused as refusal:
        return refusal
    return teapot.eof()


def bytes_of(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def test_the_wanted_answer_ends_with_what_follows_it() -> None:
    assert Teapot("x").receive(answer(b"418 I'm a teapot", body=b"tea")) == b"tea"


def test_it_may_come_byte_by_byte() -> None:
    teapot = Teapot("x")
    sent = bytes_of(answer(b"418", b"A: b"))
    assert [teapot.receive(byte) for byte in sent] == [None] * (len(sent) - 1) + [b""]


def test_interim_answers_are_skipped() -> None:
    interim = answer(b"103 Early Hints", b"Link: </x>")
    assert Teapot("x").receive(interim * 3 + answer(b"418", body=b"tea")) == b"tea"


def test_interim_answers_without_end_are_refused() -> None:
    assert "interim" in refused(answer(b"100 Continue") * 20).detail


@pytest.mark.parametrize(
    "sent",
    [
        problem(),
        problem(length=False),
        chunked(PROBLEM),
        chunked(PROBLEM[:10], PROBLEM[10:]),
        chunked(PROBLEM, end=b"0\r\nX-Trailer: 1\r\n\r\n"),
    ],
    ids=["length", "until the end", "one chunk", "two chunks", "trailers"],
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_problem_is_read_however_it_is_framed(sent: bytes, step: int) -> None:
    got = refused(*(sent[i : i + step] for i in range(0, len(sent), step)))
    assert (got.status, got.code, got.detail) == (403, "forbidden", "alice may not")


@pytest.mark.parametrize(
    "sent", [problem() + b"HTTP/1.1 200 OK", chunked(PROBLEM)], ids=["length", "chunked"]
)
def test_a_complete_problem_does_not_wait_for_the_end(sent: bytes) -> None:
    with pytest.raises(Refused, match="alice may not"):
        Teapot("x").receive(sent)


def test_a_page_is_refused_by_its_head() -> None:
    page = answer(b"200 OK", b"Content-Type: text/html", b"Content-Length: 99999999")
    with pytest.raises(Refused) as raised:
        Teapot("login.test").receive(page)
    assert raised.value.code == ""
    assert "web page" in raised.value.detail


@pytest.mark.parametrize(
    "body",
    [b"{" + b" " * 10 * BODY_BYTES, b"%x\r\n" % (1 << 30) + b"x" * 10 * BODY_BYTES],
    ids=["length", "chunked"],
)
def test_of_a_huge_problem_only_so_much_is_kept(body: bytes) -> None:
    teapot = Teapot("x")
    coding = b"Content-Length: 999999999" if body[:1] == b"{" else b"Transfer-Encoding: chunked"
    teapot.receive(answer(b"500 Oops", b"Content-Type: application/problem+json", coding))
    for fed in range(0, BODY_BYTES, 1024):
        teapot.receive(body[fed : fed + 1024])
    assert len(teapot._body) == BODY_BYTES
    with pytest.raises(Refused, match="500"):
        teapot.receive(b"x")


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
        (b"\x15\x03\x01\x00\x02\x02F", "does not speak HTTP"),
        (b"HTTP/2 200\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.2 200\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 20 OK\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 600 OK\r\n\r\n", "not HTTP"),
        ("HTTP/1.1 ²²² OK\r\n\r\n".encode("latin-1"), "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "broken field"),
        (b"HTTP/1.1 200 OK\r\n: empty\r\n\r\n", "broken field"),
        (b"HTTP/1.1 200 OK\r\nspace : x\r\n\r\n", "broken field"),
        (b"HTTP/1.1 200 OK\r\nA: b\n\r\n c: d\r\n\r\n", "broken field"),
        (b"HTTP/1.1 418 x\r\n" + b"A: " + b"a" * HEAD_BYTES, "head of more than 64 KiB"),
        (b"HTTP/1.1 418 x\r\n" + b"A: " + b"a" * HEAD_BYTES + b"\r\n\r\n", "more than 64 KiB"),
        (b"", "without an answer"),
        (b"HTTP/1.1 418", "in the middle"),
    ],
    ids=[
        "ssh", "a TLS alert", "http/2", "version", "two digits", "status 600", "odd digits",
        "no colon", "no name", "space before the colon", "folded", "endless head", "huge head",
        "nothing", "half a line",
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused_in_words(sent: bytes, words: str) -> None:
    got = refused(sent)
    assert (got.status, got.code) == (0, "")
    assert got.detail.startswith("heim.test ")
    assert words in got.detail


def test_a_broken_problem_still_tells_its_status() -> None:
    got = refused(problem(b"{", length=False))
    assert (got.status, got.code) == (403, "")
    assert "403" in got.detail


@given(st.lists(st.binary(max_size=100), max_size=10), st.booleans())
def test_any_bytes_are_an_answer_or_a_refusal(chunks: list[bytes], plausible: bool) -> None:
    teapot = Teapot("x")
    try:
        if plausible:
            teapot.receive(b"HTTP/1.1 403 No\r\nContent-Type: application/problem+json\r\n")
        for chunk in chunks:
            if teapot.receive(chunk) is not None:
                return
        teapot.eof()
    except Refused as error:
        words = error.detail
        assert words.isprintable()
