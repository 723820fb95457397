"""Certificates of agents: what ours say. What is refused in others' is tests/hostile, Q1."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from heim_proxy.agents.agent_keys import AgentKey
from heim_proxy.agents.certificates import (
    BACKDATED_S,
    LIFETIME_S,
    CertificateRefused,
    agent_certificate,
    read_certificate,
)
from heim_proxy.agents.roots import Root
from tests.fakes.agent_certificates import (
    LOGIN_HOST,
    NOW,
    URI,
    authority_pem,
    forged,
    new_key,
    root_key,
    san,
)
from tests.fakes.thorough import examples

ROOT = Root(x509.load_pem_x509_certificate(authority_pem()), source="ca.pem")
KEY = new_key()


def made(*, name: str = "desktop", expires: float = NOW + LIFETIME_S) -> bytes:
    return agent_certificate(
        ROOT,
        root_key(),
        KEY.public_key(),
        name=name,
        login_host=LOGIN_HOST,
        begins=NOW - BACKDATED_S,
        expires=expires,
    )


def test_a_certificate_says_whose_it_is_and_that_it_is_a_clients() -> None:
    certificate = x509.load_der_x509_certificate(made())
    assert san(made()) == [URI]
    (common_name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert common_name.value == "desktop"
    extensions = certificate.extensions
    use = extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE).value
    assert use == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    constraints = extensions.get_extension_for_oid(ExtensionOID.BASIC_CONSTRAINTS)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=False, path_length=None)
    assert certificate.serial_number.bit_length() > 100


def test_no_two_certificates_have_one_serial_number() -> None:
    serials = {x509.load_der_x509_certificate(made()).serial_number for _ in range(20)}
    assert len(serials) == 20


def test_what_was_made_is_read_again() -> None:
    agent = read_certificate(made(name="a" * 63), [ROOT], login_host=LOGIN_HOST, now=NOW)
    assert (agent.name, agent.expires) == ("a" * 63, NOW + LIFETIME_S)
    assert agent.public_key == KEY.public_key()
    assert agent.thumbprint == AgentKey(KEY.public_key()).thumbprint


@pytest.mark.parametrize("now", [NOW - BACKDATED_S, NOW, NOW + LIFETIME_S - 1])
def test_it_is_good_from_beginning_to_end(now: float) -> None:
    assert read_certificate(made(), [ROOT], login_host=LOGIN_HOST, now=now)


def test_one_that_has_only_expired_says_whose_it_was() -> None:
    """An agent that was off for a week has a key that is still enrolled."""
    with pytest.raises(CertificateRefused, match="has expired") as caught:
        read_certificate(made(), [ROOT], login_host=LOGIN_HOST, now=NOW + LIFETIME_S)
    assert caught.value.expired is not None
    assert caught.value.expired.name == "desktop"


def test_one_that_is_wrong_besides_does_not_say_whose_it_was() -> None:
    der = forged(expires=NOW - 1, use=None)
    with pytest.raises(CertificateRefused, match="client") as caught:
        read_certificate(der, [ROOT], login_host=LOGIN_HOST, now=NOW)
    assert caught.value.expired is None


def test_the_helper_of_the_tests_forges_nothing_by_itself() -> None:
    assert read_certificate(forged(), [ROOT], login_host=LOGIN_HOST, now=NOW).name == "desktop"


GOOD = forged()


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """Some bytes of it changed, left out or put in."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data) - 1))
        length = draw(st.integers(0, 4))
        data[at : at + length] = draw(st.binary(max_size=4))
    return bytes(data)


class Everybodys(Root):
    """Says that it signed everything, so that what comes after the signature is reached."""

    __slots__ = ()

    def issued(self, certificate: x509.Certificate) -> bool:
        return True


@settings(deadline=None, max_examples=examples(400))
@given(mutated(GOOD))
def test_whatever_comes_is_read_or_refused(der: bytes) -> None:
    careless = Everybodys(ROOT.certificate, source="ca.pem")
    for root in (ROOT, careless):
        try:
            agent = read_certificate(der, [root], login_host=LOGIN_HOST, now=NOW)
        except CertificateRefused:
            continue
        assert root is careless or der == GOOD
        assert agent.name


VERSION = GOOD.index(b"\xa0\x03\x02\x01\x02") + 4


@pytest.mark.parametrize(
    ("at", "byte"),
    [pytest.param(VERSION, 6, id="version 7"), pytest.param(VERSION + 3, 0xFF, id="serial < 0")],
)
def test_oddities_that_libraries_raise_or_warn_about_are_refused(at: int, byte: int) -> None:
    """InvalidVersion is no ValueError; and a stranger's certificate writes no warnings."""
    der = bytearray(GOOD)
    der[at] = byte
    with pytest.raises(CertificateRefused):
        read_certificate(bytes(der), [ROOT], login_host=LOGIN_HOST, now=NOW)
