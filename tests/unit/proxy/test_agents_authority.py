"""The authority: its files, what it issues, what it says to agents."""

from __future__ import annotations

import stat
from pathlib import Path

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from heim_proxy.agents.authority import CERTIFICATE_FILE, KEY_FILE, LIFETIME_S, Authority
from heim_proxy.agents.certificates import CertificateRefused
from heim_proxy.agents.roots import PrivateKey
from heim_proxy.identity.keys import KeyFileError
from heim_proxy.identity.signing import SigningKeys
from heim_wire.agents import STATEMENT_TYPE
from tests.fakes.agent_certificates import (
    LOGIN_HOST,
    NOW,
    authority,
    authority_pem,
    key_pem,
    new_key,
    root_key,
)
from tests.fakes.idp import rsa_key

SIGNING = SigningKeys.parse(b"".join(SigningKeys.generate_pem() for _ in range(5)))
RSA = rsa_key("idp-1")
P384 = ec.generate_private_key(ec.SECP384R1())


def say(made: Authority, **changes: object) -> str:
    claims = {
        "issuer": "https://auth.x.example.com",
        "audience": "a" * 43,
        "nonce": "n" * 43,
        "jwks": SIGNING.jwks(),
        "now": NOW + 0.9,
        **changes,
    }
    return made.statement(**claims)  # type: ignore[arg-type]


def test_files_are_generated_once_and_readable_by_us_alone(tmp_path: Path) -> None:
    made = Authority.load_or_create(tmp_path / "state", login_host=LOGIN_HOST)
    for name in (CERTIFICATE_FILE, KEY_FILE):
        assert stat.S_IMODE((tmp_path / "state" / name).stat().st_mode) == 0o600
    again = Authority.load_or_create(tmp_path / "state", login_host=LOGIN_HOST)
    assert again.roots() == made.roots()


def test_a_key_without_its_certificate_is_given_one(tmp_path: Path) -> None:
    """We were stopped between the two files, or another process is just writing them."""
    made = Authority.load_or_create(tmp_path, login_host=LOGIN_HOST)
    (tmp_path / CERTIFICATE_FILE).unlink()
    assert Authority.load_or_create(tmp_path, login_host=LOGIN_HOST).roots() == made.roots()


def test_a_certificate_without_its_key_is_not_replaced_behind_agents_backs(tmp_path: Path) -> None:
    Authority.load_or_create(tmp_path, login_host=LOGIN_HOST)
    (tmp_path / KEY_FILE).unlink()
    with pytest.raises(KeyFileError, match="restore the key"):
        Authority.load_or_create(tmp_path, login_host=LOGIN_HOST)


def test_what_keygen_prints_can_be_loaded(tmp_path: Path) -> None:
    certificate, key = Authority.generate_pem(now=NOW)
    (tmp_path / "ca.pem").write_bytes(certificate)
    (tmp_path / "ca.key").write_bytes(key)
    made = Authority.load(tmp_path / "ca.pem", tmp_path / "ca.key", login_host=LOGIN_HOST)
    der = made.issue(new_key().public_key(), name="desktop", now=NOW)
    assert made.verify(der, now=NOW).name == "desktop"


@pytest.mark.parametrize("key", [root_key(), P384, RSA], ids=["P-256", "P-384", "RSA"])
def test_every_kind_of_authority_issues_what_it_verifies(key: PrivateKey) -> None:
    made = authority("old", key=key)
    agent = new_key()
    der = made.issue(agent.public_key(), name="desktop", now=NOW)
    found = made.verify(der, now=NOW)
    assert (found.name, found.public_key) == ("desktop", agent.public_key())
    assert found.expires == NOW + LIFETIME_S


@pytest.mark.parametrize(
    ("asked", "given"), [(60.0, 60.0), (LIFETIME_S, LIFETIME_S), (1e9, LIFETIME_S)]
)
def test_no_certificate_lives_for_more_than_a_day(asked: float, given: float) -> None:
    made = authority()
    der = made.issue(new_key().public_key(), name="desktop", now=NOW, lifetime_s=asked)
    assert made.verify(der, now=NOW).expires == NOW + given


def test_no_certificate_outlives_the_authority() -> None:
    pem = authority_pem(expires=NOW + 600)
    made = Authority.parse(pem, key_pem(root_key()), login_host=LOGIN_HOST)
    der = made.issue(new_key().public_key(), name="desktop", now=NOW)
    assert made.verify(der, now=NOW).expires == NOW + 600
    with pytest.raises(CertificateRefused, match="authority is not valid now"):
        made.issue(new_key().public_key(), name="desktop", now=NOW + 600)


