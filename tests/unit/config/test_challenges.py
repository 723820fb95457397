"""Challenges of a certificate authority in the configuration."""

from __future__ import annotations

import pytest

from tests.unit.config.samples import GOOD, load, told

TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"


def challenge(host: str = "a.example.com", token: str = TOKEN, upstreams: str = "") -> str:
    """A whole configuration with one challenge."""
    to = upstreams or '["http://10.0.0.1:8089"]'
    return f"{GOOD}acme_challenges: [{{host: {host}, token: '{token}', upstreams: {to}}}]\n"


def test_a_challenge_is_a_host_and_a_token() -> None:
    [found] = load(challenge("Auth.x.example.com")).acme_challenges
    assert (found.host, found.token) == ("auth.x.example.com", TOKEN)
    assert [str(one) for one in found.upstreams] == ["http://10.0.0.1:8089"]


@pytest.mark.parametrize("token", ["short", "a" * 129, f"{TOKEN}/x", f"{TOKEN}.", "ü" * 20, ""])
def test_nothing_else_is_a_token(token: str) -> None:
    [found] = told(challenge(token=token))
    assert "is not the token of a challenge" in found


@pytest.mark.parametrize("host", ["'*.example.com'", "'*'", "10.0.0.1"])
def test_a_challenge_has_one_host(host: str) -> None:
    assert len(told(challenge(host=host))) == 1


def test_somebody_must_answer() -> None:
    assert "must not be empty" in told(challenge(upstreams="[]"))[0]
