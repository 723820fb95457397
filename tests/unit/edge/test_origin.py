from __future__ import annotations

import pytest

from heim_proxy.edge.origin import Preflight, cors_headers, foreign_origin, preflight
from heim_proxy.edge.responses import Refusal
from heim_proxy.routing import Backend, Cors
from tests.unit.edge.heads import parsed

OWN = "https://app.example.test"
FRIEND = "https://friend.example.test"
LISTED = "https://listed.example.test"

CORS = Cors(
    allow_origins=frozenset({FRIEND}),
    allow_methods=("GET", "PUT"),
    allow_headers=("X-One", "content-type"),
    expose_headers=("X-Two",),
    allow_credentials=True,
    max_age=600,
)
PLAIN = Backend("app", allowed_origins=frozenset({LISTED}))
SHARED = Backend("app", cors=CORS)

UPGRADE = ("Connection: Upgrade", "Upgrade: websocket")


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        pytest.param((), False, id="a program"),
        pytest.param((f"Origin: {OWN}",), False, id="own origin"),
        pytest.param(("Origin: HTTPS://APP.example.test",), False, id="own origin in capitals"),
        pytest.param((f"Origin: {LISTED}",), False, id="listed"),
        pytest.param(("Origin: https://sibling.example.test",), True, id="N1 sibling"),
        pytest.param(("Origin: http://app.example.test",), True, id="own host on http"),
        pytest.param(("Origin: https://app.example.test:8443",), True, id="own host, other port"),
        pytest.param(("Origin: https://app.example.test.evil.test",), True, id="suffix"),
        pytest.param(("Origin: https://app.example.test/",), True, id="slash"),
        pytest.param(("Origin: null",), True, id="null"),
        pytest.param(("Origin:",), True, id="empty"),
        pytest.param((f"Origin: {OWN} https://evil.test",), True, id="two in one"),
        pytest.param(("Origin: https://evil.test", f"Origin: {OWN}"), True, id="two lines"),
        pytest.param(("Sec-Fetch-Site: same-origin",), False, id="same-origin without Origin"),
        pytest.param(("Sec-Fetch-Site: none",), False, id="typed by the user"),
        pytest.param(("Sec-Fetch-Site: same-site",), True, id="same-site without Origin"),
        pytest.param(("Sec-Fetch-Site: cross-site",), True, id="cross-site without Origin"),
        pytest.param((f"Origin: {OWN}", "Sec-Fetch-Site: cross-site"), False, id="Origin decides"),
        pytest.param(UPGRADE, True, id="WebSocket without Origin"),
        pytest.param((*UPGRADE, "Sec-Fetch-Site: same-origin"), True, id="WebSocket, only site"),
        pytest.param((*UPGRADE, f"Origin: {OWN}"), False, id="WebSocket of its own page"),
        pytest.param((*UPGRADE, "Origin: https://evil.test"), True, id="WebSocket of another"),
    ],
)
def test_pages_of_other_origins_are_refused(headers: tuple[str, ...], refused: bool) -> None:
    answer = foreign_origin(parsed(method="POST", headers=headers), PLAIN, OWN, user="alice")
    assert (answer is not None) is refused
    if answer is not None:
        assert (answer.status, answer.code, answer.backend) == (403, "foreign_origin", "app")
        assert answer.user == "alice"
        assert "allowed_origins" in answer.hint


def test_an_origin_that_may_read_answers_may_also_send() -> None:
    head = parsed(method="PUT", headers=(f"Origin: {FRIEND}",))
    assert foreign_origin(head, SHARED, OWN, user="alice") is None
    assert foreign_origin(head, PLAIN, OWN, user="alice") is not None


def test_a_long_origin_is_not_repeated_whole() -> None:
    answer = foreign_origin(parsed(headers=("Origin: " + "x" * 5_000,)), PLAIN, OWN, user="alice")
    assert answer is not None
    assert len(answer.detail) < 300


