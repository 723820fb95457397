"""X: what an agent serves, and to whom: tunnel.md §6 cases 48 and 49, security.md O7, R1.

The peer is a proxy that lies, or somebody in its place: whatever it sends, only what agent.toml
lists is dialled, and only for assertions that were signed for this agent, this target and now.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from heim_agent.dials import MAX_UNANSWERED
from heim_agent.identity import Identity
from heim_runtime.logs import JsonFormatter
from heim_wire.agents import STATEMENT_TYPE, STREAM_TYPE
from heim_wire.errors import Code
from heim_wire.stream import State
from tests.fakes.agent_streams import LOGIN_URL, Asked, Signer, Site, served, settings_of, tcp
from tests.fakes.tunnel import TcpServer
from tests.fakes.waiting import until

pytestmark = pytest.mark.asyncio


@dataclass
class Yard:
    """An agent that serves `ssh` to anybody and `prod` to a role; `secret` is beside them."""

    site: Site
    ssh: TcpServer
    secret: TcpServer

    @property
    def audience(self) -> str:
        return self.site.identity.key.thumbprint


@pytest_asyncio.fixture
async def yard(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Yard]:
    caplog.set_level(logging.DEBUG)
    ssh, secret = await TcpServer().start(), await TcpServer().start()
    targets = (
        tcp("ssh", ssh.port),
        tcp("prod", ssh.port, role="prod-ssh"),
        tcp("told", ssh.port, proxy_protocol=True),
    )
    try:
        async with served(tmp_path, *targets) as site:
            yield Yard(site, ssh, secret)
            # Whatever was tried: what is right still works, and nothing else was ever reached.
            asked = site.open()
            asked.send(b"still here")
            await asked.got(b"still here")
            asked.end()
            await until(lambda: asked.is_finished)
            assert secret.total == 0
    finally:
        await ssh.stop()
        await secret.stop()


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.getMessage() == name]


async def refused(yard: Yard, asked: Asked, code: int) -> str:
    """The reason of a refusal with `code`; nothing was dialled for it."""
    before = yard.ssh.total
    found, reason = await asked.refused()
    assert found == code, reason
    assert yard.ssh.total == before
    return reason


# -- 48: assertions -------------------------------------------------------------------------------


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unsigned(yard: Yard, header: Mapping[str, object], signature: str = "") -> str:
    claims = yard.site.signer.claims(yard.audience, "ssh")
    parts = (json.dumps(one).encode() for one in (header, claims))
    return ".".join((*map(_b64, parts), signature))


def _hmac(yard: Yard) -> str:
    """Signed with the public key as if it were a shared secret."""
    secret = json.dumps(yard.site.signer.jwk).encode()
    header = {"alg": "HS256", "typ": STREAM_TYPE, "kid": yard.site.signer.kid}
    signed = _unsigned(yard, header).rstrip(".")
    return f"{signed}.{_b64(hmac.digest(secret, signed.encode(), 'sha256'))}"


def _signed_by(yard: Yard, key: Any, algorithm: str) -> str:
    return jwt.encode(
        yard.site.signer.claims(yard.audience, "ssh"), key, algorithm,
        headers={"typ": STREAM_TYPE, "kid": yard.site.signer.kid},
    )  # fmt: skip


def _spoilt(yard: Yard) -> str:
    """One bit of the claims is another than the one that was signed."""
    head, claims, signature = yard.site.assertion().split(".")
    flipped = claims[:-2] + ("A" if claims[-2] != "A" else "B") + claims[-1]
    return f"{head}.{flipped}.{signature}"


def _header(**fields: object) -> Callable[[Yard], object]:
    return lambda yard: yard.site.assertion(header=fields)


def _claims(**changed: object) -> Callable[[Yard], object]:
    return lambda yard: yard.site.assertion(**changed)


def _times(iat: float, exp: float) -> Callable[[Yard], object]:
    """Seconds from now."""
    return lambda yard: yard.site.assertion(iat=int(time.time() + iat), exp=int(time.time() + exp))


ASSERTIONS: dict[str, tuple[Callable[[Yard], object], str]] = {
    "none at all": (lambda yard: None, "there is no assertion"),
    "no text": (lambda yard: {"sub": "alice"}, "there is no assertion"),
    "empty": (lambda yard: "", "there is no assertion"),
    "no token": (lambda yard: "alice", "no signed token"),
    "two parts": (lambda yard: yard.site.assertion().rpartition(".")[0], "no signed token"),
    "four parts": (lambda yard: f"{yard.site.assertion()}.x", "signed token"),
    "unsigned": (
        lambda yard: _unsigned(yard, {"alg": "ES256", "typ": STREAM_TYPE,
                                      "kid": yard.site.signer.kid}),
        "signature is wrong",
    ),
    "alg none": (
        lambda yard: _unsigned(yard, {"alg": "none", "typ": STREAM_TYPE,
                                      "kid": yard.site.signer.kid}),
        "not signed with ES256",
    ),
    "alg none in another spelling": (_header(alg="nOnE"), "not signed with ES256"),
    "HS256 with the public key": (_hmac, "not signed with ES256"),
    "ES384 in the header": (_header(alg="ES384"), "not signed with ES256"),
    "RS256": (
        lambda yard: _signed_by(yard, rsa.generate_private_key(65537, 2048), "RS256"),
        "not signed with ES256",
    ),
    "EdDSA": (
        lambda yard: _signed_by(yard, ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
        "not signed with ES256",
    ),
    "a key of its own in the header": (
        lambda yard: yard.site.assertion(header={"jwk": Signer().jwk}), "not signed with ES256"
    ),
    "crit": (_header(crit=["exp"]), "signed"),
    "b64 false": (_header(b64=False), "signed"),
    "another key with our kid": (
        lambda yard: Signer().assertion(yard.audience, header={"kid": yard.site.signer.kid}),
        "signature is wrong",
    ),
    "another key": (lambda yard: Signer().assertion(yard.audience), "was not told"),
    "no kid": (_header(kid=None), "was not told"),
    "a kid that is no text": (_header(kid=7), "signed|told"),
    "a spoilt byte": (_spoilt, "signature is wrong"),
    "typ JWT": (_header(typ="JWT"), "another type"),
    "no typ": (_header(typ=None), "another type"),
    "a statement": (_header(typ=STATEMENT_TYPE), "another type"),
    "a token of heim-tunnel's": (_header(typ="heim-cli+jwt"), "another type"),
    "another agent": (_claims(aud="someone-else"), "another agent"),
    "several audiences": (
        lambda yard: yard.site.assertion(aud=[yard.audience]), "no usable aud"
    ),
    "another proxy": (_claims(iss="https://auth.evil.test"), "another proxy"),
    "another target": (_claims(target="prod"), "another target"),
    "expired": (_times(-100, -40), "has expired"),
    "of the future": (_times(40, 100), "of the future"),
    "good for too long": (_times(0, 61), "more than 60 s"),
    "good for no time": (_times(0, 0), "more than 60 s"),
    "ends before it begins": (_times(10, 0), "more than 60 s"),
    "good for ever": (_claims(exp=1 << 62), "more than 60 s"),
    "a time that is no whole number": (_claims(exp=time.time() + 30.5), "no usable exp"),
    "a time that is true": (_claims(iat=True), "no usable iat"),
    "a time below zero": (_claims(iat=-60, exp=0), "no usable iat"),
    "a kind that there is not": (_claims(kind="root"), "kind of caller"),
    "roles that are one text": (_claims(roles="prod-ssh"), "no usable roles"),
    "roles that are numbers": (_claims(roles=[7]), "no usable roles"),
    "a name that is a list": (_claims(name=["alice"]), "no usable name"),
    "a name without end": (_claims(name="x" * 400), "no usable name"),
    "a person without a session": (_claims(sid=None), "no usable sid"),
    **{
        f"without {claim}": (_claims(**{claim: None}), f"no usable {claim}")
        for claim in ("iss", "aud", "sub", "name", "kind", "groups", "roles", "backend", "target",
                      "gen", "jti", "iat", "exp")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ASSERTIONS)
async def test_X1_an_assertion_that_is_not_right_opens_nothing(
    yard: Yard, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    make, told = ASSERTIONS[name]
    reason = await refused(yard, yard.site.open(assertion=make(yard)), Code.FORBIDDEN)
    assert reason.startswith("the agent does not believe the proxy: ")
    assert any(one in reason for one in told.split("|")), reason
    (logged,) = events(caplog, "stream.refused")
    assert logged["reason"] == reason
    assert logged["request_id"] == "01JREQUEST"
    assert "user" not in logged, "it is not known who that was"


async def test_X2_an_assertion_counts_once(yard: Yard, caplog: pytest.LogCaptureFixture) -> None:
    assertion = yard.site.assertion()
    await yard.site.open(assertion=assertion).opened()
    again = await refused(yard, yard.site.open(assertion=assertion), Code.FORBIDDEN)
    assert "used before" in again
    # In other words, with the signature that somebody can make of a signature (malleability).
    head, claims, _ = assertion.split(".")
    resigned = yard.site.signer.encode(
        json.loads(base64.urlsafe_b64decode(claims + "==")),
        json.loads(base64.urlsafe_b64decode(head + "==")),
    )
    assert resigned != assertion
    assert "used before" in await refused(yard, yard.site.open(assertion=resigned), Code.FORBIDDEN)


async def test_X3_an_assertion_is_judged_by_the_proxys_time_and_not_by_ours(yard: Yard) -> None:
    """Case 46: the agent's clock is ten minutes off."""
    for ahead_s in (600.0, -600.0):
        yard.site.ahead_s = ahead_s
        ours = yard.site.assertion()
        assert "assertion" in await refused(yard, yard.site.open(assertion=ours), Code.FORBIDDEN)
        issued = int(time.time() + ahead_s)
        await yard.site.open(assertion=yard.site.assertion(iat=issued, exp=issued + 60)).opened()
    yard.site.ahead_s = 0.0


