"""The hand-off from login host to application host: one browser, one use, half a minute (H18)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import re
import secrets
from urllib.parse import parse_qs, urlsplit

import pytest

from heim_proxy.identity.cookies import FLOW_PREFIX, LOGIN_PREFIX
from heim_proxy.identity.handoff import (
    MAX_FLOWS,
    TICKET_LIFETIME_S,
    HandoffError,
    HandoffErrorKind,
    HandoffStart,
    Redeemed,
    Tickets,
    is_challenge,
    start,
)
from heim_proxy.identity.seal import Purpose
from heim_proxy.identity.session import Session
from heim_proxy.store.base import StoreUnavailable
from tests.fakes.sessions import NOW, Stage

LOGIN = "https://auth.example.test:8443"
APP = "app1.example.test"


class Browser:
    """Starts a hand-off on an application's host and keeps the cookie it was given."""

    def __init__(self, rd: str = "/dashboard?x=1", *, host: str = APP) -> None:
        self.start = start(host, rd, login_url=LOGIN, cookies=(), now=NOW)
        name, _, rest = self.start.set_cookies[0].partition("=")
        self.cookies = [(name, rest.partition(";")[0])]
        self.query = parse_qs(urlsplit(self.start.location).query)
        self.h = self.query["h"][0]


@pytest.fixture
async def stage() -> Stage:
    return await Stage.up()


@pytest.fixture
def tickets(stage: Stage) -> Tickets:
    return Tickets(stage.sealer, stage.store)


@pytest.fixture
async def session(stage: Stage) -> Session:
    return await stage.sign_in()


def refused(kind: HandoffErrorKind) -> HandoffError:
    return HandoffError(kind)


def test_a_browser_is_sent_to_the_login_host_with_what_it_came_for() -> None:
    browser = Browser("/d/x?a=1&b=2")
    assert browser.start.location.startswith(f"{LOGIN}/.heim/login?host={APP}&rd=/d/x%3Fa%3D1")
    assert browser.query["rd"] == ["/d/x?a=1&b=2"]
    assert is_challenge(browser.h)


def test_the_challenge_is_the_digest_of_a_secret_that_stays_behind() -> None:
    browser = Browser()
    ((name, value),) = browser.cookies
    n = base64.urlsafe_b64decode(value + "=")
    assert len(n) == 32
    assert base64.urlsafe_b64encode(hashlib.sha256(n).digest()).decode() == browser.h + "="
    assert value not in browser.start.location
    assert re.fullmatch(re.escape(FLOW_PREFIX) + "[0-9a-f]{20}", name)


def test_the_flow_cookie_is_bound_to_its_host_and_ends_by_itself() -> None:
    (cookie,) = Browser().start.set_cookies
    assert cookie.endswith("; Max-Age=3600; Path=/; Secure; HttpOnly; SameSite=Lax")


def test_no_two_flows_share_secret_or_name() -> None:
    browsers = [Browser() for _ in range(100)]
    assert len({browser.h for browser in browsers}) == 100
    assert len({browser.cookies[0][0] for browser in browsers}) == 100


def test_secrets_do_not_come_from_a_predictable_generator() -> None:
    """H15."""
    random.seed(1)
    first = Browser().h
    random.seed(1)
    assert Browser().h != first


def test_a_hostile_target_is_not_carried() -> None:
    assert Browser("//evil.test").query["rd"] == ["/"]
    assert Browser("/.heim/login").query["rd"] == ["/"]


def cleared(started: HandoffStart) -> list[str]:
    return [cookie.partition("=")[0] for cookie in started.set_cookies if "Max-Age=0" in cookie]


def test_ten_tabs_keep_the_five_newest_flows() -> None:
    """H12."""
    names: list[str] = []
    for tab in range(10):
        started = start(APP, "/", login_url=LOGIN, cookies=names, now=NOW + tab)
        gone = cleared(started)
        assert gone == sorted(names)[: len(gone)], "not the oldest"
        names = [name for name in names if name not in gone]
        names.append(started.set_cookies[0].partition("=")[0])
        assert len(names) == min(tab + 1, MAX_FLOWS)


def test_names_sort_by_age_for_centuries() -> None:
    times = [NOW, NOW + 0.002, 2**31 + 1.0, 4_102_444_800.0, 250_000_000_000.0]
    names = [
        start(APP, "/", login_url=LOGIN, cookies=(), now=now).set_cookies[0].partition("=")[0]
        for now in times
    ]
    assert names == sorted(names)


