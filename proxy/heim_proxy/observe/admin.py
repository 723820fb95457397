"""The operator's listener: is it alive, is it ready and if not why, its numbers, its insides.

An ordinary aiohttp application on an address of its own, never reachable through the public
listeners. `/livez`, `/readyz`, `/status` and `/metrics` may be bound where kubelet and Prometheus
reach them; `/debug/*` answers only when the listener itself is on loopback or a unix socket, and
then only to a loopback `Host`: a page in the operator's own browser could otherwise read it
through a name that resolves to 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from aiohttp import web

from heim_proxy.observe.metrics import CONTENT_TYPE, Metrics

__all__ = ["PAGE", "Admin", "Check"]

# What a check says: whether it holds, and one sentence on what is not well ("" when all is).
Check = Callable[[], tuple[bool, str]]
Facts = Callable[[], object]
# Facts that are many, in order: at most so many of them, from behind a place (words of their own).
Pages = Callable[[int, str], object]

PAGE: Final = 1_000
"""Facts of one page, at most and unless told: 20 ms of the loop with agents."""

# Probes and scrapes are small and local; nobody needs more than this to say GET /readyz.
_MAX_LINE_BYTES: Final = 2048
_MAX_FIELD_BYTES: Final = 4096

# More than Prometheus and kubelet take, few enough that a leak shows.
_KEEPALIVE_S: Final = 75.0
_SHUTDOWN_S: Final = 2.0

_LOOPBACK_NAMES: Final = frozenset(("localhost", "127.0.0.1", "[::1]"))

_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Admin:
    """The admin application and its listener."""

    def __init__(self, metrics: Metrics, *, status: Facts) -> None:
        """Build it; nothing listens yet.

        Args:
            metrics: What /metrics shows.
            status: Called for /status; its answer must be JSON-able and free of secrets.
        """
        self._metrics = metrics
        self._status = status
        self._checks: dict[str, Check] = {}
        self._debug: dict[str, Facts] = {"tasks": _tasks}
        self._pages: dict[str, Pages] = {}
        self._private = False
        self._runner: web.AppRunner | None = None
        self._socket_path: Path | None = None

    def check(self, name: str, check: Check) -> None:
        """Add a condition of readiness; one that raises counts as failed."""
        self._checks[name] = check

    def debug(self, name: str, facts: Facts) -> None:
        """Serve what `facts` returns (JSON-able, free of secrets) as /debug/<name>."""
        self._debug[name] = facts

    def debug_pages(self, name: str, page: Pages) -> None:
        """The same with `?limit=` (1 to PAGE) and `?after=`."""
        self._pages[name] = page

    def ready(self) -> tuple[bool, Mapping[str, str]]:
        """Whether every check holds, and each one's word: "ok" or what is not well."""
        words: dict[str, str] = {}
        good = True
        for name, check in self._checks.items():
            try:
                passed, reason = check()
            except Exception as error:  # noqa: BLE001 - a broken check is a failed one
                passed, reason = False, f"the check failed: {type(error).__name__}"
            # A check may hold and still have something to say, such as "still generation 3".
            words[name] = reason or ("ok" if passed else "failed")
            good = good and passed
        return good, words

    def application(self) -> web.Application:
        """The aiohttp application, for tests and for `start`."""
        app = web.Application(middlewares=[_hardened])
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/status", self._get_status)
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/debug/{name}", self._get_debug)
        return app

    async def start(self, address: tuple[str, int] | Path) -> None:
        """Listen.

        Args:
            address: Host and port, or the path of a unix socket (created with mode 0600; a stale
                one is replaced).

        Raises:
            OSError: When the address is taken or not ours.
        """
        runner = web.AppRunner(
            self.application(),
            access_log=None,
            handle_signals=False,
            keepalive_timeout=_KEEPALIVE_S,
            shutdown_timeout=_SHUTDOWN_S,
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_FIELD_BYTES,
        )
        await runner.setup()
        try:
            if isinstance(address, Path):
                _remove_stale(address)
                self._private = True
                site: web.BaseSite = web.SockSite(runner, _unix_socket(address))
                self._socket_path = address
            else:
                self._private = _is_loopback(address[0])
                site = web.TCPSite(runner, *address)
            await site.start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner

    async def stop(self) -> None:
        """Stop listening and end its connections; harmless when not started."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
        path, self._socket_path = self._socket_path, None
        if path is not None:
            path.unlink(missing_ok=True)

    @property
    def addresses(self) -> list[object]:
        """Where it listens: (host, port, ...) tuples or socket paths."""
        return [] if self._runner is None else list(self._runner.addresses)

    async def _livez(self, request: web.Request) -> web.Response:
        # That this runs is the answer: the loop turns.
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        good, words = self.ready()
        return _json({"ready": good, "checks": words}, status=200 if good else 503)

    async def _get_status(self, request: web.Request) -> web.Response:
        return _json(self._status())

    async def _get_metrics(self, request: web.Request) -> web.Response:
        body = await asyncio.to_thread(self._metrics.read())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _get_debug(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        facts, page = self._debug.get(name), self._pages.get(name)
        private = self._private and _is_loopback_name(request.host)
        if (facts is None and page is None) or not private:
            raise web.HTTPNotFound(text="not found\n")
        found = facts() if facts is not None else None
        if page is not None:
            found = page(_limit(request), request.query.get("after", ""))
        # In a thread: a page has a megabyte, and only Python writes it with line ends.
        return web.json_response(text=await asyncio.to_thread(_text, found))


@web.middleware
async def _hardened(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.headers.update(_HEADERS)
        raise
    response.headers.update(_HEADERS)
    return response


def _json(value: object, *, status: int = 200) -> web.Response:
    return web.json_response(text=_text(value), status=status)


def _text(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


def _limit(request: web.Request) -> int:
    written = request.query.get("limit", str(PAGE))
    number = int(written) if written.isascii() and written.isdecimal() and len(written) < 8 else 0
    if not 1 <= number <= PAGE:
        raise web.HTTPBadRequest(text=f"limit is a number from 1 to {PAGE}\n")
    return number


def _tasks() -> object:
    """Every task and where it waits; no local variables, which may be secret."""
    found = []
    for task in asyncio.all_tasks():
        frames = task.get_stack(limit=1)
        where = f"{frames[0].f_code.co_qualname}:{frames[0].f_lineno}" if frames else "running"
        found.append({"name": task.get_name(), "at": where})
    return sorted(found, key=lambda task: task["name"])


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_loopback_name(host: str) -> bool:
    """Whether a Host header names this machine to itself, with or without a port."""
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdigit():
        name = host
    return name.lower() in _LOOPBACK_NAMES


def _unix_socket(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # bind creates the file; until chmod it would be whatever the umask allows.
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket of a process that died; one that answers stays, and bind will say so."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError:
            return
