"""Becoming an agent at a proxy in a process of its own: with a token, by a code, and no more."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from heim_proxy.agents.agent_keys import AgentKey
from heim_wire.agents import ENROL_PATH, ENROLLED_PATH, JOIN_PATH
from heim_wire.errors import Code
from tests.fakes import agent
from tests.fakes.agent import certificate_request
from tests.fakes.heim import LOGIN_HOST, Answer, authority, user
from tests.fakes.person import Person
from tests.integration.process import Finished, HeimProcess, heim_proxy, running
from tests.integration.setup import public_backend

pytestmark = pytest.mark.timeout(60)

HEIM_AGENT = str(Path(sys.executable).with_name("heim-agent"))
AGENTS = "/.heim/agents"

CONFIGURED: list[dict[str, Any]] = [
    {"name": "desktop", "targets": ["ssh", "web"]},
    {"name": "pool", "targets": ["web"], "group": True},
]
ROLES = [
    {
        "name": "keepers",
        "members": [{"user": "alice@example.com"}],
        "bindings": [],
        "approve_agents": True,
    }
]


@pytest.fixture
async def heim(tmp_path: Path) -> AsyncIterator[HeimProcess]:
    """A proxy with two agents that may exist, and alice, who may let them in."""
    backends = [public_backend("http://127.0.0.1:9")]
    async with running(tmp_path, backends=backends, roles=ROLES, agents=CONFIGURED) as started:
        yield started


@dataclass
class Machine:
    """A machine with a key, and a plain HTTPS client."""

    heim: HeimProcess
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    @property
    def fingerprint(self) -> str:
        return AgentKey(self.key.public_key()).fingerprint

    async def post(self, path: str, **document: object) -> Answer:
        return await self.heim.request(
            path,
            host=LOGIN_HOST,
            method="POST",
            headers=(("Content-Type", "application/json"), ("Accept", "application/json")),
            body=json.dumps(document).encode(),
        )

    @property
    def _facts(self) -> dict[str, object]:
        csr = base64.b64encode(certificate_request(self.key)).decode()
        return {"csr": csr, "device": "box-7", "version": "0.4.0"}

    async def join(self, token: str) -> Answer:
        return await self.post(JOIN_PATH, token=token, **self._facts)

    async def ask(self, name: str = "desktop") -> dict[str, Any]:
        return said(await self.post(ENROL_PATH, name=name, **self._facts))

    async def let_in(self, asked: dict[str, Any]) -> Answer:
        """Ask until somebody decided."""
        async with asyncio.timeout(20):
            while True:
                answer = await self.post(ENROLLED_PATH, device_code=asked["device_code"])
                if answer.status not in (202, 429):
                    return answer
                await asyncio.sleep(0.1)


def said(answer: Answer, status: int = 200) -> dict[str, Any]:
    assert answer.status == status, answer.text
    found: dict[str, Any] = json.loads(answer.body)
    return found


def line_of(asked: dict[str, Any]) -> str:
    """What the machine's screen says, as far as people need it."""
    return f"open {asked['verification_uri']} and type the code {asked['user_code']} "


def verified(answer: dict[str, Any], machine: Machine) -> x509.Certificate:
    """The certificate of an answer, once it is for that machine and by the roots in the answer."""
    made = x509.load_der_x509_certificate(base64.b64decode(answer["certificate"]))
    assert made.public_key() == machine.key.public_key()
    root = answer["roots"][0]
    x, y = (int.from_bytes(base64.urlsafe_b64decode(root[axis] + "==")) for axis in "xy")
    signer = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    assert made.signature_hash_algorithm is not None
    signer.verify(
        made.signature, made.tbs_certificate_bytes, ec.ECDSA(made.signature_hash_algorithm)
    )
    return made


async def command(heim: HeimProcess, *args: str) -> Finished:
    return await heim_proxy("agent", *args, "--config", str(heim.config_file))


async def token_for(heim: HeimProcess, name: str = "desktop", *options: str) -> str:
    made = await command(heim, "token", "create", name, *options)
    assert made.status == 0, made.err
    assert re.fullmatch(r"heim_jt_\S+\n", made.out)
    return made.out.strip()


async def listed(heim: HeimProcess, *options: str) -> list[list[str]]:
    """Columns of `agent list`: id, agent, device, key, joined, last seen, state."""
    found = await command(heim, "list", *options)
    assert found.status == 0, found.err
    return [line.split("\t") for line in found.out.splitlines()]


