from __future__ import annotations

import time
from pathlib import Path

import pytest

from heim_agent.assertions import LEEWAY_S, AssertionRefused, Assertions, Caller
from heim_agent.identity import Identity
from tests.fakes.agent_streams import Signer, identity_of

SIGNER = Signer()


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return identity_of(tmp_path, SIGNER)


@pytest.fixture
def assertions(identity: Identity) -> Assertions:
    return Assertions(identity)


def test_a_right_one_says_who_it_is(identity: Identity, assertions: Assertions) -> None:
    token = SIGNER.assertion(identity.key.thumbprint)
    assert assertions.verify(token, target="ssh", now=time.time()) == Caller(
        user="alice@example.com",
        kind="person",
        subject="1001",
        email="alice@example.com",
        groups=frozenset(("ops",)),
        roles=frozenset(("prod-ssh",)),
        backend="desktop-ssh",
        target="ssh",
        session="00112233445566aa",
        generation=7,
        source="203.0.113.9",
    )


def test_the_public_has_no_session_mail_or_address(
    identity: Identity, assertions: Assertions
) -> None:
    token = SIGNER.assertion(
        identity.key.thumbprint, kind="public", sub="public", name="public", sid=None, email=None,
        src=None, groups=[], roles=[],
    )  # fmt: skip
    caller = assertions.verify(token, target="ssh", now=time.time())
    assert (caller.user, caller.session, caller.email, caller.source) == ("public", "", "", "")


def test_it_counts_once(identity: Identity, assertions: Assertions) -> None:
    token, now = SIGNER.assertion(identity.key.thumbprint), time.time()
    assertions.verify(token, target="ssh", now=now)
    with pytest.raises(AssertionRefused, match="used before"):
        assertions.verify(token, target="ssh", now=now)


@pytest.mark.parametrize("later_s", [1, 59, 89])
def test_it_is_remembered_for_as_long_as_it_is_good(
    identity: Identity, assertions: Assertions, later_s: int
) -> None:
    """Whenever the turn of the two generations falls."""
    now = time.time()
    token = SIGNER.assertion(identity.key.thumbprint, jti="once")
    assertions.verify(token, target="ssh", now=now)
    for passed in range(later_s):
        # Somebody else's, all the time.
        other = SIGNER.assertion(
            identity.key.thumbprint, iat=int(now) + passed, exp=int(now) + passed + 60
        )
        assertions.verify(other, target="ssh", now=now + passed)
    with pytest.raises(AssertionRefused, match="used before"):
        assertions.verify(token, target="ssh", now=now + later_s)


def test_what_has_expired_is_forgotten(identity: Identity, assertions: Assertions) -> None:
    now = time.time()
    for minute in range(0, 60, 5):
        at = int(now) + minute * 60
        token = SIGNER.assertion(identity.key.thumbprint, iat=at, exp=at + 60)
        assertions.verify(token, target="ssh", now=at)
    assert len(assertions._old) + len(assertions._new) <= 2


def test_a_clock_that_is_put_back_forgets_nothing_that_is_good(
    identity: Identity, assertions: Assertions
) -> None:
    now = time.time()
    token = SIGNER.assertion(identity.key.thumbprint)
    assertions.verify(token, target="ssh", now=now)
    with pytest.raises(AssertionRefused, match="used before"):
        assertions.verify(token, target="ssh", now=now - 20)


def test_when_it_remembers_too_many_it_believes_nobody(
    identity: Identity, assertions: Assertions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heim_agent.assertions._MAX_REMEMBERED", 3)
    for _ in range(3):
        assertions.verify(SIGNER.assertion(identity.key.thumbprint), target="ssh", now=time.time())
    with pytest.raises(AssertionRefused, match="too many"):
        assertions.verify(SIGNER.assertion(identity.key.thumbprint), target="ssh", now=time.time())


@pytest.mark.parametrize(
    ("off_s", "good"),
    [(0, True), (59 + LEEWAY_S, True), (61 + LEEWAY_S, False), (-LEEWAY_S + 1, True),
     (-LEEWAY_S - 2, False)],
)  # fmt: skip
def test_it_is_good_for_a_minute_of_the_proxys_time(
    identity: Identity, assertions: Assertions, off_s: float, good: bool
) -> None:
    issued = int(time.time())
    token = SIGNER.assertion(identity.key.thumbprint, iat=issued, exp=issued + 60)
    if good:
        assertions.verify(token, target="ssh", now=issued + off_s)
        return
    with pytest.raises(AssertionRefused, match=r"expired|future"):
        assertions.verify(token, target="ssh", now=issued + off_s)


def test_keys_are_those_that_the_last_statement_brought(
    identity: Identity, assertions: Assertions
) -> None:
    fresh, audience = Signer(), identity.key.thumbprint
    with pytest.raises(AssertionRefused, match="was not told"):
        assertions.verify(fresh.assertion(audience), target="ssh", now=time.time())
    identity.pin(roots=identity.roots, keys=[fresh.jwk])
    assertions.verify(fresh.assertion(audience), target="ssh", now=time.time())
    with pytest.raises(AssertionRefused, match="was not told"):
        assertions.verify(SIGNER.assertion(audience), target="ssh", now=time.time())


def test_before_the_first_statement_nobody_is_believed(identity: Identity) -> None:
    identity.pin(roots=identity.roots, keys=[])
    with pytest.raises(AssertionRefused, match="was not told"):
        Assertions(identity).verify(
            SIGNER.assertion(identity.key.thumbprint), target="ssh", now=time.time()
        )


def test_a_key_that_cannot_be_read_disturbs_no_other(identity: Identity) -> None:
    broken = {**SIGNER.jwk, "kid": "broken", "x": "!"}
    other = {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "rsa"}
    identity.pin(roots=identity.roots, keys=[broken, other, SIGNER.jwk])
    assertions = Assertions(identity)
    assertions.verify(SIGNER.assertion(identity.key.thumbprint), target="ssh", now=time.time())
    assert set(assertions._by_kid) == {SIGNER.kid}


def test_a_name_that_would_disturb_a_log_is_made_one_line(
    identity: Identity, assertions: Assertions
) -> None:
    token = SIGNER.assertion(identity.key.thumbprint, name="a\nb\x1b[0m")
    assert assertions.verify(token, target="ssh", now=time.time()).user == "a b [0m"