def test_planted_flow_names_are_cleared_within_a_bound_and_never_echoed_raw() -> None:
    planted = [f"{FLOW_PREFIX}zz{number}" for number in range(200)]
    odd = [f"{FLOW_PREFIX}a b", f"{FLOW_PREFIX}x\r\nSet-Cookie: a", f"{FLOW_PREFIX}ä", "session"]
    other = [f"{LOGIN_PREFIX}abc", f"{FLOW_PREFIX}{'x' * 65}", FLOW_PREFIX]
    started = start(APP, "/", login_url=LOGIN, cookies=[*planted, *odd, *other], now=NOW)
    assert len(started.set_cookies) == 21
    assert set(cleared(started)) <= set(planted)


async def test_a_ticket_signs_its_browser_in_once(tickets: Tickets, session: Session) -> None:
    browser = Browser("/dashboard?x=1")
    ticket = tickets.issue(session, APP, "/dashboard?x=1", browser.h, NOW)
    redeemed = await tickets.redeem(ticket, APP, browser.cookies, NOW + 1)
    assert redeemed == Redeemed(session.sid, "/dashboard?x=1", browser.cookies[0][0])
    assert await tickets.redeem(ticket, APP, browser.cookies, NOW + 1) == refused(
        HandoffErrorKind.REPLAYED
    )


async def test_a_ticket_redeemed_in_two_tabs_at_once_wins_once(
    tickets: Tickets, session: Session
) -> None:
    browser = Browser()
    ticket = tickets.issue(session, APP, "/", browser.h, NOW)
    results = await asyncio.gather(
        *(tickets.redeem(ticket, APP, browser.cookies, NOW) for _ in range(10))
    )
    assert sum(isinstance(result, Redeemed) for result in results) == 1


async def test_another_browser_cannot_use_a_ticket(tickets: Tickets, session: Session) -> None:
    victim, thief = Browser(), Browser()
    ticket = tickets.issue(session, APP, "/", victim.h, NOW)
    for cookies in (thief.cookies, []):
        result = await tickets.redeem(ticket, APP, cookies, NOW)
        assert isinstance(result, HandoffError)


async def test_the_first_look_burns_a_ticket_even_when_it_fails(
    tickets: Tickets, session: Session
) -> None:
    victim, thief = Browser(), Browser()
    ticket = tickets.issue(session, APP, "/", victim.h, NOW)
    assert await tickets.redeem(ticket, APP, thief.cookies, NOW) == refused(
        HandoffErrorKind.OTHER_BROWSER
    )
    assert await tickets.redeem(ticket, APP, victim.cookies, NOW) == refused(
        HandoffErrorKind.REPLAYED
    )


async def test_an_attackers_ticket_does_not_sign_a_victim_in(
    tickets: Tickets, session: Session
) -> None:
    """H14: login CSRF. The attacker knows h and the ticket, and still not the victim's n."""
    attacker, victim = Browser(), Browser()
    ticket = tickets.issue(session, APP, "/", attacker.h, NOW)
    planted = [(f"{FLOW_PREFIX}1", "A" * 43), *victim.cookies]
    assert await tickets.redeem(ticket, APP, planted, NOW) == refused(
        HandoffErrorKind.OTHER_BROWSER
    )


async def test_the_right_flow_is_found_among_several(tickets: Tickets, session: Session) -> None:
    one, two = Browser(), Browser()
    ticket = tickets.issue(session, APP, "/", two.h, NOW)
    cookies = [("other", "x"), *one.cookies, (f"{FLOW_PREFIX}bad", "~"), *two.cookies]
    redeemed = await tickets.redeem(ticket, APP, cookies, NOW)
    assert isinstance(redeemed, Redeemed)
    assert redeemed.flow_name == two.cookies[0][0]


async def test_the_secret_counts_only_in_a_flow_cookie(tickets: Tickets, session: Session) -> None:
    """A sibling host may plant an ordinary cookie; it cannot plant one with the __Host- prefix."""
    browser = Browser()
    ticket = tickets.issue(session, APP, "/", browser.h, NOW)
    cookies = [("heim-flow-1", browser.cookies[0][1])]
    assert await tickets.redeem(ticket, APP, cookies, NOW) == refused(
        HandoffErrorKind.OTHER_BROWSER
    )


@pytest.mark.parametrize(
    ("age", "good"), [(0.0, True), (TICKET_LIFETIME_S - 1, True), (TICKET_LIFETIME_S, False)]
)
async def test_a_ticket_lives_thirty_seconds(
    tickets: Tickets, session: Session, age: float, good: bool
) -> None:
    browser = Browser()
    ticket = tickets.issue(session, APP, "/", browser.h, NOW)
    result = await tickets.redeem(ticket, APP, browser.cookies, NOW + age)
    assert isinstance(result, Redeemed) is good
    if not good:
        assert result == refused(HandoffErrorKind.EXPIRED)


