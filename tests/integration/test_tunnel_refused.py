"""`heim-tunnel proxy` when it is not let through: refusals, strangers, certificates, web proxies.

Every case is one line on standard error and an exit status (tunnel.md, 5.6).
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from heim_wire.errors import FAILURES, Failure
from tests.fakes.certificates import make_pair
from tests.fakes.real import require
from tests.fakes.tunnel_cli import Cli, write_login
from tests.fakes.tunnel_server import TARGET, Peer, TunnelServer
from tests.fakes.web_proxy import WebProxy


@pytest.fixture
def home(tmp_path: Path) -> Path:
    write_login(tmp_path)
    return tmp_path


def complaint(server: TunnelServer, home: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """Exit status and the line, without its beginning."""
    with Cli.to(server, home, *arguments, env=env, stdin=subprocess.DEVNULL) as cli:
        return only_line(cli)


def only_line(cli: Cli) -> tuple[int, str]:
    status, out, err = cli.finish()
    begin = f"heim-tunnel: {TARGET}: "
    assert out == b""
    assert err.startswith(begin)
    assert err.count("\n") == 1
    return status, err.removeprefix(begin).rstrip("\n")


# What the proxy refuses.


@pytest.mark.parametrize(
    "failure",
    [failure for failure in FAILURES.values() if failure.http_status != 401],
    ids=lambda failure: failure.slug,
)
def test_a_refusal_is_told_as_the_proxy_worded_it(home: Path, failure: Failure) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.problem(
            failure.http_status,
            failure.slug,
            "alice may not use ssh on web1\x1b[2J",
            hint="ask for the role prod-ssh",
            request_id="01JABC",
        )

    with TunnelServer(script) as server:
        assert complaint(server, home) == (
            failure.exit_status,
            "alice may not use ssh on web1 [2J; ask for the role prod-ssh (request 01JABC)",
        )


def test_a_limit_says_when_to_come_again(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.problem(429, "busy", "too many streams (256)", retry_after=5)

    with TunnelServer(script) as server:
        assert complaint(server, home) == (75, "too many streams (256); retry in 5 s")


def answer(text: str) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.request()
        peer.sock.sendall(text.replace("\n", "\r\n").encode())

    return script


STRANGERS = {
    "a captive portal's page": (
        "HTTP/1.1 200 OK\nContent-Type: text/html\nContent-Length: 10\n\n<html>hi<>",
        69,
        "a web page instead of a tunnel; if you are on a guest network",
    ),
    "a captive portal's redirect": (
        "HTTP/1.1 302 Found\nLocation: http://login.hotel.example/\nContent-Length: 0\n\n",
        69,
        "a redirect to http://login.hotel.example/",
    ),
    "a web server without Heim": (
        "HTTP/1.1 404 Not Found\nContent-Length: 0\n\n",
        68,
        "there is no tunnel at this address",
    ),
    "a load balancer without a server": (
        "HTTP/1.1 503 Service Unavailable\nContent-Length: 0\nRetry-After: 7\n\n",
        75,
        "answered 503 without saying why; retry in 7 s",
    ),
    "something that strips upgrades": (
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        69,
        "does not pass on WebSocket",
    ),
    "a cache": (
        "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade\n"
        "Sec-WebSocket-Accept: AAAA\nSec-WebSocket-Protocol: heim.tunnel.v1\n\n",
        69,
        "answered somebody else's request",
    ),
    "an ssh server": ("SSH-2.0-OpenSSH_9.2\n", 69, "does not speak HTTP"),
    "nobody": ("", 69, "closed the connection without an answer"),
    "half an answer": ("HTTP/1.1 101 Swi", 69, "closed the connection in the middle"),
}


@pytest.mark.parametrize("who", STRANGERS)
def test_57_who_is_no_heim_proxy_is_told_so(home: Path, who: str) -> None:
    text, status, expected = STRANGERS[who]
    with TunnelServer(answer(text)) as server:
        found, line = complaint(server, home)
    assert (found, expected in line) == (status, True), line
    assert TARGET in line


def test_a_redirect_is_never_followed_and_the_token_goes_nowhere_else(home: Path) -> None:
    with TunnelServer(answer(STRANGERS["a captive portal's redirect"][0])) as server:
        complaint(server, home)
        assert len(server.peers) == 1


# What its certificate says.


def never(peer: Peer) -> None:
    line = ""
    # Its certificate may be looked at once more, to say what that is for.
    with contextlib.suppress(ConnectionResetError):
        line = peer.request()
    assert not line, "the request was sent to a server that is not trusted"


def test_55_a_certificate_of_an_unknown_authority_is_refused(home: Path) -> None:
    with (
        TunnelServer(never) as server,
        Cli(home, "--connect-to", f"127.0.0.1:{server.port}", TARGET) as cli,
    ):
        status, line = only_line(cli)
    assert status == 69
    assert line.startswith(f"the certificate of {TARGET} is not trusted by the system (")
    assert "name its authority with --ca-file or HEIM_CA_FILE" in line


def test_55_a_custom_authority_is_given_by_the_environment_or_the_login(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.goodbye()

    with TunnelServer(script) as server:
        way = ("--connect-to", f"127.0.0.1:{server.port}", TARGET)
        env = {"HEIM_CA_FILE": str(server.ca_file)}
        with Cli(home, *way, env=env, stdin=subprocess.DEVNULL) as cli:
            assert cli.finish() == (0, b"", "")
        write_login(home, ca_file=str(server.ca_file))
        with Cli(home, *way, stdin=subprocess.DEVNULL) as cli:
            assert cli.finish() == (0, b"", "")


@pytest.mark.real
@pytest.mark.parametrize("hashed", [True, False], ids=["hashed directory", "bundle only"])
def test_the_systems_store_is_used_by_hash_or_as_a_bundle(
    home: Path, tmp_path: Path, hashed: bool
) -> None:
    """Fedora's directory has no hashes: the bundle is loaded when a certificate asks for it."""

    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.goodbye()

    with TunnelServer(script) as server:
        store = tmp_path / "certs"
        store.mkdir()
        (store / "authority.pem").write_bytes(server.ca_file.read_bytes())
        env = {"SSL_CERT_DIR": str(store), "SSL_CERT_FILE": "/nonexistent"}
        if hashed:
            subprocess.run([require("openssl"), "rehash", str(store)], check=True)
        else:
            env["SSL_CERT_FILE"] = str(store / "authority.pem")
        way = ("--connect-to", f"127.0.0.1:{server.port}", TARGET)
        with Cli(home, *way, env=env, stdin=subprocess.DEVNULL) as cli:
            assert cli.finish() == (0, b"", "")


