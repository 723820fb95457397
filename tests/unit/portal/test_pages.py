"""Pages: escaped, scriptless, and the negotiation of what a client wants."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from heim_proxy.portal.errors import PortalError, TryAgain
from heim_proxy.portal.pages import Pages, wants_html


def test_the_style_sheet_is_the_one_the_policy_names() -> None:
    page = Pages().page("home", session=None)
    style = re.search(r"<style>(.*)</style>", page.text or "", re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page.headers["Content-Security-Policy"]


def test_pages_load_nothing_and_are_small() -> None:
    page = Pages().page("signed_out", host=None, again="/.heim/login")
    assert len(page.text or "") < 4000
    assert not re.search(r"(src|href)=\"?(https?:)?//|<script|@import|url\(", page.text or "")


def test_p1_everything_on_an_error_page_is_escaped() -> None:
    evil = '"><script>alert(1)</script>'
    error = PortalError(400, evil, evil, step=evil, link=TryAgain(evil, evil))
    page = Pages().error(error, request_id=evil, html=True)
    assert "<script" not in (page.text or "")
    assert (page.text or "").count("&lt;script&gt;") == 7


def test_an_error_keeps_its_headers_and_cookies() -> None:
    error = PortalError(
        429, "Slow down.", "Wait.", headers={"Retry-After": "3"}, set_cookies=("a=b", "c=d")
    )
    for html in (True, False):
        page = Pages().error(error, request_id="r", html=html)
        assert (page.status, page.headers["Retry-After"]) == (429, "3")
        assert page.headers.getall("Set-Cookie") == ["a=b", "c=d"]


def test_a_problem_document_has_the_form_of_the_edges() -> None:
    error = PortalError(
        503,
        "Sign-in is away.",
        "Wait.",
        step="discovery",
        account="a",
        headers={"Retry-After": "5"},
    )
    page = Pages().error(error, request_id="r", html=False)
    assert page.content_type == "application/problem+json"
    assert json.loads(page.text or "") == {
        "title": "Service Unavailable",
        "status": 503,
        "code": "sign_in_unavailable",
        "detail": "Sign-in is away.",
        "hint": "Wait.",
        "retry_after": 5,
        "request_id": "r",
        "account": "a",
        "step": "discovery",
    }


def test_who_has_to_sign_in_is_told_where_as_a_member_and_as_a_challenge() -> None:
    error = PortalError(401, "You are not signed in.", "Sign in.", login_url="https://a.test/")
    page = Pages().error(error, request_id="r", html=False)
    assert page.headers["WWW-Authenticate"] == 'Heim login_url="https://a.test/"'
    document = json.loads(page.text or "")
    assert (document["code"], document["login_url"]) == ("sign_in_required", "https://a.test/")


def test_a_template_that_misses_a_value_is_an_error_and_not_a_gap() -> None:
    with pytest.raises(Exception, match="undefined"):
        Pages().page("me")


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("TEXT/HTML", True),
        ("application/json, text/html;q=0.1", True),
        ("application/xhtml+xml", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("text/html;q=0", False),
        ("text/html; q=0.000", False),
        ("text/htmlx", False),
    ],
)
def test_pages_are_for_those_who_name_them(accept: str, html: bool) -> None:
    assert wants_html(accept) is html
