"""What machines ask that want to be agents: joining with a token, and waiting to be let in."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from heim_proxy.agents.agent_keys import AgentKey
from heim_proxy.agents.join_tokens import issue
from heim_proxy.portal.agents import PATH as AGENTS_PATH
from heim_proxy.routing import AgentGrant
from heim_wire.agents import ENROL_PATH, ENROLLED_PATH, JOIN_PATH
from tests.fakes.agent import certificate_request
from tests.fakes.idp import rsa_key
from tests.fakes.portal import APP1, LOGIN, PortalStand, Reply


class Machine:
    """A machine with a key, and no cookies: what `heim-agent join` sends."""

    def __init__(self, stand: PortalStand, client: str = "203.0.113.7") -> None:
        self.stand = stand
        self.key = ec.generate_private_key(ec.SECP256R1())
        self._client = client

    @property
    def csr(self) -> str:
        return base64.b64encode(certificate_request(self.key, "somebody-else")).decode()

    async def post(self, path: str, **document: object) -> Reply:
        browser = self.stand.browser(self._client)
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        reply = await browser.request("POST", path, headers=headers, body=json.dumps(document))
        assert not reply.set_cookies
        return reply

    async def join(self, token: str, **change: object) -> Reply:
        asked = {"token": token, "csr": self.csr, "device": "nas", "version": "0.4.0", **change}
        return await self.post(JOIN_PATH, **asked)

    async def enrol(self, name: str = "desktop", **change: object) -> Reply:
        asked = {"name": name, "csr": self.csr, "device": "nas", "version": "0.4.0", **change}
        return await self.post(ENROL_PATH, **asked)

    async def enrolled(self, asked: dict[str, Any]) -> Reply:
        self.stand.clock.time += asked["interval"]
        return await self.post(ENROLLED_PATH, device_code=asked["device_code"])

    async def waits(self, name: str = "desktop") -> dict[str, Any]:
        return said(await self.enrol(name))


@pytest.fixture
def machine(stand: PortalStand) -> Machine:
    return Machine(stand)


def said(reply: Reply, status: int = 200) -> dict[str, Any]:
    assert reply.status == status, reply.text
    assert reply.headers["Content-Type"].startswith("application/json")
    found: dict[str, Any] = json.loads(reply.text)
    return found


def problem(reply: Reply) -> tuple[int, str]:
    """The status and the code of a refusal, which is well-formed."""
    assert reply.headers["Content-Type"].startswith("application/problem+json"), reply.text
    document = json.loads(reply.text)
    assert document.keys() - {"retry_after"} == {
        "title", "status", "code", "detail", "hint", "request_id",
    }  # fmt: skip
    assert document["status"] == reply.status
    assert document["detail"]
    assert document["hint"]
    assert ("Retry-After" in reply.headers) == ("retry_after" in document)
    return reply.status, document["code"]


async def token_for(stand: PortalStand, name: str = "desktop", **options: Any) -> str:
    row, token = issue(name, now=stand.clock.now(), **options)
    await stand.store.add_join_token(row)
    return token.reveal()


async def approve(stand: PortalStand, asked: dict[str, Any], *, yes: bool = True) -> None:
    session = await stand.stage.sign_in()
    decided = await stand.ctx.enrolments.decide(
        asked["user_code"], sid=session.sid if yes else "", now=stand.clock.now()
    )
    assert decided


# -- with a token -------------------------------------------------------------------------------


async def test_a_token_buys_a_certificate_for_its_name(
    machine: Machine, stand: PortalStand
) -> None:
    stand.port = ":8443"
    found = said(await machine.join(await token_for(stand)))
    certificate = base64.b64decode(found.pop("certificate"))
    assert found == {
        "agent": "desktop",
        "expires": int(stand.clock.now()) + 86400,
        "roots": stand.ctx.authority().roots(),
        "login_url": f"https://{LOGIN}:8443",
        "targets": ["ssh", "web"],
        "group": False,
    }
    verified = stand.ctx.authority().verify(certificate, now=stand.clock.now())
    assert (verified.name, verified.public_key) == ("desktop", machine.key.public_key())
    (row,) = await stand.ctx.enrolments.live("desktop")
    assert (row.label, row.secret_hash) == ("nas", verified.thumbprint)
    event = stand.audit.last("agent.joined")
    known = {name: event[name] for name in (
        "agent", "sid", "fingerprint", "device", "version", "via", "client", "replaced",
    )}  # fmt: skip
    assert known == {
        "agent": "desktop",
        "sid": row.sid,
        "fingerprint": AgentKey(machine.key.public_key()).fingerprint,
        "device": "nas",
        "version": "0.4.0",
        "via": "token",
        "client": "203.0.113.7",
        "replaced": 0,
    }


async def test_a_token_is_good_once(machine: Machine, stand: PortalStand) -> None:
    token = await token_for(stand, "pool")
    assert (await machine.join(token)).status == 200
    assert problem(await Machine(stand).join(token)) == (403, "token_used")
    assert stand.audit.last("agent.join_refused")["reason"] == "token_used"
    assert len(await stand.ctx.enrolments.live("pool")) == 1


@pytest.mark.parametrize("token", ["x", "heim_jt_x", "heim_st_" + "A" * 60, "é\ud800", "A" * 3000])
async def test_what_is_no_token_is_unknown(machine: Machine, token: str) -> None:
    assert problem(await machine.join(token)) == (403, "token_unknown")


async def test_a_token_with_another_secret_is_unknown_and_stays_good(
    machine: Machine, stand: PortalStand
) -> None:
    token = await token_for(stand)
    wrong = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
    assert problem(await machine.join(wrong)) == (403, "token_unknown")
    assert (await machine.join(token)).status == 200


async def test_a_token_expires(machine: Machine, stand: PortalStand) -> None:
    token = await token_for(stand)
    stand.clock.time += 15 * 60
    assert problem(await machine.join(token)) == (403, "token_expired")


async def test_a_name_is_one_machines_unless_the_token_says_otherwise(
    machine: Machine, stand: PortalStand
) -> None:
    await machine.join(await token_for(stand))
    (first,) = await stand.ctx.enrolments.live("desktop")
    other, token = Machine(stand), await token_for(stand)
    assert problem(await other.join(token)) == (409, "name_taken")
    replacing = await token_for(stand, replace=True)
    assert (await other.join(replacing)).status == 200
    (second,) = await stand.ctx.enrolments.live("desktop")
    assert second.sid != first.sid
    assert stand.audit.last("agent.joined")["replaced"] == 1


async def test_a_group_takes_several(stand: PortalStand) -> None:
    for _ in range(3):
        found = said(await Machine(stand).join(await token_for(stand, "pool")))
        assert (found["agent"], found["group"]) == ("pool", True)
    assert len(await stand.ctx.enrolments.live("pool")) == 3


async def test_a_token_for_an_agent_that_is_configured_no_more(
    machine: Machine, stand: PortalStand
) -> None:
    token = await token_for(stand)
    del stand.agents["desktop"]
    assert problem(await machine.join(token)) == (403, "agent_not_configured")
    stand.agents["desktop"] = AgentGrant("desktop", frozenset({"ssh"}))
    assert said(await machine.join(token))["targets"] == ["ssh"]


def _bad_requests() -> list[Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    good = certificate_request(key)
    other = ec.generate_private_key(ec.SECP384R1())
    forged = bytearray(good)
    forged[-1] ^= 1
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    large = builder.sign(rsa_key("idp-1"), SHA256())
    return [
        pytest.param("!!!", id="not base64"),
        pytest.param(base64.b64encode(b"x").decode(), id="not DER"),
        pytest.param(base64.b64encode(good + b"x").decode(), id="something behind it"),
        pytest.param(base64.b64encode(good[:-9]).decode(), id="cut off"),
        pytest.param(base64.b64encode(bytes(forged)).decode(), id="signature"),
        pytest.param(base64.b64encode(certificate_request(other)).decode(), id="P-384"),
        pytest.param(base64.b64encode(large.public_bytes(Encoding.DER)).decode(), id="RSA"),
        pytest.param(base64.b64encode(b"\x30" * 2500).decode(), id="long"),
    ]


@pytest.mark.parametrize("csr", _bad_requests())
async def test_a_request_that_is_none_burns_no_token(
    machine: Machine, stand: PortalStand, csr: str
) -> None:
    token = await token_for(stand)
    assert problem(await machine.join(token, csr=csr)) == (400, "bad_csr")
    assert problem(await machine.enrol(csr=csr)) == (400, "bad_csr")
    assert (await machine.join(token)).status == 200


@pytest.mark.parametrize("missing", ["token", "csr"])
async def test_what_is_missing_is_named(machine: Machine, missing: str) -> None:
    reply = await machine.post(JOIN_PATH, **{"token": "x", "csr": machine.csr, missing: None})
    assert problem(reply) == (400, "bad_request")
    assert missing in json.loads(reply.text)["detail"]


@pytest.mark.parametrize("version", ["", None, 4, "x" * 40, "1\n2", "<b>", "é"], ids=repr)
async def test_what_a_program_says_it_is_is_fit_for_logs(
    machine: Machine, stand: PortalStand, version: object
) -> None:
    await machine.join(await token_for(stand), version=version, device="a\nb\x1b[31m\u202e")
    event = stand.audit.last("agent.joined")
    assert event["version"] == "unknown"
    assert str(event["device"]).isprintable()


# -- by approval --------------------------------------------------------------------------------


async def test_a_machine_may_ask_and_is_told_where_its_code_is_typed(
    machine: Machine, stand: PortalStand
) -> None:
    stand.port = ":8443"
    asked = await machine.waits()
    assert asked.keys() == {
        "device_code", "user_code", "verification_uri", "expires_in", "interval", "fingerprint",
    }  # fmt: skip
    assert asked["verification_uri"] == f"https://{LOGIN}:8443{AGENTS_PATH}"
    assert (asked["expires_in"], asked["interval"]) == (600, 5)
    assert asked["fingerprint"] == AgentKey(machine.key.public_key()).fingerprint
    assert asked["user_code"] not in asked["verification_uri"]
    event = stand.audit.last("agent.enrolment_asked")
    assert (event["agent"], event["fingerprint"], event["client"], event["version"]) == (
        "desktop", asked["fingerprint"], "203.0.113.7", "0.4.0",
    )  # fmt: skip


async def test_it_waits_until_somebody_says_yes(machine: Machine, stand: PortalStand) -> None:
    asked = await machine.waits()
    assert said(await machine.enrolled(asked), 202) == {"status": "pending"}
    await approve(stand, asked)
    found = said(await machine.enrolled(asked))
    assert found.keys() == {
        "agent", "certificate", "expires", "roots", "login_url", "targets", "group",
    }  # fmt: skip
    certificate = base64.b64decode(found["certificate"])
    verified = stand.ctx.authority().verify(certificate, now=stand.clock.now())
    assert (verified.name, verified.public_key) == ("desktop", machine.key.public_key())
    event = stand.audit.last("agent.joined")
    assert (event["via"], event["agent"], event["device"]) == ("code", "desktop", "nas")


async def test_an_approval_is_given_once(machine: Machine, stand: PortalStand) -> None:
    asked = await machine.waits()
    await approve(stand, asked)
    assert (await machine.enrolled(asked)).status == 200
    assert problem(await machine.enrolled(asked)) == (410, "expired")


async def test_a_no_is_told(machine: Machine, stand: PortalStand) -> None:
    asked = await machine.waits()
    await approve(stand, asked, yes=False)
    assert problem(await machine.enrolled(asked)) == (403, "denied")
    assert await stand.ctx.enrolments.live("desktop") == ()


async def test_codes_expire(machine: Machine, stand: PortalStand) -> None:
    asked = await machine.waits()
    stand.clock.time += asked["expires_in"]
    assert problem(await machine.enrolled(asked)) == (410, "expired")


@pytest.mark.parametrize("code", ["x", "heim_dc_" + "A" * 43, "\ud800"])
async def test_a_code_that_is_none_has_expired(machine: Machine, code: str) -> None:
    assert problem(await machine.post(ENROLLED_PATH, device_code=code)) == (410, "expired")


async def test_asking_too_often_is_slowed_down(machine: Machine, stand: PortalStand) -> None:
    asked = await machine.waits()
    assert (await machine.enrolled(asked)).status == 202
    reply = await machine.post(ENROLLED_PATH, device_code=asked["device_code"])
    assert problem(reply) == (429, "slow_down")
    assert reply.headers["Retry-After"] == "10"


async def test_a_name_that_was_taken_meanwhile(machine: Machine, stand: PortalStand) -> None:
    asked = await machine.waits()
    await approve(stand, asked)
    await Machine(stand).join(await token_for(stand))
    assert problem(await machine.enrolled(asked)) == (409, "name_taken")


async def test_strangers_do_not_learn_which_agents_there_are(stand: PortalStand) -> None:
    await Machine(stand).join(await token_for(stand))
    replies = [await Machine(stand).enrol(name) for name in ("desktop", "pool", "nothing")]
    shapes = [(reply.status, said(reply).keys()) for reply in replies]
    assert shapes[0] == shapes[1] == shapes[2]


@pytest.mark.parametrize("name", ["../x", "A B", "", "x" * 200, "<b>", "é"])
async def test_a_name_that_can_be_none_is_refused(machine: Machine, name: str) -> None:
    assert (await machine.enrol(name)).status in (400, 403)


# -- bounds -------------------------------------------------------------------------------------


async def test_s7_joining_is_limited_by_client(stand: PortalStand) -> None:
    machine = Machine(stand)
    found = [problem(await machine.join("heim_jt_x")) for _ in range(61)]
    assert found == [(403, "token_unknown")] * 60 + [(429, "busy")]
    assert problem(await Machine(stand, "198.51.100.1").join("heim_jt_x"))[0] == 403


async def test_s7_joining_is_limited_by_network(stand: PortalStand) -> None:
    clients = [Machine(stand, f"2001:db8:1:{n:x}::1") for n in range(5)]
    statuses = [(await one.join("heim_jt_x")).status for one in clients for _ in range(50)]
    assert statuses.count(429) == 10
    assert (await Machine(stand, "2001:db8:2::1").join("heim_jt_x")).status == 403


async def test_s7_asking_is_limited(stand: PortalStand) -> None:
    machine = Machine(stand)
    found = [(await machine.enrol()).status for _ in range(21)]
    assert found == [200] * 20 + [429]


async def test_without_a_store_nobody_is_let_in_and_nothing_is_burned(
    machine: Machine, stand: PortalStand
) -> None:
    token, asked = await token_for(stand), await machine.waits()
    await approve(stand, asked)
    stand.store.down = "/var/lib/heim/state.db: gone"
    for reply in (
        await machine.join(token),
        await machine.enrol(),
        await machine.enrolled(asked),
    ):
        assert problem(reply) == (503, "busy")
        assert "state.db" not in reply.text
    stand.store.down = None
    assert (await machine.enrolled(asked)).status == 200


@pytest.mark.parametrize("path", [JOIN_PATH, ENROL_PATH, ENROLLED_PATH])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_other_methods_are_refused(stand: PortalStand, path: str, method: str) -> None:
    reply = await stand.browser().request(method, path)
    assert (reply.status, reply.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("path", [JOIN_PATH, ENROL_PATH, ENROLLED_PATH])
async def test_applications_hosts_let_nobody_in(stand: PortalStand, path: str) -> None:
    reply = await Machine(stand).post(f"https://{APP1}{path}", token="x")
    assert reply.status == 404
