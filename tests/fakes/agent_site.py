"""A proxy whose backends are behind scripted agents: `ssh` and others by tcp, `wiki` by http.

Agent `desktop` has the targets of `TARGETS`; `farm` is a group with one. Nobody is connected until
a test says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jwt

from heim_proxy.access.subject import Subject
from heim_wire.agents import STREAM_TYPE
from tests.fakes.agent import Machine, ScriptedAgent, Served, enrolled
from tests.fakes.heim import DOMAIN, Answer, Heim, user
from tests.fakes.sessions import ManualClock
from tests.fakes.site import Site
from tests.fakes.tunnel import Login, TunnelClient, cli_login, tunnel_head, tunnel_role

__all__ = ["TARGETS", "AgentSite", "agent_site", "host"]

TARGETS: Final = ("ssh", "hole", "web", "tls", "wiki")
ALL: Final = {"name": "all", "locations": [{"any": "/"}]}
EVERYBODY: Final = [{"domain": "example.com"}]


def host(backend: str) -> str:
    return f"{backend}.{DOMAIN}"


def through(name: str, target: str, *, agent: str = "desktop", **more: Any) -> dict[str, Any]:
    """A backend over http; `more` are further keys of it, `scheme` of its route."""
    route = {"path": "/", "agent": agent, "target": target}
    if "scheme" in more:
        route["scheme"] = more.pop("scheme")
    return {
        "name": name,
        "http": [route],
        **({} if more.get("public") else {"permissions": [ALL]}),
    } | more


def tcp_through(name: str, target: str, *, agent: str = "desktop", **more: Any) -> dict[str, Any]:
    return {"name": name, "tcp": {"agent": agent, "target": target}, **more}


@dataclass
class AgentSite(Site):
    """What a test has in hand. `agents` are lanes that it opened, `clients` streams of people."""

    machine: Machine
    login: Login
    agents: list[ScriptedAgent] = field(default_factory=list)
    clients: list[TunnelClient] = field(default_factory=list)

    # -- agents -----------------------------------------------------------------------------

    async def agent(self, machine: Machine | None = None, **keys: Any) -> ScriptedAgent:
        """A lane that is ready; `targets` are its scripts, echo without."""
        agent = await ScriptedAgent.connect(self.heim, machine or self.machine, **keys)
        self.agents.append(agent)
        return agent

    async def join(self, name: str, **keys: Any) -> Machine:
        """A further machine."""
        return await enrolled(self.heim, name, **keys)

    @property
    def served(self) -> list[Served]:
        """Every stream that any agent was asked for."""
        return [one for agent in self.agents for one in agent.served]

    def claims(self, served: Served, machine: Machine | None = None) -> dict[str, Any]:
        """What an agent is told with a stream, verified as an agent does."""
        token = str(served.message["assertion"])
        header = jwt.get_unverified_header(token)
        assert header["typ"] == STREAM_TYPE
        keys = {one["kid"]: one for one in self.heim.proxy._snapshot.signing_keys.jwks()["keys"]}
        found: dict[str, Any] = jwt.decode(
            token,
            jwt.PyJWK(keys[header["kid"]]).key,
            algorithms=["ES256"],
            audience=(machine or self.machine).thumbprint,
            issuer=self.heim.proxy._snapshot.login_url,
            options={"verify_exp": False, "verify_iat": False},
        )
        return found

    # -- people -----------------------------------------------------------------------------

    async def connect(self, at: str = "ssh", **keys: Any) -> TunnelClient:
        """A running stream of alice's."""
        token = keys.pop("token", None) or self.login.token()
        client = await TunnelClient.connect(self.heim, token, host=host(at), **keys)
        self.clients.append(client)
        return client

    async def refused(self, at: str = "ssh", **keys: Any) -> tuple[Answer, dict[str, Any]]:
        """The answer to a stream of alice's that does not come about."""
        token = keys.pop("token", None) or self.login.token()
        wire = await self.heim.connect(host(at))
        wire.send(tunnel_head(token, host=host(at), **keys))
        found = await wire.answer()
        wire.close()
        return found, json.loads(found.body)

    async def get(
        self, target: str = "/", *, who: Subject | str | None = None, **keys: Any
    ) -> Answer:
        """A request for the wiki by alice, or whoever else; "" for nobody."""
        at = host(keys.pop("backend", "wiki"))
        cookie = (
            None
            if who == ""
            else await self.heim.signed_in(who if isinstance(who, Subject) else user("alice"), at)
        )
        return await self.heim.request(target, host=at, cookie=cookie, **keys)


@asynccontextmanager
async def agent_site(directory: Path, **more: Any) -> AsyncIterator[AgentSite]:
    """A running site. `backends` and `roles` are added to its own, `more` are other keys."""
    clock = ManualClock(time.time())
    short = {"timeouts": {"connect": "1s", "first_byte": "1s"}}
    insecure = {"upstream_tls": {"insecure": True}}
    backends = [
        tcp_through("ssh", "ssh"),
        tcp_through("hole", "hole", timeouts={"connect": "1s"}),
        tcp_through("farm", "ssh", agent="farm"),
        through("wiki", "web", **short),
        through("open", "web", public=True, **short),
        through("safe", "tls", scheme="https", **insecure, **short),
        *more.pop("backends", []),
    ]
    roles = [
        tunnel_role("ops", "ssh", "hole", "farm"),
        {
            "name": "readers",
            "members": EVERYBODY,
            "bindings": [{"backend": name, "permission": "all"} for name in ("wiki", "safe")],
        },
        *more.pop("roles", []),
    ]
    agents = [
        {"name": "desktop", "targets": list(TARGETS)},
        {"name": "farm", "targets": ["ssh"], "group": True},
        *more.pop("agents", []),
    ]
    heim = await Heim.start(
        directory, backends=backends, roles=roles, agents=agents, clock=clock, **more
    )
    login = await cli_login(heim, user("alice"))
    site = AgentSite(heim, clock, await enrolled(heim, "desktop"), login)
    try:
        yield site
    finally:
        for one in (*site.clients, *site.agents):
            one.abort()
        await heim.stop()
