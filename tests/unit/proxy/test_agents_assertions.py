from __future__ import annotations

import hashlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import jwt
import pytest

from heim_agent.assertions import AssertionRefused, Assertions, Caller
from heim_agent.identity import Identity
from heim_proxy.access.subject import Subject, SubjectKind
from heim_proxy.agents.assertions import stream_assertion
from heim_proxy.edge.dial import Errand
from heim_proxy.identity.session import Session
from heim_proxy.snapshot import Snapshot
from tests.fakes.sessions import ALICE, Stage
from tests.fakes.snapshots import configured, role, signing_keys, snapshot, tcp

NOW = 1_800_000_000.7
THUMBPRINT = "x" * 43
PROGRAM = Subject(SubjectKind.SERVICE_ACCOUNT, "heim", "backup", "heim")


def built(*groups: str) -> Snapshot:
    members: list[dict[str, str]] = [{"group": name} for name in groups]
    roles = [role("ops", "ssh", members=members or None)]
    return snapshot(configured([tcp()], roles), generation=7)


async def errand(subject: Subject | None = ALICE, **other: Any) -> Errand:
    session = None if subject is None else await (await Stage.up()).sign_in(subject)
    if session is not None and subject is PROGRAM:
        session = cast("Session", SimpleNamespace(sid=session.sid, subject=PROGRAM))
    made = Errand(
        session=session, backend="ssh", roles=("ops",), client="203.0.113.9", request_id="r1",
        proto="tcp", patience_s=5.0,
    )  # fmt: skip
    return replace(made, **other)


def signed(made: Errand, inside: Snapshot | None = None) -> str:
    return stream_assertion(inside or built(), made, target="sshd", audience=THUMBPRINT, now=NOW)


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def agent() -> Assertions:
    """How a machine with our key reads them."""
    identity = SimpleNamespace(
        keys=tuple(signing_keys().jwks()["keys"]),
        login_url="https://auth.example.test",
        key=SimpleNamespace(thumbprint=THUMBPRINT),
    )
    return Assertions(cast("Identity", identity))


async def test_it_says_who_for_whom_and_for_how_long() -> None:
    made = await errand()
    assert made.session is not None
    claims = claims_of(signed(made))
    assert len(claims.pop("jti")) >= 16
    assert claims == {
        "iss": "https://auth.example.test",
        "aud": THUMBPRINT,
        "kind": "person",
        "sub": ALICE.subject,
        "name": ALICE.name,
        "email": ALICE.email,
        "groups": [],
        "roles": ["ops"],
        "backend": "ssh",
        "target": "sshd",
        "sid": hashlib.sha256(made.session.sid.encode()).hexdigest()[:16],
        "gen": 7,
        "src": "203.0.113.9",
        "iat": 1_800_000_000,
        "exp": 1_800_000_060,
    }


async def test_it_is_of_its_own_type_and_signed_by_the_first_key() -> None:
    header = jwt.get_unverified_header(signed(await errand()))
    assert header == {"alg": "ES256", "typ": "heim-stream+jwt", "kid": signing_keys().first.kid}


async def test_no_two_have_the_same_id() -> None:
    made = await errand()
    assert len({claims_of(signed(made))["jti"] for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("held", "named", "told"),
    [
        (("sre", "secret"), ("sre", "dba"), ["sre"]),
        (("secret",), ("sre",), []),
        (("b", "a"), ("a", "b"), ["a", "b"]),
        ((), ("sre",), []),
    ],
)
async def test_only_groups_that_configuration_names_are_told(
    held: tuple[str, ...], named: tuple[str, ...], told: list[str]
) -> None:
    made = await errand(replace(ALICE, groups=frozenset(held)))
    assert claims_of(signed(made, built(*named)))["groups"] == told


async def test_somebody_without_a_verified_address_has_none() -> None:
    claims = claims_of(signed(await errand(replace(ALICE, email=None))))
    assert "email" not in claims
    assert claims["name"] == claims["sub"] == ALICE.subject


async def test_the_sessions_id_is_not_in_it() -> None:
    made = await errand()
    assert made.session is not None
    assert made.session.sid not in str(claims_of(signed(made)))


@pytest.mark.parametrize(
    ("subject", "other", "expected"),
    [
        (ALICE, {}, {"kind": "person", "user": ALICE.name, "source": "203.0.113.9"}),
        (PROGRAM, {}, {"kind": "service", "user": "backup", "email": ""}),
        (
            None,
            {"roles": (), "client": ""},
            {"kind": "public", "user": "public", "session": "", "source": "", "email": ""},
        ),
    ],
    ids=["person", "service", "public"],
)
async def test_the_agent_reads_what_we_write(
    subject: Subject | None, other: dict[str, Any], expected: dict[str, Any]
) -> None:
    """The two programs share no code: this is where they must agree."""
    made = await errand(subject, **other)
    caller = agent().verify(signed(made), target="sshd", now=NOW + 1)
    assert isinstance(caller, Caller)
    assert (caller.backend, caller.target, caller.generation) == ("ssh", "sshd", 7)
    assert caller.roles == frozenset(made.roles)
    assert {name: getattr(caller, name) for name in expected} == expected


async def test_the_agent_believes_it_once_and_for_a_minute_and_a_half_at_most() -> None:
    made, reader = await errand(), agent()
    token = signed(made)
    reader.verify(token, target="sshd", now=NOW)
    for text, target, now in (
        (token, "sshd", NOW),
        (signed(made), "sshd", NOW + 91),
        (signed(made), "web", NOW),
    ):
        with pytest.raises(AssertionRefused):
            reader.verify(text, target=target, now=now)
