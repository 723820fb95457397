from __future__ import annotations

import base64
import hashlib

import pytest

from heim_proxy.demo.grants import (
    CODE_LIFETIME_S,
    MAX_PENDING,
    TOKEN_LIFETIME_S,
    DemoClient,
    Grants,
    OAuthError,
    check_authorize,
)
from heim_proxy.demo.people import PEOPLE

ALICE = PEOPLE[0]
BACK = "https://auth.localhost/.heim/callback"
CLIENT = DemoClient("heim", "top-secret", BACK, "https://auth.localhost/")
VERIFIER = "v" * 64
QUERY = {
    "response_type": "code",
    "scope": "openid email",
    "code_challenge": base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest())
    .rstrip(b"=")
    .decode(),
    "code_challenge_method": "S256",
    "nonce": "n",
}


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def form(code: str, **changes: str) -> dict[str, str]:
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": BACK,
        "code_verifier": VERIFIER,
        "client_id": "heim",
        "client_secret": "top-secret",
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"response_type": "token"}, "unsupported_response_type", id="implicit"),
        pytest.param({"scope": "email"}, "invalid_scope", id="not OpenID"),
        pytest.param({"code_challenge_method": "plain"}, "invalid_request", id="plain PKCE"),
        pytest.param({"code_challenge": "short"}, "invalid_request", id="short challenge"),
        pytest.param({"code_challenge": "c" * 129}, "invalid_request", id="long challenge"),
        pytest.param({"prompt": "none"}, "login_required", id="prompt none"),
    ],
)
def test_authorization_request_is_refused_for(changes: dict[str, str], code: str) -> None:
    with pytest.raises(OAuthError) as refusal:
        check_authorize({**QUERY, **changes})
    assert refusal.value.code == code


def test_code_is_redeemed_for_what_was_asked() -> None:
    grants = Grants(CLIENT)
    grant = grants.redeem(
        form(grants.issue_code(ALICE, QUERY, now=10.0)), authorization="", now=11.0
    )
    assert (grant.person, grant.nonce, grant.signed_in) == (ALICE, "n", 10.0)


def test_client_may_authenticate_with_a_header() -> None:
    grants = Grants(CLIENT)
    code = grants.issue_code(ALICE, QUERY, now=0.0)
    asked = form(code, client_id="", client_secret="")
    assert grants.redeem(asked, authorization=basic("heim", "top-secret"), now=0.0).person is ALICE


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(basic("heim", "wrong"), id="wrong secret"),
        pytest.param(basic("other", "top-secret"), id="other client"),
        pytest.param(basic("heim", ""), id="empty secret"),
        pytest.param("Basic !!!", id="not base64"),
        pytest.param("Basic /w==", id="not UTF-8"),
    ],
)
def test_header_overrules_the_form_and_is_refused_when(authorization: str) -> None:
    grants = Grants(CLIENT)
    code = grants.issue_code(ALICE, QUERY, now=0.0)
    with pytest.raises(OAuthError, match="invalid_client"):
        grants.redeem(form(code), authorization=authorization, now=0.0)


def test_failed_attempt_uses_the_code_up() -> None:
    grants = Grants(CLIENT)
    code = grants.issue_code(ALICE, QUERY, now=0.0)
    with pytest.raises(OAuthError, match="code_verifier"):
        grants.redeem(form(code, code_verifier="w" * 64), authorization="", now=0.0)
    with pytest.raises(OAuthError, match="used"):
        grants.redeem(form(code), authorization="", now=0.0)


def test_code_expires() -> None:
    grants = Grants(CLIENT)
    code = grants.issue_code(ALICE, QUERY, now=0.0)
    with pytest.raises(OAuthError, match="expired"):
        grants.redeem(form(code), authorization="", now=CODE_LIFETIME_S)


def test_oldest_code_is_forgotten_when_there_are_too_many() -> None:
    grants = Grants(CLIENT)
    first, *_, last = (grants.issue_code(ALICE, QUERY, now=0.0) for _ in range(MAX_PENDING + 1))
    assert grants.redeem(form(last), authorization="", now=0.0).person is ALICE
    with pytest.raises(OAuthError, match="unknown"):
        grants.redeem(form(first), authorization="", now=0.0)


@pytest.mark.parametrize(
    ("scheme", "age", "found"),
    [
        pytest.param("Bearer", 0.0, True, id="fresh"),
        pytest.param("bearer", 0.0, True, id="lower case"),
        pytest.param("Bearer", TOKEN_LIFETIME_S, False, id="expired"),
        pytest.param("Basic", 0.0, False, id="another scheme"),
    ],
)
def test_access_token_names_its_holder(scheme: str, age: float, found: bool) -> None:
    grants = Grants(CLIENT)
    token = grants.issue_token(ALICE, now=0.0)
    assert grants.holder_of(f"{scheme} {token}", now=age) == (ALICE if found else None)


def test_client_secret_is_not_in_the_repr() -> None:
    assert "top-secret" not in repr(CLIENT)
