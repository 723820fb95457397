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


@pytest.mark.parametrize("acme", ["{}", "{webroot: /x, upstream: 'http://127.0.0.1:1'}"])
def test_one_answers_for_all_hosts_or_none(acme: str) -> None:
    [found] = told(f"{GOOD}listeners: {{http: {{acme: {acme}}}}}\n")
    assert "needs webroot or upstream, one of them" in found


def test_who_answers_for_all_hosts_is_a_directory_or_an_address() -> None:
    http = load(f"{GOOD}listeners: {{http: {{acme: {{webroot: acme}}}}}}\n").listeners.http
    assert http is not None
    assert http.acme is not None
    assert str(http.acme.webroot).endswith("/acme")
    assert load(GOOD).listeners.http is not None
    assert getattr(load(GOOD).listeners.http, "acme", "absent") is None


def test_authorities_do_not_look_on_https() -> None:
    [found] = told(f"{GOOD}listeners: {{https: {{acme: {{webroot: /x}}}}}}\n")
    assert "belongs to the plain listener" in found
