from __future__ import annotations

import logging
import os
import ssl
import stat
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from heim_proxy.certs.own import OWN_FILE, own_certificate
from tests.fakes.certificates import make_pair

YEAR = 365 * 86400.0


def test_it_is_made_once_and_stays_the_same(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = own_certificate(state, now=time.time())
    again = own_certificate(state, now=time.time() + YEAR)
    assert first.fingerprint == again.fingerprint
    assert first.context is not again.context
    assert [path.name for path in state.iterdir()] == [OWN_FILE]
    assert stat.S_IMODE((state / OWN_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_it_is_nobodys_name_and_no_authority(tmp_path: Path) -> None:
    own = own_certificate(tmp_path, now=time.time())
    leaf = x509.load_pem_x509_certificate((tmp_path / OWN_FILE).read_bytes())
    assert own.names == ("self-signed.heim.invalid",)
    assert leaf.issuer == leaf.subject
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    (told,) = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert "no certificate for this name" in str(told.value)
    assert own.not_after > time.time() + 9 * YEAR
    assert isinstance(own.context, ssl.SSLContext)


def _garbage(path: Path) -> None:
    path.write_bytes(b"not a certificate")


def _expired(path: Path) -> None:
    pair = make_pair("a.test", start_days=-9, end_days=-1)
    path.write_bytes(pair.cert + pair.key)


def _half(path: Path) -> None:
    path.write_bytes(make_pair("a.test").cert)


BROKEN = {"garbage": _garbage, "expired": _expired, "without-its-key": _half}


@pytest.mark.parametrize("broken", BROKEN)
def test_one_that_cannot_serve_is_made_anew(broken: str, tmp_path: Path) -> None:
    BROKEN[broken](tmp_path / OWN_FILE)
    made = own_certificate(tmp_path, now=time.time())
    assert made.names == ("self-signed.heim.invalid",)
    assert own_certificate(tmp_path, now=time.time()).fingerprint == made.fingerprint


def test_one_made_by_a_clock_that_was_ahead_serves_when_it_is_right(tmp_path: Path) -> None:
    made = own_certificate(tmp_path, now=time.time() + 10 * 86400.0)
    assert own_certificate(tmp_path, now=time.time()).fingerprint == made.fingerprint


def test_where_it_cannot_be_kept_there_is_one_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A file where the directory should be: root may write everywhere else.
    (tmp_path / "state").write_text("in the way")
    made = own_certificate(tmp_path / "state", now=time.time())
    assert made.names == ("self-signed.heim.invalid",)
    (warning,) = caplog.records
    assert (warning.msg, warning.levelno) == ("cert.self_signed_not_kept", logging.WARNING)
    assert not os.path.exists(made.files.cert)
