from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from heim_proxy.agents import welcome
from heim_proxy.agents.authority import Authority, VerifiedAgent
from heim_proxy.identity.signing import SigningKeys
from heim_proxy.routing import AgentGrant
from heim_wire.frames import MAX_TEXT
from heim_wire.messages import encode
from tests.fakes.agent import certificate_request, thumbprint

NOW = time.time()
KEY = ec.generate_private_key(ec.SECP256R1())


class Snapshot:
    """What READY needs of one."""

    def __init__(self) -> None:
        self.login_url = "https://auth.example.test"
        self.generation = 7
        self.signing_keys = SigningKeys.parse(SigningKeys.generate_pem() * 2)


def ready(directory: Path, *targets: str) -> dict[str, Any]:
    return welcome.ready(
        AgentGrant("desktop", frozenset(targets)),
        Snapshot(),  # type: ignore[arg-type]
        Authority.load_or_create(directory, login_host="auth.example.test"),
        audience="thumb",
        nonce="n" * 43,
        replica="r1",
        expires=NOW + 60.5,
        now=NOW,
    )


def test_ready_says_what_was_granted_and_proves_who_says_it(tmp_path: Path) -> None:
    message = ready(tmp_path, "web", "ssh")
    statement = jwt.decode(message.pop("statement"), options={"verify_signature": False})
    assert message == {
        "agent": "desktop",
        "targets": ["ssh", "web"],
        "targets_whole": True,
        "expires": int(NOW + 60.5),
        "lanes": 4,
        "replica": "r1",
        "generation": 7,
    }
    assert statement["aud"] == "thumb"
    assert statement["nonce"] == "n" * 43
    assert len(statement["keys"]) == 2


def test_ready_fits_into_a_frame_however_many_targets_there_are(tmp_path: Path) -> None:
    names = [f"{number:03d}-{'x' * 59}" for number in range(500)]
    message = ready(tmp_path, *names)
    assert 10 < len(message["targets"]) < 30
    assert message["targets_whole"] is False
    assert len(encode(message)) <= 4096 - MAX_TEXT


def test_a_renewal_brings_the_certificate() -> None:
    assert welcome.renewal(b"der", 99.9) == {"certificate": "ZGVy", "expires": 99}


def asked(csr: object) -> None:
    verified = VerifiedAgent("desktop", thumbprint(KEY.public_key()), KEY.public_key(), NOW)
    welcome.check_request({"kind": "agent-renew", "csr": csr}, verified)


def test_a_request_for_the_enrolled_key_is_good() -> None:
    asked(base64.b64encode(certificate_request(KEY)).decode())


OTHER = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("csr", "word"),
    [
        (base64.b64encode(certificate_request(OTHER)).decode(), "another key"),
        (base64.b64encode(b"no request").decode(), "PKCS #10"),
        ("!!!", "base64"),
        (None, "base64"),
        ("A" * 40_000, "base64"),
    ],
    ids=["key", "none", "base64", "missing", "size"],
)
def test_any_other_request_is_refused_in_words(csr: object, word: str) -> None:
    with pytest.raises(welcome.RenewalRefusedError, match=word):
        asked(csr)


@pytest.mark.parametrize(("raw", "text"), [(b"", ""), (b"\xff\xfe", "__4"), (b"abc", "YWJj")])
def test_base64url_has_no_padding(raw: bytes, text: str) -> None:
    assert welcome.base64url(raw) == text
