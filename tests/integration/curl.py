"""Debian's curl against a proxy: a client that we did not write."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.heim import Heim, authority
from tests.fakes.real import require
from tests.integration.setup import APP

__all__ = ["Curled", "curl"]

DEADLINE_S = 60.0
"""For 64 MiB through everything on a loaded CI machine; it takes one here."""


@dataclass(frozen=True)
class Curled:
    """What curl wrote and how it ended; `status` is that of the last answer."""

    exit: int
    status: int
    head: str
    body: bytes
    err: str

    def all(self, name: str) -> list[str]:
        lines = (line.partition(":") for line in self.head.splitlines())
        return [value.strip() for field, _, value in lines if field.lower() == name.lower()]


async def curl(
    heim: Heim,
    path: str,
    *args: str | Path,
    host: str = APP,
    cookie: str | None = None,
    stdin: bytes = b"",
) -> Curled:
    """One run of curl. The body goes to `body`, unless `args` say where."""
    ca, head = heim.directory / "ca.pem", heim.directory / "curl-head"
    if not ca.exists():
        authority().cert_pem.write_to_path(ca)
    head.unlink(missing_ok=True)
    port = heim.https_port
    process = await asyncio.create_subprocess_exec(
        require("curl"),
        "--silent",
        "--show-error",
        "--cacert",
        str(ca),
        "--resolve",
        f"{host}:{port}:127.0.0.1",
        "--dump-header",
        str(head),
        *(("--header", f"Cookie: {cookie}") if cookie else ()),
        *map(str, args),
        f"https://{host}:{port}{path}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_S):
        body, err = await process.communicate(stdin)
    assert process.returncode is not None
    text = head.read_bytes().decode("latin-1") if head.exists() else ""
    lines = [line for line in text.splitlines() if line.startswith("HTTP/")]
    status = int(lines[-1].split(" ")[1]) if lines else 0
    return Curled(process.returncode, status, text, body, err.decode())
