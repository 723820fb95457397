"""Letting agents in by typing their code, and the list of them."""

from __future__ import annotations

import asyncio
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from heim_proxy.access.policy import Approver
from heim_proxy.agents.agent_keys import AgentKey
from heim_proxy.agents.enrolment import Asked, Enrolled
from heim_proxy.agents.presence import LanePresence, Presence
from heim_proxy.live import EndReason
from heim_proxy.portal.agents import MAX_SHOWN, PATH
from heim_proxy.portal.forms import csrf_token
from heim_proxy.routing import AgentGrant
from tests.fakes.agent import b64url, certificate_request
from tests.fakes.portal import APP1, LOGIN, Browser, PortalStand, Reply

ORIGIN = f"https://{LOGIN}"


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


async def signed_in(stand: PortalStand, who: str = "alice", client: str = "192.0.2.1") -> Browser:
    stand.idp.user = who
    browser = stand.browser(client)
    await browser.open(APP1)
    return browser


async def waiting(stand: PortalStand, name: str = "desktop", device: str = "nas") -> Asked:
    client = "203.0.113.7"
    return await stand.ctx.enrolments.ask(
        name,
        certificate_request(new_key()),
        device=device,
        version="0.4.0",
        client=client,
        client_key=client,
        network=client,
        now=stand.clock.now(),
    )


async def joined(stand: PortalStand, name: str = "desktop", device: str = "nas") -> Enrolled:
    """A machine that somebody let in, with another session than the test's."""
    asked = await waiting(stand, name, device)
    session = await stand.stage.sign_in()
    now = stand.clock.now()
    assert await stand.ctx.enrolments.decide(asked.user_code, sid=session.sid, now=now)
    enrolled = await stand.ctx.enrolments.take(asked.device_code.reveal(), now)
    assert isinstance(enrolled, Enrolled)
    return enrolled


async def post(browser: Browser, origin: str | None = ORIGIN, **form: str) -> Reply:
    form.setdefault("csrf", csrf_token(browser.session() or "", "agents"))
    headers = {} if origin is None else {"Origin": origin}
    return await browser.request("POST", PATH, headers=headers, form=form)


async def told(stand: PortalStand, asked: Asked) -> str:
    """What the machine learns next."""
    stand.clock.time += asked.interval + 1
    return repr(await stand.ctx.enrolments.take(asked.device_code.reveal(), stand.clock.now()))


def facts(page: Reply) -> list[tuple[str, str]]:
    return re.findall(r"<dt>([^<]*)</dt><dd>(?:<code>)?([^<]*)(?:</code>)?</dd>", page.text)


