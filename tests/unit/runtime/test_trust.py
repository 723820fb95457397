from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from heim_runtime import trust
from heim_runtime.complaints import Complaint
from tests.fakes.certificates import CA_PEM


def test_names_and_authorities_are_always_checked() -> None:
    made = trust.context(None)
    assert made.check_hostname
    assert made.verify_mode == ssl.CERT_REQUIRED
    assert made.minimum_version == ssl.TLSVersion.TLSv1_2
    assert made.options & ssl.OP_NO_RENEGOTIATION


def test_a_ca_file_is_trusted_instead_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(CA_PEM)
    assert len(trust.context(str(path)).get_ca_certs()) == 1


def test_the_systems_bundle_is_loaded_only_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(CA_PEM)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    assert trust.context(None).get_ca_certs() == []
    assert len(trust.context(None, bundle=True).get_ca_certs()) == 1
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "gone"))
    assert len(trust.context(None).get_ca_certs()) == 1


def test_a_ca_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(Complaint, match=r"cannot read the CA file .*gone: No such file"):
        trust.context(str(tmp_path / "gone"))
    (tmp_path / "no.pem").write_text("hello")
    with pytest.raises(Complaint, match="holds no PEM certificate"):
        trust.context(str(tmp_path / "no.pem"))


def failure(code: int, message: str = "why") -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, message)
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (10, "the certificate of h has expired (or this machine's clock is wrong)"),
        (9, "the certificate of h is not valid yet (or this machine's clock is wrong)"),
        (62, "the certificate of h is for another name"),
        (64, "the certificate of h is for another name"),
        (18, "the certificate of h is not trusted by ca.pem: self-signed; "),
        (20, "the certificate of h is not trusted by ca.pem: its issuer is not known; "),
        (23, "the certificate of h is not accepted: certificate revoked"),
    ],
)
def test_a_certificate_that_is_not_believed_is_told_why(code: int, text: str) -> None:
    error = failure(code, "certificate revoked")
    assert trust.explain(error, "h", "ca.pem").startswith(text)
    assert trust.unknown_issuer(error) is (code in (18, 20))


@pytest.mark.parametrize(
    ("names", "shown"),
    [([], ""), (["a", "b"], " (a, b)"), (list("abcdefg"), " (a, b, c, d, e and 2 more)")],
    ids=["not known", "some", "many"],
)
def test_a_wrong_certificate_says_what_it_is_for(names: list[str], shown: str) -> None:
    text = trust.explain(failure(62), "h", None, names)
    assert text == f"the certificate of h is for another name{shown}"


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("WRONG_VERSION_NUMBER", "no TLS with h: it does not speak TLS"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "no TLS with h: it offers no TLS 1.2 or newer"),
        ("SOMETHING_ODD", "no TLS with h: something odd"),
    ],
)
def test_a_handshake_that_fails_otherwise_is_told_why(reason: str, text: str) -> None:
    error = ssl.SSLError(1, "x")
    error.reason = reason
    assert trust.explain(error, "h", None).startswith(text)
    assert not trust.unknown_issuer(error)


def test_the_store_that_did_not_know_the_issuer_is_named() -> None:
    assert "not trusted by the system (" in trust.explain(failure(20), "h", None)


def test_a_connection_that_broke_is_told() -> None:
    assert trust.explain(OSError(104, "Reset"), "h", None) == "no TLS with h: Reset"
