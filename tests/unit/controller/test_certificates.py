"""TLS Secrets, judged."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from heim_controller.certificates import BadPairError, Book, read_pair
from heim_controller.translation.objects import CertificateFacts, Key
from tests.fakes.certificates import NOW, Pair, make_pair
from tests.fakes.kube_cluster import tls_secret

KEY: Key = ("shop", "web")
TIME = NOW.timestamp()
GOOD = make_pair("a.example.test", "*.example.test")


def secret(pair: Pair = GOOD, version: int = 1, **data: bytes) -> dict[str, Any]:
    made = tls_secret("shop/web", pair, **data)
    made["metadata"]["resourceVersion"] = str(version)
    return made


def stapled() -> Pair:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("a.test")]), critical=False)
        .add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(
        made.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        ),
    )


def test_a_good_pair_is_known_by_its_names_and_dates() -> None:
    pair = read_pair(secret(), now=TIME)
    assert pair.facts.names == ("a.example.test", "*.example.test")
    assert pair.facts.not_after == pytest.approx(TIME + 90 * 86400, abs=2)
    assert pair.facts.problem is None
    assert not pair.facts.must_staple
    assert base64.b64decode(pair.certificate) == GOOD.cert


def test_a_certificate_that_demands_stapling_is_known_for_it() -> None:
    facts = read_pair(secret(stapled()), now=TIME).facts
    assert facts.must_staple
    assert facts.names == ("a.test",)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        pytest.param(secret(tls_crt=b""), "tls.crt is missing", id="no certificate"),
        pytest.param(secret(tls_key=b""), "tls.key is missing", id="no key"),
        pytest.param({"metadata": {}}, "tls.crt is missing", id="no data"),
        pytest.param({"data": {"tls.crt": "ä"}}, "tls.crt is not base64", id="not base64"),
        pytest.param({"data": {"tls.crt": 7}}, "tls.crt is missing", id="not text"),
        pytest.param(secret(tls_crt=b"garbage"), "holds no certificate", id="no PEM"),
        pytest.param(
            secret(tls_crt=GOOD.cert + b"#" * 65536), "tls.crt is larger than 64 KiB", id="padded"
        ),
        pytest.param(
            secret(tls_key=GOOD.key + b"#" * 16384), "tls.key is larger than 16 KiB", id="long key"
        ),
        pytest.param(
            secret(tls_crt=GOOD.cert + b"\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END "
                   b"CERTIFICATE-----\n"),
            "holds no certificate",
            id="a chain that is broken",
        ),
        pytest.param(secret(tls_key=b"garbage"), "holds no key", id="no key in it"),
        pytest.param(
            secret(tls_key=ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"x"),
            )),
            "holds no key",
            id="a key with a password",
        ),
        pytest.param(secret(tls_key=make_pair("x.test").key), "is not the key of", id="mismatch"),
        pytest.param(secret(make_pair("x.test", end_days=-0.5)), "expired on", id="expired"),
        pytest.param(secret(make_pair("x.test", start_days=1)), "not valid before", id="too early"),
        pytest.param(secret(make_pair()), "is for no DNS name", id="no names"),
    ],
)  # fmt: skip
def test_what_is_no_pair_is_told_in_words(found: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadPairError, match=problem):
        read_pair(found, now=TIME)


def test_a_key_is_in_no_repr() -> None:
    pair = read_pair(secret(), now=TIME)
    assert pair.key not in repr(pair)


# The book.


def facts(book: Book, found: dict[str, Any] | None, **more: Any) -> CertificateFacts | None:
    secrets = {} if found is None else {KEY: found}
    return book.look(secrets, more.pop("mirrors", {}), now=more.pop("now", TIME), **more).get(KEY)


def test_a_secret_that_does_not_exist_is_not_known() -> None:
    assert facts(Book(), None) is None


def test_what_was_good_stays_good_when_the_secret_turns_bad_or_goes() -> None:
    book = Book()
    facts(book, secret())
    for found, problem in (
        (secret(version=2, tls_key=b"garbage"), "tls.key holds no key"),
        (None, "the Secret is gone"),
    ):
        known = facts(book, found)
        assert known is not None
        assert known.names == ("a.example.test", "*.example.test")
        assert problem in str(known.problem)
        pair = book.pair(KEY)
        assert pair is not None
        assert base64.b64decode(pair.key) == GOOD.key


def test_the_last_good_pair_ends_with_its_time() -> None:
    book = Book()
    facts(book, secret())
    later = TIME + 91 * 86400
    known = facts(book, secret(version=2, tls_key=b"garbage"), now=later)
    assert known is not None
    assert known.names == ()
    assert book.pair(KEY) is None
    assert facts(book, None, now=later) is None


def test_an_expired_certificate_does_not_replace_one_that_is_valid() -> None:
    book = Book()
    facts(book, secret())
    known = facts(book, secret(make_pair("a.example.test", end_days=-0.5), version=2))
    assert known is not None
    assert "expired" in str(known.problem)
    pair = book.pair(KEY)
    assert pair is not None
    assert base64.b64decode(pair.certificate) == GOOD.cert


def test_a_mirror_remembers_the_last_good_pair_across_restarts() -> None:
    known = facts(Book(), secret(tls_key=b"garbage"), mirrors={KEY: secret()})
    assert known is not None
    assert known.names
    assert facts(Book(), None, mirrors={KEY: secret(tls_key=b"garbage")}) is None


def test_a_certificate_whose_time_comes_is_good_then() -> None:
    book = Book()
    early = secret(make_pair("a.example.test", start_days=1))
    known = facts(book, early)
    assert known is not None
    assert known.names == ()
    known = facts(book, early, now=TIME + 2 * 86400)
    assert known is not None
    assert known.problem is None


def test_secrets_that_cannot_be_seen_say_why_unless_they_were_good_before() -> None:
    excuses = {"": "not read", "heim": None}
    known = facts(Book(), None, excuses=excuses)
    assert known == CertificateFacts(problem="not read")
    known = facts(Book(), None, excuses=excuses, mirrors={KEY: secret()})
    assert known is not None
    assert (known.names[0], known.problem) == ("a.example.test", "not read")
    assert Book().look({}, {}, now=TIME, excuses=excuses).get(("heim", "web")) is None


def test_only_what_is_asked_for_is_opened_and_only_once_for_each_version() -> None:
    book = Book()
    found = {KEY: secret(), ("shop", "other"): {"data": {}}}
    known = book.look(found, {}, now=TIME)
    assert len(known) == 2
    assert set(known) == set(found)
    first = known[KEY]
    del found[KEY]["data"]  # would be seen if it were opened again
    assert book.look(found, {}, now=TIME)[KEY] is first


def test_what_nobody_needs_is_forgotten() -> None:
    book = Book()
    facts(book, secret())
    book.keep(frozenset())
    assert book.pair(KEY) is None
    assert facts(book, None) is None
