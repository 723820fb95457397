"""The portal on its own, as the edge sees it, and browsers that sign in through it.

Nothing here is the edge: the `X-Heim-*` headers that it would add are sent by `Browser`.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

from heim_proxy.access.applications import Application
from heim_proxy.access.policy import Approver
from heim_proxy.agents.authority import Authority
from heim_proxy.agents.enrolment import Enrolments
from heim_proxy.agents.presence import Presence
from heim_proxy.identity.authorization_codes import Consent
from heim_proxy.identity.fetch import Fetcher
from heim_proxy.identity.handoff import Tickets
from heim_proxy.identity.keys import KeyRing
from heim_proxy.identity.oidc import OidcLogin
from heim_proxy.identity.programs import ProgramIdentity
from heim_proxy.identity.providers import ClientSecret, Provider, ProviderType
from heim_proxy.identity.seal import Sealer
from heim_proxy.identity.session import Session
from heim_proxy.identity.signing import SigningKeys
from heim_proxy.observe.audit import AUDIT_LOGGER, Audit
from heim_proxy.portal.app import build, runner
from heim_proxy.portal.context import PortalContext, PortalSettings
from heim_proxy.portal.limits import RateLimit
from heim_proxy.portal.reachable import Reachable
from heim_proxy.routing import AgentGrant
from heim_proxy.store.base import SessionKind
from tests.fakes.idp import REDIRECT, FakeIdp
from tests.fakes.sessions import ManualClock, Stage
from tests.fakes.store import MemoryStore

__all__ = [
    "APP1",
    "APP2",
    "LOGIN",
    "STRICT",
    "Browser",
    "PortalStand",
    "Reply",
    "command_line",
    "portal_stand",
    "query_of",
]

LOGIN = "auth.example.test"
APP1 = "app1.example.test"
APP2 = "app2.example.test"
STRICT = "strict.example.test"
"""A backend with a max_session_age of ten minutes."""

PAGE = "text/html,application/xhtml+xml,*/*;q=0.8"
MAX_STEPS = 20


class AuditTrail(logging.Handler):
    """Collects audit events as (event, fields)."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def events(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    def last(self, event: str) -> Mapping[str, object]:
        return vars([one for one in self.records if one.getMessage() == event][-1])


@dataclass
class PortalStand:
    """A running portal, its provider, and what tests look at or change.

    Alice may let the agents `desktop` and, a group, `pool` in; nobody is connected.
    """

    stage: Stage
    idp: FakeIdp
    url: str
    ctx: PortalContext
    providers: list[Provider]
    http: aiohttp.ClientSession
    audit: AuditTrail
    key_line: str
    outcomes: Counter[str]
    backends: dict[str, str] = field(
        default_factory=lambda: {APP1: "app1", APP2: "app2", STRICT: "strict"}
    )
    applications: list[Application] = field(default_factory=list)
    reachable: list[Reachable] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)
    agents: dict[str, AgentGrant] = field(
        default_factory=lambda: {
            "desktop": AgentGrant("desktop", frozenset({"ssh", "web"})),
            "pool": AgentGrant("pool", frozenset({"web"}), group=True),
        }
    )
    approvers: dict[str, Approver] = field(
        default_factory=lambda: {"alice@example.com": Approver("keepers", break_glass=False)}
    )
    present: list[Presence] = field(default_factory=list)
    ages: dict[str, float] = field(default_factory=lambda: {"strict": 600.0})
    port: str = ""

    @property
    def store(self) -> MemoryStore:
        return self.stage.store

    @property
    def clock(self) -> ManualClock:
        return self.stage.clock

    def settings(self) -> PortalSettings:
        return PortalSettings(
            login_host=LOGIN,
            public_url=lambda host: f"https://{host}{self.port}",
            backend_for=self.backends.get,
            max_session_age=self.ages.get,
            applications=lambda subject: self.applications,
            reachable=lambda subject: self.reachable,
            token_domains=("example.test",),
            providers=tuple(self.providers),
            agents=self.agents,
            approver=lambda subject: self.approvers.get(subject.name),
        )

    def browser(self, client: str = "192.0.2.1") -> Browser:
        return Browser(self, client)


@dataclass(frozen=True)
class Reply:
    """One answer of the portal or the provider."""

    url: str
    status: int
    headers: Mapping[str, str]
    set_cookies: list[str]
    text: str

    @property
    def location(self) -> str:
        return self.headers.get("Location", "")


