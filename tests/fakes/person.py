"""Somebody at a browser who is signed in at a `Heim` and decides about logins of heim-tunnel."""

from __future__ import annotations

import asyncio
import html
import re
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from heim_proxy.access.subject import Subject
from tests.fakes.heim import LOGIN_HOST, Answer, Heim

__all__ = ["Person"]

_FORM = {"Origin": f"https://{LOGIN_HOST}", "Content-Type": "application/x-www-form-urlencoded"}


@dataclass
class Person:
    """Their browser's session is `cookie`."""

    heim: Heim
    cookie: str

    @classmethod
    async def of(cls, heim: Heim, who: Subject) -> Person:
        return cls(heim, await heim.signed_in(who, LOGIN_HOST))

    async def allow(self, text: str) -> str:
        """Open the address in a line of heim-tunnel, press Allow; the last page."""
        return await self.decide(text, "approve")

    async def decide(self, text: str, decision: str) -> str:
        found = re.search(rf"https://{LOGIN_HOST}(/\S+)", text)
        assert found is not None, text
        asked = await self.open(found[1])
        assert asked.status == 200, asked.text
        decided = await self.press(asked, decision=decision)
        assert decided.status == 303, decided.text
        location = decided.get("location")
        assert location is not None
        return await self._follow(location)

    async def type_code(self, text: str, decision: str = "approve") -> str:
        """Type the code in a line of heim-tunnel or heim-agent; the last page."""
        asked = await self.typed(text)
        assert asked.status == 200, asked.text
        return (await self.press(asked, decision=decision)).text

    async def typed(self, text: str) -> Answer:
        """What typing the code in such a line leads to; nothing is decided yet."""
        found = re.search(rf"https://{LOGIN_HOST}(/\S+) .* code (\S+)", text)
        assert found is not None, text
        return await self.press(await self.open(found[1]), code=found[2])

    async def open(self, target: str) -> Answer:
        return await self.heim.request(target, host=LOGIN_HOST, cookie=self.cookie)

    async def press(self, shown: Answer, **fields: str) -> Answer:
        """Press a button of a page."""
        action = re.search(r'<form method="post" action="([^"]*)"', shown.text)
        assert action is not None, shown.text
        hidden = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', shown.text)
        form = {name: html.unescape(value) for name, value in hidden}
        return await self.heim.request(
            html.unescape(action[1]),
            host=LOGIN_HOST,
            method="POST",
            cookie=self.cookie,
            headers=tuple(_FORM.items()),
            body=urlencode(form | fields).encode(),
        )

    async def _follow(self, location: str) -> str:
        """Go where heim-tunnel listens, as the browser does."""
        parts = urlsplit(location)
        assert parts.hostname == "127.0.0.1"
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", parts.port)
            writer.write(
                f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
            )
            page = (await reader.read()).decode()
            writer.close()
        return page
