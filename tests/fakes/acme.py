"""An ACME client (RFC 8555), as small as a certificate authority lets it be.

One account with an ES256 key, orders for one name each, HTTP-01. What answers the challenge is the
caller's business.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Self

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

__all__ = ["AcmeClient", "Refused", "Solve"]

Solve = Callable[[str, str, str], Awaitable[None]]
"""Called with host, token and key authorisation; returns when the challenge is answered."""

Said = dict[str, Any]

PATIENCE_S = 20.0


class Refused(Exception):  # noqa: N818 - what it is
    """The authority says no: the problem document."""


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


class AcmeClient:
    """`async with AcmeClient(directory_url, tls) as client:` has an account."""

    def __init__(self, directory: str, tls: ssl.SSLContext) -> None:
        self._directory_url = directory
        self._tls = tls
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._account = ""
        self._nonce = ""
        self._places: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls))
        async with self._session.get(self._directory_url) as response:
            self._places = await response.json()
        response, _ = await self._post(self._places["newAccount"], {"termsOfServiceAgreed": True})
        self._account = response.headers["Location"]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    async def certificate(self, host: str, solve: Solve) -> dict[str, bytes]:
        """A certificate for a new key, as the data of a TLS Secret.

        Raises:
            Refused: The authority did not see the answer, or says no otherwise.
        """
        order: Said
        response, order = await self._json(
            self._places["newOrder"], {"identifiers": [{"type": "dns", "value": host}]}
        )
        place = response.headers["Location"]
        for url in order["authorizations"]:
            await self._authorise(host, url, solve)
        key, request = csr(host)
        await self._json(order["finalize"], {"csr": encoded(request)})
        order = await self._until(place, "valid")
        _, chain = await self._post(order["certificate"], None)
        return {"tls.crt": chain, "tls.key": key}

    async def _authorise(self, host: str, url: str, solve: Solve) -> None:
        _, found = await self._json(url, None)
        if found["status"] == "valid":
            return
        challenge = next(one for one in found["challenges"] if one["type"] == "http-01")
        token = challenge["token"]
        await solve(host, token, f"{token}.{self._thumbprint}")
        await self._json(challenge["url"], {})
        await self._until(url, "valid")

    async def _until(self, url: str, wanted: str) -> Said:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                _, found = await self._json(url, None)
                if found["status"] == wanted:
                    return found
                if found["status"] == "invalid":
                    raise Refused(json.dumps(found))
                await asyncio.sleep(0.1)

    # Requests are JWS, signed with the account's key.

    @property
    def _jwk(self) -> dict[str, str]:
        numbers = self._key.public_key().public_numbers()
        return {
            "crv": "P-256",
            "kty": "EC",
            "x": encoded(numbers.x.to_bytes(32, "big")),
            "y": encoded(numbers.y.to_bytes(32, "big")),
        }

    @property
    def _thumbprint(self) -> str:
        return encoded(hashlib.sha256(compact(self._jwk)).digest())

    async def _json(self, url: str, payload: Said | None) -> tuple[aiohttp.ClientResponse, Said]:
        response, body = await self._post(url, payload)
        return response, json.loads(body)

    async def _post(self, url: str, payload: Said | None) -> tuple[aiohttp.ClientResponse, bytes]:
        """POST; without a payload it is how ACME says GET."""
        for _ in range(8):
            if not self._nonce:
                async with self._session.head(self._places["newNonce"]) as response:
                    self._nonce = response.headers["Replay-Nonce"]
            async with self._session.post(
                url,
                data=self._signed(url, payload),
                headers={"Content-Type": "application/jose+json"},
            ) as response:
                self._nonce = response.headers.get("Replay-Nonce", "")
                body = await response.read()
            if response.status < 400:
                return response, body
            if b"badNonce" not in body:
                break
            # pebble refuses some of them on purpose.
        raise Refused(body.decode())

    def _signed(self, url: str, payload: Said | None) -> bytes:
        who = {"kid": self._account} if self._account else {"jwk": self._jwk}
        protected = encoded(compact({"alg": "ES256", "nonce": self._nonce, "url": url, **who}))
        body = "" if payload is None else encoded(compact(payload))
        signature = self._key.sign(f"{protected}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
        r, s = decode_dss_signature(signature)
        both = encoded(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
        return compact({"protected": protected, "payload": body, "signature": both})


def csr(host: str) -> tuple[bytes, bytes]:
    """A key as PEM, and a request for a certificate with it as DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, request.public_bytes(serialization.Encoding.DER)
