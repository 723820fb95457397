"""Authorities: which certificates are one, and what they are called."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtensionOID
from jwt import PyJWK

from heim_proxy.agents.roots import PrivateKey, Root, root_certificate
from heim_proxy.identity.keys import KeyFileError
from tests.fakes.agent_certificates import NOW, authority_pem, forged, root_key
from tests.fakes.idp import rsa_key

P384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa_key("idp-1")


def root(pem: bytes) -> Root:
    return Root(x509.load_pem_x509_certificate(pem), source="ca.pem: certificate 1")


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        pytest.param(root_key(), "ES256", id="P-256"),
        pytest.param(P384, "ES384", id="P-384"),
        pytest.param(RSA, "RS256", id="RSA"),
    ],
)
def test_a_root_is_published_as_a_key_that_libraries_read(key: PrivateKey, algorithm: str) -> None:
    found = root(authority_pem(key))
    assert PyJWK.from_dict(found.jwk).key == key.public_key()
    assert (found.algorithm, found.jwk["alg"], found.jwk["kid"]) == (
        algorithm,
        algorithm,
        found.kid,
    )
    assert repr(found) == f"<Root {found.kid}>"


def test_what_is_generated_is_an_authority_for_ten_years() -> None:
    made = root(root_certificate(root_key(), now=NOW))
    assert made.valid_at(NOW)
    assert made.valid_at(NOW + 9.9 * 365 * 86400)
    assert not made.valid_at(made.expires)
    assert not made.valid_at(made.begins - 1)
    constraints = made.certificate.extensions.get_extension_for_oid(ExtensionOID.BASIC_CONSTRAINTS)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert "Heim agents" in made.certificate.subject.rfc4514_string()


def test_authorities_that_follow_each_other_differ_in_name() -> None:
    ours, other = (root(root_certificate(root_key(name), now=NOW)) for name in ("ours", "other"))
    assert ours.certificate.subject != other.certificate.subject


def test_only_what_it_signed_is_its_own() -> None:
    ours = root(authority_pem())
    assert ours.issued(x509.load_der_x509_certificate(forged()))
    for foreign in (
        forged(signer=root_key("other")),
        forged(issuer="somebody"),
        forged(signer=RSA),
    ):
        assert not ours.issued(x509.load_der_x509_certificate(foreign))


def test_a_certificate_that_may_sign_by_saying_nothing_is_an_authoritys() -> None:
    assert root(authority_pem(signs=None))


BAD = {
    "no basicConstraints": (authority_pem(ca=None), "has no basicConstraints"),
    "not an authority": (authority_pem(ca=False), "has no CA"),
    "may not sign": (authority_pem(signs=False), "keyCertSign"),
    "P-521": (authority_pem(ec.generate_private_key(ec.SECP521R1())), "neither EC P-256"),
    "short RSA": (authority_pem(rsa_key("small", 1024)), "2048 to 4096 bits"),
}


@pytest.mark.parametrize(("pem", "part"), BAD.values(), ids=BAD.keys())
def test_what_is_no_authority_of_ours_is_refused_by_name(pem: bytes, part: str) -> None:
    with pytest.raises(KeyFileError, match=part) as caught:
        root(pem)
    assert str(caught.value).startswith("ca.pem: certificate 1 ")


def test_another_kind_of_key_is_refused() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([])
    made = x509.load_pem_x509_certificate(authority_pem())
    certificate = (
        x509.CertificateBuilder(extensions=list(made.extensions))
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(made.not_valid_before_utc)
        .not_valid_after(made.not_valid_after_utc)
        .sign(key, None)
    )
    with pytest.raises(KeyFileError, match="neither EC"):
        Root(certificate, source="ca.pem")
