"""Pending sign-ins: secrets that are bound to one browser, and cookies that stay small."""

from __future__ import annotations

import base64
import random
import secrets
from dataclasses import replace

import pytest

from heim_proxy.identity import flow as module
from heim_proxy.identity.cookies import LOGIN_PREFIX
from heim_proxy.identity.flow import (
    FLOW_LIFETIME_S,
    MAX_COOKIE_BYTES,
    MAX_FLOWS,
    LoginFlow,
    flow_id_of,
    keep,
    open_flow,
    seal_flow,
)
from heim_proxy.identity.redirect import MAX_RD_CHARACTERS
from heim_proxy.identity.seal import Sealer
from tests.fakes.sessions import ring

HOST = "auth.example.test"
NOW = 1_800_000_000.0


def flow(**changes: object) -> LoginFlow:
    made = LoginFlow.begin(
        "idp", now=NOW, host="app1.example.test", path="/x?y=1", binding="b" * 43, max_age_s=600.0
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def pair(set_cookie: str) -> tuple[str, str]:
    name, _, value = set_cookie.partition(";")[0].partition("=")
    return name, value


def test_a_flow_survives_its_cookie() -> None:
    sealer, made = Sealer(ring("k")), flow()
    assert open_flow(made.cookie_name, seal_flow(made, sealer, HOST), sealer, HOST) == made


def test_a_flow_opens_only_under_its_own_name_and_host() -> None:
    sealer, made, other = Sealer(ring("k")), flow(), flow()
    value = seal_flow(made, sealer, HOST)
    assert open_flow(other.cookie_name, value, sealer, HOST) is None
    assert open_flow(made.cookie_name, value, sealer, "app1.example.test") is None
    assert open_flow(made.cookie_name, value, Sealer(ring("k")), HOST) is None


@pytest.mark.parametrize("value", ["", "x", "a" * 5000, "\udcff", "äöü"])
def test_garbage_is_no_flow(value: str) -> None:
    assert open_flow(flow().cookie_name, value, Sealer(ring("k")), HOST) is None


def test_state_nonce_and_verifier_are_three_different_secrets_of_256_bits() -> None:
    made = flow()
    state = made.state.partition(".")[2]
    values = {state, made.nonce, made.verifier}
    assert len(values) == 3
    assert all(len(base64.urlsafe_b64decode(value + "=")) == 32 for value in values)
    assert 43 <= len(made.verifier) <= 128
    assert base64.urlsafe_b64encode(made.secret).decode().rstrip("=") not in values


def test_h15_secrets_come_from_the_systems_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(1)
    first = LoginFlow.begin("idp", now=NOW)
    random.seed(1)
    assert LoginFlow.begin("idp", now=NOW).secret != first.secret
    monkeypatch.setattr(secrets, "token_bytes", lambda n: b"\7" * n)
    assert LoginFlow.begin("idp", now=NOW).secret == b"\7" * 32


def test_a_state_leads_to_its_flow_and_matches_only_it() -> None:
    made, other = flow(), flow()
    assert flow_id_of(made.state) == made.id
    assert made.matches(made.state)
    assert not made.matches(other.state)
    assert not made.matches(f"{made.id}.{other.state.partition('.')[2]}")


@pytest.mark.parametrize("state", ["", "x", ".", "a" * 55, "../" + "a" * 52, "a" * 11 + "." + "é"])
def test_a_state_that_is_not_ours_leads_nowhere(state: str) -> None:
    assert flow_id_of(state) is None
    assert not flow().matches(state)


@pytest.mark.parametrize(
    ("age", "expired"),
    [(0, False), (FLOW_LIFETIME_S - 1, False), (FLOW_LIFETIME_S, True), (-30, False), (-61, True)],
)
def test_a_flow_lasts_fifteen_minutes(age: float, expired: bool) -> None:
    assert flow().expired(NOW + age) is expired


def test_the_secret_is_not_in_the_repr() -> None:
    made = flow()
    assert made.secret.hex() not in repr(made)
    assert made.nonce not in repr(made)


def test_h12_the_oldest_flow_goes_when_there_are_too_many() -> None:
    sealer = Sealer(ring("k"))
    jar: dict[str, str] = {}
    flows = [flow(started=NOW + number, path="/", binding=None) for number in range(20)]
    for made in flows:
        for set_cookie in keep(jar.items(), made, sealer, HOST):
            name, value = pair(set_cookie)
            if value:
                jar[name] = value
            else:
                del jar[name]
    assert len(jar) <= MAX_FLOWS
    assert list(jar) == [made.cookie_name for made in flows[-len(jar) :]]


def test_h12_ten_usual_flows_fit() -> None:
    sealer = Sealer(ring("k"))
    made = [flow(started=NOW + number) for number in range(10)]
    jar = [(one.cookie_name, seal_flow(one, sealer, HOST)) for one in made[:9]]
    assert len(keep(jar, made[9], sealer, HOST)) == 1


def test_h12_flow_cookies_never_exceed_their_budget() -> None:
    sealer = Sealer(ring("k"))
    jar: dict[str, str] = {}
    for number in range(30):
        path = "/" + "x" * (number * 97 % MAX_RD_CHARACTERS)
        for set_cookie in keep(jar.items(), flow(started=NOW + number, path=path), sealer, HOST):
            name, value = pair(set_cookie)
            if value:
                jar[name] = value
            else:
                del jar[name]
        assert len("; ".join(f"{name}={value}" for name, value in jar.items())) <= MAX_COOKIE_BYTES
        assert jar


@pytest.mark.parametrize("character", ["x", '"', "%", "~"])
def test_the_longest_path_fits_into_a_cookie(character: str) -> None:
    made = flow(path="/?" + character * (MAX_RD_CHARACTERS - 2))
    assert len(keep([], made, Sealer(ring("k")), HOST)) == 1


def test_a_path_beyond_that_is_not_cut_but_refused() -> None:
    with pytest.raises(ValueError):
        seal_flow(flow(path="/" + "x" * 4000), Sealer(ring("k")), HOST)


def test_cookies_that_are_no_flows_of_ours_are_cleared_and_others_left_alone() -> None:
    broken = f"{LOGIN_PREFIX}{'A' * 11}"
    present = [(broken, "garbage"), ("__Host-heim", "s"), (f"{LOGIN_PREFIX}odd name", "x")]
    cookies = keep(present, flow(), Sealer(ring("k")), HOST)
    assert [pair(cookie)[0] for cookie in cookies[:-1]] == [broken]
    assert cookies[0].startswith(f"{broken}=; Max-Age=0;")


def test_cookies_are_host_bound_and_out_of_reach_of_scripts() -> None:
    cookie = keep([], flow(), Sealer(ring("k")), HOST)[0]
    assert cookie.startswith("__Host-heim-login-")
    for attribute in ("Path=/", "Secure", "HttpOnly", "SameSite=Lax"):
        assert attribute in cookie
    assert f"Max-Age={int(module.COOKIE_LIFETIME_S)}" in cookie
