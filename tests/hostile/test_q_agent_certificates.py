"""Q1-Q4 of security.md: the certificates of agents, and what else might pass for one.

There are no TLS client certificates. An agent sends its certificate inside the connection, with a
proof over this very connection (decision 30); here the proof is always good and the certificate
never, or the certificate is good and the proof is left out. What the authority is asked is also
table by table in tests/unit/proxy/test_agents_certificates.py.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from heim_proxy.access.members import identities
from heim_proxy.access.policy import Deny
from heim_proxy.access.subject import SubjectKind
from heim_proxy.agents.wiring import Agents
from heim_proxy.identity.access_tokens import AccessTokens
from heim_proxy.identity.bearer import BearerProblem, Bearers
from heim_proxy.identity.session import Session
from heim_wire.agents import STATEMENT_TYPE
from heim_wire.errors import Code
from tests.fakes.agent import Machine, ScriptedAgent, agent_head, enrolled
from tests.fakes.agent_certificates import authority_pem, forged, key_pem, new_key, root_key
from tests.fakes.heim import LOGIN_HOST, Wire, authority
from tests.hostile.world import World, host, within

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY_S: Final = 86_400.0
SOON_S: Final = 2.0
TRUST_DOMAIN: Final = f"spiffe://{LOGIN_HOST}/agent/"


def files(directory: Path, *names: str) -> dict[str, str]:
    """The `agents_ca` of these authorities; the first one signs."""
    now = time.time()
    certificates = b"".join(
        authority_pem(root_key(name), begins=now - 90 * DAY_S, expires=now + 365 * DAY_S)
        for name in names
    )
    cert_file, key_file = (directory / f"{'-'.join(names)}.{end}" for end in ("pem", "key"))
    cert_file.write_bytes(certificates)
    key_file.write_bytes(key_pem(root_key(names[0])))
    key_file.chmod(0o600)
    return {"cert_file": str(cert_file), "key_file": str(key_file)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory: Path = tmp_path_factory.mktemp("certificates")
    world = await World.start(
        directory,
        agents=[{"name": "desktop", "targets": ["ssh"]}, {"name": "db", "targets": ["psql"]}],
        agents_ca=files(directory, "ours"),
    )
    yield world
    await world.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def desktop(world: World) -> Machine:
    return await enrolled(world.heim, "desktop")


def agents_of(world: World) -> Agents:
    agents = world.heim.proxy._agents
    assert agents is not None
    return agents


def uri(name: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(name)


def certificate(machine: Machine, **changes: Any) -> bytes:
    """A certificate of ours for the machine's own key, wrong in one thing."""
    now = time.time()
    usual = {
        "signer": root_key("ours"),
        "key": machine.key,
        "names": [uri(f"{TRUST_DOMAIN}desktop")],
        "begins": now - 60,
        "expires": now + DAY_S - 120,
    }
    return forged(**{**usual, **changes})


async def refused(world: World, machine: Machine, der: bytes) -> tuple[int, str]:
    """What comes of a lane with this certificate, whose proof is as good as ever."""
    before = len(agents_of(world).registry)
    agent = await ScriptedAgent.connect(
        world.heim, dataclasses.replace(machine, certificate=der), ready=False
    )
    await agent.over(SOON_S)
    assert agent.goaway is not None
    assert not agent.readies
    assert len(agents_of(world).registry) == before
    return agent.goaway.code, agent.goaway.reason


async def test_the_certificate_of_this_module_lets_the_machine_in(
    world: World, desktop: Machine
) -> None:
    """Else the tests below would be about something else."""
    good = dataclasses.replace(desktop, certificate=certificate(desktop))
    agent = await ScriptedAgent.connect(world.heim, good)
    assert agent.readies[0]["agent"] == "desktop"


Change = Callable[[Machine], dict[str, Any]]
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
INTERMEDIATE = new_key()
OURS = f"{TRUST_DOMAIN}desktop"

