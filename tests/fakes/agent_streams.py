"""The proxy's side of an agent's streams: assertions it signs, OPENs it sends, what comes back.

`Signer` makes assertions, right or wrong in one way. `served` puts a real `Serving` at one end of a
real carriage; `Site.open` plays the proxy at the other.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt

from heim_agent.config import Settings
from heim_agent.identity import Identity
from heim_agent.key import AgentKey
from heim_agent.places import Places
from heim_agent.serving import Serving
from heim_agent.targets import Target
from heim_wire.agents import STREAM_TYPE
from heim_wire.aio.channel import Channel
from heim_wire.events import Opened
from heim_wire.stream import Stream
from tests.fakes.lane_host import AGENT, LOGIN_HOST, Root
from tests.fakes.waiting import until
from tests.unit.wire.passages import End, carriage

__all__ = ["LOGIN_URL", "Asked", "Signer", "Site", "identity_of", "served", "settings_of", "tcp"]

LOGIN_URL = f"https://{LOGIN_HOST}"


def tcp(name: str, port: int, **more: Any) -> Target:
    """A target on 127.0.0.1."""
    return Target(name=name, host="127.0.0.1", port=port, **more)


def settings_of(*targets: Target) -> Settings:
    return Settings(targets={target.name: target for target in targets})


def identity_of(directory: Path, signer: Signer, root: Root | None = None) -> Identity:
    """A joined agent that knows `signer` already; on the disk, too."""
    root = root or Root()
    key = AgentKey.generate()
    certificate = root.certificate(key._private.public_key())
    places = Places(config=str(directory / "agent.toml"), state=str(directory / "state"))
    identity = Identity(
        agent=AGENT, login_url=LOGIN_URL, key=key, certificate=certificate,
        roots=[root.jwk], keys=[signer.jwk], places=places,
    )  # fmt: skip
    identity.save_joined(None)
    return identity


class Signer(Root):
    """The proxy's key for assertions."""

    def claims(self, audience: str, target: str, **changed: object) -> dict[str, object]:
        """What a right assertion for alice says; a claim that is changed to None is left out."""
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": LOGIN_URL,
            "aud": audience,
            "kind": "person",
            "sub": "1001",
            "name": "alice@example.com",
            "email": "alice@example.com",
            "groups": ["ops"],
            "roles": ["prod-ssh"],
            "backend": "desktop-ssh",
            "target": target,
            "sid": "00112233445566aa",
            "gen": 7,
            "src": "203.0.113.9",
            "jti": secrets.token_urlsafe(16),
            "iat": now,
            "exp": now + 60,
        } | changed
        return {name: value for name, value in claims.items() if value is not None}

    def assertion(
        self,
        audience: str,
        target: str = "ssh",
        *,
        header: Mapping[str, object] | None = None,
        **changed: object,
    ) -> str:
        """A signed one. `header` replaces header fields; None takes one out."""
        fields = {"typ": STREAM_TYPE, "kid": self.kid, **(header or {})}
        return self.encode(self.claims(audience, target, **changed), fields)

    def encode(self, claims: Mapping[str, object], fields: Mapping[str, object]) -> str:
        """A JWT with any header, signed with ES256 whatever that says."""
        shown = {"alg": "ES256", **fields}
        parts = [_part({n: v for n, v in shown.items() if v is not None}), _part(claims)]
        signed = ".".join(parts).encode()
        algorithm = jwt.get_algorithm_by_name("ES256")
        return f"{signed.decode()}.{_b64url(algorithm.sign(signed, self.key))}"


def _part(found: Mapping[str, object]) -> str:
    return _b64url(json.dumps(found, separators=(",", ":")).encode())


def _b64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass
class Asked:
    """A stream that the proxy opened (its `context`). What came is in the fields."""

    stream: Stream
    channel: Channel
    answer: Mapping[str, object] | None = None
    received: bytearray = field(default_factory=bytearray)
    is_ended: bool = False
    is_finished: bool = False
    refusal: tuple[int, str] | None = None

    def data(self, payload: bytes | memoryview) -> None:
        self.received += payload
        self.stream.consumed(len(payload))
        self.channel.wake()

    def accepted(self, message: Mapping[str, object]) -> None:
        self.answer = message

    def drained(self) -> None:
        pass

    def ended(self) -> None:
        self.is_ended = True

    def finished(self) -> None:
        self.is_finished = True

    def reset(self, code: int, reason: str) -> None:
        self.refusal = (code, reason)

    # What the proxy does.

    def send(self, data: bytes) -> None:
        self.stream.send(data)
        self.channel.wake()

    def end(self) -> None:
        self.stream.end()
        self.channel.wake()

    def cut(self, code: int, reason: str) -> None:
        self.stream.reset(code, reason)
        self.channel.wake()

    async def opened(self) -> Mapping[str, object]:
        """The ACCEPT."""
        await until(lambda: self.answer is not None or self.refusal)
        assert self.answer is not None, self.refusal
        return self.answer

    async def refused(self) -> tuple[int, str]:
        """The RESET's code and reason."""
        await until(lambda: self.refusal)
        assert self.refusal is not None
        return self.refusal

    async def got(self, data: bytes) -> None:
        """Wait until exactly these bytes have come."""
        await until(lambda: len(self.received) >= len(data) or self.refusal)
        assert bytes(self.received) == data, self.refusal


@dataclass
class Site:
    """An agent that serves, and the proxy that asks."""

    identity: Identity
    signer: Signer
    serving: Serving
    near: End
    far: End
    # What the proxy's clock says beyond ours.
    ahead_s: float = 0.0

    def open(self, target: object = "ssh", **message: object) -> Asked:
        """OPEN with a right assertion; `message` replaces fields, None takes one out."""
        fields: dict[str, object] = {
            "target": target,
            "proto": "tcp",
            "deadline_ms": 5000,
            "request_id": "01JREQUEST",
            "assertion": self.signer.assertion(self.identity.key.thumbprint, str(target)),
        } | message
        channel = self.far.channel
        stream = channel.session.open({n: v for n, v in fields.items() if v is not None})
        asked = Asked(stream, channel)
        stream.context = asked
        channel.wake()
        return asked

    def assertion(self, target: str = "ssh", **changed: Any) -> str:
        return self.signer.assertion(self.identity.key.thumbprint, target, **changed)

    def deliver(self, channel: Channel, event: Opened) -> None:
        """What a lane does with an OPEN."""
        now = time.time() + self.ahead_s
        self.serving.opened(channel, event.stream, event.message, now=now)

    async def quiet(self) -> None:
        """Wait until nothing is served any more."""
        await until(lambda: not self.serving.streams)


@asynccontextmanager
async def served(directory: Path, *targets: Target) -> AsyncIterator[Site]:
    """An agent with these targets on a lane of its own, for the block."""
    signer = Signer()
    identity = identity_of(directory, signer)
    serving = Serving(identity, settings_of(*targets))
    async with carriage(single=False) as (near, far):
        site = Site(identity, signer, serving, near, far)
        near.watcher.opened = site.deliver
        yield site
        for asked in list(far.channel.session._streams.live.values()):
            asked.reset(12, "the test is over")
        far.channel.wake()
        await site.quiet()
