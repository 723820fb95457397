"""Debian's Chromium, driven by Playwright, trusting one certificate of a test run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

from tests.fakes.real import require

__all__ = ["Person", "chromium"]

ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

PATIENCE_MS = 10_000
"""For one step in the browser; it takes some 50 ms here, a loaded CI machine needs more."""


@asynccontextmanager
async def chromium(certificate: Path, *, hosts: str = "") -> AsyncIterator[Browser]:
    """A browser that trusts this certificate's key and no other unknown one.

    `hosts` is a pattern of names that lead to this machine; `*.localhost` does so anyway.
    """
    program = require("chromium")
    args = [*ARGS, f"--ignore-certificate-errors-spki-list={_spki(certificate)}"]
    if hosts:
        args.append(f"--host-resolver-rules=MAP {hosts} 127.0.0.1")
    async with async_playwright() as playwright:
        # Playwright gives every browser a user data directory of its own and removes it.
        browser = await playwright.chromium.launch(executable_path=program, args=args)
        try:
            yield browser
        finally:
            await browser.close()


class Person:
    """Somebody with a browser profile of their own, and what its console complained about."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.complaints: list[str] = []
        context.set_default_timeout(PATIENCE_MS)
        context.on("console", self._note)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))

    @classmethod
    @asynccontextmanager
    async def at(cls, browser: Browser, *, scripts: bool = True) -> AsyncIterator[Person]:
        """Sit down at a fresh profile; it is gone at the end of the block."""
        context = await browser.new_context(java_script_enabled=scripts)
        try:
            yield cls(context)
        finally:
            await context.close()

    async def tab(self) -> Page:
        return await self.context.new_page()

    async def cookie_names(self, url: str) -> list[str]:
        return sorted(cookie["name"] for cookie in await self.context.cookies(url))

    def _note(self, message: ConsoleMessage) -> None:
        # That a refused page was refused is no complaint.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)


def _spki(certificate: Path) -> str:
    public = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    encoded = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(encoded).digest()).decode()
