"""The proxy as a whole: every part made and joined here, in the order in which they depend.

`start` opens what the configuration names and returns once the listeners accept connections;
`wait` returns after SIGTERM or SIGINT has drained it; `close` lets go of everything. A
configuration that cannot be used raises before anything is opened.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from heim_config.files import exposed
from heim_config.model import Config
from heim_proxy.agents.authority import Authority
from heim_proxy.agents.dialer import AgentDialers
from heim_proxy.agents.wiring import Agents, authority_of
from heim_proxy.certs.served import Certificates
from heim_proxy.certs.watch import Selection
from heim_proxy.edge.admission import Admission, Limits
from heim_proxy.edge.dial import InProcessDialer
from heim_proxy.edge.door import AGENT_PATH, TUNNEL_PATH, Doors
from heim_proxy.edge.listener import ListenError, explain
from heim_proxy.edge.listening import Listening
from heim_proxy.edge.server import Edge
from heim_proxy.identity.fetch import Fetcher
from heim_proxy.identity.handoff import Tickets
from heim_proxy.identity.keys import KeyRing
from heim_proxy.identity.oidc import OidcLogin
from heim_proxy.identity.programs import ProgramIdentity
from heim_proxy.identity.providers import from_config
from heim_proxy.identity.seal import Sealer
from heim_proxy.identity.session import Sessions
from heim_proxy.identity.signing import SigningKeys
from heim_proxy.live import LiveRegistry
from heim_proxy.observe.access_log import AccessLog
from heim_proxy.observe.admin import Admin
from heim_proxy.observe.audit import Audit
from heim_proxy.observe.lag import LoopLag
from heim_proxy.observe.metrics import Metrics
from heim_proxy.pieces import Pieces
from heim_proxy.portal.app import build as build_portal
from heim_proxy.portal.app import runner as portal_runner
from heim_proxy.portal.context import PortalContext, PortalSettings
from heim_proxy.portal.reachable import reachable, token_domains
from heim_proxy.reload import Reloader
from heim_proxy.snapshot import Snapshot, build
from heim_proxy.sources.base import Source
from heim_proxy.store.sqlite import SqliteStore
from heim_proxy.tunnel.door import Tunnel
from heim_runtime.clock import Clock, SystemClock
from heim_runtime.signals import handling
from heim_runtime.tasks import cancel, spawn
from heim_runtime.version import version

__all__ = ["Proxy"]

log = logging.getLogger(__name__)

# How often sessions are kept true: revocations of other processes end streams within 2 s.
_TICK_S: Final = 0.5
# Before a background task that failed runs again; two failures of the tick stay within 2 s.
_RESTART_S: Final = 0.5
# The path of a request makes no reference cycles; collecting rarely saves 3 % of CPU.
_GC_THRESHOLDS: Final = (50_000, 20, 50)


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """A configuration that has been built in full and only waits to be put in force."""

    snapshot: Snapshot
    ring: KeyRing
    certificates: Selection
    authority: Authority


class Proxy:
    """One running proxy."""

    def __init__(
        self, source: Source, *, clock: Clock | None = None, access_log: int | Path = 1
    ) -> None:
        """Prepare; nothing is opened.

        Args:
            source: Where the configuration comes from.
            clock: The time, for tests.
            access_log: File or descriptor of the access log; standard output by default.
        """
        self._clock: Clock = clock or SystemClock()
        self._source = source
        self._reloader: Reloader[_Prepared] = Reloader(
            source, build=self._build, swap=self._swap, clock=self._clock
        )
        self._generations = itertools.count(1)
        self._pieces = Pieces()
        self._stack = AsyncExitStack()
        self._stopping = asyncio.Event()
        self._metrics = Metrics(version=version())
        self._audit = Audit()
        self._live = LiveRegistry()
        self._certificates = Certificates(clock=self._clock)
        self._access_log_to = access_log
        self._access_log: AccessLog | None = None
        self._listening = Listening()
        self._current: _Prepared | None = None
        self._edge: Edge | None = None
        self._sessions: Sessions | None = None
        self._agents: Agents | None = None
        self._admin = Admin(self._metrics, status=self._status)

    # -- life -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open everything; returns when connections are accepted, or when asked to stop before.

        Raises:
            ConfigError: The configuration cannot be used.
            StoreUnavailable: The state cannot be opened.
            ListenError: An address cannot be listened on.
        """
        try:
            self._stack.push_async_callback(self._source.close)
            boot = self._source.boot
            if boot is not None:
                # Before there is anything to serve, so that probes are told what is missing.
                await self._open_admin(boot)
            if not await self._reloader.start(stopping=self._stopping if boot else None):
                return
            await self._open()
        except BaseException:
            await self.close()
            raise
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        log.info("proxy.started", extra={"version": version(), "listeners": self.addresses})

    async def wait(self) -> None:
        """Return when SIGTERM or SIGINT asked to stop and exchanges had time to finish."""
        stop = self._stopping.set
        with handling({signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: self._hang_up}):
            await self._stopping.wait()
            await self.drain()

    def stop(self) -> None:
        """Ask `wait` to drain and return."""
        self._stopping.set()

    async def drain(self) -> None:
        """Stop accepting, let exchanges finish for `drain` seconds, then end the rest."""
        log.info("proxy.draining", extra={"exchanges": len(self._live)})
        self._listening.close()
        if self._edge is not None and self._current is not None:
            await self._edge.drain(self._current.snapshot.config.drain)

    async def close(self) -> None:
        """Let go of everything; idempotent."""
        self._stopping.set()
        await self._stack.aclose()

    @property
    def addresses(self) -> list[str]:
        """Where it listens, "host:port", https first."""
        return self._listening.addresses

    @property
    def condition(self) -> str:
        """What it is doing, in one line, for whoever looks after it."""
        if self._stopping.is_set():
            return f"stopping; exchanges still open: {len(self._live)}"
        return self._reloader.ready()[1] or "serving"

    # -- parts ------------------------------------------------------------------------------

    async def _open(self) -> None:
        """Everything that needs the first snapshot; undone by the stack in reverse."""
        prepared = self._current
        assert prepared is not None
        snapshot = prepared.snapshot
        config = snapshot.config
        for reason in exposed(config):
            log.warning("config.secret_exposed", extra={"reason": reason})
        stack = self._stack
        store = SqliteStore(config.state.path, failed=self._metrics.store_errors.add)
        stack.push_async_callback(store.close)
        await store.open()
        context = self._identity(prepared, store)
        access_log = self._access_log = AccessLog(self._access_log_to)
        stack.callback(access_log.close)
        portal = await self._open_portal(context)
        tunnel = Tunnel(bearers=context.programs.bearers, audit=self._audit)
        agents = self._agents
        assert agents is not None
        await agents.open()
        edge = self._edge = Edge(
            snapshot,
            sessions=context.sessions,
            live=self._live,
            portal=portal,
            door=Doors({TUNNEL_PATH: tunnel, AGENT_PATH: agents.door}),
            agents=AgentDialers(
                agents.registry, snapshot=lambda: self._snapshot, now=self._clock.now
            ),
            access_log=access_log,
            audit=self._audit,
            metrics=self._metrics,
            clock=self._clock,
        )
        admission = Admission(Limits.for_process())
        for part in (tunnel, agents, self._reloader, self._certificates, self._listening):
            part.expose(self._metrics)
        lag = LoopLag()
        lag.start()
        stack.callback(lag.stop)
        self._expose(edge, admission, access_log, lag)
        if self._source.boot is None:
            await self._open_admin(config)
        agents.show(self._admin)
        self._show_providers(context.login)
        stack.callback(self._listening.close)
        self._listening.open(config.listeners, edge, admission, self._certificates.context)
        self._background("edge.sweep", edge.sweep)
        self._background("sessions.tick", partial(self._tick, context.sessions))
        self._background("certs.watch", self._certificates.watch)
        self._background("config.watch", self._reloader.run)

    def _identity(self, prepared: _Prepared, store: SqliteStore) -> PortalContext:
        """Everything by which people, programs and machines prove who they are."""
        session = prepared.snapshot.config.session
        sealer = Sealer(prepared.ring)
        sessions = self._sessions = Sessions(
            store,
            sealer,
            self._live,
            lifetime=session.lifetime,
            idle=session.idle,
            clock=self._clock,
        )
        fetcher = Fetcher()
        self._stack.push_async_callback(fetcher.close)
        login = OidcLogin(
            fetcher,
            self._clock,
            redirect_uri=lambda: f"{self._snapshot.login_url}/.heim/callback",
        )
        programs = ProgramIdentity.over(
            sessions,
            store,
            sealer,
            keys=lambda: self._snapshot.signing_keys,
            login_url=lambda: self._snapshot.login_url,
            accounts=lambda: [one.name for one in self._snapshot.config.service_accounts],
            clock=self._clock,
        )
        agents = self._agents = Agents(
            store,
            sessions,
            authority=lambda: self._in_force.authority,
            snapshot=lambda: self._snapshot,
            audit=self._audit,
            clock=self._clock,
        )
        return PortalContext(
            settings=self._portal_settings,
            sessions=sessions,
            sealer=sealer,
            tickets=Tickets(sealer, store),
            store=store,
            login=login,
            programs=programs,
            enrolments=agents.enrolments,
            authority=lambda: agents.authority,
            agents=agents.registry.agents,
            keys=lambda: self._snapshot.signing_keys,
            audit=self._audit,
            clock=self._clock,
            count_login=self._metrics.logins.add,
        )

    async def _open_portal(self, context: PortalContext) -> InProcessDialer:
        runner = portal_runner(build_portal(context))
        self._stack.push_async_callback(runner.cleanup)
        await runner.setup()
        server = runner.server
        assert server is not None
        return InProcessDialer(server)

    async def _open_admin(self, config: Config) -> None:
        admin = self._admin
        admin.check("configuration", self._configuration_check)
        admin.check("draining", self._draining_check)
        admin.check("store", self._store_check)
        admin.debug("connections", self._connections)
        admin.debug(
            "sessions", lambda: {"in_memory": len(self._edge.sessions if self._edge else ())}
        )
        admin.debug("routes", self._hosts)
        self._certificates.show(admin)
        address = config.listeners.admin.address
        where = Path(address.path) if address.path else (address.host, address.port)
        self._stack.push_async_callback(admin.stop)
        try:
            await admin.start(where)
        except OSError as error:
            raise ListenError(f"listeners.admin: {explain(str(address), error)}") from error

    def _background(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = spawn(name, _lasting(name, work))
        self._stack.push_async_callback(partial(cancel, [task]))

    async def _tick(self, sessions: Sessions) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            await sessions.tick(self._clock.now())

    def _hang_up(self) -> None:
        log.info("config.look_asked", extra={"signal": "SIGHUP"})
        self._reloader.look()
        if self._access_log is not None:
            self._access_log.reopen()

    # -- configuration ----------------------------------------------------------------------

    @property
    def _in_force(self) -> _Prepared:
        assert self._current is not None
        return self._current

    @property
    def _snapshot(self) -> Snapshot:
        return self._in_force.snapshot

    def _build(self, config: Config) -> _Prepared:
        """Make everything a configuration needs, without putting any of it in force."""
        state_dir = config.state.path.parent
        session_keys = config.session.key_file
        assertion = config.assertion
        ring = (
            KeyRing.load(session_keys)
            if session_keys is not None
            else KeyRing.load_or_create(state_dir / "session.keys")
        )
        signing = (
            SigningKeys.load(assertion.key_file)
            if assertion is not None and assertion.key_file is not None
            else SigningKeys.load_or_create(state_dir / "assertion.pem")
        )
        snapshot = build(
            config,
            # Its own count: a snapshot that failed to be put in force must not share its number
            # with the next, since grants are remembered by it.
            generation=next(self._generations),
            signing_keys=signing,
            providers=from_config(config.identity.providers),
            pieces=self._pieces,
        )
        certificates = self._certificates.prepare(config, self._source.secrets)
        return _Prepared(snapshot, ring, certificates, authority_of(config))

    def _swap(self, prepared: _Prepared) -> None:
        """Put a built configuration in force: one assignment for every reader."""
        before, self._current = self._current, prepared
        self._certificates.adopt(prepared.certificates)
        config = prepared.snapshot.config
        if self._sessions is not None and before is not None:
            self._sessions.set_keys(prepared.ring)
            limits = (config.session.lifetime, config.session.idle)
            old = before.snapshot.config.session
            if limits != (old.lifetime, old.idle):
                self._sessions.set_limits(*limits)
        if self._edge is not None:
            self._edge.swap(prepared.snapshot)
        if self._agents is not None:
            self._agents.swap()
        self._metrics.keep_backends(prepared.snapshot.backends)

    def _portal_settings(self) -> PortalSettings:
        snapshot = self._snapshot
        return PortalSettings(
            login_host=snapshot.login_host,
            public_url=snapshot.public_url,
            backend_for=snapshot.backend_for,
            max_session_age=snapshot.max_session_age,
            applications=snapshot.applications,
            reachable=partial(reachable, snapshot),
            token_domains=token_domains(snapshot.config),
            providers=snapshot.providers,
            agents=snapshot.agents,
            approver=lambda subject: snapshot.policy.grants(subject).approver,
        )

    # -- what operators see -----------------------------------------------------------------

    def _status(self) -> dict[str, object]:
        return {
            "version": version(),
            **self._reloader.facts(),
            "certificates": dict(self._certificates.not_after()),
            "pid": os.getpid(),
        }

    def _configuration_check(self) -> tuple[bool, str]:
        """Ready with an old configuration, but never silently: the reason is in the answer."""
        ready, words = self._reloader.ready()
        return ready and bool(self._listening), words

    def _draining_check(self) -> tuple[bool, str]:
        draining = self._edge is not None and self._edge.draining
        return (False, "shutting down") if draining else (True, "")

    def _hosts(self) -> dict[str, object]:
        return {"hosts": list(self._snapshot.routes.hosts()) if self._current else []}

    def _connections(self) -> dict[str, object]:
        return {"open": self._edge.connections if self._edge else 0, "exchanges": len(self._live)}

    def _store_check(self) -> tuple[bool, str]:
        return self._sessions.store_check() if self._sessions is not None else (False, "not open")

    def _show_providers(self, login: OidcLogin) -> None:
        """Say which identity providers fail; whoever is signed in does not need them."""

        def troubles() -> dict[str, str]:
            return login.troubles(self._snapshot.providers)

        def check() -> tuple[bool, str]:
            failing = (f"{name} fails: {words}" for name, words in troubles().items() if words)
            return True, "; ".join(failing)

        self._admin.check("providers", check)
        self._metrics.expose(
            "heim_identity_provider_failing",
            lambda: {name: float(bool(words)) for name, words in troubles().items()},
        )

    def _expose(
        self, edge: Edge, admission: Admission, access_log: AccessLog, lag: LoopLag
    ) -> None:
        expose: Callable[[str, Callable[[], Any]], None] = self._metrics.expose
        expose("heim_exchanges", lambda: len(self._live))
        expose("heim_sessions", lambda: len(edge.sessions))
        expose("heim_access_log_dropped_total", lambda: access_log.dropped)
        expose("heim_loop_lag_seconds", lag.read)
        expose("heim_connections_refused_total", admission.refused.read)
        expose("heim_tls_handshake_failures_total", admission.handshake_failures.read)


async def _lasting(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `work`, again whenever it fails: without it, deadlines or revocations would be over."""
    while True:
        try:
            return await work()
        except Exception:
            log.exception("task.restarted", extra={"task": name})
            await asyncio.sleep(_RESTART_S)
