from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from heim_runtime.complaints import Complaint
from heim_tunnel.credentials import Login, save
from heim_tunnel.introduction import introduced, meant
from heim_wire.problem import Refused
from tests.fakes.tunnel_cli import write_login

Ask = Callable[[str], bool | None]


def told(login_url: str) -> Refused:
    return Refused(401, "unauthenticated", "sign in", login_url=login_url)


@pytest.mark.parametrize(
    ("url", "login_host"),
    [
        ("https://auth.example.com", "auth.example.com"),
        ("https://Auth.example.com:8443/.heim/login?rd=x", "auth.example.com:8443"),
        ("https://auth.example.com:443/", "auth.example.com"),
    ],
)
def test_whoever_is_agreed_to_is_the_login_host(home: Path, url: str, login_host: str) -> None:
    questions: list[str] = []

    def ask(question: str) -> bool:
        questions.append(question)
        return True

    assert introduced("db.example.com", told(url), ask=ask) == login_host
    assert questions == [f"db.example.com says its login host is {login_host}. Trust it? [y/N] "]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (False, "not signed in: you did not trust auth.example.com"),
        (None, "not signed in; run: heim-tunnel login auth.example.com"),
    ],
)
def test_without_a_yes_nothing_happens(home: Path, answer: bool | None, text: str) -> None:
    with pytest.raises(Complaint, match=text) as caught:
        introduced("db.example.com", told("https://auth.example.com"), ask=lambda _: answer)
    assert caught.value.status == 77


@pytest.mark.parametrize(
    ("host", "domains", "question"),
    [
        ("cache", [["x.test", "y.test"]], "did you mean cache.x.test?"),
        ("cache", [["*.x.test"]], "did you mean cache.x.test?"),
        ("cache", [["x.test"], ["x.test"]], "did you mean cache.x.test?"),
        ("cache", [["x.test"], ["y.test"]], ""),
        ("cache", [[]], ""),
        ("cache", [], ""),
        ("cache.z.test", [["x.test"]], ""),
    ],
    ids=["one login", "a wildcard", "two of a domain", "two", "no domains", "none", "a host"],
)
def test_a_name_without_an_address_may_be_a_backends(
    host: str, domains: list[list[str]], question: str, home: Path
) -> None:
    for number, some in enumerate(domains):
        write_login(home / "heim", login_host=f"auth{number}.test", domains=some)
    (home / "heim" / "logins").mkdir(parents=True, exist_ok=True)
    (home / "heim" / "logins" / "damaged.test.json").write_text("{")
    assert meant(host) == question


def never(question: str) -> bool:
    raise AssertionError(f"asked {question!r}")


@pytest.mark.parametrize("url", ["", "https://user@evil/", "https://[::1", "https://"])
def test_a_host_that_names_none_is_no_proxy(home: Path, url: str) -> None:
    with pytest.raises(Complaint) as caught:
        introduced("db.example.com", told(url), ask=never)
    assert caught.value.status == 76


def test_a_login_host_that_does_not_vouch_gets_no_second_sign_in(home: Path) -> None:
    save(
        Login(
            login_url="https://auth.example.com",
            user="alice",
            domains=["example.com"],
            access_token="a",
            access_expires=1.0,
            refresh_token="r",
            session_expires=2.0,
        )
    )
    with pytest.raises(Complaint, match=r"does not vouch for db\.evil\.net"):
        introduced("db.evil.net", told("https://auth.example.com"), ask=never)
