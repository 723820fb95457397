"""Sealed boxes: they open for what they were made for, and for nothing else (G1-G5, G9)."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_proxy.identity.keys import Key, KeyRing
from heim_proxy.identity.seal import (
    MAX_BLOB_BYTES,
    MAX_SEALED_CHARACTERS,
    Opened,
    Purpose,
    Sealer,
)

OLD = Key("old", b"o" * 32)
NEW = Key("new", b"n" * 32)
SEALER = Sealer(KeyRing([OLD]))
HOST = "app1.example.test"
NAME = "__Host-heim"
PAYLOAD = b"who is asking"


def seal(payload: bytes = PAYLOAD, *, sealer: Sealer = SEALER) -> str:
    return sealer.seal(payload, purpose=Purpose.SESSION, host=HOST, name=NAME)


def unseal(value: str | bytes, *, sealer: Sealer = SEALER) -> Opened | None:
    return sealer.open(value, purpose=Purpose.SESSION, host=HOST, name=NAME)


def altered(box: bytes) -> str:
    return base64.urlsafe_b64encode(box).rstrip(b"=").decode()


def raw(value: str) -> bytearray:
    return bytearray(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))


def test_what_was_sealed_opens_as_text_or_bytes() -> None:
    value = seal()
    assert unseal(value) == Opened(PAYLOAD, stale=False)
    assert unseal(value.encode()) == Opened(PAYLOAD, stale=False)


@given(st.binary(max_size=2900))
def test_every_payload_comes_back(payload: bytes) -> None:
    assert unseal(seal(payload)) == Opened(payload, stale=False)


def test_the_same_payload_is_never_sealed_alike() -> None:
    assert len({seal() for _ in range(100)}) == 100


def test_the_payload_cannot_be_read() -> None:
    assert PAYLOAD not in bytes(raw(seal()))


def test_every_flipped_bit_of_the_text_is_noticed() -> None:
    """G1. Also the bits of the last character that base64 decoding ignores."""
    value = seal().encode()
    for at in range(len(value)):
        for bit in range(8):
            flipped = bytearray(value)
            flipped[at] ^= 1 << bit
            assert unseal(bytes(flipped)) is None, f"byte {at}, bit {bit}"


@pytest.mark.parametrize("length", [12, 13, 14], ids=["mod 0", "mod 1", "mod 2"])
def test_every_other_last_character_is_noticed(length: int) -> None:
    value = seal(b"x" * length)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    good = [char for char in alphabet if unseal(value[:-1] + char) is not None]
    assert good == [value[-1]]


def test_every_flipped_bit_of_the_box_is_noticed() -> None:
    box = raw(seal())
    for at in range(len(box)):
        for bit in range(8):
            flipped = bytearray(box)
            flipped[at] ^= 1 << bit
            assert unseal(altered(bytes(flipped))) is None, f"byte {at}, bit {bit}"


def test_every_truncation_and_extension_is_noticed() -> None:
    """G2."""
    value = seal()
    for length in range(len(value)):
        assert unseal(value[:length]) is None, f"first {length} characters"
        assert unseal(value[length + 1 :]) is None, f"without the first {length + 1}"
    box = bytes(raw(value))
    for length in range(len(box)):
        assert unseal(altered(box[:length])) is None, f"first {length} bytes"
    for more in ("A", "AA", "AAAA", "=", "==", " ", "\n", "."):
        assert unseal(value + more) is None, repr(more)


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param("", id="empty"),
        pytest.param("A", id="one character"),
        pytest.param("A" * 16384, id="16 KiB"),
        pytest.param("A" * MAX_SEALED_CHARACTERS, id="longest allowed"),
        pytest.param("not base64!", id="not base64"),
        pytest.param("größe", id="not ASCII"),
        pytest.param("\ud800", id="lone surrogate"),
        pytest.param("%41%42", id="percent-encoded"),
        pytest.param("\x00\x01\x02", id="control characters"),
        pytest.param("AAAA====", id="padding"),
        pytest.param("_-_-", id="no box"),
        pytest.param(altered(b"\x01\xff"), id="key id longer than the box"),
        pytest.param(altered(b"\x01\x00" + b"\0" * 60), id="empty key id"),
    ],
)
def test_garbage_is_nobody(garbage: str) -> None:
    """G2."""
    assert unseal(garbage) is None
    assert unseal(garbage.encode("utf-8", "replace")) is None


@given(st.one_of(st.binary(max_size=5000), st.text(max_size=5000)))
def test_nothing_that_arrives_raises(value: str | bytes) -> None:
    assert unseal(value) is None


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused(version: int) -> None:
    box = raw(seal())
    box[0] = version
    assert unseal(altered(bytes(box))) is None


def test_an_unknown_key_id_is_refused() -> None:
    box = bytes(raw(seal()))
    assert box[2:5] == b"old"
    assert unseal(altered(box.replace(b"old", b"odd", 1))) is None


def test_parts_of_two_boxes_make_no_third() -> None:
    """G3."""
    one, two = bytes(raw(seal(b"one"))), bytes(raw(seal(b"two")))
    nonce, tag = slice(5, 17), len(one) - 16
    assert unseal(altered(one[:tag] + two[tag:])) is None
    assert unseal(altered(one[: nonce.start] + two[nonce] + one[nonce.stop :])) is None


def test_a_box_opens_only_on_its_host() -> None:
    """G4."""
    value = seal()
    for host in ("app2.example.test", "auth.example.test", "APP1.example.test", "", HOST + "."):
        assert SEALER.open(value, purpose=Purpose.SESSION, host=host, name=NAME) is None


def test_a_box_opens_only_for_its_purpose_and_name() -> None:
    """G5."""
    value = seal()
    for purpose in set(Purpose) - {Purpose.SESSION}:
        assert SEALER.open(value, purpose=purpose, host=HOST, name=NAME) is None
    assert SEALER.open(value, purpose=Purpose.SESSION, host=HOST, name="__Host-heim-x") is None


def test_host_and_name_cannot_flow_into_each_other() -> None:
    value = SEALER.seal(PAYLOAD, purpose=Purpose.LOGIN, host="ab", name="c")
    assert SEALER.open(value, purpose=Purpose.LOGIN, host="a", name="bc") is None


def test_an_old_key_opens_and_says_that_it_is_old() -> None:
    """G9."""
    value = seal()
    sealer = Sealer(KeyRing([OLD]))
    sealer.set_keys(KeyRing([NEW, OLD]))
    assert unseal(value, sealer=sealer) == Opened(PAYLOAD, stale=True)
    assert unseal(seal(sealer=sealer), sealer=sealer) == Opened(PAYLOAD, stale=False)


def test_a_removed_key_opens_nothing() -> None:
    """G9."""
    assert unseal(seal(), sealer=Sealer(KeyRing([NEW]))) is None


def test_a_key_id_that_was_given_a_new_secret_opens_nothing() -> None:
    assert unseal(seal(), sealer=Sealer(KeyRing([Key("old", b"x" * 32)]))) is None


def test_what_no_browser_would_keep_is_not_sealed() -> None:
    largest = (MAX_SEALED_CHARACTERS * 3) // 4 - 2 - len("old") - 12 - 16
    assert len(seal(b"x" * largest)) == MAX_SEALED_CHARACTERS
    with pytest.raises(ValueError, match="too many"):
        seal(b"x" * (largest + 1))


def test_the_store_may_keep_larger_boxes_within_a_bound() -> None:
    box = SEALER.seal_blob(b"x" * 50_000, purpose=Purpose.TOKENS, host="", name="sid")
    opened = SEALER.open_blob(box, purpose=Purpose.TOKENS, host="", name="sid")
    assert opened is not None
    assert opened.payload == b"x" * 50_000
    assert SEALER.open_blob(box, purpose=Purpose.TOKENS, host="", name="another") is None
    with pytest.raises(ValueError, match="too many"):
        SEALER.seal_blob(b"x" * MAX_BLOB_BYTES, purpose=Purpose.TOKENS, host="", name="sid")


@pytest.mark.parametrize("length", range(40))
def test_a_short_blob_is_nothing(length: int) -> None:
    box = SEALER.seal_blob(PAYLOAD, purpose=Purpose.TOKENS, host="", name="")
    assert SEALER.open_blob(box[:length], purpose=Purpose.TOKENS, host="", name="") is None


def test_contents_hide_in_reprs() -> None:
    opened = unseal(seal())
    assert PAYLOAD.decode() not in repr(opened)
    assert repr(SEALER) == "<Sealer keys=1>"
