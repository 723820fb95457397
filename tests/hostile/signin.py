"""A whole proxy with providers that lie on demand, and people who sign in through it with browsers.

The fixture `stand` (signin_fixtures.py) is shared by a module and put back in order around each
test; a test that needs another configuration, or breaks its stand, starts its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

from heim_proxy.identity.fetch import Fetcher
from heim_proxy.identity.keys import KeyRing
from heim_proxy.identity.session import Sessions
from heim_proxy.observe.audit import AUDIT_LOGGER
from heim_proxy.store.sqlite import SqliteStore
from tests.fakes.browser import Browser
from tests.fakes.heim import DOMAIN, LOGIN_HOST, Heim, Wire
from tests.fakes.idp import FakeIdp, Lies
from tests.fakes.upstream import Received, Upstream

__all__ = [
    "APP1",
    "APP2",
    "AUTH",
    "OPEN",
    "STRICT",
    "TEAMS",
    "Stand",
    "host_of",
    "login_url",
    "provider",
    "query_of",
    "signin_stand",
    "two_providers",
]

AUTH: Final = f"https://{LOGIN_HOST}"
APP1: Final = f"https://app1.{DOMAIN}"
APP2: Final = f"https://app2.{DOMAIN}"
TEAMS: Final = f"https://teams.{DOMAIN}"
STRICT: Final = f"https://strict.{DOMAIN}"
OPEN: Final = f"https://open.{DOMAIN}"

FETCH_TIMEOUT_S: Final = 0.8
"""Instead of 5 s, so that a provider that hangs does not hold up the suite."""


class ShiftedClock:
    """The machine's clock, moved by as much as a test says (both of its sides)."""

    def __init__(self) -> None:
        self.shift = 0.0

    def now(self) -> float:
        return time.time() + self.shift

    def monotonic(self) -> float:
        return time.monotonic() + self.shift


class Trail(logging.Handler):
    """Audit events since the test began."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def events(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [vars(record) for record in self.records if record.getMessage() == event]


@dataclass
class Stand:
    """`idp` is provider "one"; `other` is a second one, configured by `two_providers` only."""

    heim: Heim
    idp: FakeIdp
    other: FakeIdp
    upstream: Upstream
    clock: ShiftedClock
    keys: Path
    audit: Trail = field(default_factory=Trail)
    wires: dict[str, list[Wire]] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)

    # -- people -----------------------------------------------------------------------------

    def browser(self) -> Browser:
        return Browser(self.heim, wires=self.wires)

    async def signed_in(self, who: str = "alice", url: str = f"{APP1}/") -> Browser:
        """A browser whose owner signed in at the provider to open `url`, and sees it."""
        self.idp.user = who
        browser = self.browser()
        page = await browser.open(url)
        assert (page.status, page.url) == (200, url), (page.status, page.url, page.text)
        return browser

    async def sees(self, browser: Browser, url: str = f"{APP1}/") -> bool:
        """Whether that browser is let in without signing in again."""
        before = len(self.sent)
        page = await browser.get(url)
        reached = len(self.sent) - before
        assert reached == (page.status == 200), (page.status, reached)
        return page.status == 200

    # -- what there is ----------------------------------------------------------------------

    @property
    def sent(self) -> list[Received]:
        """What the upstream was sent since the test began."""
        return self.upstream.requests

    @property
    def sessions(self) -> Sessions:
        assert self.heim.proxy._sessions is not None
        return self.heim.proxy._sessions

    @property
    def store(self) -> SqliteStore:
        store = self.sessions._store
        assert isinstance(store, SqliteStore)
        return store

    async def live_sessions(self) -> set[str]:
        """Ids of sessions in the store; compared as sets, because a purge may come between."""
        return {row.sid for row in await self.store.list_sessions()}

    @asynccontextmanager
    async def store_down(self) -> AsyncIterator[None]:
        """Every call of the store fails, as when its disk is gone."""
        store = self.store
        sessions = self.heim.proxy._sessions
        assert sessions is not None
        # A clock that an earlier test moved would otherwise make the outage look hours old.
        await sessions.tick(self.clock.now())
        await store.close()
        try:
            yield
        finally:
            await store.open()

    async def change(self, **keys: Any) -> None:
        """Change the configuration and wait until it is in force, without waiting for the poll."""
        before = self.heim.generation
        self.heim.document.update(keys)
        self.heim.write()
        self.heim.proxy._reloader.look()
        await self.heim.until(lambda: self.heim.generation > before)

    async def use_keys(self, *lines: str) -> None:
        """Replace the session key ring's file and wait until it is in force."""
        before = self.heim.generation
        self.keys.write_text("".join(f"{line}\n" for line in lines))
        self.heim.proxy._reloader.look()
        await self.heim.until(lambda: self.heim.generation > before)

    def later(self, seconds: float) -> None:
        self.clock.shift += seconds

    async def alive(self) -> None:
        """The proxy still serves, and nothing escaped into the event loop."""
        self.upstream.script = None
        browser = self.browser()
        assert (await browser.get(f"{OPEN}/still-there")).status == 200
        assert not self.errors, self.errors

    def reset(self) -> None:
        self.upstream.requests.clear()
        self.upstream.script = None
        self.audit.records.clear()
        self.errors.clear()
        for idp in (self.idp, self.other):
            idp.user, idp.auth_time = "alice", None
            idp.lies = Lies()
            idp.hits.clear()
            idp.codes.clear()
            idp.requests.clear()
            idp.token_forms.clear()
        # Past every retry interval, and past what a test remembered of the one before it.
        self.later(30.0)


