from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from heim_config.model import Certificate
from heim_proxy.certs.load import (
    MAX_FILE_BYTES,
    CertificateFiles,
    CertificateProblem,
    load,
    stands_for,
)
from tests.fakes.certificates import make_pair

GOOD = make_pair("app.example.test")
DAY = 86400.0


def files_in(directory: Path) -> CertificateFiles:
    return CertificateFiles.directory(directory)


def test_a_good_pair_tells_what_it_is(tmp_path: Path) -> None:
    make_pair("App.Example.Test", "*.Example.Test", end_days=30).write(tmp_path)
    loaded = load(files_in(tmp_path), now=time.time())
    assert loaded.names == ("app.example.test", "*.example.test")
    assert loaded.not_after == pytest.approx(time.time() + 30 * DAY, abs=600)
    assert len(bytes.fromhex(loaded.fingerprint)) == 32
    assert loaded.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert loaded.context.options & ssl.OP_NO_COMPRESSION
    assert loaded.context.options & ssl.OP_NO_RENEGOTIATION


def test_a_certificate_without_names_can_be_the_default(tmp_path: Path) -> None:
    make_pair().write(tmp_path)
    assert load(files_in(tmp_path), now=time.time()).names == ()


def test_files_are_called_after_where_they_are(tmp_path: Path) -> None:
    assert files_in(tmp_path).name == str(tmp_path)
    pair = CertificateFiles.pair(tmp_path / "a.pem", tmp_path / "a.key")
    assert (pair.name, pair.key) == (str(tmp_path / "a.pem"), tmp_path / "a.key")


def test_the_same_names_with_another_key_are_another_content(tmp_path: Path) -> None:
    make_pair("a.example.test").write(tmp_path)
    first = load(files_in(tmp_path), now=time.time())
    again = load(files_in(tmp_path), now=time.time())
    make_pair("a.example.test").write(tmp_path)
    other = load(files_in(tmp_path), now=time.time())
    assert first.content == again.content != other.content
    assert first.context is not again.context


def _one_file(directory: Path) -> None:
    both = GOOD.cert + GOOD.key
    (directory / "tls.crt").write_bytes(both)
    (directory / "tls.key").write_bytes(both)


def _ec_parameters(directory: Path) -> None:
    # What `openssl ecparam -genkey` writes: a block that is no key, and then the key.
    key = serialization.load_pem_private_key(GOOD.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    traditional = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    (directory / "tls.crt").write_bytes(GOOD.cert)
    (directory / "tls.key").write_bytes(parameters + traditional)


def _chain(directory: Path) -> None:
    (directory / "tls.crt").write_bytes(b"# leaf\n" + GOOD.cert + make_pair("ca.test").cert)
    (directory / "tls.key").write_bytes(GOOD.key)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(_one_file, id="both-in-one-file"),
        pytest.param(_ec_parameters, id="ec-parameters-first"),
        pytest.param(_chain, id="comment-and-chain"),
    ],
)
def test_other_ways_to_write_a_pair(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    assert load(files_in(tmp_path), now=time.time()).names == ("app.example.test",)


def _encrypted() -> bytes:
    key = serialization.load_pem_private_key(GOOD.key, None)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def _extended_twice() -> bytes:
    """A certificate with one extension twice; cryptography makes none, so its bytes are bent."""
    leaf = x509.load_pem_x509_certificate(GOOD.cert)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        leaf.issuer, leaf.subject, key.public_key(), 1, leaf.not_valid_before_utc,
        leaf.not_valid_after_utc,
    )  # fmt: skip
    for name in ("1.2.3.4.101", "1.2.3.4.102"):
        value = x509.UnrecognizedExtension(x509.ObjectIdentifier(name), b"\x05\x00")
        builder = builder.add_extension(value, critical=False)
    der = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    return ssl.DER_cert_to_PEM_cert(der.replace(b"\x2a\x03\x04\x66", b"\x2a\x03\x04\x65")).encode()


EXPIRED = make_pair("app.example.test", start_days=-90, end_days=-1)
FUTURE = make_pair("app.example.test", start_days=1)

BAD = {
    "garbage-certificate": (b"not a certificate", GOOD.key, "tls.crt holds no readable PEM"),
    "empty-certificate": (b"", GOOD.key, "tls.crt holds no readable PEM"),
    "truncated-certificate": (GOOD.cert[:200], GOOD.key, "tls.crt holds no readable PEM"),
    "binary": (os.urandom(500), GOOD.key, "tls.crt holds no readable PEM"),
    "garbage-key": (GOOD.cert, b"not a key", "tls.key holds no readable PEM private key"),
    "empty-key": (GOOD.cert, b"", "tls.key holds no readable PEM private key"),
    "truncated-key": (GOOD.cert, GOOD.key[:100], "tls.key holds no readable PEM private key"),
    "certificate-as-key": (GOOD.cert, GOOD.cert, "tls.key holds no readable PEM private key"),
    "another-key": (GOOD.cert, make_pair("b.test").key, "tls.key is not the key of"),
    "encrypted-key": (GOOD.cert, _encrypted(), "tls.key is encrypted"),
    "expired": (EXPIRED.cert, EXPIRED.key, "tls.crt expired at 20"),
    "not-yet-valid": (FUTURE.cert, FUTURE.key, "tls.crt is not valid before 20"),
    "extended-twice": (_extended_twice(), GOOD.key, "tls.crt holds extensions that cannot be read"),
    "too-large": (GOOD.cert + b"\n" * MAX_FILE_BYTES, GOOD.key, "tls.crt is larger than"),
}


