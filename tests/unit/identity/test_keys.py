"""Key rings: what a key file may hold, and that keys never show."""

from __future__ import annotations

import base64
import re
import stat
from pathlib import Path

import pytest

from heim_proxy.identity.keys import Key, KeyFileError, KeyRing, write_secret

SECRET = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")
OTHER = base64.urlsafe_b64encode(bytes(range(1, 33))).decode().rstrip("=")


def test_the_first_key_seals_and_order_is_kept() -> None:
    ring = KeyRing.parse(f"# rotated in May\n\nnew:{OTHER}\n  old:{SECRET}=  \r\n")
    assert ring.first.kid == "new"
    assert [key.kid for key in ring] == ["new", "old"]
    assert ring.first.secret == bytes(range(1, 33))
    assert len(ring) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "no key in it", id="empty"),
        pytest.param("# only this\n", "no key in it", id="comments only"),
        pytest.param(SECRET, "ring:1: expected kid:base64url", id="no key id"),
        pytest.param(f":{SECRET}", "ring:1: expected kid", id="empty key id"),
        pytest.param(f"a b:{SECRET}", "ring:1: expected kid", id="space in key id"),
        pytest.param(f"{'k' * 33}:{SECRET}", "ring:1: expected kid", id="long key id"),
        pytest.param(f"ä:{SECRET}", "ring:1: expected kid", id="key id not ASCII"),
        pytest.param(f"a:{SECRET}\nb:!!!", "ring:2: key 'b' is not base64url", id="not base64"),
        pytest.param("a:AAAA", "key 'a' has 3 bytes, not 32", id="short key"),
        pytest.param(f"a:{SECRET}AAAA", "key 'a' has 35 bytes", id="long key"),
        pytest.param(f"a:{SECRET}\na:{OTHER}", "ring:2: key id 'a' is used twice", id="twice"),
        pytest.param("\n".join(f"k{n}:{SECRET}" for n in range(17)), "17 keys", id="too many"),
    ],
)
def test_a_bad_key_file_is_refused_with_line_and_reason(text: str, message: str) -> None:
    with pytest.raises(KeyFileError, match=re.escape(message)):
        KeyRing.parse(text, source="ring")


def test_messages_never_show_key_material() -> None:
    with pytest.raises(KeyFileError) as caught:
        KeyRing.parse(f"a:{SECRET}x!", source="ring")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_keys_hide_in_reprs() -> None:
    ring = KeyRing.parse(f"k1:{SECRET}")
    assert repr(ring) == "<KeyRing k1>"
    assert repr(ring.first) == "<Key 'k1' <sealed>>"
    assert repr(Key("k1", b"x" * 32)).count("x") == 0


def test_a_generated_line_is_a_fresh_key() -> None:
    first, second = KeyRing.generate_line(), KeyRing.generate_line()
    assert first != second
    assert KeyRing.parse(first).first.secret != KeyRing.parse(second).first.secret
    assert KeyRing.generate_line("may").startswith("may:")


def test_a_bad_key_id_is_not_generated() -> None:
    with pytest.raises(KeyFileError, match="1-32 letters"):
        KeyRing.generate_line("a:b")


def test_a_key_file_is_generated_once_and_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "session.keys"
    ring = KeyRing.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert KeyRing.load_or_create(path).first.secret == ring.first.secret
    assert [file.name for file in path.parent.iterdir()] == ["session.keys"]


def test_the_one_who_is_first_to_create_a_secret_wins(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_secret(path, b"first")
    write_secret(path, b"second")
    assert path.read_bytes() == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"\xff\xfe", "byte 0 is not ASCII", id="binary"),
        pytest.param(b"#" * 70_000, "over 65536 bytes", id="huge"),
        pytest.param(b"garbage", ":1: expected kid", id="text"),
    ],
)
def test_a_file_that_is_no_key_ring_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "session.keys"
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match=re.escape(message)) as caught:
        KeyRing.load(path)
    assert "session.keys" in str(caught.value)


def test_a_missing_file_or_directory_in_the_way_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="absent: No such file"):
        KeyRing.load(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(KeyFileError, match="cannot be created"):
        KeyRing.load_or_create(tmp_path / "file" / "session.keys")