@pytest.mark.parametrize(
    ("names", "days", "text"),
    [
        (("other.example.test",), (-1, 1), f"the certificate of {TARGET} is for another name"),
        ((TARGET,), (-9, -1), f"the certificate of {TARGET} has expired (or this machine's"),
        ((TARGET,), (1, 9), f"the certificate of {TARGET} is not valid yet (or this machine's"),
    ],
    ids=["name", "expired", "future"],
)
def test_a_certificate_that_does_not_fit_says_why(
    home: Path, names: tuple[str, ...], days: tuple[int, int], text: str
) -> None:
    pair = make_pair(*names, start_days=days[0], end_days=days[1])
    with TunnelServer(never, pair=pair) as server:
        status, line = complaint(server, home)
    assert status == 69
    assert line.startswith(text)


def test_tls_1_2_is_spoken_with_boxes_that_open_tls(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.goodbye()

    with (
        TunnelServer(script, maximum=ssl.TLSVersion.TLSv1_2) as server,
        Cli.to(server, home, "-v", stdin=subprocess.DEVNULL) as cli,
    ):
        status, _, err = cli.finish()
    assert status == 0
    assert "TLSv1.2" in err


def test_plain_http_on_the_port_is_told(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(4096)
        peer.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with TunnelServer(script, tls=False) as server:
        status, line = complaint(server, home)
    assert status == 69
    assert line.startswith(f"no TLS with {TARGET}: it does not speak TLS")


def test_a_ca_file_that_is_none_is_told(home: Path) -> None:
    empty = home / "empty.pem"
    empty.write_text("")
    for path, text in ((empty, "holds no PEM certificate"), (home / "gone", "No such file")):
        with (
            TunnelServer(never) as server,
            Cli(
                home, "--ca-file", str(path), "--connect-to", f"127.0.0.1:{server.port}", TARGET
            ) as cli,
        ):
            status, line = only_line(cli)
        assert status == 2
        assert text in line


# Whether there is a way at all.


def test_a_name_that_does_not_exist_is_68(home: Path) -> None:
    write_login(home, domains=["invalid"])
    with Cli(home, "ssh.heim.invalid") as cli:
        status, _, err = cli.finish()
    assert status == 68
    assert err.startswith("heim-tunnel: ssh.heim.invalid: cannot resolve ssh.heim.invalid: ")


def test_a_port_where_nobody_listens_is_69(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with Cli(home, "--connect-to", f"127.0.0.1:{port}", TARGET) as cli:
        assert only_line(cli) == (
            69,
            f"cannot connect to 127.0.0.1:{port} (127.0.0.1: connection refused)",
        )


def test_names_below_localhost_are_this_machine(home: Path) -> None:
    """RFC 6761; the port after the host is the proxy's. A dead ::1 does not hold it up."""

    def script(peer: Peer) -> None:
        peer.request()
        assert peer.fields["host"] == f"ssh.app.localhost:{server.port}"
        peer.upgrade()
        peer.goodbye()

    write_login(home, domains=["localhost"])
    with TunnelServer(script, pair=make_pair("ssh.app.localhost")) as server:
        host = f"ssh.app.localhost:{server.port}"
        arguments = ("--ca-file", str(server.ca_file), host)
        with Cli(home, *arguments, stdin=subprocess.DEVNULL) as cli:
            assert cli.finish() == (0, b"", "")


def test_a_backends_name_is_no_host_and_the_right_one_is_asked_for(home: Path) -> None:
    write_login(home, domains=["x.invalid"])
    with Cli(home, "cache", stdin=subprocess.DEVNULL) as cli:
        status, _, err = cli.finish()
    assert status == 68
    assert err.startswith("heim-tunnel: cache: cannot resolve cache: ")
    assert err.endswith("; did you mean cache.x.invalid?\n")


def test_heim_proxy_names_the_login_host_and_the_backend_goes_in_a_field(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.goodbye()

    with TunnelServer(script) as server:
        env = {"HEIM_PROXY": "auth.example.test"}
        with Cli.to(server, home, env=env, stdin=subprocess.DEVNULL) as cli:
            assert cli.finish() == (0, b"", "")
        fields = server.peers[0].fields
    assert fields["host"] == "auth.example.test"
    assert fields["heim-backend"] == TARGET


# Through a web proxy.


def through(home: Path, server: TunnelServer, proxy: str, **env: str) -> Cli:
    found = {"HTTPS_PROXY": proxy, **env}
    return Cli(home, "--ca-file", str(server.ca_file), TARGET, env=found, stdin=subprocess.DEVNULL)


def hello(peer: Peer) -> None:
    peer.request()
    peer.upgrade()
    peer.stream.send(b"hello")
    peer.goodbye()


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_54_the_environments_web_proxy_is_asked_to_connect(home: Path, variable: str) -> None:
    with TunnelServer(hello) as server, WebProxy(server.port) as proxy:
        env = {"HTTPS_PROXY": "", variable: f"http://127.0.0.1:{proxy.port}/"}
        with through(home, server, "", **env) as cli:
            assert cli.finish() == (0, b"hello", "")
    assert proxy.heads == [f"CONNECT {TARGET}:443 HTTP/1.1\r\nHost: {TARGET}:443\r\n\r\n"]


def test_54_user_and_password_are_sent_to_it_and_never_shown(home: Path) -> None:
    with (
        TunnelServer(hello) as server,
        WebProxy(server.port, credentials="Basic YWxpY2U6cDpAL3c=") as proxy,
    ):
        with through(home, server, f"http://alice:p%3A%40%2Fw@127.0.0.1:{proxy.port}") as cli:
            assert cli.finish() == (0, b"hello", "")
        with through(home, server, f"http://alice:wrong@127.0.0.1:{proxy.port}") as cli:
            status, line = only_line(cli)
    assert status == 69
    assert f"http://127.0.0.1:{proxy.port} answered 407" in line
    assert "wrong" not in line


def test_54_a_header_file_is_sent_instead(home: Path) -> None:
    header = home / "header"
    header.write_text("Proxy-Authorization: Bearer tok\n\nX-Team: blue\n")
    with (
        TunnelServer(hello) as server,
        WebProxy(server.port, credentials="Bearer tok") as proxy,
        through(
            home,
            server,
            f"http://alice:pw@127.0.0.1:{proxy.port}",
            HEIM_WEB_PROXY_HEADER_FILE=str(header),
        ) as cli,
    ):
        assert cli.finish() == (0, b"hello", "")
    assert "X-Team: blue\r\n" in proxy.heads[0]
    assert "Basic" not in proxy.heads[0]


@pytest.mark.parametrize(
    ("answered", "text"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "answered 503 without saying why"),
        (b"HTTP/1.0 403 Forbidden\r\n\r\n", "answered 403 without saying why"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x", "sent more than its answer"),
    ],
    ids=["503", "403", "ssh", "nothing", "too much"],
)
def test_54_a_web_proxy_that_refuses_is_named(home: Path, answered: bytes, text: str) -> None:
    with (
        TunnelServer(never) as server,
        WebProxy(server.port, answer=answered) as proxy,
        through(home, server, f"http://127.0.0.1:{proxy.port}") as cli,
    ):
        status, line = only_line(cli)
    assert status == 69
    assert f"http://127.0.0.1:{proxy.port}" in line
    assert text in line


def test_54_no_proxy_goes_straight(home: Path) -> None:
    with TunnelServer(hello) as server:
        env = {"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "other, .example.test"}
        with through(home, server, "", **env) as cli:
            status, _, err = cli.finish()
    # Straight means by name, which does not exist; the web proxy was not asked.
    assert status == 68
    assert "cannot resolve" in err


def test_54_a_web_proxy_with_tls(home: Path) -> None:
    with (
        TunnelServer(hello) as server,
        WebProxy(server.port, tls=True) as proxy,
        through(home, server, f"https://localhost:{proxy.port}") as cli,
    ):
        assert cli.finish() == (0, b"hello", "")


@pytest.mark.parametrize(
    ("proxy", "text"),
    [
        ("socks5://127.0.0.1:1080", "only http:// and https:// proxies are known, not socks5://"),
        ("http://pass:word@:8080", "is not a URL such as http://proxy.example.com:3128"),
    ],
)
def test_a_web_proxy_that_cannot_be_used_is_a_usage_error(
    home: Path, proxy: str, text: str
) -> None:
    with TunnelServer(never) as server, through(home, server, proxy) as cli:
        status, line = only_line(cli)
    assert status == 2
    assert text in line
    assert "word" not in line


# The command line.


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "which host? usage: heim-tunnel proxy"),
        (("a", "b"), "one host, please"),
        (("--token-file",), "--token-file needs a value"),
        (("--insecure", "a"), "unknown option --insecure"),
        (("a:b",), "'a:b' is not a host or host:port"),
        (("a\r\nX: y",), "is not a host or host:port"),
        (("--connect-to", "x:99999", "a"), "--connect-to: 'x:99999' has no port from 1 to"),
    ],
    ids=["none", "two", "value", "unknown", "port", "smuggled", "detour"],
)
def test_a_command_line_that_is_not_understood_is_2(
    home: Path, arguments: tuple[str, ...], text: str
) -> None:
    with Cli(home, *arguments) as cli:
        status, out, err = cli.finish()
    assert (status, out) == (2, b"")
    assert text in err
    assert err.count("\n") == 1


def test_help_is_given_by_the_other_half(home: Path) -> None:
    with Cli(home, "--help") as cli:
        status, out, err = cli.finish()
    assert (status, err) == (0, "")
    assert b"HOST[:PORT]" in out
    assert os.linesep.encode() in out
