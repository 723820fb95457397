"""What is believed of a login host's answers, and what is said about the others."""

from __future__ import annotations

from typing import Any

import pytest

from heim_runtime.complaints import AUTH, PROTOCOL, UNAVAILABLE, Complaint
from heim_tunnel import loginhost
from heim_tunnel.credentials import Login
from heim_tunnel.dial import Way
from heim_tunnel.loginhost import Backend, OAuthError
from tests.fakes.login_host import Canned, LoginHost, short

BACKENDS = "/.heim/cli/backends"
TOKEN = "/.heim/cli/token"
DEVICE = "/.heim/cli/device"
REVOKE = "/.heim/cli/revoke"
HTML = {"Content-Type": "text/html"}


@pytest.fixture
def way(host: LoginHost) -> Way:
    return Way(ca_file=str(host.ca_file))


def signed_in(host: LoginHost) -> Login:
    return Login.from_answer(host.grant(), login_host=host.name, now=0)


def test_backends_come_in_order_of_their_hosts(host: LoginHost, way: Way) -> None:
    host.backends = [
        {"name": "web", "kind": "tcp", "host": "web.localhost", "url": ""},
        {"name": "b", "kind": "http", "host": "b.localhost", "url": "https://b.localhost/"},
    ]
    user, found = loginhost.backends(host.name, signed_in(host).access_token, way)
    assert user == "alice@example.com"
    assert found == [
        Backend("b", "http", "b.localhost", "https://b.localhost/"),
        Backend("web", "tcp", "web.localhost", ""),
    ]


@pytest.mark.parametrize(
    ("host", "word", "called"),
    [
        ("web.x.test", "web", True),
        ("web.x.test", "web.x.test", True),
        ("web.x.test", "a.web.x.test", False),
        ("*.x.test", "a.x.test", True),
        ("*.x.test", "a.b.x.test", False),
        ("*.x.test", ".x.test", False),
        ("*.x.test", "x.test", False),
    ],
)
def test_who_is_meant(host: str, word: str, called: bool) -> None:
    assert Backend("web", "tcp", host, "").is_called(word) is called


def test_what_backends_are_called_reaches_no_terminal_raw(host: LoginHost, way: Way) -> None:
    host.backends = [{"name": "\x1b[31mx", "kind": "tcp", "host": "h\nost", "url": ""}]
    (found,) = loginhost.backends(host.name, signed_in(host).access_token, way)[1]
    assert found.name.isprintable()
    assert found.host.isprintable()


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (Canned(500, b"x"), UNAVAILABLE, "answered 500; try again"),
        (Canned(429, {}), UNAVAILABLE, "answered 429"),
        (Canned(404, b"no"), PROTOCOL, "answered 404 where a Heim login host answers"),
        (Canned(302, headers={"Location": "http://wifi/"}), PROTOCOL, "answered 302"),
        (Canned(200, b"<html>Welcome to WiFi", HTML), PROTOCOL, "not a Heim login host"),
        (Canned(200, [1]), PROTOCOL, "not a Heim login host"),
        (Canned(200, {"user": "a"}), PROTOCOL, "no list of backends"),
        (Canned(200, {"user": "a", "backends": {}}), PROTOCOL, "no list of backends"),
        (Canned(200, {"user": "a", "backends": [1]}), PROTOCOL, "a backend that is no object"),
        (Canned(200, {"user": "a", "backends": [{"name": "x"}]}), PROTOCOL, "no `kind`"),
        (Canned(200, {"backends": []}), PROTOCOL, "no `user`"),
        (Canned(200, {"user": "", "backends": []}), PROTOCOL, "no `user`"),
        (Canned(200, b"[" * 100_000), PROTOCOL, "not a Heim login host"),
        (Canned(200, b"x" * 2_000_000), UNAVAILABLE, "does not speak HTTP"),
        (Canned(401, {}), AUTH, "does not take the token any more; run: heim-tunnel login"),
        (Canned(403, {"error": "no", "error_description": "Go away"}), AUTH, "refused: Go away"),
        (Canned(418, {}), PROTOCOL, "status 418 without a reason"),
    ],
    ids=short,
)
def test_a_wrong_answer_is_one_line(
    answer: Canned, status: int, text: str, host: LoginHost, way: Way
) -> None:
    host.script(BACKENDS, answer)
    with pytest.raises(Complaint) as caught:
        loginhost.backends(host.name, "token", way)
    assert text in caught.value.text
    assert caught.value.status == status
    assert "token" not in caught.value.text.replace("the token any more", "")


@pytest.mark.parametrize(
    "key", ["access_token", "refresh_token", "user", "login_url", "domains", "expires_in",
            "session_expires"]
)  # fmt: skip
def test_a_token_answer_without_a_field_is_refused(key: str, host: LoginHost, way: Way) -> None:
    answer = host.grant()
    del answer[key]
    host.script(TOKEN, Canned(200, answer))
    with pytest.raises(Complaint, match=key):
        loginhost.redeem(host.name, way, {})


