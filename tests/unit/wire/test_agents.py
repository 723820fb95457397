from __future__ import annotations

import itertools

import pytest

from heim_wire.agents import proof_bytes

FIELDS: dict[str, str | bytes | int] = {
    "nonce": "n",
    "replica": "r",
    "host": "auth.example.test",
    "spki": bytes(32),
    "agent": "office",
    "boot": "b",
    "lane": 0,
}


def proof(**changed: object) -> bytes:
    return proof_bytes(**{**FIELDS, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_is_part_of_what_is_signed(field: str) -> None:
    other = {"spki": bytes(31) + b"\x01", "lane": 1}.get(field, "other")
    assert proof(**{field: other}) != proof()


def test_no_two_sets_of_fields_are_the_same_bytes() -> None:
    texts = ["", "a", "aa", "ab", "\x00", "a\x00"]
    signed = {proof(nonce=one, replica=two) for one, two in itertools.product(texts, texts)}
    assert len(signed) == len(texts) ** 2
