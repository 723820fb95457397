"""pebble, a real ACME server, and the name server that tells it that every host is 127.0.0.1."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.fakes.heim import authority, trusting_context
from tests.fakes.real import require

__all__ = ["Pebble", "pebble"]

START_DEADLINE_S = 15.0


@dataclass(frozen=True)
class Pebble:
    """A server that runs; `directory` is where clients begin."""

    directory: str
    management: str

    @property
    def tls(self) -> ssl.SSLContext:
        """What clients of the server itself trust."""
        return trusting_context()

    async def trusting(self) -> ssl.SSLContext:
        """What people trust who trust the certificates it issues."""
        connector = aiohttp.TCPConnector(ssl=self.tls)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(f"{self.management}/roots/0") as response,
        ):
            root = await response.text()
        return ssl.create_default_context(cadata=root)


def unused_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@asynccontextmanager
async def pebble(directory: Path, *, http_port: int) -> AsyncIterator[Pebble]:
    """pebble for the length of the block; challenges are asked on `http_port` of 127.0.0.1."""
    program, names = require("pebble"), require("pebble-challtestsrv")
    listen, manage, dns, dns_manage = (unused_port() for _ in range(4))
    issued = authority().issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(directory / "pebble.crt")
    issued.private_key_pem.write_to_path(directory / "pebble.key")
    config = {
        "pebble": {
            "listenAddress": f"127.0.0.1:{listen}",
            "managementListenAddress": f"127.0.0.1:{manage}",
            "certificate": str(directory / "pebble.crt"),
            "privateKey": str(directory / "pebble.key"),
            "httpPort": http_port,
            "tlsPort": 1,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
        }
    }
    (directory / "pebble.json").write_text(json.dumps(config))
    quiet = {"stdin": asyncio.subprocess.DEVNULL}
    log = (directory / "pebble.log").open("wb")
    resolver = await asyncio.create_subprocess_exec(
        names, "-dns01", f"127.0.0.1:{dns}", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "",
        "-http01", "", "-https01", "", "-tlsalpn01", "",
        "-management", f"127.0.0.1:{dns_manage}", stdout=log, stderr=log, **quiet,
    )  # fmt: skip
    server = await asyncio.create_subprocess_exec(
        program, "-config", str(directory / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}",
        stdout=log, stderr=log, **quiet,
        # A renewal is a question like the first one.
        env={**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0"},
    )  # fmt: skip
    log.close()
    try:
        async with asyncio.timeout(START_DEADLINE_S):
            while not await _listens(listen) or not await _listens(dns_manage):
                ended = server.returncode is not None or resolver.returncode is not None
                assert not ended, (directory / "pebble.log").read_text()
                await asyncio.sleep(0.05)
        yield Pebble(f"https://127.0.0.1:{listen}/dir", f"https://127.0.0.1:{manage}")
    finally:
        for process in (server, resolver):
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
