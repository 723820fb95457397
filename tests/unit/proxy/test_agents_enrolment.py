"""Enrolments: who becomes an agent, by a token or by somebody's word, and who does not."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from heim_proxy.agents import join_tokens
from heim_proxy.agents.agent_keys import AgentKey
from heim_proxy.agents.authority import Authority
from heim_proxy.agents.enrolment import (
    Asked,
    Enrolled,
    Enrolments,
    EnrolProblem,
    JoinRefused,
    Refusal,
)
from heim_proxy.identity.device_codes import DeviceCodes, SlowDown
from heim_proxy.routing import AgentGrant
from heim_proxy.store.base import SessionRow, StoreUnavailable
from tests.fakes.agent_certificates import (
    LOGIN_HOST,
    authority,
    authority_pem,
    csr,
    key_pem,
    new_key,
    root_key,
    san,
)
from tests.fakes.sessions import NOW, ManualClock
from tests.fakes.store import MemoryStore

APPROVER = SessionRow(
    sid="p1", issuer="i", subject="1", email="alice@example.test", domain=None, groups=(),
    provider="idp", auth_time=NOW, created=NOW, expires=NOW + 3600, last_seen=NOW,
)  # fmt: skip


@dataclass
class Place:
    """Enrolments over a store in memory; `agents` is what configuration allows now."""

    store: MemoryStore
    clock: ManualClock
    authority: Authority
    agents: dict[str, AgentGrant] = field(default_factory=dict)
    dismissed: set[str | None] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.enrolments = Enrolments(
            self.store,
            authority=lambda: self.authority,
            permitted=lambda: self.agents,
            approves=lambda subject: subject.name not in self.dismissed,
            clock=self.clock,
        )

    async def token(self, name: str = "desktop", **options: object) -> str:
        row, token = join_tokens.issue(name, now=NOW, **options)  # type: ignore[arg-type]
        await self.store.add_join_token(row)
        return token.reveal()

    async def join(self, token: str, request: bytes | None = None, now: float = NOW) -> Enrolled:
        return await self.enrolments.join(token, request or csr(), device="pc-17", now=now)

    async def ask(self, name: str = "desktop", request: bytes | None = None) -> Asked:
        return await self.enrolments.ask(
            name,
            request or csr(),
            device="pc-17",
            client="192.0.2.7",
            client_key="192.0.2.7",
            network="192.0.2.7",
            now=NOW,
        )

    async def take(self, asked: Asked, now: float = NOW) -> Enrolled | EnrolProblem | SlowDown:
        return await self.enrolments.take(asked.device_code.reveal(), now)


@pytest.fixture
async def place() -> Place:
    store = MemoryStore()
    await store.open()
    await store.create_session(APPROVER)
    made = Place(store, ManualClock(), authority())
    made.agents["desktop"] = AgentGrant("desktop", frozenset({"ssh", "web"}))
    made.agents["pool"] = AgentGrant("pool", frozenset({"web"}), group=True)
    return made


async def refused(call: Callable[[], object], code: Refusal) -> JoinRefused:
    with pytest.raises(JoinRefused) as caught:
        await call()  # type: ignore[misc]
    assert caught.value.code is code
    return caught.value


async def test_a_token_lets_a_machine_be_the_agent_it_was_made_for(place: Place) -> None:
    key = new_key()
    done = await place.join(await place.token(), csr(key, name="root"))
    assert done.agent == "desktop"
    assert done.permitted is place.agents["desktop"]
    assert done.fingerprint == AgentKey(key.public_key()).fingerprint
    found = place.authority.verify(done.certificate, now=NOW)
    assert (found.name, found.public_key, found.expires) == (
        "desktop", key.public_key(), done.expires)  # fmt: skip
    assert san(done.certificate) == [f"spiffe://{LOGIN_HOST}/agent/desktop"]
    row = await place.enrolments.bound("desktop", found.thumbprint)
    assert row == done.row
    assert row.label == "pc-17"


async def test_a_token_is_used_once(place: Place) -> None:
    token, request = await place.token(), csr()
    await place.join(token, request)
    for again in (csr(), request):
        error = await refused(lambda again=again: place.join(token, again), Refusal.TOKEN_USED)
        assert "agent revoke desktop" in error.hint
    assert len(await place.enrolments.live("desktop")) == 1


async def test_of_many_that_use_a_token_at_once_one_gets_in(place: Place) -> None:
    token = await place.token("pool")
    done = await asyncio.gather(*(place.join(token) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(one, Enrolled) for one in done) == 1
    assert {one.code for one in done if isinstance(one, JoinRefused)} == {Refusal.TOKEN_USED}
    assert len(await place.enrolments.live("pool")) == 1


async def test_a_token_that_expired_says_so(place: Place) -> None:
    token = await place.token(lifetime_s=60.0)
    await refused(lambda: place.join(token, now=NOW + 60), Refusal.TOKEN_EXPIRED)
    assert await place.enrolments.live("desktop") == ()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda token: "", id="empty"),
        pytest.param(lambda token: "x" * 10_000, id="long"),
        pytest.param(lambda token: token[:-1], id="cut off"),
        pytest.param(lambda token: token[:25] + "A" * 43, id="another secret"),
        pytest.param(lambda token: token[:8] + "0" * 16 + token[24:], id="another id"),
        pytest.param(lambda token: token.replace("heim_jt_", "heim_st_"), id="another kind"),
    ],
)
async def test_what_is_no_token_of_ours_is_unknown(
    place: Place, damage: Callable[[str], str]
) -> None:
    token = damage(await place.token())
    error = await refused(lambda: place.join(token), Refusal.TOKEN_UNKNOWN)
    assert token[:20] not in f"{error.detail} {error.hint}" or not token


async def test_a_revoked_token_is_unknown(place: Place) -> None:
    token = await place.token()
    assert await place.store.drop_join_token(token[8:24])
    await refused(lambda: place.join(token), Refusal.TOKEN_UNKNOWN)


async def test_a_name_that_is_taken_costs_nobody_their_token(place: Place) -> None:
    first = await place.join(await place.token())
    token = await place.token()
    error = await refused(lambda: place.join(token), Refusal.NAME_TAKEN)
    assert "agent revoke desktop" in error.hint
    await place.store.end_session(first.row.sid, reason="revoked", now=NOW)
    assert (await place.join(token)).agent == "desktop"


async def test_a_token_made_to_replace_ends_what_was_there(place: Place) -> None:
    first = await place.join(await place.token())
    second = await place.join(await place.token(replace=True))
    assert second.replaced == (first.row.sid,)
    assert await place.enrolments.live("desktop") == (second.row,)
    (entry,) = await place.store.revocations(0)
    assert entry.sid == first.row.sid


async def test_a_machine_whose_answer_was_lost_joins_again_with_its_key(place: Place) -> None:
    request = csr(new_key())
    first = await place.join(await place.token(), request)
    second = await place.join(await place.token(), request)
    assert second.row.sid == first.row.sid
    assert second.certificate != first.certificate


async def test_a_group_lets_several_machines_in(place: Place) -> None:
    one = await place.join(await place.token("pool"))
    two = await place.join(await place.token("pool"))
    assert {row.sid for row in await place.enrolments.live("pool")} == {one.row.sid, two.row.sid}


async def test_an_agent_that_configuration_does_not_know_does_not_join(place: Place) -> None:
    token = await place.token("gone")
    error = await refused(lambda: place.join(token), Refusal.NOT_CONFIGURED)
    assert "agent gone" in error.detail
    place.agents["gone"] = AgentGrant("gone", frozenset({"ssh"}))
    assert (await place.join(token)).agent == "gone"


async def test_a_request_that_cannot_be_used_burns_no_token(place: Place) -> None:
    token = await place.token()
    await refused(lambda: place.join(token, b"nonsense"), Refusal.BAD_CSR)
    assert (await place.join(token)).agent == "desktop"


async def test_an_authority_that_is_over_enrols_nobody(place: Place) -> None:
    token = await place.token()
    pem = authority_pem(expires=NOW - 1)
    place.authority = Authority.parse(pem, key_pem(root_key()), login_host=LOGIN_HOST)
    error = await refused(lambda: place.join(token), Refusal.BUSY)
    assert "agents_ca" in error.hint
    assert await place.enrolments.live("desktop") == ()


async def test_without_a_store_nobody_joins(place: Place) -> None:
    token = await place.token()
    place.store.full = True
    with pytest.raises(StoreUnavailable):
        await place.join(token)
    place.store.full = False
    assert (await place.join(token)).agent == "desktop"


async def test_an_approval_lets_a_machine_in_once(place: Place) -> None:
    key = new_key()
    asked = await place.ask(request=csr(key))
    assert asked.fingerprint == AgentKey(key.public_key()).fingerprint
    assert await place.take(asked) is EnrolProblem.PENDING
    assert await place.enrolments.decide(asked.user_code, sid="p1", now=NOW)
    done = await place.take(asked)
    assert isinstance(done, Enrolled)
    found = place.authority.verify(done.certificate, now=NOW)
    assert (found.name, found.public_key) == ("desktop", key.public_key())
    assert await place.take(asked) is EnrolProblem.EXPIRED
    assert await place.enrolments.live("desktop") == (done.row,)


async def test_who_approves_sees_whom(place: Place) -> None:
    key = new_key()
    asked = await place.ask(request=csr(key))
    waiting = await place.enrolments.find(asked.user_code, NOW)
    assert waiting is not None
    assert (waiting.name, waiting.label, waiting.client) == ("desktop", "pc-17", "192.0.2.7")
    assert (waiting.targets, waiting.group) == (("ssh", "web"), False)
    assert waiting.fingerprint == AgentKey(key.public_key()).fingerprint
    assert waiting.refusal is None


async def test_who_may_not_approve_any_more_lets_nobody_in(place: Place) -> None:
    asked = await place.ask()
    assert await place.enrolments.decide(asked.user_code, sid="p1", now=NOW)
    place.dismissed.add(APPROVER.email)
    assert await place.take(asked) is EnrolProblem.DENIED
    assert await place.enrolments.live("desktop") == ()


async def test_a_denial_is_final(place: Place) -> None:
    asked = await place.ask()
    assert await place.enrolments.decide(asked.user_code, sid="", now=NOW)
    assert not await place.enrolments.decide(asked.user_code, sid="p1", now=NOW)
    assert await place.take(asked) is EnrolProblem.DENIED
    assert await place.enrolments.live("desktop") == ()


async def test_a_code_expires(place: Place) -> None:
    asked = await place.ask()
    assert await place.enrolments.find(asked.user_code, NOW + 600) is None
    assert not await place.enrolments.decide(asked.user_code, sid="p1", now=NOW + 600)
    assert await place.take(asked, NOW + 600) is EnrolProblem.EXPIRED


async def test_too_many_questions_slow_the_agent_down(place: Place) -> None:
    asked = await place.ask()
    await place.take(asked)
    assert await place.take(asked) == SlowDown(10.0)


async def test_strangers_do_not_learn_which_agents_there_are(place: Place) -> None:
    """Asking under any name waits; who may approve is told that it is in vain."""
    await place.join(await place.token())
    texts = {}
    for name in ("desktop", "nothing-of-that-name"):
        asked = await place.ask(name)
        waiting = await place.enrolments.find(asked.user_code, NOW)
        assert waiting is not None
        assert waiting.refusal is not None
        texts[name] = waiting.refusal.code
    assert texts == {
        "desktop": Refusal.NAME_TAKEN, "nothing-of-that-name": Refusal.NOT_CONFIGURED,
    }  # fmt: skip


async def test_an_approval_in_vain_enrols_nobody(place: Place) -> None:
    await place.join(await place.token())
    for name, code in (("desktop", Refusal.NAME_TAKEN), ("nobody", Refusal.NOT_CONFIGURED)):
        asked = await place.ask(name)
        await place.enrolments.decide(asked.user_code, sid="p1", now=NOW)
        await refused(lambda asked=asked: place.take(asked), code)
    assert len(await place.enrolments.live("desktop")) == 1


async def test_a_machine_that_is_enrolled_is_not_in_its_own_way(place: Place) -> None:
    request = csr(new_key())
    await place.join(await place.token(), request)
    waiting = await place.enrolments.find((await place.ask(request=request)).user_code, NOW)
    assert waiting is not None
    assert waiting.refusal is None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"ended": NOW}, id="ended"),
        pytest.param({"expires": NOW}, id="expired"),
        pytest.param(None, id="unknown"),
    ],
)
async def test_who_was_signed_out_lets_nobody_in(
    place: Place, change: dict[str, float] | None
) -> None:
    asked = await place.ask()
    await place.enrolments.decide(asked.user_code, sid="p1", now=NOW)
    del place.store.sessions["p1"]
    if change is not None:
        place.store.sessions["p1"] = replace(APPROVER, **change)  # type: ignore[arg-type]
    assert await place.take(asked) is EnrolProblem.DENIED
    assert await place.enrolments.live("desktop") == ()


@pytest.mark.parametrize("name", ["", "a/b", "..", "Desktop", "a" * 64, "größe", "a\n"])
async def test_what_cannot_be_a_name_is_refused_and_not_repeated(place: Place, name: str) -> None:
    """O5."""
    error = await refused(lambda: place.ask(name), Refusal.NOT_CONFIGURED)
    assert error.detail == "that name is not in the proxy's configuration"
    assert place.store.devices == {}


async def test_only_so_many_wait(place: Place) -> None:
    for _ in range(50):
        await place.ask()
    await refused(place.ask, Refusal.BUSY)


async def test_an_agents_code_is_unknown_where_logins_are_approved(place: Place) -> None:
    """Or whoever may sign in could let agents in, and an agent would get somebody's login."""
    logins = DeviceCodes(place.store, place.clock)
    asked = await place.ask()
    assert await logins.find(asked.user_code, NOW) is None
    assert not await logins.decide(asked.user_code, sid="p1", now=NOW)
    code = asked.device_code.reveal()
    for form in (code, code.replace("heim_ac_", "heim_dc_")):
        assert await logins.poll(form, NOW) is not None
        assert not hasattr(await logins.poll(form, NOW), "sid")
    assert await place.take(asked) is EnrolProblem.PENDING


