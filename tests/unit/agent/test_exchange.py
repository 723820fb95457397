from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from heim_agent import exchange
from heim_agent.exchange import Host, Reply, detour, post
from heim_runtime.complaints import AUTH, PROTOCOL, TRY_LATER, UNAVAILABLE, Complaint, UsageError
from heim_wire.agents import JOIN_PATH
from tests.fakes.joining import Canned, JoinHost, join_host, problem


@pytest.fixture
def host(tmp_path: Path) -> Iterator[JoinHost]:
    with join_host(tmp_path) as found:
        yield found


def asked(host: JoinHost) -> Reply:
    """What an unknown path answers, which is what was scripted."""
    return post(Host(host.url, ca_file=str(host.ca_file)), "/x", {"a": 1}, {})


@pytest.mark.parametrize(
    ("typed", "url", "port"),
    [
        ("https://auth.x.example.com", "https://auth.x.example.com", 443),
        ("https://auth.x.example.com/", "https://auth.x.example.com", 443),
        ("auth.x.example.com", "https://auth.x.example.com", 443),
        ("https://AUTH.x.example.com:8443", "https://auth.x.example.com:8443", 8443),
        ("https://[fd00::7]:8443", "https://[fd00::7]:8443", 8443),
        ("http://localhost:8080", "http://localhost:8080", 8080),
        ("http://127.0.0.1", "http://127.0.0.1", 80),
    ],
)
def test_an_address_is_a_host(typed: str, url: str, port: int) -> None:
    host = Host(typed)
    assert (host.url, host.way.port, host.is_plain) == (url, port, url.startswith("http:"))


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("http://auth.x.example.com", "in the clear"),
        ("http://localhost.evil.test", "in the clear"),
        ("ftp://auth.x.example.com", "no address"),
        ("https://", "no address"),
        ("https://a b", "no address"),
        ("https://auth:x", "no address"),
        ("https://auth:0x1", "no address"),
        ("https://user:pass@auth.x.example.com", "only https://host"),
        ("https://auth.x.example.com/path", "only https://host"),
        ("https://auth.x.example.com?token=7", "only https://host"),
        ("https://a\r\nHost: b", "no address"),
    ],
)
def test_an_address_that_is_none_is_refused(typed: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Host(typed)


@pytest.mark.parametrize(
    ("url", "is_there"),
    [
        ("https://auth.x.example.com/.heim/agents", True),
        ("https://auth.x.example.com:8443/", True),
        ("http://auth.x.example.com/", False),
        ("https://evil.test/", False),
        ("https://auth.x.example.com@evil.test/", False),
        ("https://evil.test\\@auth.x.example.com/", False),
        ("https://user@auth.x.example.com/", False),
        ("javascript:alert(1)", False),
        ("https://[", False),
    ],
)
def test_an_address_that_is_told_must_be_the_hosts_own(url: str, is_there: bool) -> None:
    assert Host("https://auth.x.example.com").is_at(url) is is_there


@pytest.mark.parametrize(
    ("text", "found"),
    [(None, None), ("127.0.0.1:8443", ("127.0.0.1", 8443)), ("[::1]:1", ("::1", 1))],
)
def test_a_detour_is_a_place(text: str | None, found: tuple[str, int] | None) -> None:
    assert detour(text) == found


@pytest.mark.parametrize("text", ["", "a", "a:", "a:0", "a:x", "a:70000"])
def test_a_detour_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--connect-to"):
        detour(text)


def test_json_goes_there_and_comes_back(host: JoinHost) -> None:
    host.script("/x", Canned(200, {"text": "x", "number": 7}, {"Retry-After": "9"}))
    reply = asked(host)
    assert (reply.status, reply.text("text"), reply.number("number")) == (200, "x", 7)
    assert reply.retry_after_s == 9
    assert host.asked == [("/x", {"a": 1})]
    head = host.heads[0]
    assert head["host"] == f"auth.localhost:{host.port}"
    assert head["content-type"] == "application/json"
    assert head["user-agent"].startswith("heim-agent/")
    assert not {"authorization", "cookie", "origin"} & set(head)


@pytest.mark.parametrize(
    ("answer", "told", "status"),
    [
        (Canned(302, b"", {"Location": "https://portal.test"}), "a redirect to", PROTOCOL),
        (Canned(200, b"<html>", {"Content-Type": "text/html"}), "it sent text/html", PROTOCOL),
        (Canned(200, b"[1]"), "it sent", PROTOCOL),
        (Canned(200, b"[" * 60_000), "it sent", PROTOCOL),
        (Canned(200, b'"' + b"x" * 70_000 + b'"'), "it sent", PROTOCOL),
        (Canned(502, b"bad gateway"), "answered 502 without saying why", UNAVAILABLE),
        (Canned(200, drop=True), "closed the connection without an answer", UNAVAILABLE),
    ],
    ids=["redirect", "a portal", "a list", "deep", "long", "a gateway", "hangs up"],
)
def test_an_answer_that_is_none_is_explained(
    host: JoinHost, answer: Canned, told: str, status: int
) -> None:
    host.script("/x", answer)
    with pytest.raises(Complaint, match=told) as caught:
        asked(host)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("code", "status"), [("token_used", AUTH), ("busy", TRY_LATER), ("slow_down", TRY_LATER)]
)
def test_a_refusal_is_told_in_the_proxys_words(host: JoinHost, code: str, status: int) -> None:
    host.script("/x", problem(403, code, "it was used.", "make another"))
    complaint = asked(host).refusal()
    assert complaint.text == (
        f"auth.localhost:{host.port}: it was used; make another (request 01JX)"
    )
    assert complaint.status == status


