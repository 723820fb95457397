"""The parts of judging that need a store that fails; the rest is in tests/hostile/test_o_agents."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from heim_proxy.agents.authority import Authority
from heim_proxy.agents.judging import RENEW_WITHIN_S, RENEWABLE_S, Admitted, Claim, Judge
from heim_proxy.agents.proof import Challenge, Greeting, Proof
from heim_proxy.agents.refused import LaneRefused
from heim_proxy.routing import AgentGrant
from heim_proxy.store.base import StoreUnavailable
from heim_wire.agents import proof_bytes
from heim_wire.errors import Code
from tests.fakes.agent import thumbprint

NOW = time.time()
DAY_S = 86_400.0
KEY = ec.generate_private_key(ec.SECP256R1())
SPKI = bytes(32)
CHALLENGE = Challenge("n" * 43, "r1", "auth.example.test")
GREETING = Greeting("desktop", "0" * 32, 0, "m" * 43, "1", "box")


@dataclass
class Row:
    sid: str = "sid-1"


@dataclass
class Session:
    usable: bool = True


@dataclass
class Stage:
    """Everything a judge asks, and what it is told."""

    authority: Authority
    agents: dict[str, AgentGrant] = field(
        default_factory=lambda: {"desktop": AgentGrant("desktop", frozenset({"ssh"}))}
    )
    row: Any = field(default_factory=Row)
    session: Any = field(default_factory=Session)
    problem: Exception | None = None
    asked: list[Any] = field(default_factory=list)
    meanwhile: Any = lambda: None
    patience_s: float = 3.0

    async def bound(self, name: str, key: bytes) -> Any:
        self.asked.append((name, key))
        await asyncio.sleep(0)
        if self.problem is not None:
            raise self.problem
        self.meanwhile()
        return self.row

    async def get(self, sid: str, now: float) -> Any:
        self.asked.append(sid)
        return self.session

    def judge(self) -> Judge:
        stage: Any = self
        return Judge(
            authority=lambda: self.authority,
            snapshot=lambda: stage,
            enrolments=stage,
            sessions=stage,
            patience_s=self.patience_s,
        )

    def claim(self, *, made: float = NOW, **more: Any) -> Claim:
        signed = proof_bytes(
            nonce=CHALLENGE.nonce, replica="r1", host=CHALLENGE.host, spki=SPKI, agent="desktop",
            boot=GREETING.boot, lane=0,
        )  # fmt: skip
        certificate = self.authority.issue(
            KEY.public_key(), name=more.pop("name", "desktop"), now=made
        )
        key = more.pop("key", KEY)
        return Claim(
            GREETING, CHALLENGE, Proof(certificate, key.sign(signed, ec.ECDSA(SHA256()))), (SPKI,)
        )

    async def outcome(self, now: float = NOW, **more: Any) -> Admitted | int:
        try:
            return await self.judge().judge(self.claim(**more), now)
        except LaneRefused as refused:
            return refused.code


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(Authority.load_or_create(tmp_path, login_host="auth.example.test"))


async def test_a_machine_that_is_enrolled_comes_in_until_its_certificate_ends(
    stage: Stage,
) -> None:
    admitted = await stage.outcome()
    assert isinstance(admitted, Admitted)
    assert admitted.session is stage.session
    assert admitted.verified.name == "desktop"
    assert abs(admitted.until - NOW - DAY_S) < 2
    assert stage.asked == [("desktop", thumbprint(KEY.public_key())), "sid-1"]


@pytest.mark.parametrize(
    ("after_s", "outcome"),
    [
        (DAY_S - 10, None),
        (DAY_S + 10, RENEW_WITHIN_S),
        (DAY_S + RENEWABLE_S - 10, RENEW_WITHIN_S),
        (DAY_S + RENEWABLE_S + 10, Code.EXPIRED),
    ],
    ids=["in time", "over", "long over", "too long"],
)
async def test_an_old_certificate_is_good_for_renewing(
    stage: Stage, after_s: float, outcome: float | None
) -> None:
    judged = await stage.outcome(NOW + after_s)
    if isinstance(judged, Admitted) and outcome is not None:
        assert judged.until == NOW + after_s + outcome
    elif isinstance(judged, Admitted):
        assert outcome is None
    else:
        assert judged == outcome


async def test_a_store_that_is_away_is_not_a_revocation(stage: Stage) -> None:
    stage.problem = StoreUnavailable("disk full")
    assert await stage.outcome() == Code.BUSY
    with pytest.raises(LaneRefused) as refused:
        await stage.judge().judge(stage.claim(), NOW)
    assert refused.value.reconnect_in > 0
    assert "disk" not in refused.value.reason


async def test_a_store_that_never_answers_is_not_waited_for(stage: Stage) -> None:
    forever = asyncio.Event()
    stage.bound = lambda *_: forever.wait()  # type: ignore[assignment, method-assign, return-value]
    stage.patience_s = 0.01
    assert await stage.outcome() == Code.BUSY


@pytest.mark.parametrize("lacking", ["row", "session", "usable"])
async def test_what_has_ended_has_ended(stage: Stage, lacking: str) -> None:
    if lacking == "usable":
        stage.session = Session(usable=False)
    else:
        setattr(stage, lacking, None)
    assert await stage.outcome() == Code.REVOKED


async def test_a_configuration_that_changes_meanwhile_counts(stage: Stage) -> None:
    stage.meanwhile = stage.agents.clear
    assert await stage.outcome() == Code.FORBIDDEN


async def test_strangers_cost_the_store_nothing(stage: Stage) -> None:
    assert await stage.outcome(key=ec.generate_private_key(ec.SECP256R1())) == Code.UNAUTHENTICATED
    assert await stage.outcome(name="db") == Code.UNAUTHENTICATED
    stage.agents.clear()
    assert await stage.outcome() == Code.FORBIDDEN
    assert stage.asked == []


async def test_another_machine_is_in_the_way_while_it_is_enrolled(stage: Stage) -> None:
    judge = stage.judge()
    assert await judge.in_the_way("desktop", [b"other"]) == b"other"
    stage.row = None
    assert await judge.in_the_way("desktop", [b"other"]) is None
    assert await judge.in_the_way("desktop", []) is None
    stage.problem = StoreUnavailable("gone")
    with pytest.raises(LaneRefused):
        await judge.in_the_way("desktop", [b"other"])


async def test_a_newer_certificate_is_for_the_same_name_and_key(stage: Stage) -> None:
    verified = stage.authority.verify(stage.claim().proof.certificate, now=NOW)
    certificate, expires = stage.judge().renew(verified, NOW + 3600)
    again = stage.authority.verify(certificate, now=NOW + 3600)
    assert (again.name, again.thumbprint) == (verified.name, verified.thumbprint)
    assert again.expires == expires > verified.expires