class Browser:
    """Keeps cookies by host, sends what the edge would send, follows redirects when asked to."""

    _requests = itertools.count(1)

    def __init__(self, stand: PortalStand, client: str) -> None:
        self._stand = stand
        self._client = client
        self.jar: dict[str, dict[str, str]] = {}
        self.trail: list[Reply] = []

    async def get(self, url: str, **headers: str) -> Reply:
        """One GET; `url` is absolute, or a path of the login host. `_` in names stands for `-`."""
        return await self.request("GET", url, headers=headers)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        body: str | None = None,
    ) -> Reply:
        url = urljoin(f"https://{LOGIN}/", url)
        host = urlsplit(url).hostname or ""
        sent = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        if host == "127.0.0.1":
            target = url
        else:
            rest = url.split("/", 3)[3]
            target = f"{self._stand.url}/{rest}"
            sent = {**self._from_edge(host), **sent}
        async with self._stand.http.request(
            method,
            URL(target, encoded=True),
            headers=sent,
            data=form or body,
            allow_redirects=False,
        ) as answer:
            set_cookies = answer.headers.getall("Set-Cookie", [])
            reply = Reply(
                url, answer.status, dict(answer.headers), set_cookies, await answer.text()
            )
        for line in set_cookies:
            self._keep(host, line)
        self.trail.append(reply)
        return reply

    async def follow(self, url: str, **headers: str) -> Reply:
        """GET and follow redirects until a page, or until an application's own path."""
        reply = await self.get(url, **headers)
        for _ in range(MAX_STEPS):
            if not 300 <= reply.status < 400:
                return reply
            there = urljoin(reply.url, reply.location)
            parts = urlsplit(there)
            if parts.hostname not in (LOGIN, "127.0.0.1") and not parts.path.startswith("/.heim/"):
                return Reply(there, 0, {}, [], "arrived")
            reply = await self.get(there)
        raise AssertionError(f"still redirecting after {MAX_STEPS} steps, at {reply.url}")

    async def open(self, host: str, path: str = "/") -> Reply:
        """Open an application as the edge treats an anonymous visitor: start a hand-off."""
        return await self.follow(f"https://{host}/.heim/login?rd={path}")

    async def to_callback(self, url: str) -> str:
        """Start signing in and stop before the provider's answer reaches us; its URL."""
        reply = await self.get(url)
        for _ in range(MAX_STEPS):
            there = urljoin(reply.url, reply.location)
            if there.startswith(REDIRECT):
                return there
            reply = await self.get(there)
        raise AssertionError(f"no callback, but {reply.status} at {reply.url}")

    def session(self, host: str = LOGIN) -> str | None:
        return self.jar.get(host, {}).get("__Host-heim")

    def _from_edge(self, host: str) -> dict[str, str]:
        cookies = "; ".join(f"{name}={value}" for name, value in self.jar.get(host, {}).items())
        sent = {
            "Host": host,
            "Accept": PAGE,
            "X-Heim-Host": host,
            "X-Heim-Surface": "login" if host == LOGIN else "backend",
            "X-Heim-Client": self._client,
            "X-Heim-Request": f"req-{next(self._requests)}",
            "X-Heim-Scheme": "https",
        }
        return {**sent, "Cookie": cookies} if cookies else sent

    def _keep(self, host: str, line: str) -> None:
        first, *attributes = line.split("; ")
        name, _, value = first.partition("=")
        cookies = self.jar.setdefault(host, {})
        if "Max-Age=0" in attributes:
            cookies.pop(name, None)
        else:
            cookies[name] = value


async def command_line(stand: PortalStand, label: str = "laptop") -> Session:
    """A login of heim-tunnel that whoever signed in last consented to."""
    (*_, sid) = (
        sid for sid, row in stand.store.sessions.items() if row.kind is SessionKind.BROWSER
    )
    login = await stand.ctx.programs.logins.begin(Consent(sid, label), stand.clock.now())
    assert login is not None
    return login.session


def query_of(url: str) -> dict[str, str]:
    """The parameters of a URL, each once."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


@asynccontextmanager
async def portal_stand(
    tmp_path: Path, *, rate_limit: RateLimit | None = None, timeout_s: float = 0.5
) -> AsyncIterator[PortalStand]:
    """A portal with one provider ("idp"), a store in memory and a clock that stands still."""
    key_line = KeyRing.generate_line("k1")
    stage = await Stage.up(sealer=Sealer(KeyRing.parse(key_line)))
    idp = FakeIdp()
    idp.now = stage.clock.now
    await idp.start()
    secret = tmp_path / "idp.secret"
    secret.write_text(idp.client_secret)
    provider = Provider(
        "idp",
        ProviderType.OIDC,
        idp.issuer,
        idp.client_id,
        secret=ClientSecret(file=secret),
        groups_claim="groups",
        display_name="Example Accounts",
    )
    fetcher = Fetcher(timeout_s=timeout_s)
    keys = SigningKeys.load_or_create(tmp_path / "assertion.pem")
    authority = Authority.load_or_create(tmp_path, login_host=LOGIN)
    outcomes: Counter[str] = Counter()
    stand: PortalStand
    programs = ProgramIdentity.over(
        stage.sessions,
        stage.store,
        stage.sealer,
        keys=lambda: keys,
        login_url=lambda: stand.settings().login_url,
        accounts=lambda: stand.accounts,
        clock=stage.clock,
    )
    ctx = PortalContext(
        settings=lambda: stand.settings(),
        sessions=stage.sessions,
        sealer=stage.sealer,
        tickets=Tickets(stage.sealer, stage.store),
        store=stage.store,
        login=OidcLogin(fetcher, stage.clock, redirect_uri=lambda: REDIRECT),
        programs=programs,
        enrolments=Enrolments(
            stage.store,
            authority=lambda: authority,
            permitted=lambda: stand.agents,
            # Tests approve in the name of any session.
            approves=lambda _: bool(stand.approvers),
            clock=stage.clock,
        ),
        authority=lambda: authority,
        agents=lambda: stand.present,
        keys=lambda: keys,
        audit=Audit(),
        clock=stage.clock,
        count_login=lambda outcome: outcomes.update((outcome,)),
    )
    trail = AuditTrail()
    logging.getLogger(AUDIT_LOGGER).addHandler(trail)
    served = runner(build(ctx, rate_limit=rate_limit))
    await served.setup()
    await web.TCPSite(served, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        url = f"http://127.0.0.1:{served.addresses[0][1]}"
        stand = PortalStand(stage, idp, url, ctx, [provider], http, trail, key_line, outcomes)
        try:
            yield stand
        finally:
            logging.getLogger(AUDIT_LOGGER).removeHandler(trail)
            await served.cleanup()
            await fetcher.close()
            await idp.stop()
