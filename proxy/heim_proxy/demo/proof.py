"""How an application proves to itself who is asking: the assertion Heim signed, checked for real.

This is what an application behind Heim would write; it uses nothing of Heim's but the published
keys (a JWK set, RFC 7517) and the names of the claims.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
import jwt

from heim_proxy.demo.loopback import LoopbackResolver
from heim_runtime.clock import Clock

__all__ = ["AssertionVerifier", "UnprovenError", "fetch_keys"]

FETCH_DEADLINE_S: Final = 5.0

MAX_KEYS_BYTES: Final = 64 * 1024
"""A set with one EC key has about 250 bytes."""

REFETCH_AFTER_S: Final = 5.0
"""The least time between two fetches, so that made-up key ids cannot make us hammer Heim."""

MAX_TOKEN_CHARACTERS: Final = 16 * 1024

LEEWAY_S: Final = 5

FetchKeys = Callable[[], Awaitable[jwt.PyJWKSet]]


class UnprovenError(Exception):
    """The request carries no assertion that this application can believe; the text says why."""


def fetch_keys(url: str, ca_pem: str) -> FetchKeys:
    """A function that fetches the key set at `url`, trusting that authority and no other."""
    trust = ssl.create_default_context(cadata=ca_pem)

    async def fetch() -> jwt.PyJWKSet:
        connector = aiohttp.TCPConnector(
            ssl=trust, resolver=LoopbackResolver(), use_dns_cache=False, force_close=True
        )
        try:
            async with (
                asyncio.timeout(FETCH_DEADLINE_S),
                aiohttp.ClientSession(connector=connector) as client,
                client.get(url, allow_redirects=False) as answer,
            ):
                body = await answer.content.read(MAX_KEYS_BYTES)
            if answer.status != 200:
                raise UnprovenError(f"{url} answered {answer.status}")
            return jwt.PyJWKSet.from_json(body.decode())
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            raise UnprovenError(f"the keys at {url} cannot be fetched") from error
        except (ValueError, jwt.PyJWTError) as error:
            raise UnprovenError(f"{url} is not a key set") from error

    return fetch


class AssertionVerifier:
    """Checks assertions; keeps the published keys and asks again when an unknown key id appears."""

    def __init__(self, fetch: FetchKeys, *, issuer: str, audience: str, clock: Clock) -> None:
        """Nothing is fetched before the first assertion arrives.

        Args:
            fetch: Gets the current key set, or raises UnprovenError.
            issuer: Heim's login URL.
            audience: This application's own host; an assertion for another one is worth nothing.
            clock: Its monotonic time limits how often keys are fetched.
        """
        self._fetch = fetch
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = float("-inf")

    async def verify(self, token: str) -> dict[str, object]:
        """The claims of an assertion that Heim signed for this application and that is still good.

        Raises:
            UnprovenError: when anything about it is wrong.
        """
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise UnprovenError("the assertion is too long")
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != "heim-assertion+jwt":
                raise UnprovenError("that is not one of Heim's assertions")
            claims: dict[str, object] = jwt.decode(
                token,
                await self._key(str(header.get("kid"))),
                algorithms=["ES256"],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": ["iss", "aud", "exp", "iat", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise UnprovenError(str(error)) from error
        return claims

    async def _key(self, kid: str) -> jwt.PyJWK:
        now = self._clock.monotonic()
        if kid not in self._keys and now - self._fetched >= REFETCH_AFTER_S:
            self._fetched = now
            self._keys = {key.key_id: key for key in (await self._fetch()).keys if key.key_id}
        if kid not in self._keys:
            raise UnprovenError("it was signed with a key that Heim does not publish")
        return self._keys[kid]
