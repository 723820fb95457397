from __future__ import annotations

import json

import pytest

from heim_proxy.edge.responses import Refusal, no_content, redirect, refusal, wants_page

DATE = "Date: Fri, 20 Nov 2026 09:00:00 GMT"
ID = "0123456789abcdef"
EVIL = '"><script>alert(1)</script>&\r\nX-Evil: 1'


@pytest.fixture(autouse=True)
def _nine_o_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heim_proxy.edge.responses.time", lambda: 1795165200.9)


def divided(data: bytes) -> tuple[str, list[str], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    return line, fields, body


def answered(answer: Refusal, *, page: bool = False, head_only: bool = False) -> bytes:
    return refusal(answer, page=page, request_id=ID, head_only=head_only)


PLAIN = Refusal(403, "no_role", "You have no role.", "ask for one", ("X-Line: 1",), "app", "alice")


def test_programs_get_problem_details() -> None:
    line, fields, body = divided(answered(PLAIN))
    assert line == "HTTP/1.1 403 Forbidden"
    assert "Content-Type: application/problem+json" in fields
    assert f"X-Request-Id: {ID}" in fields
    assert "Cache-Control: no-store" in fields
    assert "X-Line: 1" in fields
    assert f"Content-Length: {len(body)}" in fields
    assert json.loads(body) == {
        "title": "Forbidden",
        "status": 403,
        "code": "no_role",
        "detail": "You have no role.",
        "hint": "ask for one",
        "request_id": ID,
    }


@pytest.mark.parametrize("page", [True, False])
def test_a_refusal_has_the_date(page: bool) -> None:
    assert divided(answered(PLAIN, page=page))[1].count(DATE) == 1


def test_people_get_a_page_that_says_the_same() -> None:
    line, fields, body = divided(answered(PLAIN, page=True))
    assert line == "HTTP/1.1 403 Forbidden"
    assert "Content-Type: text/html; charset=utf-8" in fields
    assert f"Content-Length: {len(body)}" in fields
    assert any("default-src 'none'" in field for field in fields)
    for words in ("You have no role.", "Ask for one.", ID, "Forbidden"):
        assert words in body.decode()


@pytest.mark.parametrize(
    ("status", "user", "offered"), [(403, "alice", True), (403, "", False), (401, "alice", False)]
)
def test_somebody_who_may_not_is_offered_to_be_somebody_else(
    status: int, user: str, offered: bool
) -> None:
    refused = Refusal(status, "x", "y", user=user)
    page = refusal(refused, page=True, request_id="0" * 16, head_only=False, target=b'/a?b=c&d="e"')
    # The page they wanted goes along, so that somebody else signs in for it.
    assert (b'href="/.heim/logout?rd=/a%3Fb%3Dc%26d%3D%22e%22"' in page) is offered


@pytest.mark.parametrize(
    ("login_url", "link"),
    [("https://a.test/?b&c", "https://a.test/?b&amp;c"), ("", "/.heim/login")],
)
def test_who_is_not_signed_in_has_a_link_to_do_so(login_url: str, link: str) -> None:
    answer = Refusal(401, "x", "y", login_url=login_url)
    assert f'href="{link}">Sign in</a>'.encode() in answered(answer, page=True)


def test_programs_are_told_where_to_log_in_and_when_to_try_again() -> None:
    answer = Refusal(401, "x", "y", login_url="https://auth.example.test", retry_after=5)
    _, fields, body = divided(answered(answer))
    assert "Retry-After: 5" in fields
    problem = json.loads(body)
    assert problem["login_url"] == "https://auth.example.test"
    assert problem["retry_after"] == 5


def test_everybody_is_told_when_to_try_again() -> None:
    _, fields, _ = divided(answered(Refusal(503, "x", "y", retry_after=5), page=True))
    assert "Retry-After: 5" in fields


def test_an_empty_hint_is_left_out() -> None:
    answer = Refusal(404, "not_found", "nothing here")
    assert "hint" not in json.loads(divided(answered(answer))[2])
    assert b"<p></p>" not in answered(answer, page=True)


def test_what_comes_from_outside_cannot_become_markup() -> None:
    body = divided(answered(Refusal(403, "x", EVIL, EVIL), page=True))[2].decode()
    assert "<script>" not in body
    assert "&lt;script&gt;" in body


def test_what_comes_from_outside_cannot_become_a_header() -> None:
    for page in (True, False):
        _, fields, _ = divided(answered(Refusal(403, "x", EVIL, EVIL, (), EVIL, EVIL), page=page))
        assert not any(field.startswith("X-Evil") for field in fields)


@pytest.mark.parametrize("page", [True, False])
def test_an_answer_to_head_has_the_length_but_no_body(page: bool) -> None:
    whole = divided(answered(PLAIN, page=page))
    line, fields, body = divided(answered(PLAIN, page=page, head_only=True))
    assert (line, fields, body) == (whole[0], whole[1], b"")


def test_an_answer_that_ends_the_connection_says_so() -> None:
    assert not any(field.startswith("Connection") for field in divided(answered(PLAIN))[1])
    assert "Connection: close" in divided(answered(PLAIN.closing()))[1]
    assert PLAIN.closing().detail == PLAIN.detail


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 414, 417, 421, 426, 431, 500,
                                    502, 503, 504])  # fmt: skip
def test_every_status_we_use_has_a_title(status: int) -> None:
    assert json.loads(divided(answered(Refusal(status, "x", "y")))[2])["title"]


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        (None, False),
        (b"", False),
        (b"*/*", False),
        (b"application/json", False),
        (b"text/html", True),
        (b"application/xhtml+xml, TEXT/HTML;q=0.9", True),
    ],
)
def test_a_page_is_for_those_who_ask_for_one(accept: bytes | None, page: bool) -> None:
    assert wants_page(accept) is page


def test_a_redirect_has_no_body_and_is_not_stored() -> None:
    line, fields, body = divided(
        redirect(303, "https://auth.test/x?y", request_id=ID, set_cookies=("a=1", "b=2"))
    )
    assert (line, body) == ("HTTP/1.1 303 See Other", b"")
    assert fields == [
        DATE,
        f"X-Request-Id: {ID}",
        "Location: https://auth.test/x?y",
        "Cache-Control: no-store",
        "Referrer-Policy: no-referrer",
        "X-Content-Type-Options: nosniff",
        "Set-Cookie: a=1",
        "Set-Cookie: b=2",
        "Content-Length: 0",
    ]
    assert "Connection: close" in divided(redirect(308, "/x", request_id=ID, close=True))[1]


def test_no_content_has_neither_body_nor_length() -> None:
    line, fields, body = divided(no_content(("A: 1",), request_id=ID))
    assert (line, fields, body) == (
        "HTTP/1.1 204 No Content",
        [DATE, f"X-Request-Id: {ID}", "A: 1"],
        b"",
    )
    assert divided(no_content((), request_id=ID, close=True))[1] == [
        DATE,
        f"X-Request-Id: {ID}",
        "Connection: close",
    ]