@pytest.mark.parametrize(("cert", "key", "reason"), BAD.values(), ids=BAD)
def test_a_bad_pair_is_refused_with_the_file_and_the_reason(
    cert: bytes, key: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "tls.crt").write_bytes(cert)
    (tmp_path / "tls.key").write_bytes(key)
    with pytest.raises(CertificateProblem) as caught:
        load(files_in(tmp_path), now=time.time())
    assert reason in caught.value.reason
    assert str(tmp_path) in str(caught.value)
    assert "PRIVATE KEY" not in str(caught.value)


@pytest.mark.parametrize("absent", ["tls.crt", "tls.key"])
def test_a_missing_file_is_named(absent: str, tmp_path: Path) -> None:
    GOOD.write(tmp_path)
    (tmp_path / absent).unlink()
    with pytest.raises(CertificateProblem, match=f"{absent} cannot be read: No such file"):
        load(files_in(tmp_path), now=time.time())


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    GOOD.write(tmp_path)
    (tmp_path / "tls.key").unlink()
    os.mkfifo(tmp_path / "tls.key")
    with pytest.raises(CertificateProblem, match=r"tls\.key is not a file"):
        load(files_in(tmp_path), now=time.time())


def test_a_clock_a_little_behind_the_issuers_is_no_problem(tmp_path: Path) -> None:
    make_pair("app.example.test", start_days=0).write(tmp_path)
    load(files_in(tmp_path), now=time.time() - 240)


COVERED = {
    "exact": (("a.test",), "a.test", True),
    "another": (("a.test",), "b.test", False),
    "one-label": (("*.a.test",), "x.a.test", True),
    "not-two": (("*.a.test",), "y.x.a.test", False),
    "not-the-parent": (("*.a.test",), "a.test", False),
    "no-label": (("*.a.test",), ".a.test", False),
    "wildcard-by-itself": (("*.a.test",), "*.a.test", True),
    "wildcard-not-by-a-wider-one": (("*.test",), "*.test.test", False),
    "wildcard-not-by-a-name": (("x.a.test",), "*.a.test", False),
    "nothing": ((), "a.test", False),
    "partial-wildcard": (("a*.test",), "ab.test", False),
}


@pytest.mark.parametrize(("names", "host", "expected"), COVERED.values(), ids=COVERED)
def test_wildcards_are_one_label(names: tuple[str, ...], host: str, expected: bool) -> None:
    assert stands_for(names, host) is expected


def test_a_pair_is_shown_for_the_listed_names_that_it_has(tmp_path: Path) -> None:
    make_pair("a.test", "*.b.test", "victim.test").write(tmp_path)
    whole = load(files_in(tmp_path), now=time.time())
    assert whole.shown_for == ("a.test", "*.b.test", "victim.test")
    files = replace(files_in(tmp_path), hosts=("x.b.test", "a.test", "c.test"))
    assert load(files, now=time.time()).shown_for == ("x.b.test", "a.test")
    with pytest.raises(CertificateProblem, match=r"for none of the names .* \(c\.test\)"):
        load(replace(files, hosts=("c.test",)), now=time.time())
    many = tuple(f"host{number}.test" for number in range(9))
    with pytest.raises(CertificateProblem, match=r"host4\.test, …\)"):
        load(replace(files, hosts=many), now=time.time())


def test_pairs_come_from_directories_or_from_two_files(tmp_path: Path) -> None:
    listed = CertificateFiles.listed(
        [
            Certificate(directory=tmp_path / "secret"),
            Certificate(cert_file=tmp_path / "a.crt", key_file=tmp_path / "a.key"),
            Certificate(secret="ns.tls", hosts=("a.test",)),
        ]
    )
    assert listed == [
        CertificateFiles.directory(tmp_path / "secret"),
        CertificateFiles.pair(tmp_path / "a.crt", tmp_path / "a.key"),
    ]
    (secret,) = CertificateFiles.listed(
        [Certificate(secret="ns.tls", hosts=("a.test",))], tmp_path / "secrets"
    )
    assert (secret.cert, secret.hosts) == (tmp_path / "secrets/ns.tls/tls.crt", ("a.test",))