Q1: Final[dict[str, tuple[Change, str]]] = {
    "not yet valid": (
        lambda _: {"begins": time.time() + 60, "expires": time.time() + 3600},
        "not valid yet",
    ),
    "of another authority": (lambda _: {"signer": root_key("other")}, "another authority"),
    "of another authority, under our name": (
        lambda _: {"signer": root_key("other"), "issuer": "agents of the tests"},
        "another authority",
    ),
    "signed by itself": (lambda machine: {"signer": machine.key}, "another authority"),
    "signed by itself, as issuer": (
        lambda machine: {"signer": machine.key, "issuer": "desktop"},
        "another authority",
    ),
    "intermediate missing": (
        lambda _: {"signer": INTERMEDIATE, "issuer": "intermediate of ours"},
        "another authority",
    ),
    "issuer of another name": (lambda _: {"issuer": "somebody"}, "another authority"),
    "serverAuth only": (lambda _: {"use": [SERVER]}, "not a client's"),
    "no extended key usage": (lambda _: {"use": None}, "does not say that it is a client's"),
    "any extended key usage": (lambda _: {"use": [ANY]}, "not a client's"),
    "an authority's": (lambda _: {"ca": True}, "is an authority's"),
    "not for signatures": (lambda _: {"signature": False}, "not for signatures"),
    "for a week": (
        lambda _: {"begins": time.time() - 60, "expires": time.time() + 7 * DAY_S},
        "more than a day",
    ),
    "P-384": (lambda _: {"key": ec.generate_private_key(ec.SECP384R1())}, "not on P-256"),
    "RSA": (lambda _: {"key": rsa.generate_private_key(65537, 2048)}, "not on P-256"),
    "unknown critical extension": (
        lambda _: {"more": {x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"): b"\x05\x00"}},
        "critical extension",
    ),
    "CN alone": (lambda _: {"names": None}, "no subject alternative name"),
    "two names": (
        lambda _: {"names": [uri(OURS), uri(f"{TRUST_DOMAIN}db")]},
        "not exactly one",
    ),
    "the same name twice": (lambda _: {"names": [uri(OURS), uri(OURS)]}, "not exactly one"),
    "a name and a DNS name": (
        lambda _: {"names": [uri(OURS), x509.DNSName("desktop")]},
        "not exactly one",
    ),
    "no name in the list": (lambda _: {"names": []}, "not exactly one"),
    "DNS name": (lambda _: {"names": [x509.DNSName(f"desktop.{LOGIN_HOST}")]}, "is not under"),
    "e-mail address": (lambda _: {"names": [x509.RFC822Name("desktop@x.test")]}, "is not under"),
    "NUL": (lambda _: {"names": [uri(f"{OURS}\x00.evil.test")]}, "not an agent's"),
    "wildcard": (lambda _: {"names": [uri(f"{TRUST_DOMAIN}*")]}, "not an agent's"),
    "upper case": (lambda _: {"names": [uri(f"{TRUST_DOMAIN}DESKTOP")]}, "not an agent's"),
    "two segments": (lambda _: {"names": [uri(f"{OURS}/ssh")]}, "not an agent's"),
    "slash at the end": (lambda _: {"names": [uri(f"{OURS}/")]}, "not an agent's"),
    "dots": (lambda _: {"names": [uri(f"{TRUST_DOMAIN}../agent/desktop")]}, "not an agent's"),
    "escapes": (lambda _: {"names": [uri(f"{TRUST_DOMAIN}%64esktop")]}, "not an agent's"),
    "query": (lambda _: {"names": [uri(f"{OURS}?x")]}, "not an agent's"),
    "fragment": (lambda _: {"names": [uri(f"{OURS}#x")]}, "not an agent's"),
    "line end": (lambda _: {"names": [uri(f"{OURS}\n")]}, "not an agent's"),
    "nobody": (lambda _: {"names": [uri(TRUST_DOMAIN)]}, "not an agent's"),
    "long": (lambda _: {"names": [uri(TRUST_DOMAIN + "a" * 64)]}, "not an agent's"),
    "another trust domain": (
        lambda _: {"names": [uri("spiffe://auth.evil.test/agent/desktop")]},
        "is not under",
    ),
    "trust domain with a port": (
        lambda _: {"names": [uri(f"spiffe://{LOGIN_HOST}:443/agent/desktop")]},
        "is not under",
    ),
    "trust domain with somebody before it": (
        lambda _: {"names": [uri(f"spiffe://x@{LOGIN_HOST}/agent/desktop")]},
        "is not under",
    ),
    "another role": (
        lambda _: {"names": [uri(f"spiffe://{LOGIN_HOST}/proxy/desktop")]},
        "is not under",
    ),
    "another scheme": (lambda _: {"names": [uri(f"https://{LOGIN_HOST}/agent/x")]}, "is not under"),
}


@pytest.mark.parametrize(("change", "part"), Q1.values(), ids=Q1.keys())
async def test_Q1_a_certificate_that_is_wrong_in_one_thing_lets_nobody_in(
    world: World, desktop: Machine, change: Change, part: str
) -> None:
    code, reason = await refused(world, desktop, certificate(desktop, **change(desktop)))
    assert (code, part in reason) == (Code.UNAUTHENTICATED, True), reason


async def test_Q1_an_agent_s_certificate_issues_none(world: World, desktop: Machine) -> None:
    """A machine that is in cannot let another one in, under any name."""
    mine = x509.load_der_x509_certificate(desktop.certificate)
    assert mine.subject.rfc4514_string() == "CN=desktop"
    other = await enrolled(world.heim, "db")
    der = certificate(other, signer=desktop.key, issuer="desktop", names=[uri(f"{TRUST_DOMAIN}db")])
    assert (await refused(world, other, der))[0] == Code.UNAUTHENTICATED


async def test_Q1_the_name_is_that_of_the_san_and_never_the_common_name(
    world: World, desktop: Machine
) -> None:
    der = certificate(desktop, common_name="db")
    agent = await ScriptedAgent.connect(world.heim, dataclasses.replace(desktop, certificate=der))
    assert agent.readies[0]["agent"] == "desktop"
    as_db = dataclasses.replace(desktop, name="db", certificate=der)
    other = await ScriptedAgent.connect(world.heim, as_db, ready=False)
    await other.over(SOON_S)
    assert other.goaway is not None
    assert other.goaway.code == Code.UNAUTHENTICATED


async def test_Q1_a_good_certificate_of_a_name_that_the_key_is_not_enrolled_under(
    world: World, desktop: Machine
) -> None:
    """Were a certificate ever issued by mistake: the store binds the name to the key."""
    der = certificate(desktop, names=[uri(f"{TRUST_DOMAIN}db")])
    code, _ = await refused(world, dataclasses.replace(desktop, name="db"), der)
    assert code == Code.REVOKED


async def test_Q1_revoked_is_said_whatever_the_certificate_says(
    world: World, desktop: Machine
) -> None:
    """There is no revocation list: the enrolment is looked up each time, expired or not."""
    assert desktop.row is not None
    sessions = world.heim.proxy._sessions
    assert sessions is not None
    await agents_of(world).store.end_session(desktop.row.sid, reason="revoked", now=time.time())
    now = time.time()
    for changes in ({}, {"begins": now - 7200, "expires": now - 3600}):
        code, reason = await refused(world, desktop, certificate(desktop, **changes))
        assert (code, "join again" in reason) == (Code.REVOKED, True), reason


async def test_Q1_an_expired_certificate_comes_in_only_to_be_replaced(
    world: World, desktop: Machine
) -> None:
    """A machine that was off for days: the store still binds its key, so it need not join again.

    What it presented is good for nothing: the lane lasts as long as the new certificate does.
    """
    now = time.time()
    der = certificate(desktop, begins=now - 2 * DAY_S, expires=now - DAY_S - 1)
    agent = await ScriptedAgent.connect(world.heim, dataclasses.replace(desktop, certificate=der))
    assert agent.readies[0]["expires"] > now


# -- Q2: a certificate in a header is text -----------------------------------------------------


def carried(der: bytes) -> tuple[str, ...]:
    """Every header in which some proxy tells the one behind it about a client's certificate."""
    encoded = base64.b64encode(der).decode()
    pem = f"-----BEGIN%20CERTIFICATE-----%0A{encoded}%0A-----END%20CERTIFICATE-----"
    return (
        f"X-Client-Cert: {pem}",
        f"X-SSL-Client-Cert: {pem}",
        "X-SSL-Client-Verify: SUCCESS",
        "X-SSL-Client-S-DN: CN=desktop",
        f"SSL-Client-Cert: {pem}",
        f"X-Forwarded-Client-Cert: Hash=1;Cert=%22{pem}%22;URI={OURS}",
        f"X-Forwarded-Tls-Client-Cert: {encoded}",
        f"X-TLS-Client-Cert: {encoded}",
        "X-Client-Verify: SUCCESS",
        "X-Client-DN: CN=desktop",
        f"Client-Cert: :{encoded}:",
        f"Client-Cert-Chain: :{encoded}:",
    )


async def test_Q2_a_certificate_in_a_header_opens_no_lane(world: World, desktop: Machine) -> None:
    wire = await world.heim.connect(LOGIN_HOST)
    wire.send(agent_head(extra=carried(desktop.certificate)))
    assert (await within(wire.answer())).status == 101
    assert len(agents_of(world).registry) == 0
    # With it or without, who does not prove possession inside is nobody.
    plain = await ScriptedAgent.greet(await world.heim.connect(LOGIN_HOST), desktop, mute=True)
    await plain.until(lambda: plain.hello)
    plain.auth({"kind": "agent-proof", "certificate": "", "signature": ""})
    await plain.over(SOON_S)
    assert not plain.readies
    assert len(agents_of(world).registry) == 0


async def test_Q2_it_never_reaches_an_application_either(world: World, desktop: Machine) -> None:
    world.forget()
    headers = tuple(
        (name, value)
        for name, _, value in (line.partition(": ") for line in carried(desktop.certificate))
    )
    answer = await world.heim.request("/", host=host("open"), headers=headers)
    assert answer.status == 200
    head = world.only().head.lower()
    for name, _ in headers:
        assert name.lower().encode() not in head, name


# -- Q3: nothing about who it is comes from TLS ------------------------------------------------


class Resuming(ssl.SSLContext):
    """Offers the session `kept`, which asyncio has no argument for."""

    kept: ssl.SSLSession | None = None

    def wrap_bio(self, *args: Any, **more: Any) -> ssl.SSLObject:
        return super().wrap_bio(*args, **more, session=self.kept)


@pytest.fixture
def resuming() -> Resuming:
    context = Resuming(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context


async def dialled(world: World, context: ssl.SSLContext) -> tuple[Wire, ssl.SSLObject]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", world.heim.https_port, ssl=context, server_hostname=LOGIN_HOST
    )
    wire = Wire(reader, writer)
    world.heim._wires.append(wire)
    return wire, writer.get_extra_info("ssl_object")


async def test_Q3_a_resumed_session_proves_nothing(
    world: World, desktop: Machine, resuming: Resuming
) -> None:
    wire, tls = await dialled(world, resuming)
    first = await ScriptedAgent.connect(wire, desktop)
    proof = first.proof()
    # The tickets came with what was read since (TLS 1.3).
    resuming.kept = tls.session
    assert resuming.kept is not None
    first.goodbye()
    await first.over()

    wire, tls = await dialled(world, resuming)
    assert tls.session_reused, "the proxy resumed nothing, so this test shows nothing"
    second = await ScriptedAgent.greet(wire, desktop, mute=True)
    await second.until(lambda: second.hello)
    assert not second.readies
    second.auth(proof)
    await second.over(SOON_S)
    assert second.goaway is not None
    assert second.goaway.code == Code.UNAUTHENTICATED

    wire, tls = await dialled(world, resuming)
    assert tls.session_reused
    assert (await ScriptedAgent.connect(wire, desktop)).readies, "a fresh proof is as good as ever"


async def test_Q3_another_s_session_is_no_way_around_revocation(
    world: World, desktop: Machine, resuming: Resuming
) -> None:
    wire, tls = await dialled(world, resuming)
    agent = await ScriptedAgent.connect(wire, desktop)
    resuming.kept = tls.session
    assert desktop.row is not None
    await agents_of(world).store.end_session(desktop.row.sid, reason="revoked", now=time.time())
    await agent.over(SOON_S)
    wire, tls = await dialled(world, resuming)
    assert tls.session_reused
    again = await ScriptedAgent.connect(wire, desktop, ready=False)
    await again.over(SOON_S)
    assert again.goaway is not None
    assert again.goaway.code == Code.REVOKED


async def test_Q3_no_client_certificate_is_asked_for_and_no_early_data_taken(
    world: World,
) -> None:
    """A requested one would break browsers that have one; 0-RTT could be replayed."""
    command = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"127.0.0.1:{world.heim.https_port}",
        "-servername", LOGIN_HOST, "-tls1_3", "-ign_eof",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    request = f"GET /.heim/jwks.json HTTP/1.1\r\nHost: {LOGIN_HOST}\r\nConnection: close\r\n\r\n"
    output, _ = await within(command.communicate(request.encode()), 4.5)
    shown = output.decode("latin-1")
    assert "No client certificate CA names sent" in shown
    assert "HTTP/1.1 200" in shown
    tickets = [line for line in shown.splitlines() if "Max Early Data" in line]
    assert tickets, shown
    assert all(line.rpartition(":")[2].strip() == "0" for line in tickets)


# -- Q4: one authority follows another ---------------------------------------------------------


def signer(agent: ScriptedAgent) -> str:
    return str(jwt.get_unverified_header(agent.statement)["kid"])


def pinned(agent: ScriptedAgent, pins: list[dict[str, str]]) -> list[dict[str, str]]:
    """What an agent that holds these roots pins next: those of a statement that one signed."""
    header = jwt.get_unverified_header(agent.statement)
    assert header["typ"] == STATEMENT_TYPE
    (root,) = [one for one in pins if one["kid"] == header["kid"]]
    claims = jwt.decode(
        agent.statement,
        jwt.PyJWK.from_dict(root).key,
        algorithms=[root["alg"]],
        audience=agent.machine.thumbprint,
    )
    assert claims["nonce"] == agent.nonce
    roots: list[dict[str, str]] = claims["roots"]
    return roots


async def test_Q4_an_agent_is_led_from_one_authority_to_the_next(
    world: World, desktop: Machine
) -> None:
    """Announce, switch, drop: the agent trusts nothing that it was not told by what it trusted."""
    directory = world.heim.directory
    pins = agents_of(world).authority.roots()
    (old,) = (root["kid"] for root in pins)
    try:
        await world.change(agents_ca=files(directory, "ours", "next"))
        announced = await ScriptedAgent.connect(world.heim, desktop)
        assert signer(announced) == old, "signed by what the agent knows"
        pins = pinned(announced, pins)
        assert pins[0]["kid"] == old
        (new,) = (root["kid"] for root in pins[1:])

        await world.change(agents_ca=files(directory, "next", "ours"))
        switched = await ScriptedAgent.connect(world.heim, desktop)
        assert signer(switched) == new, "which the agent was told about by the old one"
        pins = pinned(switched, pins)
        switched.renew()
        await switched.until(lambda: any("certificate" in one for one in switched.readies))
        renewed = next(one["certificate"] for one in switched.readies if "certificate" in one)
        issued = x509.load_der_x509_certificate(base64.b64decode(renewed))
        root_key("next").public_key().verify(
            issued.signature,
            issued.tbs_certificate_bytes,
            issued.signature_algorithm_parameters,  # type: ignore[arg-type]
        )

        await world.change(agents_ca=files(directory, "next"))
        code, reason = await refused(world, desktop, desktop.certificate)
        assert (code, "another authority" in reason) == (Code.UNAUTHENTICATED, True)
        newer = dataclasses.replace(desktop, certificate=base64.b64decode(renewed))
        dropped = await ScriptedAgent.connect(world.heim, newer)
        assert [root["kid"] for root in pinned(dropped, pins)] == [new]
    finally:
        await world.change(agents_ca=files(directory, "ours"))


async def test_Q4_an_authority_that_is_over_lets_nobody_in(world: World, desktop: Machine) -> None:
    directory, now = world.heim.directory, time.time()
    both = authority_pem(root_key("fresh"), begins=now - DAY_S, expires=now + DAY_S) + (
        authority_pem(root_key("ours"), begins=now - 9 * DAY_S, expires=now - 1)
    )
    (directory / "over.pem").write_bytes(both)
    (directory / "over.key").write_bytes(key_pem(root_key("fresh")))
    try:
        await world.change(
            agents_ca={
                "cert_file": str(directory / "over.pem"), "key_file": str(directory / "over.key"),
            }
        )  # fmt: skip
        code, reason = await refused(world, desktop, desktop.certificate)
        assert (code, "not valid now" in reason) == (Code.UNAUTHENTICATED, True), reason
    finally:
        await world.change(agents_ca=files(directory, "ours"))


async def test_Q4_files_that_do_not_fit_keep_the_last_good_authority(
    world: World, desktop: Machine
) -> None:
    directory = world.heim.directory
    broken = files(directory, "next")
    Path(broken["key_file"]).write_bytes(key_pem(root_key("other")))
    before = world.heim.generation
    world.heim.document["agents_ca"] = broken
    world.heim.write()
    world.heim.proxy._hang_up()
    reloader = world.heim.proxy._reloader
    await world.heim.until(lambda: reloader.status.last_error)
    assert world.heim.generation == before
    assert (await ScriptedAgent.connect(world.heim, desktop)).readies
    await world.change(agents_ca=files(directory, "ours"))


# -- an enrolment is nobody's login ------------------------------------------------------------


async def session_of(world: World, machine: Machine) -> Session:
    sessions = world.heim.proxy._sessions
    assert sessions is not None
    assert machine.row is not None
    session = await sessions.get(machine.row.sid, time.time())
    assert session is not None
    return session


async def test_an_enrolment_in_a_cookie_is_nobody(world: World, desktop: Machine) -> None:
    """Even one that our own key sealed."""
    session = await session_of(world, desktop)
    for name in ("app", "open"):
        cookie = world.heim.cookie(session, host(name))
        world.forget()
        answer = await world.heim.request("/", host=host(name), cookie=cookie)
        if name == "app":
            assert answer.status in (303, 401)
            world.untouched()
        else:
            assert b"heim" not in world.only().head.lower().replace(b"x-heim", b"")
    cookie = world.heim.cookie(session, LOGIN_HOST)
    for path in ("/.heim/agents", "/.heim/devices", "/.heim/device"):
        answer = await world.heim.request(path, host=LOGIN_HOST, cookie=cookie)
        assert answer.status == 303, path
        assert "/.heim/login" in (answer.get("location") or "")


async def test_an_enrolment_is_no_login_of_a_program(world: World, desktop: Machine) -> None:
    """Not with its key's digest as the secret, nor with an access token that our own key signed.

    Not even where a service account has the agent's name.
    """
    sessions, row = world.heim.proxy._sessions, desktop.row
    assert sessions is not None
    assert row is not None
    keys = world.heim.proxy._snapshot.signing_keys
    access = AccessTokens(lambda: keys, lambda: f"https://{LOGIN_HOST}")
    bearers = Bearers(sessions, access, accounts=lambda: ["desktop"])
    session = await session_of(world, desktop)
    signed = access.issue(session, time.time()).text.reveal()
    digest = base64.urlsafe_b64encode(row.secret_hash).rstrip(b"=").decode()
    for token in (signed, f"heim_st_{row.sid}_{digest}", f"heim_jt_{row.sid}_{digest}"):
        found = await bearers.authenticate(token, time.time())
        assert isinstance(found, BearerProblem), token[:8]


async def test_an_enrolment_is_in_no_role_whatever_the_role_says(
    world: World, desktop: Machine
) -> None:
    session = await session_of(world, desktop)
    assert session.subject.kind is SubjectKind.AGENT
    assert list(identities(session.subject)) == []
    for name in ("app", "open"):
        decision = world.heim.proxy._snapshot.policy.grants(session.subject).connect(name)
        assert isinstance(decision, Deny)
