from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from heim_proxy.agents.proof import (
    Challenge,
    Greeting,
    Proof,
    check,
    decoded,
    read_greeting,
    read_proof,
)
from heim_proxy.agents.refused import LaneRefused
from heim_wire.agents import proof_bytes
from heim_wire.errors import Code

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
SPKI = b"\x01" * 32
LB = b"\x02" * 32
CHALLENGE = Challenge("n" * 43, "replica-1", "auth.example.test")
GREETING = Greeting("desktop", "0" * 32, 1, "m" * 43, "1.0", "box")

HELLO = {
    "v": [1],
    "agent": "desktop",
    "boot": "0123456789abcdef" * 2,
    "lane": 3,
    "nonce": "A" * 43,
    "version": "1.2.3",
    "device": "büro\x1b[31m",
}


def test_a_greeting_is_read_and_made_safe_to_show() -> None:
    greeting = read_greeting(HELLO)
    assert greeting == Greeting("desktop", HELLO["boot"], 3, "A" * 43, "1.2.3", "büro [31m")


@pytest.mark.parametrize("key", ["version", "device"])
@pytest.mark.parametrize(("given", "shown"), [("x" * 5000, "x" * 64), (7, ""), (None, "")])
def test_words_for_people_are_cut_and_never_refused(key: str, given: object, shown: str) -> None:
    assert getattr(read_greeting(HELLO | {key: given}), key) == shown


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("agent", None), ("agent", ""), ("agent", "../web"), ("agent", "a/b"), ("agent", "Desktop"),
        ("agent", "desktop."), ("agent", "-desktop"), ("agent", "x" * 64), ("agent", "büro"),
        ("agent", "desktop\n"), ("agent", "desk\x00top"), ("agent", ["desktop"]), ("agent", "*"),
        ("boot", None), ("boot", "0" * 31), ("boot", "0" * 33), ("boot", "G" * 32), ("boot", 5),
        ("boot", "A" * 32), ("lane", None), ("lane", -1), ("lane", 4), ("lane", "0"), ("lane", 1.0),
        ("lane", True), ("lane", 10**30), ("nonce", None), ("nonce", "A" * 42), ("nonce", "A" * 44),
        ("nonce", "=" * 43), ("nonce", "A" * 42 + "\n"),
    ],
    ids=repr,
)  # fmt: skip
def test_a_greeting_that_cannot_be_an_agents_is_a_breach_of_the_protocol(
    key: str, value: object
) -> None:
    with pytest.raises(LaneRefused) as refused:
        read_greeting(HELLO | {key: value})
    assert refused.value.code == Code.PROTOCOL
    assert key in refused.value.reason


def auth(**more: Any) -> dict[str, Any]:
    signature = base64.urlsafe_b64encode(b"s" * 70).rstrip(b"=").decode()
    certificate = base64.b64encode(b"c" * 500).decode()
    return {"kind": "agent-proof", "certificate": certificate, "signature": signature} | more


def test_a_proof_is_read() -> None:
    assert read_proof(auth()) == Proof(b"c" * 500, b"s" * 70)
    assert "sss" not in repr(read_proof(auth()))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", None), ("kind", "bearer"), ("kind", "agent-renew"), ("certificate", None),
        ("certificate", ""), ("certificate", "A" * 3336), ("certificate", "no base64!"),
        ("certificate", "AAA"), ("certificate", 5), ("signature", None), ("signature", "!!"),
        ("signature", "A" * 161), ("signature", "+/+/"), ("signature", ["A"]),
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_a_proof_that_is_none_is_a_breach_of_the_protocol(key: str, value: object) -> None:
    with pytest.raises(LaneRefused) as refused:
        read_proof(auth(**{key: value}))
    assert refused.value.code == Code.PROTOCOL


def test_what_is_decoded_is_bounded() -> None:
    assert decoded({"csr": "AAAA"}, "csr", limit=3) == bytes(3)
    with pytest.raises(LaneRefused):
        decoded({"csr": "AAAAAA=="}, "csr", limit=3)


def signed(key: ec.EllipticCurvePrivateKey = KEY, **lies: Any) -> Proof:
    said = {
        "nonce": CHALLENGE.nonce,
        "replica": CHALLENGE.replica,
        "host": CHALLENGE.host,
        "spki": SPKI,
        "agent": GREETING.agent,
        "boot": GREETING.boot,
        "lane": GREETING.lane,
    } | lies
    return Proof(b"", key.sign(proof_bytes(**said), ec.ECDSA(SHA256())))


def judge(proof: Proof, *tls_keys: bytes) -> None:
    check(proof, GREETING, CHALLENGE, public_key=KEY.public_key(), tls_keys=tls_keys)


def test_the_key_of_the_certificate_signs_this_connection() -> None:
    judge(signed(), SPKI)


def test_a_load_balancer_whose_key_is_listed_may_be_between() -> None:
    judge(signed(spki=LB), SPKI, LB)


@pytest.mark.parametrize(
    "lie",
    [
        {"key": OTHER}, {"nonce": "x" * 43}, {"replica": "replica-2"}, {"host": "auth.evil.test"},
        {"spki": LB}, {"agent": "web"}, {"boot": "1" * 32}, {"lane": 0},
    ],
    ids=lambda lie: next(iter(lie)),
)  # fmt: skip
def test_a_proof_for_anything_else_is_none(lie: dict[str, Any]) -> None:
    with pytest.raises(LaneRefused) as refused:
        judge(signed(**lie), SPKI)
    assert refused.value.code == Code.UNAUTHENTICATED
    assert "terminates TLS" in refused.value.reason


@pytest.mark.parametrize("garbage", [b"", b"\x30", b"\x00" * 70, b"0" * 64])
def test_a_signature_that_is_no_signature_is_refused(garbage: bytes) -> None:
    with pytest.raises(LaneRefused):
        judge(Proof(b"", garbage), SPKI)


def test_without_a_key_of_tls_nobody_comes_in() -> None:
    with pytest.raises(LaneRefused):
        judge(signed())


def test_a_challenge_is_fresh_each_time() -> None:
    first, second = (Challenge.fresh(replica="r", host="h") for _ in range(2))
    assert first.nonce != second.nonce
    assert len(first.nonce) == 43
