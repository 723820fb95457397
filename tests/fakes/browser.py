"""A browser that signs in through a whole proxy: cookies per host, redirects across hosts, as sent.

It speaks to the `Heim` harness over TLS for every name under its domain and in plain to a provider
on loopback, sends each target byte for byte, and resolves a Location as browsers do (`whatwg`). A
`__Host-` cookie that a browser would refuse is refused here and noted.
"""

from __future__ import annotations

import asyncio
import html
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from tests.fakes.heim import DOMAIN, Answer, Heim, Wire
from tests.fakes.whatwg import resolve

__all__ = ["NAVIGATE", "Browser", "Page"]

MAX_STEPS = 20
_ADDRESSES = itertools.count(1)

NAVIGATE = (
    ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Dest", "document"),
)
_FORM = ("Content-Type", "application/x-www-form-urlencoded")


@dataclass
class Page(Answer):
    """An answer and the URL it came from; status 0 for a URL on a host that is not ours."""

    url: str = ""

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def location(self) -> str:
        """Where the Location leads, as a browser on this page would resolve it."""
        value = self.get("location")
        assert value is not None, (self.status, self.body)
        return resolve(value, self.url)

    @property
    def links(self) -> list[str]:
        return [html.unescape(value) for value in re.findall(r'href="([^"]*)"', self.text)]

    @property
    def fields_of_form(self) -> dict[str, str]:
        pairs = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', self.text)
        return {name: html.unescape(value) for name, value in pairs}


