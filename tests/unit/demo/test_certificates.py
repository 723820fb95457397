from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from heim_proxy.demo.certificates import DemoCertificates, issue
from heim_proxy.demo.loopback import listen

HOSTS = ("app.localhost", "auth.localhost")


@pytest.fixture
def certificates() -> DemoCertificates:
    return issue(HOSTS, now=datetime.now(UTC))


async def handshake(certificates: DemoCertificates, directory: Path, name: str) -> None:
    """A TLS handshake on loopback in which the client trusts only the demo's authority."""
    (directory / "crt").write_bytes(certificates.server_pem)
    (directory / "key").write_bytes(certificates.server_key_pem)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(directory / "crt", directory / "key")
    trusting = ssl.create_default_context(cadata=certificates.ca_pem.decode())
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT  # the default of Python 3.13
    sock = listen()
    server = await asyncio.start_server(lambda _r, writer: writer.close(), sock=sock, ssl=serving)
    async with server, asyncio.timeout(3):
        _, writer = await asyncio.open_connection(
            *sock.getsockname(), ssl=trusting, server_hostname=name
        )
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("host", HOSTS)
async def test_client_that_trusts_the_authority_accepts(
    certificates: DemoCertificates, tmp_path: Path, host: str
) -> None:
    await handshake(certificates, tmp_path, host)


async def test_name_that_is_not_listed_is_not_accepted(
    certificates: DemoCertificates, tmp_path: Path
) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="match"):
        await handshake(certificates, tmp_path, "other.localhost")


async def test_other_run_is_not_trusted(certificates: DemoCertificates, tmp_path: Path) -> None:
    other = issue(HOSTS, now=datetime.now(UTC))
    mixed = DemoCertificates(other.ca_pem, certificates.server_pem, certificates.server_key_pem)
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(mixed, tmp_path, HOSTS[0])


def test_authority_can_vouch_for_localhost_names_only(certificates: DemoCertificates) -> None:
    authority = x509.load_pem_x509_certificate(certificates.ca_pem)
    constraints = authority.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    names = [str(subtree.value) for subtree in constraints.value.permitted_subtrees or []]
    assert names == ["localhost", "127.0.0.0/8"]


def test_certificates_end_within_days() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    server = x509.load_pem_x509_certificate(issue(HOSTS, now=now).server_pem)
    assert server.not_valid_after_utc - now <= timedelta(days=7)


def test_name_outside_localhost_is_refused() -> None:
    with pytest.raises(ValueError, match=r"example\.com"):
        issue(("app.localhost", "example.com"), now=datetime.now(UTC))


def test_private_key_is_not_in_the_repr(certificates: DemoCertificates) -> None:
    assert "PRIVATE" not in repr(certificates)
