from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from heim_runtime.complaints import Complaint, UsageError
from heim_runtime.webproxy import WebProxy, find, join
from heim_wire.handshake import Connect, connect_request

PROXY = "http://proxy.example.com:3128"


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTPS_PROXY": PROXY}, PROXY),
        ({"https_proxy": PROXY, "HTTPS_PROXY": "http://other:1"}, PROXY),
        ({"ALL_PROXY": PROXY}, PROXY),
        ({"HTTP_PROXY": PROXY}, None),
        ({"HTTPS_PROXY": "proxy.example.com:3128"}, PROXY),
        ({"HTTPS_PROXY": "HTTP://proxy.example.com:3128/"}, PROXY),
        ({"HTTPS_PROXY": "http://proxy.example.com"}, "http://proxy.example.com:80"),
        ({"HTTPS_PROXY": "https://proxy.example.com"}, "https://proxy.example.com:443"),
        ({"HTTPS_PROXY": "http://[::1]:3128"}, "http://[::1]:3128"),
        ({"HTTPS_PROXY": "http://u:p@proxy.example.com:3128"}, PROXY),
    ],
    ids=str,
)
def test_it_is_found_in_the_environment(environ: dict[str, str], shown: str | None) -> None:
    found = find("heim.example.com", 443, environ)
    assert (None if found is None else str(found)) == shown


@pytest.mark.parametrize(
    ("userinfo", "auth"),
    [
        ("alice:secret", "alice:secret"),
        ("alice", "alice:"),
        ("a%40b:p%3Aq%2F", "a@b:p:q/"),
        ("%zz:%", "%zz:%"),
        ("a:b@c", "a:b@c"),
    ],
)
def test_user_and_password_are_decoded_and_never_shown(userinfo: str, auth: str) -> None:
    found = find("h.example.com", 443, {"HTTPS_PROXY": f"http://{userinfo}@p:1"})
    assert found is not None
    assert found.auth == auth
    assert repr(found) == "<WebProxy http://p:1>"


@pytest.mark.parametrize("url", ["socks5://p:1080", "ftp://p", "http://:80", "http://p:99999"])
def test_one_that_cannot_be_used_is_a_usage_error_that_does_not_repeat_it(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        find("h.example.com", 443, {"HTTPS_PROXY": url.replace("://", "://u:hush@")})
    assert "HTTPS_PROXY" in caught.value.text
    assert "hush" not in caught.value.text


@pytest.mark.parametrize("url", ["http://u:hush://x@p:1", "u:hush://x@p:1"])
def test_a_password_that_looks_like_an_address_is_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        find("h.example.com", 443, {"HTTPS_PROXY": url})
    assert "hush" not in caught.value.text


@pytest.mark.parametrize(
    ("host", "exceptions", "direct"),
    [
        ("h.example.com", "example.com", True),
        ("h.example.com", ".example.com", True),
        ("h.example.com", "*.example.com", True),
        ("example.com", ".example.com", True),
        ("example.com.", "EXAMPLE.com", True),
        ("h.example.com", "a, b example.com", True),
        ("h.example.com", "*", True),
        ("h.example.com", "h.example.com:443", True),
        ("h.example.com", "h.example.com:8443", False),
        ("badexample.com", "example.com", False),
        ("h.example.com", "ample.com", False),
        ("h.example.com", "", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.0.0.0/99", False),
        ("10.1.2.3", "10.0.0.0/x", False),
        ("10.1.2.3", "1.2.3", False),
        ("2001:db8::1", "2001:db8::/32", True),
        ("2001:db9::1", "2001:db8::/32", False),
        ("2001:db8::1", "[2001:db8::1]", True),
        ("localhost", "", True),
        ("app.localhost", "", True),
        ("127.9.9.9", "", True),
        ("::1", "", True),
    ],
)
def test_no_proxy_and_loopback_go_straight(host: str, exceptions: str, direct: bool) -> None:
    found = find(host, 443, {"HTTPS_PROXY": PROXY, "NO_PROXY": exceptions})
    assert (found is None) is direct


def joined(answer: bytes, *, deadline_s: float = 5.0) -> bytes:
    """Join through a proxy that answers so; what it was sent."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        if answer:
            theirs.shutdown(socket.SHUT_WR)
        proxy = WebProxy("http", "p", 3128, "alice:secret")
        join(
            ours,
            proxy,
            lambda auth: connect_request("h", 443, auth),
            Connect(str(proxy)),
            deadline=time.monotonic() + deadline_s,
        )
        return theirs.recv(4096)


def test_a_proxy_that_says_200_has_connected() -> None:
    sent = joined(b"HTTP/1.1 200 OK\r\nVia: p\r\n\r\n")
    assert sent.startswith(b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n")
    assert b"Proxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n" in sent


def test_a_proxy_that_says_nothing_is_left_at_the_deadline() -> None:
    with pytest.raises(Complaint, match="web proxy http://p:3128 does not answer"):
        joined(b"", deadline_s=0.05)


@pytest.mark.parametrize(
    "text", ["", "no field", "Proxy-Authorization: a\x00b"], ids=["empty", "field", "control"]
)
def test_a_header_file_that_is_none_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    path = tmp_path / "header"
    path.write_text(text)
    monkeypatch.setenv("HEIM_WEB_PROXY_HEADER_FILE", str(path))
    with pytest.raises(UsageError, match="must hold header lines"):
        joined(b"HTTP/1.1 200 OK\r\n\r\n")


def test_a_header_file_that_is_not_there_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEIM_WEB_PROXY_HEADER_FILE", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match="cannot read"):
        joined(b"HTTP/1.1 200 OK\r\n\r\n")
