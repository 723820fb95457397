from __future__ import annotations

import pytest

from heim_tunnel.complaints import clean, joined, refusal, reset, say, token_refused, with_id
from heim_wire.errors import FAILURES, Code
from heim_wire.events import Reset
from heim_wire.problem import Refused
from heim_wire.session import Session


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("two\nlines\r\n", "two lines"),
        ("\x1b]0;title\x07\x1b[31mred", "]0;title [31mred"),
        ("right\u202eto left", "right to left"),
        ("  much \t blank  ", "much blank"),
        ("ümlaut …", "ümlaut …"),
    ],
)
def test_text_from_elsewhere_becomes_one_harmless_line(text: str, line: str) -> None:
    assert clean(text) == line


def test_a_long_text_is_cut() -> None:
    assert len(clean("x" * 10_000)) <= 600
    assert clean("ä" * 10, 5) == "ää"


def test_a_line_says_who_speaks_and_about_what(capfd: pytest.CaptureFixture[str]) -> None:
    say("web1\n", "it\x07 is away")
    say(None, "hello")
    assert capfd.readouterr().err == "heim-tunnel: web1: it is away\nheim-tunnel: hello\n"


@pytest.mark.parametrize(
    ("refused", "status", "text"),
    [
        (Refused(403, "forbidden", "no", hint="ask", request_id="1"), 77, "no; ask (request 1)"),
        (Refused(429, "busy", "full", retry_after=5.0), 75, "full; retry in 5 s"),
        (Refused(503, "", "a load balancer's"), 75, "a load balancer's"),
        (Refused(502, "", "a load balancer's"), 69, "a load balancer's"),
        (Refused(0, "", "no HTTP"), 69, "no HTTP"),
        (Refused(403, "forbidden", "No. Really.", hint="Ask."), 77, "No. Really; Ask."),
    ],
    ids=["code", "retry", "503", "502", "no http", "periods"],
)
def test_a_refusal_has_its_text_and_status(refused: Refused, status: int, text: str) -> None:
    complaint = refusal(refused)
    assert (complaint.status, complaint.text) == (status, text)


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ((), ""),
        (("a.",), "a."),
        (("a.", "b."), "a; b."),
        (("", "b"), "b"),
        (("a", "", "b"), "a; b"),
    ],
    ids=str,
)
def test_parts_become_one_line(parts: tuple[str, ...], line: str) -> None:
    assert joined(*parts) == line


def test_a_service_token_that_is_not_taken_leads_to_nobodys_login() -> None:
    refused = Refused(401, "unauthenticated", "It was revoked.", hint="log in", request_id="1")
    complaint = token_refused(refused, "/run/token")
    assert complaint.status == 77
    assert complaint.text == (
        "the service token in /run/token is not taken: It was revoked; whoever runs the proxy "
        "makes a new one with: heim-proxy token create (request 1)"
    )
    assert token_refused(Refused(403, "forbidden", "no"), "/run/token").text == "no"


@pytest.mark.parametrize("code", FAILURES, ids=lambda code: FAILURES[code].slug)
def test_every_reset_has_a_text_and_its_status(code: int) -> None:
    stream = Session(initiator=True, now=0.0).adopt()
    assert reset(Reset(stream, code, "as told"), "").text == "as told"
    silent = reset(Reset(stream, code, ""), "7")
    assert silent.text == f"{FAILURES[code].meaning} (request 7)"
    assert silent.status == FAILURES[code].exit_status


def test_a_reset_of_a_later_version_is_not_a_crash() -> None:
    stream = Session(initiator=True, now=0.0).adopt()
    assert reset(Reset(stream, 999, ""), "").text == "ended with code 999"
    assert reset(Reset(stream, 999, ""), "").status == 69


def test_an_unknown_request_id_is_left_out() -> None:
    assert with_id("x", "") == "x"
    assert Code.PROTOCOL in FAILURES