def asking(
    origin: str = FRIEND, method: str = "PUT", headers: str | None = None
) -> tuple[str, ...]:
    lines = (f"Origin: {origin}", f"Access-Control-Request-Method: {method}")
    return lines if headers is None else (*lines, f"Access-Control-Request-Headers: {headers}")


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        pytest.param(asking(), 204, id="allowed"),
        pytest.param(asking(headers="x-one"), 204, id="header"),
        pytest.param(asking(headers=" X-ONE ,Content-Type,"), 204, id="headers in any case"),
        pytest.param(asking(headers=""), 204, id="empty list"),
        pytest.param(asking("https://evil.test"), 403, id="other origin"),
        pytest.param(asking("null"), 403, id="null"),
        pytest.param(asking("*"), 403, id="asterisk"),
        pytest.param(asking(FRIEND + ".evil.test"), 403, id="suffix"),
        pytest.param(asking(FRIEND.upper()), 403, id="origins are compared exactly"),
        pytest.param(asking(method="DELETE"), 403, id="other method"),
        pytest.param(asking(method="put"), 403, id="methods are case-sensitive"),
        pytest.param(asking(headers="X-Three"), 403, id="other header"),
        pytest.param(asking(headers="x-one, x-auth-id"), 403, id="one header too many"),
        pytest.param(asking(headers="*"), 403, id="all headers"),
    ],
)
def test_preflights_are_answered_by_the_table(lines: tuple[str, ...], status: int) -> None:
    answer = preflight(parsed(method="OPTIONS", headers=lines), SHARED)
    if status == 204:
        assert isinstance(answer, Preflight)
        assert answer.headers == (
            f"Access-Control-Allow-Origin: {FRIEND}",
            "Vary: Origin",
            "Access-Control-Allow-Credentials: true",
            "Access-Control-Allow-Methods: GET, PUT",
            "Access-Control-Max-Age: 600",
            "Access-Control-Allow-Headers: X-One, content-type",
        )
    else:
        assert isinstance(answer, Refusal)
        assert (answer.status, answer.code) == (status, "cors_refused")


@pytest.mark.parametrize(
    ("backend", "lines"),
    [
        pytest.param(PLAIN, asking(), id="no cors here"),
        pytest.param(SHARED, (f"Origin: {FRIEND}",), id="no method asked for"),
        pytest.param(SHARED, ("Access-Control-Request-Method: PUT",), id="no origin"),
        pytest.param(SHARED, (), id="plain OPTIONS"),
    ],
)
def test_other_options_requests_are_no_preflights(backend: Backend, lines: tuple[str, ...]) -> None:
    assert preflight(parsed(method="OPTIONS", headers=lines), backend) is None


def test_answers_to_a_listed_origin_say_so() -> None:
    assert (
        cors_headers(parsed(headers=(f"Origin: {FRIEND}",)), SHARED)
        == (
            f"Access-Control-Allow-Origin: {FRIEND}\r\n"
            "Vary: Origin\r\n"
            "Access-Control-Allow-Credentials: true\r\n"
            "Access-Control-Expose-Headers: X-Two\r\n"
        ).encode()
    )


def test_answers_without_credentials_do_not_mention_them() -> None:
    cors = Cors(frozenset({FRIEND}), ("GET",), (), (), allow_credentials=False, max_age=5)
    backend = Backend("app", cors=cors)
    assert cors_headers(parsed(headers=(f"Origin: {FRIEND}",)), backend) == (
        f"Access-Control-Allow-Origin: {FRIEND}\r\nVary: Origin\r\n".encode()
    )
    answer = preflight(parsed(method="OPTIONS", headers=asking(method="GET")), backend)
    assert isinstance(answer, Preflight)
    assert not any("Credentials" in line or "Allow-Headers" in line for line in answer.headers)


@pytest.mark.parametrize("lines", [(), ("Origin: https://evil.test",), ("Origin: null",)])
def test_other_origins_learn_only_that_the_answer_varies(lines: tuple[str, ...]) -> None:
    assert cors_headers(parsed(headers=lines), SHARED) == b"Vary: Origin\r\n"


def test_without_cors_nothing_is_added() -> None:
    assert cors_headers(parsed(headers=(f"Origin: {FRIEND}",)), PLAIN) == b""