async def test_a_code_leads_to_a_page_that_says_who_asks(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    asked = await waiting(stand)
    page = await post(browser, code=asked.user_code.lower().replace("-", " "))
    assert page.status == 200
    assert facts(page) == [
        ("Agent", "desktop"),
        ("Targets", "ssh, web"),
        ("Key", asked.fingerprint),
        ("Machine", "nas"),
        ("Program", "heim-agent 0.4.0"),
        ("Asked from", "203.0.113.7"),
        ("Asked at", "15 Jan 2027, 08:00 UTC"),
        ("Code", asked.user_code),
    ]
    assert page.headers["Referrer-Policy"] == "same-origin"
    assert "PENDING" in await told(stand, asked), "typing it was taken for a yes"


async def test_yes_lets_it_in(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    asked = await waiting(stand)
    done = await post(browser, code=asked.user_code, decision="approve")
    assert (done.status, "let in" in done.text) == (200, True)
    assert "desktop" in await told(stand, asked)
    event = stand.audit.last("agent.enrolment_approved")
    known = {name: event[name] for name in (
        "agent", "fingerprint", "device", "device_client", "email", "role", "client",
    )}  # fmt: skip
    assert known == {
        "agent": "desktop",
        "fingerprint": asked.fingerprint,
        "device": "nas",
        "device_client": "203.0.113.7",
        "email": "alice@example.com",
        "role": "keepers",
        "client": "192.0.2.1",
    }
    assert "access.break_glass" not in stand.audit.events()


@pytest.mark.parametrize("decision", ["deny", "", "APPROVE"])
async def test_anything_else_refuses_it(stand: PortalStand, decision: str) -> None:
    browser = await signed_in(stand)
    asked = await waiting(stand)
    done = await post(browser, code=asked.user_code, decision=decision)
    assert (done.status, "refused" in done.text) == (200, True)
    assert "DENIED" in await told(stand, asked)
    assert stand.audit.last("agent.enrolment_denied")["agent"] == "desktop"


async def test_j11_breaking_the_glass_is_an_event_of_its_own(stand: PortalStand) -> None:
    stand.approvers = {"alice@example.com": Approver("root", break_glass=True)}
    browser = await signed_in(stand)
    asked = await waiting(stand)
    await post(browser, code=asked.user_code, decision="approve")
    event = stand.audit.last("access.break_glass")
    assert (event["user"], event["agent"], event["rule"]) == (
        "alice@example.com", "desktop", "role root: break-glass",
    )  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_others_are_told_why_they_may_not(stand: PortalStand, method: str) -> None:
    browser = await signed_in(stand, "bob")
    asked = await waiting(stand)
    if method == "GET":
        page = await browser.get(PATH)
    else:
        page = await post(browser, code=asked.user_code, decision="approve")
    assert page.status == 403
    for said in ("You may not let agents in.", "bob@example.com", "approve_agents"):
        assert said in page.text
    assert "desktop" not in page.text
    assert "PENDING" in await told(stand, asked)
    assert stand.audit.last("agent.approval_refused")["user"] == "bob@example.com"


async def test_a_right_that_was_taken_away_meanwhile_is_gone(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    asked = await waiting(stand)
    assert (await post(browser, code=asked.user_code)).status == 200
    stand.approvers.clear()
    assert (await post(browser, code=asked.user_code, decision="approve")).status == 403
    assert "PENDING" in await told(stand, asked)


async def test_of_two_people_one_decides(stand: PortalStand) -> None:
    asked = await waiting(stand)
    one, other = await signed_in(stand), await signed_in(stand, client="192.0.2.2")
    replies = await asyncio.gather(
        post(one, code=asked.user_code, decision="approve"),
        post(other, code=asked.user_code, decision="deny"),
    )
    assert sorted(reply.status for reply in replies) == [200, 400]


async def test_a_code_in_the_address_is_not_looked_at(stand: PortalStand) -> None:
    """Typed, never prefilled: a link must not bring the code along (decision 31)."""
    browser = await signed_in(stand)
    asked = await waiting(stand)
    page = await browser.get(f"{PATH}?user_code={asked.user_code}&code={asked.user_code}")
    assert page.status == 200
    assert asked.user_code not in page.text


async def test_whoever_is_not_signed_in_does_so_and_comes_back(stand: PortalStand) -> None:
    page = await stand.browser().follow(PATH)
    assert (page.status, page.url) == (200, f"{ORIGIN}{PATH}")
    assert 'name="code"' in page.text
    reply = await post(stand.browser(), csrf="x", code="x")
    assert (reply.status, reply.location) == (303, "/.heim/login?rd=%2F.heim%2Fagents")


async def test_a_session_that_ended_meanwhile_leads_to_signing_in_again(
    stand: PortalStand,
) -> None:
    browser = await signed_in(stand)
    asked = await waiting(stand)
    for sid in list(stand.store.sessions):
        await stand.stage.sessions.end(sid, EndReason.REVOKED, stand.clock.now())
    reply = await post(browser, code=asked.user_code, decision="approve")
    assert (reply.status, reply.location) == (303, "/.heim/login?rd=%2F.heim%2Fagents")


@pytest.mark.parametrize("code", ["", "x", "BCDF-GHJK", "<script>", "B" * 16])
async def test_a_wrong_code_is_asked_for_again(stand: PortalStand, code: str) -> None:
    page = await post(await signed_in(stand), code=code, decision="approve")
    assert page.status == 400
    assert "no such code" in page.text
    assert "<script>" not in page.text
    assert 'name="code"' in page.text


async def test_an_expired_code_is_a_wrong_one(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    asked = await waiting(stand)
    assert (await post(browser, code=asked.user_code)).status == 200
    stand.clock.time += asked.expires_in
    late = await post(browser, code=asked.user_code, decision="approve")
    assert late.status == 400
    assert "agent.enrolment_approved" not in stand.audit.events()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        pytest.param("laptop", "laptop", id="not configured"),
        pytest.param("desktop", "desktop", id="taken"),
    ],
)
async def test_what_would_not_help_cannot_be_approved_and_says_why(
    stand: PortalStand, name: str, why: str
) -> None:
    if name == "desktop":
        await joined(stand)
    browser = await signed_in(stand)
    asked = await waiting(stand, name, "other")
    page = await post(browser, code=asked.user_code)
    assert page.status == 200
    assert "It cannot be let in:" in page.text
    assert why in page.text
    assert 'value="approve"' not in page.text
    forced = await post(browser, code=asked.user_code, decision="approve")
    assert (forced.status, "It cannot be let in:" in forced.text) == (409, True)
    assert "PENDING" in await told(stand, asked)
    denied = await post(browser, code=asked.user_code, decision="deny")
    assert denied.status == 200
    assert "DENIED" in await told(stand, asked)


async def test_the_list_says_which_are_here_which_were_and_which_never_came(
    stand: PortalStand,
) -> None:
    browser = await signed_in(stand)
    stand.agents["attic"] = AgentGrant("attic", frozenset({"rsync"}))
    here = await joined(stand)
    gone, _ = await joined(stand, "pool", "one"), await joined(stand, "pool", "<b>two")
    moment = stand.clock.now() + 3600
    await stand.store.touch_sessions({gone.row.sid: moment})
    lanes = tuple(
        LanePresence(n, f"198.51.100.{n}", moment - n, 0, 0, None, heavy=False, going_away=False)
        for n in range(2)
    )
    thumbprint = b64url(here.row.secret_hash)
    stand.present = [Presence("desktop", thumbprint, "x", "1", "b", moment - 1, moment, lanes)]
    assert facts(await browser.get(PATH)) == [
        ("Agent", "attic"),
        ("Targets", "rsync"),
        ("Machine", "never joined"),
        ("Agent", "desktop"),
        ("Targets", "ssh, web"),
        ("Machine", "nas"),
        ("Joined", "15 Jan 2027, 08:00 UTC"),
        ("Connected", "since 15 Jan 2027, 08:59 UTC, from 198.51.100.1"),
        ("Agent", "pool (a group)"),
        ("Targets", "web"),
        ("Machine", "&lt;b&gt;two"),
        ("Joined", "15 Jan 2027, 08:00 UTC"),
        ("Offline", "never connected"),
        ("Machine", "one"),
        ("Joined", "15 Jan 2027, 08:00 UTC"),
        ("Offline", "last seen 15 Jan 2027, 09:00 UTC"),
    ]


async def test_a_machine_whose_enrolment_ended_is_not_listed(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    enrolled = await joined(stand)
    assert ("Machine", "nas") in facts(await browser.get(PATH))
    await stand.store.end_session(enrolled.row.sid, reason="revoked", now=stand.clock.now())
    assert ("Machine", "nas") not in facts(await browser.get(PATH))


async def test_p6_the_list_holds_no_ids_and_no_keys(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    enrolled = await joined(stand)
    page = await browser.get(PATH)
    row = enrolled.row
    for secret in (row.sid, b64url(row.secret_hash), row.secret_hash.hex()):
        assert secret not in page.text


async def test_the_list_is_bounded(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    stand.agents = {
        name: AgentGrant(name, frozenset({"ssh"}))
        for name in (f"a{n:04}" for n in range(MAX_SHOWN + 3))
    }
    page = await browser.get(PATH)
    assert page.text.count("<dt>Agent</dt>") == MAX_SHOWN
    assert "and 3 more" in page.text
    stand.agents = {}
    assert "None are configured." in (await browser.get(PATH)).text


@pytest.mark.parametrize("who", ["alice", "bob"])
async def test_the_start_page_leads_there_those_who_may(stand: PortalStand, who: str) -> None:
    page = await (await signed_in(stand, who)).get("/")
    assert (f'href="{PATH}"' in page.text) == (who == "alice")
    assert f'href="{PATH}"' not in (await stand.browser().get("/")).text


@pytest.mark.parametrize("origin", [None, "null", "https://evil.test", f"https://{APP1}"])
async def test_p2_a_form_of_another_origin_decides_nothing(
    stand: PortalStand, origin: str | None
) -> None:
    browser = await signed_in(stand)
    asked = await waiting(stand)
    reply = await post(browser, origin, code=asked.user_code, decision="approve")
    assert reply.status == 403
    assert "PENDING" in await told(stand, asked)


async def test_p2_a_form_without_our_token_decides_nothing(stand: PortalStand) -> None:
    browser, other = await signed_in(stand), await signed_in(stand)
    asked = await waiting(stand)
    foreign = csrf_token(other.session() or "", "agents")
    device = csrf_token(browser.session() or "", "device")
    for csrf in ("", "x", "é", foreign, device):
        reply = await post(browser, csrf=csrf, code=asked.user_code, decision="approve")
        assert reply.status == 403
    assert "PENDING" in await told(stand, asked)


async def test_guessing_ends_after_twenty_codes(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    asked = await waiting(stand)
    statuses = [(await post(browser, code="BCDF-GHJK")).status for _ in range(21)]
    assert statuses == [400] * 20 + [429]
    assert (await post(browser, code=asked.user_code)).status == 429


async def test_a_machine_cannot_write_on_the_page(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    asked = await waiting(stand, device="</dd><script>alert(1)</script>\u202e\n")
    page = await post(browser, code=asked.user_code)
    assert "<script" not in page.text
    assert "\u202e" not in page.text
    assert "form-action 'self'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_are_refused(stand: PortalStand, method: str) -> None:
    assert (await (await signed_in(stand)).request(method, PATH)).status == 405


async def test_applications_hosts_have_no_such_page(stand: PortalStand) -> None:
    assert (await (await signed_in(stand)).get(f"https://{APP1}{PATH}")).status == 404


async def test_without_a_store_it_is_a_page_that_says_so(stand: PortalStand) -> None:
    browser = await signed_in(stand)
    stand.store.down = "gone"
    assert (await browser.get(PATH)).status == 503
    assert (await post(browser, code="BCDF-GHJK")).status == 503


async def test_the_fingerprint_is_the_one_that_the_agent_prints(stand: PortalStand) -> None:
    key = new_key()
    request = certificate_request(key)
    asked = await stand.ctx.enrolments.ask(
        "desktop", request, device="nas", client="192.0.2.9",
        client_key="192.0.2.9", network="192.0.2.9", now=stand.clock.now(),
    )  # fmt: skip
    page = await post(await signed_in(stand), code=asked.user_code)
    assert ("Key", AgentKey(key.public_key()).fingerprint) in facts(page)