@pytest.mark.parametrize("key", [root_key(), P384, RSA], ids=["P-256", "P-384", "RSA"])
def test_a_statement_is_verified_with_the_root_it_names(key: PrivateKey) -> None:
    made = authority("old", key=key)
    text = say(made)
    header = jwt.get_unverified_header(text)
    (root,) = [one for one in made.roots() if one["kid"] == header["kid"]]
    assert (header["typ"], header["alg"]) == (STATEMENT_TYPE, root["alg"])
    assert root == made.roots()[0]
    claims = jwt.decode(
        text,
        jwt.PyJWK.from_dict(root).key,
        algorithms=[root["alg"]],
        audience="a" * 43,
        issuer="https://auth.x.example.com",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert (claims["nonce"], claims["iat"], claims["exp"]) == ("n" * 43, NOW, NOW + 60)
    assert claims["roots"] == made.roots()
    assert claims["keys"][0]["kid"] == SIGNING.first.kid
    assert len(claims["keys"]) == 3


def test_nothing_private_is_in_a_statement() -> None:
    text = say(authority("ours", "old"))
    claims = jwt.decode(text, options={"verify_signature": False})
    for key in (*claims["keys"], *claims["roots"]):
        assert set(key) <= {"kty", "crv", "x", "y", "kid", "alg"}


def test_one_key_in_two_certificates_is_told_once() -> None:
    pem = authority_pem() + authority_pem(expires=NOW + 9e8)
    made = Authority.parse(pem, key_pem(root_key()), login_host=LOGIN_HOST)
    assert len(made.roots()) == 1


def test_a_repr_shows_names_only() -> None:
    made = authority("ours", "old")
    assert repr(made) == f"<Authority {', '.join(one['kid'] for one in made.roots())} <sealed>>"


OURS = authority_pem()
KEY = key_pem(root_key())
BAD = {
    "no certificate": (b"", KEY, "ca.pem: no certificate"),
    "no key": (OURS, b"", "ca.key: not an unencrypted private key.*keygen ca"),
    "the two swapped": (KEY, OURS, "ca.key: not an unencrypted"),
    "cut off": (OURS[:-40], KEY, "ca.pem: no certificate"),
    "of another key": (authority_pem(root_key("other")), KEY, "certificate 1 does not belong"),
    "second one first": (
        authority_pem(root_key("other")) + OURS, KEY, "certificate 1 does not belong"),
    "five": (OURS * 5, KEY, "5 certificates; 4 are enough"),
    "second is none": (OURS + authority_pem(root_key("other"), ca=False), KEY, "certificate 2 is"),
    "encrypted": (
        OURS,
        root_key().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        ),
        "unencrypted",
    ),
    "Ed25519": (
        OURS,
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ),
        "EC P-256 or P-384, or RSA",
    ),
}  # fmt: skip


def refused(certificates: bytes, key: bytes, part: str) -> None:
    with pytest.raises(KeyFileError, match=part) as caught:
        Authority.parse(certificates, key, login_host=LOGIN_HOST, sources=("ca.pem", "ca.key"))
    for line in key.splitlines()[1:-1]:
        assert line.decode() not in str(caught.value)


@pytest.mark.parametrize(("certificates", "key", "part"), BAD.values(), ids=BAD.keys())
def test_files_that_do_not_fit_are_refused_by_name(
    certificates: bytes, key: bytes, part: str
) -> None:
    refused(certificates, key, part)


def test_keys_too_large_to_be_told_are_refused() -> None:
    big = rsa_key("big", 4096)
    refused(authority_pem(big) + authority_pem(RSA), key_pem(big), "EC keys")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(OURS)
    with pytest.raises(KeyFileError, match=r"ca\.key: No such file"):
        Authority.load(tmp_path / "ca.pem", tmp_path / "ca.key", login_host=LOGIN_HOST)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(bytes(70_000))
    with pytest.raises(KeyFileError, match="over 65536 bytes"):
        Authority.load(tmp_path / "ca.pem", tmp_path / "ca.key", login_host=LOGIN_HOST)


def test_a_large_ca_leaves_room_in_ready() -> None:
    """READY is at most 4 KiB."""
    made = authority("ours", "next", "old", "oldest")
    assert len(say(made)) < 2600
    assert x509.load_pem_x509_certificates(OURS)
