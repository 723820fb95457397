"""Refresh tokens: a new one each time, and copies give themselves away."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

import pytest

from heim_config.secrets import Secret
from heim_proxy.identity.refresh_tokens import (
    CLOCK_SKEW_S,
    GRACE_S,
    Presented,
    RefreshOutcome,
    RefreshTokens,
    begin,
    parse,
)
from heim_proxy.store.base import SessionKind, SessionRow, StoreUnavailable
from tests.fakes.sessions import NOW
from tests.fakes.store import MemoryStore


@pytest.fixture
async def store() -> MemoryStore:
    made = MemoryStore()
    await made.open()
    return made


@pytest.fixture
def tokens(store: MemoryStore) -> RefreshTokens:
    return RefreshTokens(store)


async def first(store: MemoryStore) -> str:
    refresh, token = begin(NOW)
    row = SessionRow(
        sid=refresh.sid, issuer="i", subject="1", email=None, domain=None, groups=(),
        provider="idp", auth_time=NOW, created=NOW, expires=NOW + 9999, last_seen=NOW,
        kind=SessionKind.CLI,
    )  # fmt: skip
    await store.create_session(row, refresh=refresh)
    return token.reveal()


def shown(token: str) -> Presented:
    found = parse(token)
    assert found is not None
    return found


async def turned(tokens: RefreshTokens, token: str, now: float) -> str:
    answer = await tokens.rotate(shown(token), now)
    assert isinstance(answer, Secret), answer
    return answer.reveal()


async def test_each_use_gives_another_token_of_the_same_login(
    store: MemoryStore, tokens: RefreshTokens
) -> None:
    seen = [await first(store)]
    for turn in range(5):
        seen.append(await turned(tokens, seen[-1], NOW + 60 * turn))
    assert len(set(seen)) == 6
    parts = [shown(token) for token in seen]
    assert len({(part.sid, part.family) for part in parts}) == 1
    assert len({part.secret for part in parts}) == 6


async def test_the_store_has_hashes_only(store: MemoryStore, tokens: RefreshTokens) -> None:
    token = await turned(tokens, await first(store), NOW)
    part = shown(token)
    row = store.refresh[part.sid]
    assert row.family == hashlib.sha256(part.family.encode()).digest()
    assert row.current == hashlib.sha256(part.secret.encode()).digest()
    kept = row.family + row.current + row.previous + row.salt
    assert part.secret.encode() not in kept
    assert part.family.encode() not in kept


async def test_a_copy_of_a_used_token_is_noticed(store: MemoryStore, tokens: RefreshTokens) -> None:
    old = await first(store)
    await turned(tokens, old, NOW)
    assert await tokens.rotate(shown(old), NOW + GRACE_S) is RefreshOutcome.REUSED


async def test_every_older_token_is_noticed_at_once(
    store: MemoryStore, tokens: RefreshTokens
) -> None:
    seen = [await first(store)]
    for _ in range(4):
        seen.append(await turned(tokens, seen[-1], NOW))
    for old in seen[:-2]:
        assert await tokens.rotate(shown(old), NOW + 1) is RefreshOutcome.REUSED
    await turned(tokens, seen[-1], NOW + 1)


async def test_a_lost_answer_is_given_again_for_a_while(
    store: MemoryStore, tokens: RefreshTokens
) -> None:
    old = await first(store)
    new = await turned(tokens, old, NOW)
    for later in (0.0, 1.0, GRACE_S - 0.001):
        assert await turned(tokens, old, NOW + later) == new, "the family has two newest tokens"
    assert await turned(tokens, new, NOW + 60) != new


async def test_asking_again_does_not_prolong_the_while(
    store: MemoryStore, tokens: RefreshTokens
) -> None:
    old = await first(store)
    for later in (0.0, 10.0, 20.0, 29.0):
        await turned(tokens, old, NOW + later)
    assert await tokens.rotate(shown(old), NOW + GRACE_S) is RefreshOutcome.REUSED


async def test_once_the_successor_was_used_there_is_no_grace(
    store: MemoryStore, tokens: RefreshTokens
) -> None:
    old = await first(store)
    new = await turned(tokens, old, NOW)
    await turned(tokens, new, NOW + 1)
    assert await tokens.rotate(shown(old), NOW + 2) is RefreshOutcome.REUSED


async def test_whoever_steals_a_token_within_the_grace_is_found_at_the_next_use(
    store: MemoryStore, tokens: RefreshTokens
) -> None:
    old = await first(store)
    owners = await turned(tokens, old, NOW)
    thiefs = await turned(tokens, old, NOW + 5)
    assert thiefs == owners
    await turned(tokens, thiefs, NOW + 900)
    assert await tokens.rotate(shown(owners), NOW + 950) is RefreshOutcome.REUSED


async def test_a_clock_that_was_set_back_gives_no_endless_grace(
    store: MemoryStore, tokens: RefreshTokens
) -> None:
    old = await first(store)
    new = await turned(tokens, old, NOW)
    assert await turned(tokens, old, NOW - CLOCK_SKEW_S) == new
    assert await tokens.rotate(shown(old), NOW - CLOCK_SKEW_S - 1) is RefreshOutcome.REUSED


async def test_many_at_once_get_the_same_successor(
    store: MemoryStore, tokens: RefreshTokens
) -> None:
    """Two ssh started together, and no lock between them: neither loses the login."""
    old = await first(store)
    got = await asyncio.gather(*(turned(tokens, old, NOW) for _ in range(20)))
    assert len(set(got)) == 1
    await turned(tokens, got[0], NOW + 1)


async def test_two_processes_agree_on_the_successor(store: MemoryStore) -> None:
    old = await first(store)
    new = await turned(RefreshTokens(store), old, NOW)
    assert await turned(RefreshTokens(store), old, NOW + 1) == new


@pytest.mark.parametrize("part", ["sid", "family", "secret"])
async def test_what_was_never_ours_changes_nothing(
    store: MemoryStore, tokens: RefreshTokens, part: str
) -> None:
    """A session's id is no secret: whoever guesses around it must not end the login."""
    good = shown(await first(store))
    other = shown(begin(NOW)[1].reveal())
    forged = replace(good, **{part: getattr(other, part)})
    outcome = await tokens.rotate(forged, NOW)
    assert outcome is (RefreshOutcome.REUSED if part == "secret" else RefreshOutcome.INVALID)
    assert await tokens.authentic(forged) == (part == "secret")
    assert await tokens.authentic(good)


@pytest.mark.parametrize(
    "change",
    [
        lambda token: "",
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token.replace("heim_rt_", "heim_st_"),
        lambda token: token.replace("heim_rt_", "HEIM_RT_"),
        lambda token: f" {token}",
        lambda token: f"{token}\n",
        lambda token: token[:-1] + "é",
        lambda token: token[:40] + "=" + token[41:],
        lambda token: token * 1000,
    ],
    ids=range(10),
)
def test_only_the_exact_form_is_read(change: object) -> None:
    assert callable(change)
    assert parse(change(begin(NOW)[1].reveal())) is None


async def test_a_store_that_is_down_refuses_nobody(
    store: MemoryStore, tokens: RefreshTokens
) -> None:
    token = await first(store)
    store.full = True
    with pytest.raises(StoreUnavailable):
        await tokens.rotate(shown(token), NOW)
    store.full = False
    await turned(tokens, token, NOW + 600)


def test_nothing_shows_a_token() -> None:
    row, token = begin(NOW)
    part = shown(token.reveal())
    for text in (repr(row), repr(token), repr(part)):
        assert part.family not in text
        assert part.secret not in text
