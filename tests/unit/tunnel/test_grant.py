from __future__ import annotations

from typing import Any

import pytest

from heim_runtime.complaints import Complaint
from heim_tunnel.grant import Login, Secret, ServiceToken, is_token

ANSWER: dict[str, object] = {
    "login_url": "https://auth.example.com",
    "user": "alice@example.com",
    "domains": ["x.example.com", ".y.example.com"],
    "access_token": "a.b.c",
    "expires_in": 900,
    "refresh_token": "heim_rt_1",
    "session_expires": 5000,
}


def granted(**more: Any) -> Login:
    return Login.from_answer(ANSWER | more, login_host="auth.example.com", now=1000.0)


def test_an_answer_becomes_a_login() -> None:
    login = granted()
    assert login.access_expires == 1900.0
    assert login.session_expires == 5000.0
    assert login.login_host == "auth.example.com"
    assert login.ca_file is None
    assert granted(login_url="https://auth.example.com/").login_url == "https://auth.example.com"


@pytest.mark.parametrize("name", [name for name in ANSWER if name != "login_url"])
@pytest.mark.parametrize("value", [None, {}, "", True, "a\nb", -1, float("inf")], ids=repr)
def test_an_answer_with_a_wrong_field_names_it(name: str, value: object) -> None:
    with pytest.raises(Complaint, match=f"without a valid {name}"):
        granted(**{name: value})


@pytest.mark.parametrize("token", ["two words", "smuggled\r\nX: y", "ü"])
def test_a_token_that_cannot_stand_in_a_head_is_refused(token: str) -> None:
    with pytest.raises(Complaint):
        granted(access_token=token)
    assert not is_token(token)


@pytest.mark.parametrize(
    "url", ["https://auth.example.net", "http://auth.example.com", "https://auth.example.com:8443"]
)
def test_a_login_host_cannot_answer_for_another(url: str) -> None:
    with pytest.raises(Complaint, match="calls itself"):
        granted(login_url=url)


@pytest.mark.parametrize(
    ("host", "covered"),
    [
        ("auth.example.com", True),
        ("AUTH.example.com.", True),
        ("x.example.com", True),
        ("db.x.example.com", True),
        ("db.y.example.com", True),
        ("example.com", False),
        ("evilx.example.com", False),
        ("x.example.com.evil.net", False),
        ("other.example.com", False),
        ("", False),
    ],
)
def test_a_token_is_for_the_login_host_and_its_domains_alone(host: str, covered: bool) -> None:
    assert granted().covers(host) is covered


@pytest.mark.parametrize(
    ("host", "covered"),
    [("db.example.org", True), ("example.org", False), ("a.db.example.org", False),
     (".example.org", False), ("*.example.org", True), ("db.example.org.evil.net", False)],
)  # fmt: skip
def test_a_wildcard_stands_for_one_label(host: str, covered: bool) -> None:
    assert granted(domains=["*.example.org"]).covers(host) is covered


@pytest.mark.parametrize("domain", ["", ".", ".."])
def test_an_empty_domain_covers_nothing(domain: str) -> None:
    assert not granted(domains=[domain]).covers("db.example.com")


def test_a_login_hosts_port_does_not_matter_for_its_own_name() -> None:
    login = Login.from_answer(
        ANSWER | {"login_url": "https://auth.example.com:8443"},
        login_host="auth.example.com:8443",
        now=0.0,
    )
    assert login.covers("auth.example.com")


def test_what_is_written_reads_the_same_and_a_relative_ca_file_does_not_stay_so() -> None:
    login = Login.from_answer(ANSWER, login_host="auth.example.com", now=0.0, ca_file="ca.pem")
    again = Login.from_file(login.to_file())
    assert again.to_file() == login.to_file()
    assert login.ca_file is not None
    assert login.ca_file.startswith("/")


def test_no_repr_shows_a_token() -> None:
    login = granted()
    assert repr(login) == "<Login 'alice@example.com' at auth.example.com>"
    assert repr(login.access_token) == repr(Secret("x")) == "<secret>"
    assert "heim_rt" not in f"{login} {[login.refresh_token]}"


@pytest.mark.parametrize(
    ("domains", "host", "covered"),
    [
        ("x.example.com", "x.example.com", True),
        ("x.example.com", "db.x.example.com", True),
        ("x.example.com", "DB.X.example.com.", True),
        ("X.Example.COM", "db.x.example.com", True),
        ("x.example.com", "example.com", False),
        ("x.example.com", "evilx.example.com", False),
        ("x.example.com", "x.example.com.evil.net", False),
        ("x.example.com", "", False),
        ("*.example.org", "db.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "a.db.example.org", False),
        ("a.test,*.b.test,c.test", "x.b.test", True),
        ("a.test,*.b.test,c.test", "y.c.test", True),
        ("a.test,*.b.test,c.test", "d.test", False),
        ("localhost", "db.localhost", True),
    ],
)
def test_a_service_token_is_for_the_domains_of_its_file(
    domains: str, host: str, covered: bool
) -> None:
    token = ServiceToken.parse(f"heim_st_1_x@{domains}")
    assert token.bearer == "heim_st_1_x"
    assert token.covers(host) is covered


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no token"),
        ("@x.test", "no token"),
        ("two words@x.test", "no token"),
        ("t@x.test y.test", "no token"),
        ("t@x.test\nt@y.test", "no token"),
        ("t\u00e9@x.test", "no token"),
        ("t", "which hosts"),
        *((f"t@{junk}", "something else than domains") for junk in (
            "", ",", "x.test,", ",x.test", "x.test:443", ".x.test", "x.test.", "x..test", "*", "*.",
            "*.*.x.test", "a.*.test", "x.test@y.test", "https://x.test", "x.test/", "x.test;y.test",
        )),
    ],
)  # fmt: skip
def test_a_token_file_that_means_something_else_is_told_without_its_text(
    text: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem) as told:
        ServiceToken.parse(text)
    assert "test" not in str(told.value)


def test_a_service_tokens_repr_shows_where_it_goes_alone() -> None:
    assert (
        repr(ServiceToken.parse("secret@a.test,*.b.test")) == "<ServiceToken for a.test,*.b.test>"
    )