async def test_a_used_ticket_is_remembered_until_it_has_expired(
    stage: Stage, tickets: Tickets, session: Session
) -> None:
    browser = Browser()
    ticket = tickets.issue(session, APP, "/", browser.h, NOW)
    await tickets.redeem(ticket, APP, browser.cookies, NOW)
    await stage.store.purge(now=NOW + TICKET_LIFETIME_S, keep_ended=0)
    assert await tickets.redeem(ticket, APP, browser.cookies, NOW + 29) == refused(
        HandoffErrorKind.REPLAYED
    )


async def test_a_ticket_for_another_host_is_none(tickets: Tickets, session: Session) -> None:
    browser = Browser()
    ticket = tickets.issue(session, APP, "/", browser.h, NOW)
    for host in ("app2.example.test", "auth.example.test", ""):
        assert await tickets.redeem(ticket, host, browser.cookies, NOW) == refused(
            HandoffErrorKind.INVALID
        )
    # Not burned by that: it was never a ticket there.
    assert isinstance(await tickets.redeem(ticket, APP, browser.cookies, NOW), Redeemed)


async def test_garbage_is_no_ticket_and_costs_no_write(
    stage: Stage, tickets: Tickets, session: Session
) -> None:
    browser = Browser()
    ticket = tickets.issue(session, APP, "/", browser.h, NOW)
    cookie = stage.cookie(session, APP).decode()
    short = stage.sealer.seal(b"x" * 20, purpose=Purpose.HANDOFF, host=APP, name="ticket")
    for garbage in ("", "x", ticket[:-1], ticket + "A", "A" * 20_000, "größe", cookie, short):
        assert await tickets.redeem(garbage, APP, browser.cookies, NOW) == refused(
            HandoffErrorKind.INVALID
        )
    assert "burn" not in stage.store.calls


async def test_a_ticket_is_no_session_cookie(
    stage: Stage, tickets: Tickets, session: Session
) -> None:
    """G5."""
    ticket = tickets.issue(session, APP, "/", Browser().h, NOW)
    assert not isinstance(stage.sessions.find(APP, ticket.encode(), NOW), Session)


async def test_nothing_is_granted_while_the_store_is_down(
    stage: Stage, tickets: Tickets, session: Session
) -> None:
    browser = Browser()
    ticket = tickets.issue(session, APP, "/", browser.h, NOW)
    stage.store.down = "gone"
    with pytest.raises(StoreUnavailable):
        await tickets.redeem(ticket, APP, browser.cookies, NOW)


@pytest.mark.parametrize(
    "h",
    [
        pytest.param("", id="empty"),
        pytest.param("A" * 42, id="short"),
        pytest.param("A" * 44, id="long"),
        pytest.param("!" * 43, id="not base64"),
        pytest.param("A" * 42 + "B", id="not canonical"),
        pytest.param("ä" * 43, id="not ASCII"),
    ],
)
def test_what_is_no_challenge_is_refused(tickets: Tickets, session: Session, h: str) -> None:
    assert not is_challenge(h)
    with pytest.raises(ValueError, match="challenge"):
        tickets.issue(session, APP, "/", h, NOW)


async def test_the_target_is_made_safe_again(tickets: Tickets, session: Session) -> None:
    browser = Browser()
    ticket = tickets.issue(session, APP, "//evil.test", browser.h, NOW)
    redeemed = await tickets.redeem(ticket, APP, browser.cookies, NOW)
    assert isinstance(redeemed, Redeemed)
    assert redeemed.rd == "/"


def test_the_longest_target_fits_a_ticket(tickets: Tickets, session: Session) -> None:
    rd = '/?"' + '"' * 2045
    h = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    assert len(tickets.issue(session, APP, rd, h, NOW)) < 4096


async def test_secrets_hide_in_reprs(tickets: Tickets, session: Session) -> None:
    """R1: queries may hold secrets of the application."""
    browser = Browser("/?token=canary")
    ticket = tickets.issue(session, APP, "/?token=canary", browser.h, NOW)
    redeemed = await tickets.redeem(ticket, APP, browser.cookies, NOW)
    shown = f"{browser.start!r} {redeemed!r} {tickets!r}"
    assert "canary" not in shown
    assert browser.cookies[0][1] not in shown
    assert session.sid not in shown