@dataclass
class Browser:
    """One person's browser at one address (sent as X-Forwarded-For; the stand trusts loopback).

    Attributes:
        jar: Cookies by host, then by name, in the order they were set.
        refused: Set-Cookie values that a browser would not take.
        trail: Every page of the last `open`.
        wires: Idle connections by place; browsers may share them, as behind another proxy.
    """

    heim: Heim
    address: str = ""
    jar: dict[str, dict[str, str]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    trail: list[Page] = field(default_factory=list)
    wires: dict[str, list[Wire]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.move()

    def move(self) -> None:
        """Go on from another address, as far as rate limits are concerned."""
        number = next(_ADDRESSES)
        self.address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

    def close(self) -> None:
        for wires in self.wires.values():
            for wire in wires:
                wire.close()
        self.wires.clear()

    # -- what is in it ----------------------------------------------------------------------

    def cookie(self, host: str, name: str = "__Host-heim") -> str | None:
        return self.jar.get(host, {}).get(name)

    def names(self, host: str, prefix: str) -> list[str]:
        return [name for name in self.jar.get(host, {}) if name.startswith(prefix)]

    def plant(self, host: str, name: str, value: str) -> None:
        self.jar.setdefault(host, {})[name] = value

    # -- going places -----------------------------------------------------------------------

    async def open(self, url: str, *, headers: tuple[tuple[str, str], ...] = ()) -> Page:
        """Navigate and follow redirects until a page, or until a host that is not ours."""
        self.trail = []
        return await self._follow(await self.get(url, headers=headers))

    async def submit(self, page: Page, action: str, **more: str) -> Page:
        """Send a page's form as a navigation and follow where it leads."""
        url = resolve(action, page.url)
        origin = "://".join(urlsplit(page.url)[:2])
        answer = await self.post(url, {**page.fields_of_form, **more}, origin=origin)
        return await self._follow(answer)

    async def _follow(self, page: Page) -> Page:
        for _ in range(MAX_STEPS):
            self.trail.append(page)
            if not 300 <= page.status < 400:
                return page
            there = page.location
            if not _reachable(there):
                return Page(0, [], b"", url=there)
            page = await self.get(there)
        raise AssertionError(f"still redirecting after {MAX_STEPS} steps, at {page.url}")

    async def to_callback(self, url: str) -> str:
        """Start a sign-in and stop before the provider's answer reaches us; its URL."""
        page = await self.get(url)
        for _ in range(MAX_STEPS):
            there = page.location
            if "/.heim/callback?" in there:
                return there
            page = await self.get(there)
        raise AssertionError(f"no callback, but {page.status} at {page.url}")

    async def to_handoff(self, url: str) -> str:
        """Sign in and stop before the application's host sees its ticket; its URL."""
        page = await self.get(url)
        for _ in range(MAX_STEPS):
            there = page.location
            if "/.heim/handoff?" in there:
                return there
            page = await self.get(there)
        raise AssertionError(f"no hand-off, but {page.status} at {page.url}")

    # -- single requests --------------------------------------------------------------------

    async def get(self, url: str, *, headers: tuple[tuple[str, str], ...] = ()) -> Page:
        return await self.send("GET", url, headers=(*NAVIGATE, *headers))

    async def post(
        self, url: str, form: Mapping[str, str], *, origin: str | None = None, navigate: bool = True
    ) -> Page:
        headers = (*NAVIGATE,) if navigate else (("Accept", "application/json"),)
        if origin is not None:
            headers = (*headers, ("Origin", origin))
        return await self.send(
            "POST", url, headers=(*headers, _FORM), body=urlencode(form).encode()
        )

    async def fetch(self, url: str, *, method: str = "GET") -> Page:
        """What a script's fetch() would get."""
        mode = (("Accept", "*/*"), ("Sec-Fetch-Mode", "cors"), ("Sec-Fetch-Dest", "empty"))
        return await self.send(method, url, headers=mode)

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: tuple[tuple[str, str], ...] = (),
        cookies: str | None = None,
        body: bytes = b"",
    ) -> Page:
        """One request, no redirects.

        `cookies` replaces the jar's Cookie header ("" sends none), and leaves the jar as it is.
        """
        keep = cookies is None
        scheme, _, rest = url.partition("#")[0].partition("://")
        authority = re.split(r"[/?]", rest, maxsplit=1)[0]
        target = rest[len(authority) :]
        if not target.startswith("/"):
            target = f"/{target}"
        host = _name(authority)
        if cookies is None:
            cookies = "; ".join(f"{name}={value}" for name, value in self.jar.get(host, {}).items())
        lines = [f"{method} {target} HTTP/1.1", f"Host: {authority}"]
        lines += [f"X-Forwarded-For: {self.address}"] if _ours(host) else []
        lines += [f"{name}: {value}" for name, value in headers]
        lines += [f"Cookie: {cookies}"] if cookies else []
        lines += [f"Content-Length: {len(body)}"] if body or method == "POST" else []
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        async with asyncio.timeout(8):
            answer = await self._exchange(scheme, authority, head + body, method == "HEAD")
        page = Page(answer.status, answer.fields, answer.body, answer.raw, url=url)
        if scheme == "https" and keep:
            for line in page.all("set-cookie"):
                self._keep(host, line)
        return page

    async def _exchange(self, scheme: str, authority: str, data: bytes, head_only: bool) -> Answer:
        place = f"{scheme}://{authority}"
        idle = self.wires.setdefault(place, [])
        while True:
            kept = idle.pop() if idle else None
            wire = kept or await self._connect(scheme, authority)
            wire.send(data)
            try:
                answer = await wire.answer(head_only=head_only)
            except (asyncio.IncompleteReadError, ConnectionError):
                wire.close()
                if kept is None:
                    raise
                continue  # the other side had closed a kept connection meanwhile
            if answer.get("connection") != "close":
                idle.append(wire)
            return answer

    async def _connect(self, scheme: str, authority: str) -> Wire:
        host = _name(authority)
        if _ours(host):
            return await self.heim.connect(host, plain=scheme == "http")
        port = int(authority.partition(":")[2])
        reader, writer = await asyncio.open_connection(host, port)
        return Wire(reader, writer)

    def _keep(self, host: str, line: str) -> None:
        """Take a cookie as RFC 6265bis, 5.7 says, as far as `__Host-` and ours need it."""
        first, *rest = [part.strip() for part in line.split(";")]
        name, _, value = first.partition("=")
        attributes = {key.lower(): val for key, _, val in (part.partition("=") for part in rest)}
        if name.lower().startswith("__host-") and (
            "secure" not in attributes or "domain" in attributes or attributes.get("path") != "/"
        ):
            self.refused.append(line)
            return
        cookies = self.jar.setdefault(host, {})
        if int(attributes.get("max-age", "1")) <= 0:
            cookies.pop(name, None)
        else:
            cookies[name] = value


def _name(authority: str) -> str:
    return authority.partition(":")[0].lower().rstrip(".")


def _ours(host: str) -> bool:
    return host == DOMAIN or host.endswith(f".{DOMAIN}")


def _reachable(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return url.startswith(("https://", "http://")) and (_ours(host) or host == "127.0.0.1")
