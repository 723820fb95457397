"""Which document the proxy has in force, asked of its admin listener's /status."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Final

import aiohttp

from heim_runtime.clock import Clock, SystemClock

__all__ = ["Applied", "Times"]

log = logging.getLogger(__name__)

# /status is a page of text.
MAX_ANSWER: Final = 256 * 1024
# One line of a condition.
MAX_PROBLEM_CHARS: Final = 500


class Times:
    """How long the parts take, in seconds.

    Attributes:
        answer: For one request.
        eager: Between two requests while the proxy has not applied what is published.
        steady: Between two requests otherwise.
        grace: How long the proxy may take before that is trouble: it may be starting.
    """

    answer: Final = 3.0
    eager: Final = 0.5
    steady: Final = 15.0
    grace: Final = 30.0


class Applied:
    """Asks the proxy; `run` it while leading.

    Attributes:
        digest: Hash of the document in force as far as we know, "".
        problem: Why we do not know, "".
    """

    def __init__(
        self,
        url: str,
        *,
        changed: Callable[[], None],
        clock: Clock | None = None,
    ) -> None:
        """Ask at `url`, or nobody when it is "".

        Args:
            url: The proxy's /status.
            changed: Called when `digest` or `trouble` may say something else.
            clock: Where the time comes from; its monotonic side is read.
        """
        self._url = url
        self._changed = changed
        self._clock: Clock = clock or SystemClock()
        self._wanted = ""
        self._since = self._clock.monotonic()
        self._poked = asyncio.Event()
        self._said = ""
        self._refusal = ""
        self.digest = ""
        self.problem = ""

    def expect(self, digest: str) -> None:
        """This document is published: ask until the proxy has it."""
        if digest != self._wanted:
            self._wanted = digest
            self._since = self._clock.monotonic()
            self._poked.set()

    @property
    def current(self) -> bool:
        """Whether the proxy has what is published."""
        return bool(self._wanted) and self.digest == self._wanted

    @property
    def trouble(self) -> str:
        """Why the proxy does not have what is published, once it had the time; ""."""
        if not self._url or not self._wanted or self.current:
            return ""
        if self._clock.monotonic() - self._since < Times.grace:
            return ""
        if self.problem:
            return f"the proxy does not answer: {self.problem}"
        why = f"it refused one: {self._refusal}" if self._refusal else "its log says why"
        return (
            f"the proxy has the configuration {self.digest[:16] or 'none'} in force and not "
            f"{self._wanted[:16]}; {why}"
        )

    async def run(self) -> None:
        """Ask until cancelled."""
        if not self._url:
            return
        timeout = aiohttp.ClientTimeout(total=Times.answer)
        async with aiohttp.ClientSession(
            timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            while True:
                await self._ask(session)
                await self._rest()

    async def _rest(self) -> None:
        wait = Times.steady if self.current or not self._wanted else Times.eager
        self._poked.clear()
        try:
            async with asyncio.timeout(wait):
                await self._poked.wait()
        except TimeoutError:
            return

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        try:
            digest = await self._read(session)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as e:
            self._note(self.digest, str(e) or type(e).__name__)
        else:
            self._note(digest, "")

    async def _read(self, session: aiohttp.ClientSession) -> str:
        async with session.get(self._url, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError(f"status {response.status}")
            # read(n) returns what has come so far, not n bytes.
            content = bytearray()
            async for chunk in response.content.iter_chunked(16 * 1024):
                content += chunk
                if len(content) > MAX_ANSWER:
                    raise ValueError("more than a page")
        told = json.loads(content)
        if not isinstance(told, dict):
            return ""
        self._refusal = _first_problem(told.get("last_error"))
        return str(told.get("document_hash") or "")

    def _note(self, digest: str, problem: str) -> None:
        if problem and problem != self.problem:
            log.info("controller.proxy_unseen", extra={"url": self._url, "problem": problem})
        self.digest, self.problem = digest, problem
        said = f"{self.digest} {self.trouble}"
        if said != self._said:
            self._said = said
            if self.current:
                log.info("controller.applied", extra={"document": self.digest})
            self._changed()


def _first_problem(error: object) -> str:
    """What the proxy says is wrong with the last configuration that it refused."""
    problems = error.get("problems") if isinstance(error, dict) else None
    return str(problems[0])[:MAX_PROBLEM_CHARS] if isinstance(problems, list) and problems else ""
