"""An API server that is nothing but one handler: for answers that no API server gives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from heim_controller.kube.client import Client
from heim_controller.kube.exchange import Deadlines
from tests.fakes.kube import Known

__all__ = ["SHORT", "answering", "serving"]

SHORT = Deadlines(connect=0.3, answer=0.3, listing=0.3, silence=0.3)


@asynccontextmanager
async def serving(
    handle: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[Client]:
    """A client of a server that answers with `handle`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    known = Known(f"http://127.0.0.1:{runner.addresses[0][1]}", "t")
    try:
        async with Client(known, deadlines=SHORT) as client:
            yield client
    finally:
        await runner.cleanup()


def answering(answer: object) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler that answers everything with the same JSON."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return web.json_response(answer)

    return handle