# -- 49: targets ----------------------------------------------------------------------------------

TARGETS = (
    "secret", "127.0.0.1:{port}", "tcp:127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}",
    "unix:/run/docker.sock", "/run/docker.sock", "..", "../ssh", "ssh/../secret", "ssh/", "/ssh",
    "ssh\0", "ssh\n", " ssh", "SSH", "Ssh", "ｓｓｈ", "ssh:22", "ssh@127.0.0.1", "*", "%h",
    "__class__", "targets.ssh", "http://127.0.0.1:{port}/",
)  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
async def test_X4_a_proxy_that_asks_for_anything_but_a_listed_name_gets_nothing(
    yard: Yard, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """The assertion is right and signed for it: the proxy itself is what lies (O7)."""
    asked_for = name.format(port=yard.secret.port)
    asked = yard.site.open(asked_for)
    await refused(yard, asked, Code.NO_SUCH_TARGET)
    (logged,) = events(caplog, "stream.refused")
    assert logged["user"] == "alice@example.com"
    assert logged["end"] == "no_such_target"


@pytest.mark.parametrize("target", [None, 7, ["ssh"], {"ssh": 1}, "", True], ids=repr)
async def test_X5_a_target_that_is_no_name_is_refused(yard: Yard, target: object) -> None:
    asked = yard.site.open(target, assertion=yard.site.assertion())
    await refused(yard, asked, Code.FORBIDDEN)


@pytest.mark.parametrize(
    "more",
    [
        {"host": "127.0.0.1", "port": 1},
        {"address": "127.0.0.1:1"},
        {"peer": "127.0.0.1:1", "path": "/run/docker.sock"},
        {"connect_timeout": "9999s", "proxy_protocol": True, "role": ""},
    ],
    ids=["host and port", "address", "path", "our own settings"],
)
async def test_X6_nothing_else_in_open_says_where_or_how(yard: Yard, more: dict[str, Any]) -> None:
    asked = yard.site.open(**more)
    assert await asked.opened() == {"peer": f"127.0.0.1:{yard.ssh.port}"}
    asked.send(b"x")
    await asked.got(b"x")


@pytest.mark.parametrize(
    "roles", [[], ["dev"], ["prod-ssh "], ["PROD-SSH"], ["prod-ssh-x"], ["*"]], ids=repr
)
async def test_X7_without_the_role_that_the_agent_asks_for_there_is_no_stream(
    yard: Yard, caplog: pytest.LogCaptureFixture, roles: list[str]
) -> None:
    asked = yard.site.open("prod", assertion=yard.site.assertion("prod", roles=roles))
    assert "needs the role prod-ssh" in await refused(yard, asked, Code.FORBIDDEN)
    assert events(caplog, "stream.refused")[0]["user"] == "alice@example.com"
    await yard.site.open("prod", assertion=yard.site.assertion("prod")).opened()


@pytest.mark.parametrize("deadline", [None, 0, -1, True, "5", 1e300, [1], 10**30], ids=repr)
async def test_X8_a_deadline_that_is_none_is_ours(yard: Yard, deadline: object) -> None:
    await yard.site.open(deadline_ms=deadline).opened()


# -- floods, names, secrets -----------------------------------------------------------------------


async def test_X9_a_flood_of_opens_is_bounded_in_dials_and_in_lines(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    waves = 2000 // 50
    for _ in range(waves):
        batch = [yard.site.open(assertion="x" * 100) for _ in range(50)]
        for asked in batch:
            await asked.refused()
    assert yard.ssh.total == 0
    assert yard.site.serving.streams == 0
    lines = len(events(caplog, "stream.refused"))
    assert lines < 200
    # What was left out is counted.
    await asyncio.sleep(1.01)
    await yard.site.open(assertion="x").refused()
    counted = sum(int(one.get("others_unwritten", 0)) for one in events(caplog, "stream.refused"))
    assert lines + counted == waves * 50


async def test_X10_more_unanswered_streams_than_four_lanes_have_are_refused(yard: Yard) -> None:
    """Of a proxy that does not keep to 64 a lane."""
    yard.site.serving._dials.unanswered = MAX_UNANSWERED
    await refused(yard, yard.site.open(), Code.BUSY)
    yard.site.serving._dials.unanswered = 0


@pytest.mark.parametrize(
    "name",
    ["\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01\0\0\0\x16", "root\0",
     "\xe0\0\x05x",
     "a\r\nPROXY TCP4 127.0.0.1 127.0.0.1 1 22\r\n"],
    ids=["a header", "NUL", "a TLV", "a header of version 1"],
)  # fmt: skip
async def test_X11_no_name_forges_a_proxy_header(yard: Yard, name: str) -> None:
    asked = yard.site.open("told", assertion=yard.site.assertion("told", name=name))
    asked.send(b"GO")
    await until(lambda: asked.received.endswith(b"GO"))
    head = bytes(asked.received[:-2])
    assert head[:14] == b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
    assert len(head) == 16 + int.from_bytes(head[14:16])
    assert head.count(b"QUIT\n") == 1
    # Addresses, then one field: its type, its length, and as many bytes up to the end.
    assert head[28] == 0xE0
    assert len(head) == 31 + int.from_bytes(head[29:31])
    assert head[31:].decode().isprintable()


async def test_X12_what_is_said_of_people_and_targets_is_one_line_of_the_log(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    forged = 'a","user":"root"}\n{"event":"stream.opened'
    await yard.site.open(assertion=yard.site.assertion(name=forged), request_id=forged).opened()
    await refused(yard, yard.site.open(forged, request_id="\x1b[2J" * 99), Code.NO_SUCH_TARGET)
    for record in caplog.records:
        if record.name == "heim_agent.journal":
            line = JsonFormatter().format(record)
            assert "\n" not in line
            assert line.isascii()
            assert len(line) < 2000
            assert json.loads(line)["agent"] == "desktop"


async def test_X13_no_assertion_and_no_key_reaches_the_log(
    yard: Yard, caplog: pytest.LogCaptureFixture
) -> None:
    """R1, at the lowest level."""
    good, bad = yard.site.assertion(), _spoilt(yard)
    asked = yard.site.open(assertion=good)
    await asked.opened()
    asked.send(b"the canary sings")
    await asked.got(b"the canary sings")
    asked.end()
    await refused(yard, yard.site.open(assertion=good), Code.FORBIDDEN)
    await refused(yard, yard.site.open(assertion=bad), Code.FORBIDDEN)
    pem = yard.site.identity.key.to_pem().decode().splitlines()[1]
    written = "\n".join(JsonFormatter().format(record) for record in caplog.records)
    for secret in (*good.split("."), *bad.split("."), "canary", pem):
        assert secret not in written


async def test_X14_a_stream_that_was_refused_leaves_nothing(yard: Yard) -> None:
    asked = yard.site.open("secret")
    asked.send(b"x" * 60_000)
    await asked.refused()
    assert asked.stream.state == State.CLOSED
    await until(lambda: not yard.site.near.channel.session._streams.live)
    assert yard.site.serving.streams == 0


async def test_X15_pins_of_another_identity_do_not_open_this_one(
    yard: Yard, tmp_path: Path
) -> None:
    """A key that signed for a while is worth nothing once a statement leaves it out."""
    identity: Identity = yard.site.identity
    before, after = yard.site.signer, Signer()
    identity.pin(roots=identity.roots, keys=[after.jwk])
    reason = await refused(
        yard, yard.site.open(assertion=before.assertion(yard.audience)), Code.FORBIDDEN
    )
    assert "was not told" in reason
    await yard.site.open(assertion=after.assertion(yard.audience)).opened()
    identity.pin(roots=identity.roots, keys=[before.jwk])
    assert identity.login_url == LOGIN_URL


async def test_X16_a_place_that_left_the_list_is_not_reached_by_a_name_that_stayed(
    yard: Yard,
) -> None:
    """Neither by a stream that is open, nor by one that was asked for before the file changed."""
    before = yard.site.serving._settings
    old = yard.site.open()
    await old.opened()
    moved = await TcpServer().start()
    try:
        there = yard.ssh.total
        dialling = yard.site.open()
        await until(lambda: yard.site.serving.streams == 2)
        yard.site.serving.swap(settings_of(tcp("ssh", moved.port)))
        assert await old.refused() == (Code.GOING_AWAY, "ssh has moved; connect again")
        assert (await dialling.refused())[0] == Code.GOING_AWAY
        assert yard.ssh.total - there <= 1
        await yard.site.open().opened()
        assert moved.total == 1
    finally:
        yard.site.serving.swap(before)
        await moved.stop()
