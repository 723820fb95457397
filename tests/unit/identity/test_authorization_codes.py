"""Authorization codes: for one program on this machine, once, within a minute."""

from __future__ import annotations

import asyncio

import pytest

from heim_proxy.identity.authorization_codes import (
    LIFETIME_S,
    AuthorizationCodes,
    CodeProblem,
    Consent,
    is_challenge,
    is_loopback_redirect,
)
from heim_proxy.identity.handoff import Tickets
from heim_proxy.identity.session import Session
from heim_proxy.store.base import StoreUnavailable
from tests.fakes.programs import LOGIN_URL, VERIFIER, challenge_of
from tests.fakes.sessions import NOW, Stage

HERE = "http://127.0.0.1:49152/callback"


@pytest.fixture
async def stage() -> Stage:
    return await Stage.up()


@pytest.fixture
async def alice(stage: Stage) -> Session:
    return await stage.sign_in()


def codes(stage: Stage, login_url: str = LOGIN_URL) -> AuthorizationCodes:
    return AuthorizationCodes(stage.sealer, stage.store, lambda: login_url)


def issue(stage: Stage, session: Session, label: str = "laptop") -> str:
    return (
        codes(stage)
        .issue(session, redirect_uri=HERE, challenge=challenge_of(), label=label, now=NOW)
        .reveal()
    )


async def redeem(
    stage: Stage,
    code: str,
    *,
    redirect_uri: str = HERE,
    verifier: str = VERIFIER,
    now: float = NOW,
    login_url: str = LOGIN_URL,
) -> Consent | CodeProblem:
    return await codes(stage, login_url).redeem(
        code, redirect_uri=redirect_uri, verifier=verifier, now=now
    )


async def test_a_code_says_who_consented_to_what(stage: Stage, alice: Session) -> None:
    code = issue(stage, alice, "größe\n💻")
    assert await redeem(stage, code) == Consent(alice.sid, "größe\n💻")


async def test_a_code_fits_a_url_and_says_nothing(stage: Stage, alice: Session) -> None:
    code = issue(stage, alice)
    assert len(code) < 400
    assert alice.sid not in code


async def test_a_code_is_redeemed_once(stage: Stage, alice: Session) -> None:
    code = issue(stage, alice)
    assert isinstance(await redeem(stage, code), Consent)
    assert await redeem(stage, code) is CodeProblem.REPLAYED


async def test_of_many_at_once_one_redeems_a_code(stage: Stage, alice: Session) -> None:
    """L3."""
    code = issue(stage, alice)
    outcomes = await asyncio.gather(*(redeem(stage, code) for _ in range(20)))
    assert outcomes.count(CodeProblem.REPLAYED) == 19


async def test_another_process_knows_that_a_code_was_used(stage: Stage, alice: Session) -> None:
    code = issue(stage, alice)
    await redeem(stage, code)
    assert await redeem(await stage.restarted(), code) is CodeProblem.REPLAYED


async def test_a_code_lives_for_a_minute(stage: Stage, alice: Session) -> None:
    code = issue(stage, alice)
    assert await redeem(stage, code, now=NOW + LIFETIME_S) is CodeProblem.EXPIRED
    assert isinstance(await redeem(stage, code, now=NOW + LIFETIME_S - 1), Consent)


@pytest.mark.parametrize(
    "verifier",
    ["w" * 43, "v" * 44, "v" * 42, "", challenge_of(), "v" * 129, "é" * 43, "v" * 43 + "\n"],
    ids=range(8),
)
async def test_a_wrong_verifier_uses_the_code_up(
    stage: Stage, alice: Session, verifier: str
) -> None:
    """L3: whoever took the code from the URL gets one look, and then nobody gets another."""
    code = issue(stage, alice)
    assert await redeem(stage, code, verifier=verifier) is CodeProblem.WRONG_VERIFIER
    assert await redeem(stage, code) is CodeProblem.REPLAYED


async def test_a_code_belongs_to_one_address(stage: Stage, alice: Session) -> None:
    code = issue(stage, alice)
    other = HERE.replace("49152", "49153")
    assert await redeem(stage, code, redirect_uri=other) is CodeProblem.OTHER_REDIRECT


