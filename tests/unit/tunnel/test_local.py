"""What people type for `forward`, and what they could have meant."""

from __future__ import annotations

import pytest

from heim_runtime.complaints import UsageError
from heim_tunnel.local import Local, Wish, parse


@pytest.mark.parametrize(
    ("text", "local", "backend"),
    [
        ("db", Local(), "db"),
        ("db.x.example.com", Local(), "db.x.example.com"),
        ("db.x.example.com:8443", Local(), "db.x.example.com:8443"),
        ("5432:db", Local(port=5432), "db"),
        ("0:db", Local(), "db"),
        ("5432:db.x.example.com:8443", Local(port=5432), "db.x.example.com:8443"),
        ("127.0.0.2:5432:db", Local("127.0.0.2", 5432), "db"),
        ("localhost:5432:db", Local("127.0.0.1", 5432), "db"),
        ("[::1]:5432:db:8443", Local("::1", 5432), "db:8443"),
        ("0.0.0.0:5432:db", Local("0.0.0.0", 5432), "db"),
        ("unix:/run/x.sock:db", Local(path="/run/x.sock"), "db"),
        ("unix:x.sock:db:8443", Local(path="x.sock"), "db:8443"),
    ],
)
def test_what_is_meant(text: str, local: Local, backend: str) -> None:
    assert parse(text) == Wish(local, backend)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "5432", "5432:", ":db", "5432:5433", "host:5432:db", "-1:db", "٣:db",
        "unix::db", "unix:/x", "1.2.3:5:db", "1:2:3:4:db", "[::1:5:db", "127.0.0.1:db",
    ],
)  # fmt: skip
def test_what_cannot_be_meant_says_what_can(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not \[LOCAL:\]BACKEND, as in db"):
        parse(text)


@pytest.mark.parametrize("text", ["65536:db", "5432:db:99999", "127.0.0.1:70000:db"])
def test_a_port_that_there_is_not_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"(65536|99999|70000) is no port: they end at 65535"):
        parse(text)


@pytest.mark.parametrize(
    ("local", "private", "shown"),
    [
        (Local(port=7), True, "127.0.0.1:7"),
        (Local("::1", 7), True, "[::1]:7"),
        (Local(path="/x"), True, "unix:/x"),
        (Local("0.0.0.0", 7), False, "0.0.0.0:7"),
        (Local("::", 7), False, "[::]:7"),
        (Local("192.0.2.1", 7), False, "192.0.2.1:7"),
    ],
    ids=str,
)
def test_who_reaches_it(local: Local, private: bool, shown: str) -> None:
    assert (local.is_private, str(local)) == (private, shown)
