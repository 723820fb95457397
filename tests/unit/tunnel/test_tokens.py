from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from heim_runtime.complaints import Complaint
from heim_tunnel import tokens
from heim_tunnel.credentials import Login, load, save
from heim_tunnel.dial import Way
from tests.fakes.login_host import Canned, LoginHost

TOKEN = "/.heim/cli/token"


def put(host: LoginHost, **more: Any) -> Login:
    """Store a login that the login host knows."""
    granted = host.grant()
    login = Login.from_answer(granted, login_host=host.name, now=time.time())
    for name, value in more.items():
        setattr(login, name, value)
    save(login)
    return login


def current(host: LoginHost, **more: Any) -> Login:
    return tokens.current(host.name, Way.from_environment(), target=None, sign_in=False, **more)


def test_a_good_token_is_given_without_a_question(host: LoginHost) -> None:
    assert current(host).access_token if put(host) else None
    assert host.asked == []


@pytest.mark.parametrize(
    ("left", "wanted", "asked"),
    [(3600, 60, 0), (59, 60, 1), (59, 20, 0), (-1, 60, 1), (899, 1000, 1)],
)
def test_what_it_has_left_decides(host: LoginHost, left: int, wanted: float, asked: int) -> None:
    put(host, access_expires=time.time() + left)
    current(host, left_s=wanted)
    assert len(host.of(TOKEN)) == asked


def test_a_token_that_was_refused_is_renewed(host: LoginHost) -> None:
    before = put(host)
    after = current(host, refused=before.access_token)
    assert after.access_token != before.access_token
    stored = load(host.name)
    assert stored is not None
    assert stored.refresh_token == after.refresh_token


def test_a_token_that_somebody_else_renewed_is_taken(host: LoginHost) -> None:
    put(host)
    current(host, refused="an older one")
    assert host.asked == []


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"session_expires": 1.0}, "the session has ended; run: heim-tunnel login"),
        ({"refresh_token": "heim_rt_unknown"}, "the session has ended; run: heim-tunnel login"),
    ],
    ids=["over", "refused"],
)
def test_without_signing_in_a_session_that_is_over_is_told(
    host: LoginHost, more: dict[str, Any], text: str
) -> None:
    put(host, access_expires=1.0, **more)
    with pytest.raises(Complaint, match=text) as caught:
        current(host)
    assert caught.value.status == 77


def test_nobody_signed_in_is_told(host: LoginHost) -> None:
    with pytest.raises(Complaint, match=f"not signed in; run: heim-tunnel login {host.name}"):
        current(host)


def test_an_outage_leaves_a_token_that_holds(host: LoginHost) -> None:
    host.script(TOKEN, Canned(500, b""), Canned(500, b""))
    login = put(host, access_expires=time.time() + 30)
    assert current(host).access_token == login.access_token
    with pytest.raises(Complaint):
        current(host, refused=login.access_token)


def test_the_authorities_of_the_login_are_used_where_none_are_given(
    host: LoginHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HEIM_CA_FILE")
    put(host, access_expires=1.0, ca_file=str(host.ca_file))
    assert current(host).ca_file == str(host.ca_file)


def test_a_refresh_token_is_sent_to_its_login_host_only(host: LoginHost) -> None:
    """An answer that names another login host is not believed, and not stored."""
    before = put(host, access_expires=1.0)
    host.script(TOKEN, Canned(200, host.grant() | {"login_url": "https://evil.example"}))
    with pytest.raises(Complaint, match="calls itself"):
        current(host)
    stored = load(host.name)
    assert stored is not None
    assert stored.refresh_token == before.refresh_token