@pytest.mark.parametrize("status", [404, 405])
def test_a_heim_that_has_nothing_for_agents_is_the_wrong_address(
    host: JoinHost, status: int
) -> None:
    host.script("/x", problem(status, "not_found", "Nothing is served here.", "Check the address."))
    complaint = asked(host).refusal()
    assert f"answered {status}, but not as a Heim login host does" in complaint.text
    assert complaint.status == PROTOCOL


def test_a_proxy_that_fails_is_worth_another_try(host: JoinHost) -> None:
    host.script("/x", problem(500, "internal_error", "Something went wrong here.", "Wait."))
    assert asked(host).refusal().status == TRY_LATER


def test_a_refusal_without_words_is_nonsense(host: JoinHost) -> None:
    host.script("/x", Canned(403, {}))
    assert "its error gives no reason" in asked(host).refusal().text


@pytest.mark.parametrize(
    "value", [None, "", 7, True, -1, 10**400, "x"], ids=lambda value: repr(value)[:9]
)
def test_fields_are_of_their_types(host: JoinHost, value: object) -> None:
    host.script("/x", Canned(200, {"field": value}))
    reply = asked(host)
    if value != "x":
        with pytest.raises(Complaint, match="no field"):
            reply.text("field")
    if value != 7:
        with pytest.raises(Complaint, match="no usable field"):
            reply.number("field")


def test_a_certificate_of_another_authority_is_refused_with_what_to_do(host: JoinHost) -> None:
    with pytest.raises(Complaint, match=r"not trusted.*--ca-file"):
        post(Host(host.url), JOIN_PATH, {"token": "secret"}, {})
    assert host.asked == []


def test_a_certificate_for_another_name_is_refused_with_what_to_do(host: JoinHost) -> None:
    port = urlsplit(host.url).port
    other = Host(
        f"https://elsewhere.test:{port}",
        ca_file=str(host.ca_file),
        connect_to=f"127.0.0.1:{port}",
    )
    with pytest.raises(Complaint, match=r"for another name; is this the proxy's login host\?"):
        post(other, JOIN_PATH, {"token": "secret"}, {})
    assert host.asked == []


def test_nobody_there_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(Complaint, match=r"refused\); is the proxy running") as caught:
        post(Host(f"https://auth.localhost:{port}"), JOIN_PATH, {}, {})
    assert caught.value.status == UNAVAILABLE


def test_an_answer_that_never_ends_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(Complaint, match="does not answer"):
            post(Host(url), JOIN_PATH, {}, {})


def test_loopback_may_be_plain(tmp_path: Path) -> None:
    with join_host(tmp_path, tls=False) as host:
        host.script("/x", Canned(200, {"a": "b"}))
        reply = post(Host(f"http://localhost:{host.port}"), "/x", {}, {})
        assert reply.text("a") == "b"


def test_a_web_proxy_of_the_environment_is_used(tmp_path: Path) -> None:
    """CONNECT names the host; what the web proxy answers is told as its own."""
    heads: list[bytes] = []

    def refuse(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            heads.append(sock.recv(4096))
            sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse, args=(listener,))
        thread.start()
        environ = {"HTTPS_PROXY": f"http://127.0.0.1:{listener.getsockname()[1]}"}
        with pytest.raises(Complaint, match="407"):
            post(Host("https://auth.x.example.com"), JOIN_PATH, {}, environ)
        thread.join()
    assert heads[0].startswith(b"CONNECT auth.x.example.com:443 HTTP/1.1\r\n")
