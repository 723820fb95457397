from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from heim_agent import proof
from heim_agent.proof import Introduction, Program
from heim_wire.agents import proof_bytes
from heim_wire.messages import encode
from tests.fakes.lane_host import AGENT, LOGIN_HOST, LaneHost, honest

PROGRAM = Program("1.2", "den\n")
SAID = Introduction("n" * 43, "replica-1")
SPKI = bytes(range(32))


def test_a_hello_says_who_and_which_run_and_asks_for_a_statement() -> None:
    said = proof.hello(AGENT, PROGRAM, lane=2)
    assert (said["agent"], said["lane"], said["version"]) == (AGENT, 2, "1.2")
    assert said["device"] == "den"
    assert len(bytes.fromhex(str(said["boot"]))) == 16
    assert len(base64.urlsafe_b64decode(str(said["nonce"]) + "=")) == 32


def test_each_hello_has_a_nonce_of_its_own_and_each_run_its_boot() -> None:
    assert len({str(proof.hello(AGENT, PROGRAM, lane=0)["nonce"]) for _ in range(50)}) == 50
    assert Program("1", "x").boot != Program("1", "x").boot


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"replica": "r"}, "no nonce"),
        ({"nonce": "short", "replica": "r"}, "no nonce"),
        ({"nonce": "n" * 129, "replica": "r"}, "no nonce"),
        ({"nonce": 7, "replica": "r"}, "no nonce"),
        ({"nonce": "n" * 43}, "replica"),
        ({"nonce": "n" * 43, "replica": ""}, "replica"),
        ({"nonce": "n" * 43, "replica": "x" * 129}, "replica"),
        ({"nonce": "n" * 43, "replica": "a\nb"}, "control characters"),
    ],
)
def test_a_hello_that_is_not_for_agents_is_refused(message: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Introduction.read(message)


@pytest.fixture
def host(tmp_path: Path) -> LaneHost:
    return LaneHost(tmp_path, honest)


def good(message: dict[str, object], **other: object) -> bool:
    """Whether a proof verifies for what was said, with some of it replaced."""
    certificate = x509.load_der_x509_certificate(base64.b64decode(str(message["certificate"])))
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    fields: dict[str, object] = {
        "nonce": SAID.nonce, "replica": SAID.replica, "host": LOGIN_HOST, "spki": SPKI,
        "agent": AGENT, "boot": PROGRAM.boot, "lane": 1, **other,
    }  # fmt: skip
    signature = base64.urlsafe_b64decode(str(message["signature"]) + "==")
    try:
        key.verify(signature, proof_bytes(**fields), ec.ECDSA(hashes.SHA256()))  # type: ignore[arg-type]
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize(
    "other",
    [
        {"nonce": "m" * 43},
        {"replica": "replica-2"},
        {"host": "auth.example.org"},
        {"spki": bytes(32)},
        {"agent": "laptop"},
        {"boot": "0" * 32},
        {"lane": 0},
    ],
    ids=lambda other: next(iter(other)),
)
def test_47_a_proof_is_good_for_one_connection_only(
    host: LaneHost, other: dict[str, object]
) -> None:
    identity = host.identity()
    said = proof.hello(AGENT, PROGRAM, lane=1)
    message = proof.proof(identity, said, SAID, host=LOGIN_HOST, spki=SPKI)
    assert len(encode(message)) < 4096
    assert good(message)
    assert not good(message, **other)


def test_a_request_for_renewal_is_for_the_same_key(host: LaneHost) -> None:
    identity = host.identity()
    message = proof.renewal(identity)
    request = x509.load_der_x509_csr(base64.b64decode(str(message["csr"])))
    assert request.is_signature_valid
    ours = x509.load_der_x509_certificate(identity.certificate).public_key()
    assert request.public_key() == ours
