from __future__ import annotations

from pathlib import Path

import pytest

from heim_proxy.sources.account import Account, AccountError

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("the token\n")
    (tmp_path / "ca.crt").write_text("authority")
    (tmp_path / "namespace").write_text("heim\n")
    return tmp_path


def test_everything_is_read_and_the_token_is_not_shown(folder: Path) -> None:
    found = Account(folder, POD).read()
    assert (found.url, found.ca, found.token.reveal()) == (
        "https://10.96.0.1:443",
        "authority",
        "the token",
    )
    assert "the token" not in repr(found)
    assert Account(folder, POD).namespace() == "heim"


def test_an_ipv6_address_stands_in_brackets(folder: Path) -> None:
    account = Account(folder, {**POD, "KUBERNETES_SERVICE_HOST": "fd00::1"})
    assert account.read().url == "https://[fd00::1]:443"


def test_a_token_that_was_replaced_is_the_next_one(folder: Path) -> None:
    account = Account(folder, POD)
    assert account.read().token.reveal() == "the token"
    (folder / "token").write_text("the next")
    assert account.read().token.reveal() == "the next"


@pytest.mark.parametrize(
    ("environment", "missing", "message"),
    [
        ({}, None, "this is no pod"),
        ({"KUBERNETES_SERVICE_HOST": "a"}, None, "this is no pod"),
        ({**POD, "KUBERNETES_SERVICE_PORT": "x"}, None, "this is no pod"),
        (POD, "token", "token cannot be read"),
        (POD, "ca.crt", "ca.crt cannot be read"),
    ],
    ids=["no variables", "no port", "port is no number", "no token", "no authority"],
)
def test_what_is_missing_is_named(
    folder: Path, environment: dict[str, str], missing: str | None, message: str
) -> None:
    if missing is not None:
        (folder / missing).unlink()
    with pytest.raises(AccountError, match=message):
        Account(folder, environment).read()


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff"], ids=["empty", "blank", "no text"])
def test_a_namespace_that_says_nothing_is_refused(folder: Path, content: bytes) -> None:
    (folder / "namespace").write_bytes(content)
    with pytest.raises(AccountError, match="namespace is"):
        Account(folder, POD).namespace()


def test_an_authority_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / "ca.crt").write_bytes(b"\xff\xfe")
    with pytest.raises(AccountError, match="is not text"):
        Account(folder, POD).read()
