from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_wire.errors import FAILURES
from heim_wire.problem import Refused, refusal

KIND = {"content-type": "application/problem+json"}
EVIL = "\x1b]0;owned\x07\x9b31m\r\nsecond line\u202etxt.exe\u2028\x7f"


def told(**members: object) -> Refused:
    """The refusal of a problem document with these members."""
    return refusal("heim.test", 403, KIND, json.dumps(members).encode())


def foreign(status: int, **fields: str) -> Refused:
    """The refusal of an answer that is not the proxy's."""
    names = {name.replace("_", "-"): value for name, value in fields.items()}
    return refusal("heim.test", status, names, b"<html>")


def test_a_problem_is_told_as_the_proxy_said_it() -> None:
    got = told(
        title="Forbidden", status=403, code="forbidden", detail="alice may not use web1",
        hint="ask for the role", login_url="https://login.heim.test/?a=b#c", retry_after=5,
        request_id="01J",
    )  # fmt: skip
    assert (got.status, got.code, got.detail, got.hint) == (
        403, "forbidden", "alice may not use web1", "ask for the role",
    )  # fmt: skip
    assert (got.login_url, got.retry_after, got.request_id) == (
        "https://login.heim.test/?a=b#c", 5.0, "01J",
    )  # fmt: skip
    assert str(got) == got.detail


@pytest.mark.parametrize("failure", FAILURES.values(), ids=lambda failure: failure.slug)
def test_every_slug_is_known(failure: object) -> None:
    slug = failure.slug  # type: ignore[attr-defined]
    assert told(code=slug).code == slug


@pytest.mark.parametrize("code", ["", "Forbidden", "made-up", 3, None, "forbidden\n"], ids=repr)
def test_an_unknown_code_is_none(code: object) -> None:
    assert told(code=code, detail="x").code in ("", "forbidden" if code == "forbidden\n" else "")


def test_a_problem_without_words_has_some() -> None:
    assert told().detail == "heim.test answered 403"
    assert told(title="Forbidden", detail="").detail == "Forbidden"


def test_nothing_reaches_a_terminal_that_could_steer_it() -> None:
    got = told(detail=EVIL, hint=EVIL, title=EVIL, request_id=EVIL, code=EVIL, login_url=EVIL)
    for text in (got.detail, got.hint, got.request_id, got.login_url, got.code, str(got)):
        assert text.isprintable()
        assert "\x1b" not in text
    elsewhere = foreign(302, location=f"http://portal.test/{EVIL}", heim_request_id=EVIL)
    assert elsewhere.detail.isprintable()
    assert elsewhere.request_id.isprintable()


def test_texts_are_bounded() -> None:
    got = told(detail="x" * 5000, hint="y" * 5000, request_id="z" * 5000)
    assert (len(got.detail), len(got.hint), len(got.request_id)) == (512, 512, 64)
    assert len(foreign(302, location="x" * 5000).detail) < 300


@pytest.mark.parametrize(
    "url",
    [
        "http://login.test/", "javascript:alert(1)", "file:///etc/passwd", "https://", "login.test",
        "https://a b/", "https://user@evil.test/", "https://x\x1b[2J/", "//evil.test", "", 7,
        "http://127.0.0.1.evil.test/", "http://localhost.evil.test/", "https://e\u202e.test/",
        "https://x.test/" + "a" * 3000, "https://login.test\\@evil.test/", "http://127.0.0.1:x/",
    ],
    ids=lambda url: ascii(url)[:40],
)  # fmt: skip
def test_an_address_nobody_should_open_is_dropped(url: object) -> None:
    assert told(login_url=url).login_url == ""


@pytest.mark.parametrize(
    "url",
    [
        "https://login.heim.test", "https://login.heim.test:8443/x?y#z", "http://127.0.0.1:8080/",
        "http://localhost/", "http://[::1]:80/", "http://login.localhost:8080/.heim/",
    ],
)  # fmt: skip
def test_an_address_to_log_in_at_is_kept(url: str) -> None:
    assert told(login_url=url).login_url == url


@pytest.mark.parametrize(
    ("member", "header", "seconds"),
    [
        (5, None, 5.0), (2.5, "9", 2.5), (None, "9", 9.0), ("7", None, 7.0), (-1, None, None),
        (True, None, None), (None, "Wed, 21 Oct 2015 07:28:00 GMT", None), (1e30, None, 86400.0),
        (None, "9" * 400, None), (None, "\u0663", None), ([], "3", None),
    ],
    ids=repr,
)  # fmt: skip
def test_when_to_try_again(member: object, header: str | None, seconds: float | None) -> None:
    fields = {**KIND, "retry-after": header} if header is not None else KIND
    body = {} if member is None else {"retry_after": member}
    assert refusal("x", 503, fields, json.dumps(body).encode()).retry_after == seconds


@pytest.mark.parametrize(
    ("got", "words", "hint"),
    [
        (foreign(302, location="http://portal.test/"), "redirect to http://portal.test/", "guest"),
        (foreign(200, content_type="text/html"), "web page", "guest"),
        (foreign(200), "does not pass on WebSocket", "upgrades"),
        (foreign(426), "does not pass on WebSocket", "upgrades"),
        (foreign(404, content_type="text/html"), "no tunnel", "host name"),
        (foreign(407), "user name and password", "HTTPS_PROXY"),
        (foreign(502, content_type="text/html", retry_after="3"), "502", ""),
    ],
    ids=["captive redirect", "captive page", "200", "426", "404", "407", "502"],
)
def test_who_stands_in_between_is_guessed(got: Refused, words: str, hint: str) -> None:
    assert got.code == ""
    assert words in got.detail
    assert hint in got.hint


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"\xff", b"{", b'{"a":' * 5000, b'{"code": "busy", "code": "idle"}'],
    ids=["nothing", "list", "null", "not UTF-8", "cut off", "deep", "a key twice"],
)
def test_a_broken_problem_is_not_the_proxys(body: bytes) -> None:
    got = refusal("heim.test", 503, KIND, body)
    assert (got.status, got.code) == (503, "")


@given(st.binary(max_size=300), st.dictionaries(st.text(max_size=9), st.text(max_size=99)))
def test_any_answer_is_a_refusal(body: bytes, fields: dict[str, str]) -> None:
    got = refusal("x", 500, {**fields, **KIND}, body)
    assert got.detail
    assert got.detail.isprintable()
