from __future__ import annotations

from pathlib import Path

import pytest

from heim_runtime.complaints import UsageError
from heim_tunnel.arguments import build_parser
from heim_tunnel.dial import Way
from heim_tunnel.invocation import Invocation, read

LINES = [
    ("a.example.com",),
    ("a.example.com:8443",),
    ("--ca-file", "ca.pem", "a"),
    ("--ca-file=ca.pem", "a"),
    ("--connect-to=[::1]:8443", "a"),
    ("a", "--connect-to", "10.0.0.1:443", "-v"),
    ("--verbose", "--token-file", "t", "a"),
    ("-v", "--", "a"),
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_it_reads_what_argparse_reads(home: Path, line: tuple[str, ...]) -> None:
    slow = build_parser().parse_args(["proxy", *line])
    fast = read(line)
    assert fast.target == slow.host
    assert fast.way.ca_file == slow.ca_file
    assert fast.way.verbose == slow.verbose
    assert fast.token_file == slow.token_file
    detour = None if fast.way.connect_to is None else fast.way.connect_to.authority
    assert detour == slow.connect_to


@pytest.mark.parametrize(
    "line",
    [(), ("a", "b"), ("--token-file",), ("--insecure", "a"), ("-x", "a"), ("a:0",)],
    ids=" ".join,
)
def test_what_it_does_not_understand_is_a_usage_error(home: Path, line: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        read(line)


def test_the_host_is_dialled_on_the_proxys_port() -> None:
    found = Invocation("Desktop.X.example.com:8443", Way(), environ={})
    assert str(found.dialled) == "desktop.x.example.com:8443"
    assert found.backend is None


@pytest.mark.parametrize(
    ("target", "environ", "dialled"),
    [
        ("desktop", {}, "desktop:8443"),
        ("[::1]", {}, "[::1]:8443"),
        ("desktop:443", {}, "desktop"),
        ("desktop:444", {}, "desktop:444"),
        ("desktop", {"HEIM_PROXY": "auth.test"}, "auth.test"),
    ],
    ids=str,
)
def test_a_login_knows_the_port_where_none_is_typed(
    target: str, environ: dict[str, str], dialled: str
) -> None:
    found = Invocation(target, Way(), environ=environ)
    found.serve_on(8443)
    assert str(found.dialled) == dialled


def test_heim_proxy_is_dialled_instead_and_the_backend_named() -> None:
    environ = {"HEIM_PROXY": "auth.example.com:8443", "HEIM_TOKEN_FILE": "t"}
    found = Invocation("desktop", Way(), environ=environ)
    assert str(found.dialled) == "auth.example.com:8443"
    assert found.backend == "desktop"
    assert found.token_file == "t"


def test_a_token_file_on_the_command_line_wins() -> None:
    found = Invocation("a", Way(), token_file="mine", environ={"HEIM_TOKEN_FILE": "t"})
    assert found.token_file == "mine"


def test_a_wrong_heim_proxy_is_named() -> None:
    with pytest.raises(UsageError, match="HEIM_PROXY"):
        Invocation("a", Way(), environ={"HEIM_PROXY": "http://x/y"})