@pytest.mark.parametrize("lie", ["https://evil.test", "http://auth.localhost", ""])
def test_a_login_host_that_says_it_is_another_is_refused(
    lie: str, host: LoginHost, way: Way
) -> None:
    host.script(TOKEN, Canned(200, {**host.grant(), "login_url": lie}))
    with pytest.raises(Complaint):
        loginhost.redeem(host.name, way, {})


def test_a_refusal_in_words_of_oauth_is_told_apart(host: LoginHost, way: Way) -> None:
    refusal = {"error": "slow_down", "error_description": "Wait"}
    host.script(TOKEN, Canned(400, refusal))
    with pytest.raises(OAuthError) as caught:
        loginhost.redeem(host.name, way, {})
    assert (caught.value.error, caught.value.description) == ("slow_down", "Wait")


def device_answer(**changes: Any) -> dict[str, Any]:
    answer = {
        "device_code": "d",
        "user_code": "BCDF-GHJK",
        "verification_uri": "HERE/.heim/device",
        "expires_in": 600,
        "interval": 5,
    }
    answer |= changes
    return {key: value for key, value in answer.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"device_code": None}, "no `device_code`"),
        ({"user_code": 7}, "no `user_code`"),
        ({"expires_in": -1}, "no usable `expires_in`"),
        ({"expires_in": float("nan")}, "no usable `expires_in`"),
        ({"interval": "5"}, "no usable `interval`"),
        ({"interval": True}, "no usable `interval`"),
        ({"verification_uri": "https://evil.test/.heim/device"}, "which is another host"),
        ({"verification_uri": "http://auth.localhost/.heim/device"}, "which is another host"),
        ({"verification_uri": "HERE@evil.test/"}, "which is another host"),
        ({"verification_uri": "HERE.evil.test/"}, "which is another host"),
        ({"verification_uri": "javascript:alert(1)"}, "which is another host"),
        ({"verification_uri": "https://auth.localhost:PORTx/"}, "which is another host"),
        ({"verification_uri": "HERE/\x1b[31m"}, "which is another host"),
    ],
    ids=short,
)
def test_a_device_code_is_only_believed_when_it_is_whole(
    changes: dict[str, Any], text: str, host: LoginHost, way: Way
) -> None:
    answer = device_answer(**changes)
    if isinstance(uri := answer.get("verification_uri"), str):
        answer["verification_uri"] = uri.replace("HERE", host.url).replace("PORT", str(host.port))
    host.script(DEVICE, Canned(200, answer))
    with pytest.raises(Complaint) as caught:
        loginhost.device_code(host.name, way, "laptop")
    assert text in caught.value.text
    assert caught.value.text.isprintable()


@pytest.mark.parametrize(
    ("given", "interval", "life"),
    [
        ({"interval": None}, 5, 600),
        ({"interval": 0.01}, 1, 600),
        ({"interval": 9999}, 60, 600),
        ({"expires_in": 10**9}, 5, 1800),
    ],
    ids=short,
)
def test_times_of_a_device_code_are_bounded(
    given: dict[str, Any], interval: float, life: float, host: LoginHost, way: Way
) -> None:
    answer = device_answer(verification_uri=f"{host.url}/.heim/device", **given)
    host.script(DEVICE, Canned(200, answer))
    code = loginhost.device_code(host.name, way, "laptop")
    assert (code.interval, code.expires_in) == (interval, life)
    assert host.of(DEVICE)[0].form == {"device": "laptop"}


def test_a_device_code_does_not_show_itself(host: LoginHost, way: Way) -> None:
    code = loginhost.device_code(host.name, way, "laptop")
    assert code.device_code not in repr(code)


def test_revoking_sends_the_refresh_token(host: LoginHost, way: Way) -> None:
    login = signed_in(host)
    loginhost.revoke(login, way)
    assert host.revoked == [login.refresh_token]


@pytest.mark.parametrize(
    "answer", [Canned(500), Canned(400, {"error": "x"}), Canned(302)], ids=short
)
def test_a_session_that_was_not_ended_is_told(answer: Canned, host: LoginHost, way: Way) -> None:
    host.script(REVOKE, answer)
    with pytest.raises(Complaint):
        loginhost.revoke(signed_in(host), way)


def test_a_login_host_is_recognised_by_wanting_a_token(host: LoginHost, way: Way) -> None:
    loginhost.recognise(host.name, way)
    assert host.of(BACKENDS)[0].bearer is None


@pytest.mark.parametrize(
    "answer",
    [Canned(200, {}), Canned(404), Canned(200, b"<html>", HTML), Canned(401, b"<html>", HTML)],
    ids=short,
)
def test_another_server_is_no_login_host(answer: Canned, host: LoginHost, way: Way) -> None:
    host.script(BACKENDS, answer)
    with pytest.raises(Complaint):
        loginhost.recognise(host.name, way)


def test_the_address_to_open_is_the_login_hosts() -> None:
    url = loginhost.authorize_url("auth.x.example.com", {"state": "a b", "device": "ä"})
    assert url == "https://auth.x.example.com/.heim/cli/authorize?state=a+b&device=%C3%A4"
