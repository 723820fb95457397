"""The certified OpenID Provider of tests/e2e, started as a process of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.fakes.real import E2E, require_node_packages

__all__ = ["RealIdp", "real_idp"]

START_DEADLINE_S = 20.0
"""Node needs about 0.5 s here; a loaded CI machine more."""

STOP_DEADLINE_S = 5.0


@dataclass(frozen=True)
class RealIdp:
    """A running provider and the one client it knows."""

    issuer: str
    client_id: str
    client_secret: str
    redirect_uri: str
    post_logout_redirect_uri: str


@asynccontextmanager
async def real_idp(
    *,
    redirect_uri: str,
    post_logout_redirect_uri: str,
    client_id: str = "heim",
    client_secret: str = "a-secret-of-this-test-run-only-0123456789",
) -> AsyncIterator[RealIdp]:
    """Start it, wait until it answers, and stop it at the end of the block.

    People: alice, bob, mallory (verified e-mail, groups), trudy (alice's e-mail, unverified).
    """
    node = require_node_packages()
    client = {
        "client_id": client_id,
        "client_secret": client_secret,
        "redirect_uris": [redirect_uri],
        "post_logout_redirect_uris": [post_logout_redirect_uri],
    }
    process = await asyncio.create_subprocess_exec(
        node,
        str(E2E / "oidc_provider.mjs"),
        json.dumps(client),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(START_DEADLINE_S):
            line = (await process.stdout.readline()).decode().split()
            if line[:1] != ["READY"]:
                raise RuntimeError(f"oidc-provider: {(await process.stderr.read()).decode()}")
        yield RealIdp(line[1], client_id, client_secret, redirect_uri, post_logout_redirect_uri)
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(STOP_DEADLINE_S):
                # communicate() also drains stderr, on which the library prints its warnings.
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