def host_of(url: str) -> str:
    return urlsplit(url).hostname or ""


def query_of(url: str) -> dict[str, str]:
    """The parameters of a URL, each once."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def login_url(**query: str) -> str:
    parameters = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return f"{AUTH}/.heim/login?{parameters}"


def provider(idp: FakeIdp, name: str, secret: Path, **more: Any) -> dict[str, Any]:
    secret.write_text(idp.client_secret)
    return {
        "name": name,
        "type": "oidc",
        "issuer": idp.issuer,
        "client_id": idp.client_id,
        "client_secret_file": str(secret),
        **more,
    }


def two_providers(idp: FakeIdp, other: FakeIdp, directory: Path) -> dict[str, Any]:
    """Each authoritative for a domain of its own (decision 7)."""
    return {
        "providers": [
            provider(idp, "one", directory / "one.secret", domains=["example.com"]),
            provider(other, "two", directory / "two.secret", domains=["example.org"]),
        ]
    }


def backends(url: str) -> list[dict[str, Any]]:
    route = [{"path": "/", "upstream": url}]
    whole = [{"name": "all", "locations": [{"any": "/"}]}]
    return [
        {"name": "app1", "http": route, "permissions": [
            *whole, {"name": "public", "locations": [{"get": "/public"}]}]},
        {"name": "app2", "http": route, "permissions": whole},
        {"name": "teams", "http": route, "permissions": whole},
        {"name": "strict", "http": route, "permissions": whole, "max_session_age": "10m"},
        {"name": "open", "http": route, "public": True},
    ]  # fmt: skip


def roles() -> list[dict[str, Any]]:
    def bound(*names: str) -> list[dict[str, str]]:
        return [{"backend": name, "permission": "all"} for name in names]

    return [
        {
            "name": "staff",
            "members": [{"user": "alice@example.com"}],
            "bindings": bound("app1", "app2", "strict"),
        },
        {
            "name": "reader",
            "members": [{"user": "bob@example.com"}],
            "bindings": [{"backend": "app1", "permission": "public"}],
        },
        {
            "name": "everybody",
            "members": [{"domain": "example.com"}],
            "bindings": bound("app2"),
        },
        {
            "name": "developers",
            "members": [{"group": "developers", "provider": "one"}],
            "bindings": bound("teams"),
        },
    ]


@asynccontextmanager
async def signin_stand(directory: Path, *, two: bool = False, **more: Any) -> AsyncIterator[Stand]:
    """A stand of one's own. `more` are top-level keys of the configuration.

    Args:
        directory: An empty one.
        two: Whether both providers are configured.
        **more: Top-level keys of the configuration.
    """
    clock = ShiftedClock()
    idp, other = FakeIdp(), FakeIdp()
    for one in (idp, other):
        one.now = clock.now
        await one.start()
    upstream = await Upstream().start()
    keys = directory / "session.keys"
    keys.write_text(KeyRing.generate_line("k1") + "\n")
    single = {"providers": [provider(idp, "one", directory / "one.secret")]}
    given: dict[str, Any] = {
        "identity": two_providers(idp, other, directory) if two else single,
        "session": {"key_file": str(keys)},
        "trusted_proxies": ["127.0.0.1/32"],
        "roles": roles(),
        "backends": backends(upstream.url),
        **more,
    }
    defaults = Fetcher.__init__.__kwdefaults__
    usual, defaults["timeout_s"] = defaults["timeout_s"], FETCH_TIMEOUT_S
    try:
        heim = await Heim.start(directory, clock=clock, **given)
    finally:
        defaults["timeout_s"] = usual
    stand = Stand(heim, idp, other, upstream, clock, keys)
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: stand.errors.append(context))
    logging.getLogger(AUDIT_LOGGER).addHandler(stand.audit)
    try:
        yield stand
    finally:
        logging.getLogger(AUDIT_LOGGER).removeHandler(stand.audit)
        loop.set_exception_handler(before)
        stand.browser().close()
        await heim.stop()
        await upstream.stop()
        await idp.stop()
        await other.stop()