async def test_another_login_host_takes_no_code_of_ours(stage: Stage, alice: Session) -> None:
    code = issue(stage, alice)
    assert await redeem(stage, code, login_url="https://other.test") is CodeProblem.INVALID


async def test_a_ticket_is_no_code_and_a_code_no_ticket(stage: Stage, alice: Session) -> None:
    tickets = Tickets(stage.sealer, stage.store)
    ticket = tickets.issue(alice, LOGIN_URL, "/", challenge_of(), NOW)
    assert await redeem(stage, ticket) is CodeProblem.INVALID
    outcome = await tickets.redeem(issue(stage, alice), LOGIN_URL, [], NOW)
    assert str(getattr(outcome, "kind", "")) == "HandoffErrorKind.INVALID"


@pytest.mark.parametrize("code", ["", "x", "é" * 20, "A" * 5000, "heim_rt_x"], ids=range(5))
async def test_garbage_is_no_code(stage: Stage, code: str) -> None:
    assert await redeem(stage, code) is CodeProblem.INVALID
    assert stage.store.burned == {}, "a stranger left something in the store"


async def test_a_code_that_cannot_be_marked_is_not_accepted(stage: Stage, alice: Session) -> None:
    code = issue(stage, alice)
    stage.store.full = True
    with pytest.raises(StoreUnavailable):
        await redeem(stage, code)
    stage.store.full = False
    assert isinstance(await redeem(stage, code), Consent)


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:1/callback",
        "http://127.0.0.1:65535/callback",
        "http://[::1]:8080/callback",
    ],
)
def test_loopback_is_where_a_code_may_go(uri: str) -> None:
    assert is_loopback_redirect(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "http://127.0.0.1/callback",
        "http://127.0.0.1:0/callback",
        "http://127.0.0.1:01/callback",
        "http://127.0.0.1:65536/callback",
        "http://127.0.0.1:99999999/callback",
        "http://127.0.0.1:8080/callback/",
        "http://127.0.0.1:8080/callback?x=1",
        "http://127.0.0.1:8080/callback#x",
        "http://127.0.0.1:8080/callback\n",
        "http://127.0.0.1:8080/other",
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8080@evil.test/callback",
        "http://127.0.0.1:8080\\@evil.test/callback",
        "http://127.0.0.1.evil.test:8080/callback",
        "http://user@127.0.0.1:8080/callback",
        "http://evil.test:8080/callback",
        "http://localhost:8080/callback",
        "http://LOCALHOST:8080/callback",
        "http://127.1:8080/callback",
        "http://127.0.0.2:8080/callback",
        "http://0.0.0.0:8080/callback",
        "http://2130706433:8080/callback",
        "http://0x7f000001:8080/callback",
        "http://[::ffff:127.0.0.1]:8080/callback",
        "http://[::1%25lo]:8080/callback",
        "http://[::]:8080/callback",
        "https://127.0.0.1:8080/callback",
        "HTTP://127.0.0.1:8080/callback",
        " http://127.0.0.1:8080/callback",
        "//127.0.0.1:8080/callback",
        "javascript:alert(1)//http://127.0.0.1:8080/callback",
        "http://١٢٧.0.0.1:8080/callback",
        "http://127.0.0.1:٨٠٨٠/callback",
        "urn:ietf:wg:oauth:2.0:oob",
    ],
)
def test_nothing_else_is(uri: str) -> None:
    """L4 (GHSA-35vc)."""
    assert not is_loopback_redirect(uri)


@pytest.mark.parametrize(
    ("text", "good"),
    [(challenge_of(), True), ("", False), ("x" * 42, False), ("x" * 44, False), ("=" * 43, False)],
)
def test_a_challenge_has_one_form(text: str, good: bool) -> None:
    assert is_challenge(text) is good


async def test_nothing_shows_a_code(stage: Stage, alice: Session) -> None:
    code = codes(stage).issue(
        alice, redirect_uri=HERE, challenge=challenge_of(), label="x", now=NOW
    )
    assert code.reveal() not in f"{code!r} {code}"