async def test_a_logins_code_is_unknown_where_agents_are_approved(place: Place) -> None:
    logins = DeviceCodes(place.store, place.clock)
    start = await logins.start("x", "c", NOW, client_key="c", network="c")
    assert start is not None
    assert await place.enrolments.find(start.user_code, NOW) is None
    assert not await place.enrolments.decide(start.user_code, sid="p1", now=NOW)
    code = start.device_code.reveal()
    for form in (code, code.replace("heim_dc_", "heim_ac_")):
        assert await place.enrolments.take(form, NOW) is EnrolProblem.EXPIRED


async def test_only_the_key_that_is_enrolled_is_bound(place: Place) -> None:
    done = await place.join(await place.token())
    other = AgentKey(new_key().public_key())
    assert await place.enrolments.bound("desktop", other.thumbprint) is None
    assert await place.enrolments.bound("pool", done.row.secret_hash) is None
    await place.store.end_session(done.row.sid, reason="revoked", now=NOW)
    assert await place.enrolments.bound("desktop", done.row.secret_hash) is None


async def test_nothing_secret_is_kept(place: Place) -> None:
    token = await place.token()
    asked = await place.ask()
    kept = repr(place.store.join_tokens) + repr(place.store.devices)
    for row in (*place.store.join_tokens.values(), *place.store.devices.values()):
        kept += repr([getattr(row, name) for name in row.__slots__])
    for secret in (token[25:], asked.device_code.reveal(), asked.user_code):
        assert secret not in kept
        assert base64.b64encode(secret.encode()).decode() not in kept