async def test_a_machine_joins_with_a_token_and_is_revoked(heim: HeimProcess) -> None:
    """52: the token's way from the command line to a certificate, and what is left of it."""
    token, machine = await token_for(heim), Machine(heim)
    answer = said(await machine.join(token))
    assert (answer["agent"], answer["targets"], answer["group"]) == (
        "desktop", ["ssh", "web"], False,
    )  # fmt: skip
    assert answer["login_url"] == f"https://{LOGIN_HOST}"
    (san,) = (
        verified(answer, machine)
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
    )
    assert san.value == f"spiffe://{LOGIN_HOST}/agent/desktop"

    again = await Machine(heim).join(token)
    assert said(again, 403)["code"] == "token_used"
    tokens = await command(heim, "token", "list", "--all")
    assert "used" in tokens.out
    rows = {row[1]: row for row in await listed(heim)}
    assert (rows["desktop"][2], rows["desktop"][-1]) == ("box-7", "live")
    assert rows["pool"][-1] == "not joined"
    (joined,) = heim.events("agent.joined")
    assert (joined["agent"], joined["via"], joined["fingerprint"], joined["client"]) == (
        "desktop", "token", machine.fingerprint, "127.0.0.1",
    )  # fmt: skip
    assert joined["sid"] == rows["desktop"][0]

    taken = await Machine(heim).join(await token_for(heim))
    assert said(taken, 409)["code"] == "name_taken"
    revoked = await command(heim, "revoke", "desktop")
    assert (revoked.status, "agent.revoked" in revoked.err) == (0, True)
    assert [row[-1] for row in await listed(heim) if row[1] == "desktop"] == ["not joined"]
    assert (await command(heim, "revoke", "desktop")).status == 1
    assert (await Machine(heim).join(await token_for(heim))).status == 200


async def test_a_machine_takes_a_name_over_with_a_token_that_says_so(heim: HeimProcess) -> None:
    await Machine(heim).join(await token_for(heim))
    ((first, *_),) = [row for row in await listed(heim) if row[1] == "desktop"]
    replacing = await token_for(heim, "desktop", "--replace")
    assert (await Machine(heim).join(replacing)).status == 200
    ((second, *_),) = [row for row in await listed(heim) if row[1] == "desktop"]
    assert second != first
    assert heim.events("agent.joined")[-1]["replaced"] == 1


async def test_somebody_lets_a_machine_in_by_its_code(heim: HeimProcess) -> None:
    machine, alice = Machine(heim), await Person.of(heim, user("alice"))
    asked = await machine.ask()
    assert asked["fingerprint"] == machine.fingerprint
    assert asked["verification_uri"] == f"https://{LOGIN_HOST}{AGENTS}"
    assert said(await machine.post(ENROLLED_PATH, device_code=asked["device_code"]), 202) == {
        "status": "pending"
    }
    page = await alice.typed(line_of(asked))
    assert page.status == 200
    for shown in ("desktop", "ssh, web", machine.fingerprint, "box-7", "127.0.0.1"):
        assert shown in page.text
    done = await alice.press(page, decision="approve")
    assert "let in" in done.text
    answer = said(await machine.let_in(asked))
    verified(answer, machine)
    assert answer["agent"] == "desktop"
    text = (await alice.open(AGENTS)).text
    assert "box-7" in text
    assert "never joined" in text
    (approved,) = heim.events("agent.enrolment_approved")
    assert (approved["email"], approved["agent"], approved["fingerprint"]) == (
        "alice@example.com", "desktop", machine.fingerprint,
    )  # fmt: skip
    await command(heim, "revoke", "desktop")
    assert "box-7" not in (await alice.open(AGENTS)).text


async def test_what_joining_gave_opens_a_lane_until_it_is_revoked(heim: HeimProcess) -> None:
    """The page of agents says since when and from where; revoking ends the lane within 2 s."""
    machine, alice = Machine(heim), await Person.of(heim, user("alice"))
    answer = said(await machine.join(await token_for(heim)))
    assert "never connected" in (await alice.open(AGENTS)).text
    joined = agent.Machine("desktop", base64.b64decode(answer["certificate"]), machine.key)
    lane = await agent.ScriptedAgent.connect(heim, joined)
    text = (await alice.open(AGENTS)).text
    assert re.search(r"<dt>Connected</dt><dd>since [^<]*, from 127\.0\.0\.1</dd>", text)
    await command(heim, "revoke", "desktop")
    await lane.over(within_s=2.0)
    assert lane.goaway is not None
    assert lane.goaway.code == Code.REVOKED
    assert "Connected" not in (await alice.open(AGENTS)).text


async def test_a_no_and_somebody_without_the_right(heim: HeimProcess) -> None:
    machine = Machine(heim)
    alice, bob = await Person.of(heim, user("alice")), await Person.of(heim, user("bob"))
    asked = await machine.ask()
    refused = await heim.request(
        AGENTS, host=LOGIN_HOST, cookie=bob.cookie, headers=(("Accept", "text/html"),)
    )
    assert refused.status == 403
    assert "You may not let agents in." in refused.text
    assert "refused" in await alice.type_code(line_of(asked), "deny")
    assert said(await machine.let_in(asked), 403)["code"] == "denied"
    assert all(row[-1] == "not joined" for row in await listed(heim))


async def test_who_waits_and_who_joined_outlive_a_restart(heim: HeimProcess) -> None:
    machine, other = Machine(heim), Machine(heim)
    first = said(await other.join(await token_for(heim, "pool")))
    token, asked = await token_for(heim, "pool"), await machine.ask()
    heim.signal(signal.SIGTERM)
    await heim.process.wait()
    await heim.launch()
    alice = await Person.of(heim, user("alice"))
    assert "let in" in await alice.type_code(line_of(asked))
    answer = said(await machine.let_in(asked))
    assert answer["roots"] == first["roots"], "the authority is kept beside the state"
    assert (await Machine(heim).join(token)).status == 200
    assert sorted(row[1] for row in await listed(heim)) == ["desktop", "pool", "pool"]


async def test_51_nothing_that_opens_a_door_is_left_anywhere(heim: HeimProcess) -> None:
    token, unused = await token_for(heim), await token_for(heim, "pool")
    await Machine(heim).join(token)
    await Machine(heim).join(token)
    machine, alice = Machine(heim), await Person.of(heim, user("alice"))
    asked = await machine.ask("pool")
    await alice.type_code(line_of(asked))
    await machine.let_in(asked)
    shown = (await command(heim, "token", "list", "--all")).out + (await command(heim, "list")).out
    files = [path for path in heim.directory.rglob("*") if path.is_file()]
    kept = b"".join(path.read_bytes() for path in files) + shown.encode()
    assert b"agent.joined" in kept
    for secret in (token, unused, asked["device_code"], asked["user_code"]):
        assert secret[len(secret) // 2 :].encode() not in kept
    private = {path.name: path.stat().st_mode & 0o777 for path in files if path.suffix == ".key"}
    assert private["agents-ca.key"] == 0o600


# -- the real program ---------------------------------------------------------------------------


@dataclass
class Joining:
    """`heim-agent join` under way."""

    process: asyncio.subprocess.Process
    said: str = ""

    @classmethod
    async def start(cls, heim: HeimProcess, *args: str, token: str | None = None) -> Joining:
        ca_file = heim.directory / "ca.pem"
        authority().cert_pem.write_to_path(ca_file)
        process = await asyncio.create_subprocess_exec(
            HEIM_AGENT, "join", f"https://{LOGIN_HOST}", "--ca-file", str(ca_file),
            "--connect-to", f"127.0.0.1:{heim.https_port}",
            "--state", str(heim.directory / "agent"), *args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith("HEIM")},
        )  # fmt: skip
        assert process.stdin is not None
        if token is not None:
            process.stdin.write(f"{token}\n".encode())
        process.stdin.close()
        return cls(process)

    async def until(self, text: str) -> str:
        """The first line with this text."""
        assert self.process.stderr is not None
        async with asyncio.timeout(15):
            while True:
                line = (await self.process.stderr.readline()).decode()
                assert line, self.said
                self.said += line
                if text in line:
                    return line

    async def end(self) -> int:
        assert self.process.stderr is not None
        async with asyncio.timeout(25):
            self.said += (await self.process.stderr.read()).decode()
            return await self.process.wait()


async def test_heim_agent_joins_with_a_token(heim: HeimProcess) -> None:
    joining = await Joining.start(heim, "--token-file", "-", token=await token_for(heim))
    assert await joining.end() == 0, joining.said
    (joined,) = heim.events("agent.joined")
    assert joined["fingerprint"] in joining.said
    assert [row[-1] for row in await listed(heim) if row[1] == "desktop"] == ["live"]


async def test_heim_agent_is_let_in_and_people_compare_the_same_key(heim: HeimProcess) -> None:
    alice = await Person.of(heim, user("alice"))
    joining = await Joining.start(heim, "--name", "desktop")
    page = await alice.typed(await joining.until("type the code"))
    (shown,) = re.findall(r"<code>(SHA256:[^<]+)</code>", page.text)
    assert shown in joining.said
    assert "let in" in (await alice.press(page, decision="approve")).text
    assert await joining.end() == 0, joining.said
    assert [row[-1] for row in await listed(heim) if row[1] == "desktop"] == ["live"]


async def test_heim_agent_is_told_why_it_is_not_let_in(heim: HeimProcess) -> None:
    token = await token_for(heim)
    await Machine(heim).join(token)
    joining = await Joining.start(heim, "--token-file", "-", token=token)
    assert await joining.end() == 77
    assert "was used" in joining.said
    assert token not in joining.said
